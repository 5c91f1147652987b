"""The matrix: every profile against every rule, or one pair of releases; as a table, JSON, JUnit XML or Markdown."""

from __future__ import annotations

import datetime
import io
import json
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cornerstone.lib import junit
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.yaml_document import did_you_mean
from cornerstone.model.catalogue.catalogue import load_catalogue
from cornerstone.model.catalogue.pair import Answer, PairAnswer, answer_pair
from cornerstone.model.catalogue.release import Catalogue
from cornerstone.model.catalogue.version import AhvVersion, AosVersion
from cornerstone.model.profile.profile import load_profile, profile_names
from cornerstone.model.rules.registry import Level, Outcome, Verdict
from cornerstone.model.rules.release import check_pair, check_profile

MALFORMED = "malformed"
_STYLES = {Level.ERROR: "bold red", Level.WARNING: "yellow", Level.INFO: "dim", None: "green"}


@dataclass(frozen=True)
class Row:
    """One profile, or one pair that was asked for, with its answer and what the rules say of it.

    malformed: why a profile, or the catalogue, can't be read; then there is neither answer nor verdict.
    """

    name: str
    aos: str = ""
    ahv: str = ""
    suite: str = ""
    verdicts: tuple[Verdict, ...] = ()
    answer: PairAnswer | None = None
    malformed: CornerstoneError | None = None

    @property
    def word(self) -> str:
        """compatible, incompatible, unknown; or malformed."""
        return self.answer.answer.value if self.answer else MALFORMED

    @property
    def evidence(self) -> str:
        """What the answer rests on, with its grade; empty for an unknown pair."""
        rows = self.answer.evidence if self.answer and self.answer.answer is Answer.COMPATIBLE else ()
        return ", ".join(f"{pairing.provenance.evidence} ({pairing.provenance.grade})" for pairing in rows)

    def count(self, level: Level) -> int:
        """How many findings of this severity; what is malformed counts as one error."""
        return (sum(verdict.severity is level for verdict in self.verdicts)
                + (self.malformed is not None and level is Level.ERROR))


@dataclass(frozen=True)
class Matrix:
    """All rows; asked: one pair was asked for instead of the profiles."""

    rows: tuple[Row, ...]
    today: datetime.date
    strict: bool
    asked: bool

    def failed(self, row: Row) -> bool:
        """An error, a warning under strict, or a pair that was asked for and isn't known to be compatible."""
        return (row.count(Level.ERROR) > 0 or (self.strict and row.count(Level.WARNING) > 0)
                or (self.asked and row.word != Answer.COMPATIBLE))

    @property
    def code(self) -> int:
        """The exit code: INPUT when something is malformed, FAILED when a row failed, else 0."""
        if any(row.malformed for row in self.rows):
            return int(Code.INPUT)
        return int(Code.FAILED) if any(map(self.failed, self.rows)) else 0

    def summary(self) -> str:
        """One line: what was checked, and the counts."""
        counts = {level: sum(row.count(level) for row in self.rows) for level in Level}
        subject = "pair" if self.asked else "profiles" if len(self.rows) != 1 else "profile"
        failed = sum(map(self.failed, self.rows))
        return (f"{len(self.rows)} {subject} on {self.today}: errors {counts[Level.ERROR]}, "
                f"warnings {counts[Level.WARNING]}, notes {counts[Level.INFO]}; "
                + (f"{failed} failed" if failed else "passed"))


def run_matrix(root: Path, *, format: str = "table", strict: bool = False, aos: str | None = None,
               ahv: str | None = None, today: datetime.date | None = None) -> tuple[str, int]:
    """Check all profiles below root, or the one pair aos and ahv; return the text and the exit code.

    format: table, json, junit or markdown. Exit code 2 for a profile or a catalogue that is malformed, which is then a
    row of its own; 1 for any error, for any warning under strict, and for a pair that isn't known to be compatible;
    else 0. today decides about ends of support; None is the machine's date.
    CornerstoneError for a format or a release that is wrong.
    """
    if format not in FORMATS:
        raise CornerstoneError(f"there is no format {format!r}", did_you_mean(format, FORMATS, "formats"))
    if (aos is None) != (ahv is None):
        raise CornerstoneError("a pair needs both an AOS release and an AHV build",
                               "give both, as in --aos 6.8 --ahv 20230302.100173, or neither")
    today = today or datetime.date.today()
    if aos is not None and ahv is not None:
        matrix = Matrix((_pair_row(root, aos, ahv, today),), today, strict, asked=True)
    else:
        matrix = Matrix(_profile_rows(root, today), today, strict, asked=False)
    return FORMATS[format](matrix), matrix.code


def _profile_rows(root: Path, today: datetime.date) -> tuple[Row, ...]:
    names = profile_names(root)
    if not names:
        raise CornerstoneError(f"there are no profiles in {root / 'profiles'}", "run it in the project's checkout")
    try:
        catalogue = load_catalogue(root)
    except CornerstoneError as error:
        return (Row("catalogue", malformed=error),)
    return tuple(_profile_row(name, root, catalogue, today) for name in names)


def _profile_row(name: str, root: Path, catalogue: Catalogue, today: datetime.date) -> Row:
    try:
        profile = load_profile(name, root, catalogue)
    except CornerstoneError as error:
        return Row(name, malformed=error)
    answer = answer_pair(catalogue, AosVersion.parse(profile.aos), AhvVersion.parse(profile.ahv))
    return Row(name, profile.aos, profile.ahv, profile.reference.suite,
               check_profile(profile, catalogue, today=today), answer)


def _pair_row(root: Path, aos_text: str, ahv_text: str, today: datetime.date) -> Row:
    aos, ahv = AosVersion.parse(aos_text), AhvVersion.parse(ahv_text)
    try:
        catalogue = load_catalogue(root)
    except CornerstoneError as error:
        return Row("catalogue", malformed=error)
    return Row(f"AOS {aos} with AHV {ahv}", str(aos), str(ahv), "", check_pair(aos, ahv, catalogue, today=today),
               answer_pair(catalogue, aos, ahv))


def _findings(row: Row) -> list[Verdict]:
    """What isn't ok, worst first."""
    levels = list(Level)
    return sorted((verdict for verdict in row.verdicts if verdict.severity),
                  key=lambda verdict: levels.index(verdict.severity or Level.INFO))


def _table(matrix: Matrix) -> str:
    """For people: colours and boxes on a terminal, plain lines when piped."""
    terminal = sys.stdout.isatty()
    buffer = io.StringIO()
    console = Console(file=buffer, force_terminal=terminal, no_color=not terminal, highlight=False,
                      width=shutil.get_terminal_size().columns if terminal else 1000)
    if not matrix.asked:
        table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
        for heading in ("profile", "AOS", "AHV", "suite", "pair", "evidence", "errors", "warnings", "notes"):
            table.add_column(heading, justify="right" if heading in ("errors", "warnings", "notes") else "left")
        for row in matrix.rows:
            worst = next((level for level in (Level.ERROR, Level.WARNING) if row.count(level)), None)
            table.add_row(Text(row.name, _STYLES[worst]), row.aos, row.ahv, row.suite, row.word,
                          row.evidence, *(str(row.count(level)) for level in Level))
        console.print(table)
    for row in matrix.rows:
        findings = [verdict for verdict in _findings(row) if matrix.asked or verdict.severity is not Level.INFO]
        if row.malformed:
            console.print(Text(f"{row.name}: ") + Text("error ", _STYLES[Level.ERROR]) + Text(
                f"{MALFORMED}: {row.malformed.message}"))
            console.print(Text(f"    hint: {row.malformed.hint}", "dim"))
        elif matrix.asked and row.answer:
            console.print(Text(f"{row.name}: {row.word}", "bold"))
            console.print(Text(f"  {row.answer.reason}"))
        for verdict in findings:
            console.print(Text("" if matrix.asked else f"{row.name}: ")
                          + Text(f"{verdict.severity} ", _STYLES[verdict.severity])
                          + Text(f"{verdict.rule.id}: {_stated(verdict)}"))
            console.print(Text(f"    hint: {verdict.rule.hint}", "dim"))
    console.print(Text(matrix.summary()))
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def _stated(verdict: Verdict) -> str:
    return f"unknown: {verdict.message}" if verdict.outcome is Outcome.UNKNOWN else verdict.message


def _json(matrix: Matrix) -> str:
    return json.dumps({"v": 1, "today": matrix.today.isoformat(), "strict": matrix.strict,
                       "failed": any(map(matrix.failed, matrix.rows)),
                       "rows": [_json_row(matrix, row) for row in matrix.rows]}, indent=2) + "\n"


def _json_row(matrix: Matrix, row: Row) -> dict[str, Any]:
    if row.malformed:
        return {"name": row.name, "failed": True,
                "malformed": {"message": row.malformed.message, "hint": row.malformed.hint}}
    return {
        "name": row.name, "aos": row.aos, "ahv": row.ahv, **({} if matrix.asked else {"suite": row.suite}),
        "pair": {"answer": row.word, "reason": row.answer.reason if row.answer else "", "evidence": [
            {"aos": str(pairing.aos), "ahv": str(pairing.ahv), "grade": pairing.provenance.grade,
             "evidence": pairing.provenance.evidence, "sources": list(pairing.provenance.sources),
             "note": pairing.provenance.note} for pairing in (row.answer.evidence if row.answer else ())]},
        "failed": matrix.failed(row),
        "verdicts": [{"rule": verdict.rule.id, "level": verdict.rule.level, "outcome": verdict.outcome,
                      "severity": verdict.severity, "message": verdict.message, "hint": verdict.rule.hint}
                     for verdict in row.verdicts],
    }


def _junit(matrix: Matrix) -> str:
    """A suite per row, a case per rule. What fails the run is a failure, an unknown is skipped, the rest is printed.

    Nothing in it takes time, so each time is 0; the moment is that of the report.
    """
    suites = ET.Element("testsuites", name="cornerstone matrix")
    for row in matrix.rows:
        suite = junit.suite(suites, row.name)
        classname = junit.class_name("matrix", row.name)
        for name, outcome in _cases(matrix, row):
            case = junit.case(suite, classname, name)
            if outcome is not None:
                case.append(outcome)
    return junit.as_text(suites)


def _cases(matrix: Matrix, row: Row) -> Iterator[tuple[str, ET.Element | None]]:
    """Name and outcome of each test case of a row; no outcome is a pass."""
    failing = {Level.ERROR, Level.WARNING} if matrix.strict else {Level.ERROR}
    if row.malformed:
        yield MALFORMED, junit.element("failure", f"{row.malformed.message}\nhint: {row.malformed.hint}",
                                  message=row.malformed.message, type=MALFORMED)
    for verdict in row.verdicts:
        if verdict.severity in failing:
            text = f"{verdict.rule.sentence}\nhint: {verdict.rule.hint}"
            yield verdict.rule.id, junit.element("failure", text, message=_stated(verdict), type=str(verdict.severity))
        elif verdict.outcome is Outcome.UNKNOWN:
            yield verdict.rule.id, junit.element("skipped", message=_stated(verdict))
        elif verdict.severity:
            yield verdict.rule.id, junit.element("system-out", f"{verdict.severity}: {verdict.message}")
        else:
            yield verdict.rule.id, None
    if matrix.asked and row.answer:
        wrong = row.answer.answer is not Answer.COMPATIBLE
        yield "answer", junit.element("failure", message=row.answer.reason, type=row.word) if wrong else None


def _markdown(matrix: Matrix) -> str:
    lines = ["| profile | AOS | AHV | suite | pair | evidence | errors | warnings | notes |",
             "|---|---|---|---|---|---|---|---|---|"]
    lines += [f"| {row.name} | {row.aos} | {row.ahv} | {row.suite} | {row.word} | "
              f"{row.evidence} | {row.count(Level.ERROR)} | {row.count(Level.WARNING)} | {row.count(Level.INFO)} |"
              for row in matrix.rows]
    lines += ["", "| profile | level | rule | finding | hint |", "|---|---|---|---|---|"]
    lines += [f"| {row.name} | error | {MALFORMED} | {_cell(row.malformed.message)} | {_cell(row.malformed.hint)} |"
              for row in matrix.rows if row.malformed]
    lines += [f"| {row.name} | {verdict.severity} | `{verdict.rule.id}` | {_cell(_stated(verdict))} | "
              f"{_cell(verdict.rule.hint)} |" for row in matrix.rows for verdict in _findings(row)]
    return "\n".join([*lines, "", matrix.summary()]) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


FORMATS: dict[str, Callable[[Matrix], str]] = {"table": _table, "json": _json, "junit": _junit, "markdown": _markdown}

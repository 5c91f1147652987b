"""What a benchmark found, as data, as a table for people, and as one for docs/performance.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich import box
from rich.console import Console
from rich.table import Table

from cornerstone.factory.bench.measure import Usage, typical
from cornerstone.lib.fat import MIB


@dataclass(frozen=True)
class Figure:
    """What one way of doing a thing took, over all runs."""

    case: str
    what: str
    runs: tuple[Usage, ...]
    note: str = ""


@dataclass(frozen=True)
class Check:
    """A figure with a target: value may be at most (or at least) limit, both in unit."""

    case: str
    what: str
    value: float
    limit: float
    unit: str
    at_least: bool = False
    note: str = ""

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(frozen=True)
class Result:
    """All that a case found; left_out says why it wasn't measured, failed what went wrong."""

    case: str
    figures: tuple[Figure, ...] = ()
    checks: tuple[Check, ...] = ()
    left_out: str = ""
    failed: str = ""


FIGURES = ("case", "what", "runs", "wall", "CPU", "memory", "note")
CHECKS = ("case", "figure", "value", "target", "met", "note")


def figure_rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """The rows under FIGURES: medians, and the memory of the largest process."""
    rows = []
    for result in results:
        for figure in result.figures:
            usage = typical(figure.runs)
            rows.append((figure.case, figure.what, str(len(figure.runs)), seconds(usage.wall), seconds(usage.cpu),
                         f"{usage.memory // MIB} MiB", figure.note))
        if why := result.left_out or result.failed:
            rows.append((result.case, "not measured" if result.left_out else "failed", "", "", "", "",
                         why.partition("\n")[0]))
    return rows


def check_rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """The rows under CHECKS."""
    return [(check.case, check.what, f"{number(check.value)} {check.unit}".strip(),
             f"{'≥' if check.at_least else '≤'} {number(check.limit)} {check.unit}".strip(),
             "yes" if check.met else "no", check.note)
            for result in results for check in result.checks]


def seconds(value: float) -> str:
    """A time for a table, with three figures that mean something."""
    return f"{value:.0f} s" if value >= 100 else f"{value:.1f} s" if value >= 10 else f"{value:.2f} s"


def number(value: float) -> str:
    """A number for a table, without needless zeros."""
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}".rstrip("0").rstrip(".")


def show(console: Console, results: Sequence[Result]) -> None:
    """Print both tables."""
    for head, rows in ((FIGURES, figure_rows(results)), (CHECKS, check_rows(results))):
        if not rows:
            continue
        table = Table(*head, box=box.SIMPLE_HEAD)
        table.columns[0].no_wrap = True
        for row in rows:
            table.add_row(*row, style="red" if "no" in row[4:5] or row[1] == "failed" else "")
        console.print(table)


def markdown(machine: dict[str, str], results: Sequence[Result]) -> str:
    """The machine and both tables, ready to stand in a page."""
    parts = ["\n".join(f"- {name}: {value}" for name, value in machine.items())]
    for head, rows in ((CHECKS, check_rows(results)), (FIGURES, figure_rows(results))):
        if rows:
            parts.append("\n".join(_line(row) for row in (head, tuple("---" for _ in head), *rows)))
    return "\n\n".join(parts) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "|".join(["", *(f" {cell} " if cell else " " for cell in (text.replace("|", "\\|") for text in cells)), ""])


def record(machine: dict[str, str], results: Sequence[Result]) -> dict:
    """Everything for bench.json: the machine, every run, every check and whether it is met."""
    return {"machine": machine, "results": [
        {**asdict(result), "checks": [{**asdict(check), "met": check.met} for check in result.checks]}
        for result in results]}

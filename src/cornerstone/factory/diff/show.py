"""A difference as text, JSON or one HTML page."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence

from cornerstone.factory.diff import words
from cornerstone.factory.diff.compare import Change, Difference, FileChange, PackageChange, RootDifference, Side
from cornerstone.factory.diff.gate import Verdict
from cornerstone.factory.payload.render import render

FORMATS = ("text", "json", "html")
SCHEMA_VERSION = 1
SIGNS = {"added": "+", "removed": "-", "upgraded": "↑", "downgraded": "↓", "same": "=", "none": " ", "changed": "~"}
UNOWNED = "(in no package)"
SITE_AREA = "the site area has other content; it isn't shown, because it can hold secrets"
UNCHECKED = "signatures and hashes were not checked; ./invoke verify does that"


def show(difference: Difference, verdict: Verdict | None, *, format: str, files: bool) -> str:
    """The difference in one of FORMATS, with a newline at its end. files: name each file, not only sums by package."""
    if format == "json":
        return json.dumps(record(difference, verdict, files), indent=1) + "\n"
    if format == "html":
        return render("diff.html", difference=difference, verdict=verdict, files=files, words=words, signs=SIGNS,
                      unowned=UNOWNED, unchecked=UNCHECKED, site_area=SITE_AREA, equal=equal, outcome=outcome,
                      summary=summary, versions=versions, counts=counts, file_line=file_line)
    return "\n".join(map(plain, text(difference, verdict, files))) + "\n"


def record(difference: Difference, verdict: Verdict | None, files: bool) -> dict:
    """The difference as plain dictionaries and lists, as JSON has it."""
    whole = {"schema": SCHEMA_VERSION, "equal": difference.equal, "signatures_checked": False,
             "verdict": verdict and {**dataclasses.asdict(verdict), "passed": verdict.passed},
             **dataclasses.asdict(difference)}
    for root, shown in zip(difference.roots, whole["roots"], strict=True):
        shown["growth"] = root.growth
        for package, line in zip(root.packages, shown["packages"], strict=True):
            line |= {f"files_{state}": package.count(state) for state in ("added", "removed", "changed")}
            if not files:
                del line["files"]
    return whole


def text(difference: Difference, verdict: Verdict | None, files: bool) -> Iterator[str]:
    """The lines of the difference for a terminal."""
    if difference.equal:
        yield equal(difference)
    else:
        yield from (f"{letter}  {_side(side)}" for letter, side in (("a", difference.a), ("b", difference.b)))
        yield UNCHECKED
        yield from _table("sizes", [(size.name, words.size(size.a), words.size(size.b), words.grown(size.b - size.a),
                                     words.share(size.a, size.b)) for size in difference.sizes])
        yield from _changes("manifest", difference.manifest)
        if difference.site_area:
            yield from ("", SITE_AREA)
        yield from _changes("boot", difference.boot)
        yield from _changes("the CVM's disk", difference.disk)
        for root in difference.roots:
            yield from _root(root, files)
        for change in difference.texts:
            yield from ("", change.name, *(f"  {line}" for line in change.lines))
    if verdict:
        yield from ("", outcome(verdict))


def equal(difference: Difference) -> str:
    """One line for two ISOs that don't differ."""
    return f"equal: both are {difference.a.identity}, {difference.a.profile}, with the same files"


def outcome(verdict: Verdict) -> str:
    """One line that says whether something grew too much."""
    if verdict.passed:
        return f"nothing grew by more than {verdict.max_growth}"
    return f"{'; '.join(verdict.exceeded)}: more than {verdict.max_growth}"


def summary(root: RootDifference) -> str:
    """What happened in a root, in one line."""
    counts = [f"{root.count(state)} {state}" for state in ("added", "removed", "upgraded", "downgraded")]
    files = {state: sum(package.count(state) for package in root.packages) for state in ("added", "removed", "changed")}
    return (f"packages: {', '.join(counts)}; files: {', '.join(f'{count} {state}' for state, count in files.items())}; "
            f"{words.grown(root.growth) or '0 B'} unpacked")


def plain(line: str) -> str:
    """A line without what a terminal would take as an order."""
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in line)


def versions(package: PackageChange) -> str:
    """The package's version or versions."""
    if package.state in ("upgraded", "downgraded"):
        return f"{package.a} → {package.b}"
    return package.b or package.a


def _side(side: Side) -> str:
    return f"{side.name}  {side.profile}, {side.signed_with}, {side.identity}"


def _changes(title: str, changes: Sequence[Change]) -> Iterator[str]:
    if changes:
        yield from ("", title)
        width = max(len(change.name) for change in changes)
        for change in changes:
            yield f"  {change.name.ljust(width)}  a  {'–' if change.a is None else change.a}"
            yield f"  {' ' * width}  b  {'–' if change.b is None else change.b}"


def _root(root: RootDifference, files: bool) -> Iterator[str]:
    yield from ("", f"{root.name} root: {summary(root)}")
    rows = [(f"{SIGNS[package.state]} {package.name or UNOWNED}", versions(package), counts(package),
             words.grown(package.growth)) for package in root.packages]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    for package, row in zip(root.packages, rows, strict=True):
        left = "  ".join(cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True))
        yield f"  {left}  {row[3].rjust(widths[3])}".rstrip()
        if files:
            yield from (f"      {file_line(file)}" for file in package.files)


def counts(package: PackageChange) -> str:
    """How many of the package's names were added, removed and changed."""
    return " ".join(f"{SIGNS[state]}{package.count(state)}" for state in ("added", "removed", "changed")
                    if package.count(state))


def file_line(file: FileChange) -> str:
    """One name: what happened to it, and the bytes it grew by."""
    what = f"  ({', '.join(file.what)})" if file.what else ""
    growth = words.grown(file.growth)
    return f"{SIGNS[file.state]} {file.path or '/'}{what}{f'  {growth}' if growth else ''}"


def _table(title: str, rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    table = [(title, "a", "b", "", ""), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(5)]
    yield ""
    for number, row in enumerate(table):
        first = (row[0] if number == 0 else f"  {row[0]}").ljust(widths[0] + 2)
        yield "  ".join([first, *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]).rstrip()

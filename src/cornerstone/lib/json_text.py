"""JSON that comes from a medium, a machine or a peer: bounded, plain, and each key once. Standard library only."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.printable import printable, shown

MOST = 4 << 20
DEEPEST = 32
# what Python converts without a setting (sys.int_info.default_max_str_digits)
MOST_DIGITS = 4300
# possessive, so that a text without an end is walked through once
_TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


class JsonProblem(ValueError):
    """Why a text isn't JSON that is read here: reason, as a clause, and how to mend it; syntax: where it isn't JSON."""

    def __init__(self, reason: str, hint: str, syntax: json.JSONDecodeError | None = None) -> None:
        super().__init__(reason)
        self.reason, self.hint, self.syntax = reason, hint, syntax


class _Repeated(dict):
    """An object in which keys were written twice: their names."""

    twice: tuple[str, ...]


def parse(content: bytes | str, most: int = MOST, *, controls: bool = False) -> tuple[Any, tuple[str, ...]]:
    """Parse JSON; return its value and the paths of keys that were written twice, as .disks[2].size.

    controls: texts may hold control characters, which some tools print as they are.

    The size is looked at first, then the nesting. Raises JsonProblem when content has more than most bytes, is nested
    deeper than DEEPEST, isn't UTF-8 or isn't JSON; NaN, Infinity and numbers that become infinite aren't.
    """
    if len(content) > most:
        raise JsonProblem(f"has {len(content)} bytes, and at most {most} are read", "give the file that is meant")
    try:
        # Python's own detection would take UTF-16 and UTF-32 too
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise JsonProblem("isn't UTF-8 text", "save the file as UTF-8") from None
    if _depth(text) > DEEPEST:
        raise JsonProblem("is nested too deeply", f"at most {DEEPEST} objects and lists lie in one another")
    found: list[_Repeated] = []

    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(members)
        if len(value) == len(members):
            return value
        seen: set[str] = set()
        repeated = _Repeated(value)
        repeated.twice = tuple(dict.fromkeys(name for name, _ in members if name in seen or seen.add(name)))
        found.append(repeated)
        return repeated

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=_refuse, parse_float=_float, parse_int=_int,
                           strict=not controls)
    except json.JSONDecodeError as error:
        raise JsonProblem(f"isn't JSON: {error}", "correct that place or the line before it", error) from None
    return value, _twice(value, found) if found else ()


def parse_once(content: bytes | str, most: int = MOST, *, controls: bool = False) -> Any:
    """Parse JSON as parse does. Raises JsonProblem for a key that is written twice, too."""
    value, twice = parse(content, most, controls=controls)
    if twice:
        raise JsonProblem(f"has {twice[0]} twice", "keep one of the two")
    return value


def read_json(content: bytes | str, source: str, hint: str = "", code: Code = Code.INPUT, most: int = MOST) -> Any:
    """Parse JSON. Raises CornerstoneError, with source, when parse does or a key is written twice.

    hint: how to mend the source; without one it is how to mend the text.
    """
    try:
        value, twice = parse(content, most)
    except JsonProblem as problem:
        raise CornerstoneError(f"{source} {problem.reason}", hint or problem.hint, code) from None
    if twice:
        raise CornerstoneError(f"{source}: {twice[0]} is written twice", hint or "keep one of the two", code)
    return value


def read_bounded(path: Path, most: int = MOST) -> bytes:
    """Read a file, but never more than one byte above most, which the parser then refuses. Raises OSError."""
    with path.open("rb") as file:
        return file.read(most + 1)


def _depth(text: str) -> int:
    deepest = depth = 0
    for token in _TOKENS.finditer(text):
        if text[token.start()] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif text[token.start()] in "]}":
            depth -= 1
    return deepest


def _refuse(name: str) -> None:
    raise JsonProblem(f"can't be read: {name} isn't JSON", "write a number")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise JsonProblem(f"can't be read: the number {shown(text)} is too large", "write a smaller one")
    return value


def _int(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise JsonProblem(f"can't be read: it holds a number of {len(text)} digits", f"at most {MOST_DIGITS} are read")
    return int(text)


def _twice(value: Any, found: list[_Repeated]) -> tuple[str, ...]:
    """Paths of the keys that were written twice; only the name where their own object was replaced by a repetition."""
    paths, seen = [], set()
    waiting: list[tuple[Any, str]] = [(value, "")]
    while waiting:
        each, path = waiting.pop()
        if isinstance(each, _Repeated):
            seen.add(id(each))
            paths += [f"{path}.{printable(name, 60)}" for name in each.twice]
        if isinstance(each, dict):
            waiting += [(inner, f"{path}.{printable(name, 60)}") for name, inner in each.items()]
        elif isinstance(each, list):
            waiting += [(inner, f"{path}[{index}]") for index, inner in enumerate(each)]
    return (*paths, *(f".{printable(name, 60)}" for each in found if id(each) not in seen for name in each.twice))

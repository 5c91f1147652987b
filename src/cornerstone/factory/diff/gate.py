"""The gate on growth: how much a root's layer or the whole ISO may grow, and whether it did."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from cornerstone.factory.diff.compare import Size
from cornerstone.factory.diff.words import grown, share
from cornerstone.lib.error import CornerstoneError

UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_LIMIT = re.compile(rf"(\d{{1,9}}(?:\.\d{{1,3}})?) ?(%|{'|'.join(UNITS)})", re.ASCII)


@dataclass(frozen=True)
class Limit:
    """The most that something may grow by: a share of its size before, or bytes; text: as it was asked for."""

    text: str
    share: Fraction | None
    size: int

    def allows(self, a: int, b: int) -> bool:
        """Whether growth from a to b bytes is within the limit; growing by just the limit is."""
        return b - a <= (self.size if self.share is None else a * self.share)


@dataclass(frozen=True)
class Verdict:
    """What a gate said: a sentence for each size that grew too much."""

    max_growth: str
    exceeded: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing grew by more than the limit."""
        return not self.exceeded


def parse_limit(text: str) -> Limit:
    """"5%" or "20MiB" as a limit. Raises CornerstoneError (INPUT) for anything else."""
    match = _LIMIT.fullmatch(text)
    if match is None:
        raise CornerstoneError(f"--max-growth {text!r} is neither a percentage nor a size",
                               f"write it like 5% or 20MiB; units are {', '.join(UNITS)}")
    number, unit = Fraction(match[1]), match[2]
    return Limit(text, number / 100, 0) if unit == "%" else Limit(text, None, int(number * UNITS[unit]))


def judge(sizes: Iterable[Size], limit: Limit) -> Verdict:
    """Whether the layers of the roots and the whole ISO stay within the limit."""
    def sentences() -> Iterator[str]:
        for size in sizes:
            if size.limited and not limit.allows(size.a, size.b):
                yield f"{size.name} grew by {grown(size.b - size.a).lstrip('+')} ({share(size.a, size.b).lstrip('+')})"
    return Verdict(limit.text, tuple(sentences()))

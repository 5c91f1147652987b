"""AOS and AHV versions as ordered types: every public spelling of a release becomes one value.

Standard library only: it also runs in the images.
Source of the spellings and of the ordering traps: the catalogue (versions/) and docs/catalogue.md.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.printable import quoted

_NUMBER = r"(?:0|[1-9][0-9]{0,2})"
_AOS = rf"{_NUMBER}(?:\.{_NUMBER}){{1,4}}"
_AOS_SPELLINGS = tuple(re.compile(pattern, re.IGNORECASE | re.ASCII) for pattern in (
    rf"(?:AOS[ -]?)?(?P<release>{_AOS})",
    rf"(?:el[0-9.]+-)?release-[a-z]+-(?P<release>{_AOS})-stable(?:-[0-9a-f]+)?",
    rf"nutanix_installer_package-(?:release|opt)-[a-z]+-(?P<release>{_AOS})-stable"
    r"(?:-[0-9a-f]{40})?(?:-x86_64)?\.tar(?:\.gz)?",
))

_DATED = r"20[0-9]{6}\.[1-9][0-9]{0,6}"
_DOTTED = rf"{_NUMBER}(?:\.{_NUMBER}){{1,3}}"
_AHV_SPELLINGS = tuple(re.compile(pattern, re.IGNORECASE | re.ASCII) for pattern in (
    rf"(?:AHV[ -]?|Nutanix )?(?:el[0-9]+\.nutanix\.)?(?P<release>{_DATED})",
    rf"(?:AHV[ -]?|Nutanix )?(?P<release>{_DOTTED})",
    rf"AHV-DVD-x86_64-el[0-9]+\.nutanix\.(?P<release>{_DATED})(?:\.iso)+",
    # The number after the dash counts ISOs of one AHV release; it is no part of the release.
    rf"AHV-DVD-x86_64-(?P<release>{_DOTTED})(?:-[0-9]+)?(?:\.iso)+",
))
# The dotted scheme began at 10.0; a smaller number is a marketing alias of a date-build.
_FIRST_DOTTED = 10
# Inferred from the sourced pairs: see AhvVersion.branch.
_BRANCH_WIDTH = 10_000


# the file name of an AOS installer has some 120 characters
LONGEST_SPELLING = 400


class IncomparableError(CornerstoneError):
    """Two AHV builds of one line but of different branches: neither is newer."""


def _release_of(text: str, spellings: tuple[re.Pattern[str], ...]) -> str | None:
    for spelling in spellings:
        match = spelling.fullmatch(text.strip()) if len(text) <= LONGEST_SPELLING else None
        if match:
            return match["release"]
    return None


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))


def _canonical(parts: tuple[int, ...]) -> tuple[int, ...]:
    """Drop zeros at the end beyond the second part, so that 6.10.0.0 is 6.10 and tuples order as releases do."""
    while len(parts) > 2 and parts[-1] == 0:
        parts = parts[:-1]
    return parts


@dataclass(frozen=True, order=True)
class AosVersion:
    """An AOS release; ordered by its numbers (6.10 > 6.8), shortest spelling as text (6.10.0.0 is 6.10)."""

    parts: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", _canonical(self.parts))

    @classmethod
    def parse(cls, text: str) -> AosVersion:
        """Read 6.8.1, AOS 6.8.1, a full version string or an installer file name; CornerstoneError for the rest."""
        release = _release_of(text, _AOS_SPELLINGS)
        if release is None:
            looks_like_ahv = _release_of(text, _AHV_SPELLINGS) is not None
            raise CornerstoneError(
                f"{quoted(text)} isn't an AOS release",
                "that is an AHV build; give the AOS release, such as 6.8" if looks_like_ahv
                else "write it as two to five numbers with dots, such as 6.8 or 6.8.1.5")
        return cls(_numbers(release))

    @property
    def train(self) -> str:
        """The train that the release belongs to: 6.8 for 6.8.1.5."""
        return f"{self.parts[0]}.{self.parts[1]}"

    def __str__(self) -> str:
        return ".".join(str(part) for part in self.parts)


@dataclass(frozen=True)
class AhvVersion:
    """An AHV build in one of two schemes: date-build (20230302.100173) or dotted (10.3.1.5).

    Ordered only as far as the numbers carry: dotted is newer than date-build; a later date is a newer line; within
    one date only builds of one branch compare. Anything else raises IncomparableError; ask comparable() first.
    """

    parts: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.is_dated:
            object.__setattr__(self, "parts", _canonical(self.parts))

    @classmethod
    def parse(cls, text: str) -> AhvVersion:
        """Read any public spelling, ISO file names included; CornerstoneError for the rest."""
        release = _release_of(text, _AHV_SPELLINGS)
        if release is None:
            raise CornerstoneError(f"{quoted(text)} isn't an AHV build",
                                   "write it as 20230302.100173 or 10.3.1.5, or give the name of the AHV ISO")
        version = cls(_numbers(release))
        if version.is_dated:
            _check_date(text, version.line)
        elif version.parts[0] < _FIRST_DOTTED:
            raise CornerstoneError(f"{quoted(text)} is a marketing version of AHV, not a build",
                                   "give the build; versions/ahv.yaml lists the known ones with their alias")
        return version

    @property
    def is_dated(self) -> bool:
        """Whether this is the old scheme, a date and a build."""
        return self.parts[0] > 20_000_000

    @property
    def scheme(self) -> str:
        """date-build or dotted."""
        return "date-build" if self.is_dated else "dotted"

    @property
    def line(self) -> str:
        """What all builds of one development line share: 20230302, or 10.3."""
        return str(self.parts[0]) if self.is_dated else f"{self.parts[0]}.{self.parts[1]}"

    @property
    def branch(self) -> str:
        """The part of a line whose builds count upwards together; a label such as 20230302.10xxxx, or 10.3.

        Inferred, no source states it: builds of 6.5 and 6.6, and of 6.7 and 6.8, share a date but count apart, and in
        all sourced pairs the digits above the last four tell them apart. Dotted lines have one branch each.
        """
        if not self.is_dated:
            return self.line
        return f"{self.line}.{self.parts[1] // _BRANCH_WIDTH or ''}xxxx"

    @property
    def sort_key(self) -> tuple[bool, tuple[int, ...]]:
        """A total order for stable listings only; it says nothing about which build is newer."""
        return (not self.is_dated, self.parts)

    def comparable(self, other: AhvVersion) -> bool:
        """Whether < and > have an answer for the two."""
        return self == other or self.line != other.line or self.branch == other.branch

    def __lt__(self, other: AhvVersion) -> bool:
        return self._key(other) < other._key(self)

    def __le__(self, other: AhvVersion) -> bool:
        return self._key(other) <= other._key(self)

    def __gt__(self, other: AhvVersion) -> bool:
        return self._key(other) > other._key(self)

    def __ge__(self, other: AhvVersion) -> bool:
        return self._key(other) >= other._key(self)

    def _key(self, other: AhvVersion) -> tuple[bool, tuple[int, ...]]:
        if not self.comparable(other):
            raise IncomparableError(
                f"AHV {self} and {other} are of different branches ({self.branch}, {other.branch}): neither is newer",
                "compare builds of one branch, or look the pair up in versions/pairings.yaml")
        return self.sort_key

    def __str__(self) -> str:
        return ".".join(str(part) for part in self.parts)


def _check_date(text: str, line: str) -> None:
    try:
        datetime.date.fromisoformat(line)
    except ValueError:
        raise CornerstoneError(f"{quoted(text)} isn't an AHV build: {line} isn't a date",
                               "the first number of a build is a date, as in 20230302.100173") from None

"""Where a package's file lies in the pool, and how a list of such files is shown."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cornerstone.factory.packages.lock import LockedPackage

NAMED = 10


def pooled(pool: Path, package: LockedPackage) -> Path:
    """Return where a package's file is, or will be, in the pool."""
    return pool / package.sha256[:2] / f"{package.sha256}.deb"


def listed(lines: Iterable[str]) -> str:
    """Return the first of some lines in order, indented for an error message, and how many more there are."""
    lines = sorted(lines)
    more = [f"… and {len(lines) - NAMED} more"] if len(lines) > NAMED else []
    return "\n".join(f"    {line}" for line in lines[:NAMED] + more)

"""Which modules of Cornerstone travel in a root: a room's own, and what they import of the model, nothing else.

So a change in what only the factory uses rebuilds no root, and a root holds no code that never runs there.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from cornerstone.factory.store.closure import PACKAGE, closure

# The rooms that run in each root.
ROOMS = {"hypervisor": ("foundation", "hypervisor"), "cvm": ("cvm",)}


def modules(source: Path, rooms: Iterable[str]) -> list[Path]:
    """Return the files of some rooms and of all that they import from this package, sorted.

    source is the folder above the package.
    """
    return closure(source, [path for room in rooms for path in (source / PACKAGE / room).rglob("*.py")])


def copy(source: Path, rooms: Iterable[str], target: Path) -> None:
    """Copy the modules of some rooms below target, with their folders."""
    for path in modules(source, rooms):
        at = target / path.relative_to(source)
        at.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, at)

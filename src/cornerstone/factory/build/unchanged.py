"""Is everything as it was when an ISO was last found up to date? Told by stat alone, before anything else is imported.

A plan takes most of a second: the profile's models, the locks, the import closures. When no file that a plan reads and
no file that a build leaves has changed since a plan found them in order, there is nothing to plan. Whatever differs,
or can't be looked at this way, is for the plan to decide: this can only say "as it was" or nothing.

As in git's index a file is known by size, times of content and inode, inode number and mode. Only builds with the
development key are remembered: a release looks at everything each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cornerstone.factory.settings import Workspace
from cornerstone.lib.atomic import put

NAME = "unchanged.json"
VERSION = 1
# of the checkout, all that a plan may read
READ = ("elements", "profiles", "src", "tasks.py", "versions")
# of a profile's products, what a build doesn't leave for the next one
PASSING = frozenset({"events.jsonl", "events.jsonl.1", "logs", NAME})
# the installed tools and their versions
DPKG = Path("/var/lib/dpkg/status")
# a key that may be another tomorrow without any file having changed
KEY_SETTINGS = ("CORNERSTONE_SIGNING_KEY", "CORNERSTONE_SIGNING_KEY_PEM")
# a file that was changed as lately as this may be changed again within one tick of the kernel's clock
FRESH_NS = 100_000_000


@dataclass(frozen=True)
class Inputs:
    """The state of all files that a plan may read.

    One digest over all of them, and when the youngest changed, in ns since the epoch.
    """

    digest: str
    youngest: int
    looked: int

    @property
    def settled(self) -> bool:
        """Whether a later change of any file must show."""
        return self.youngest + FRESH_NS < self.looked


def look(workspace: Workspace, words: str) -> Inputs | None:
    """Look at all that a plan may read; None where that can't tell.

    words: what the caller named as profiles; only names of profiles/ are known by its files.
    """
    if any(os.environ.get(name) for name in KEY_SETTINGS) or os.sep in words or words.endswith((".yaml", ".yml")):
        return None
    looked = time.time_ns()
    roots = [*(workspace.root / name for name in READ), workspace.cache / "keys", DPKG,
             *(Path(path) for path in sys.path if path.endswith("site-packages"))]
    rows = [[sys.version, sys.prefix, str(workspace.cache)]]
    youngest = 0
    for path, stat in _files(roots):
        rows.append([path, *_known_by(stat)])
        youngest = max(youngest, stat.st_mtime_ns, stat.st_ctime_ns)
    return Inputs(_digest(rows), youngest, looked)


def remember(workspace: Workspace, name: str, inputs: Inputs | None, told: dict[str, Any]) -> None:
    """Note that a profile's ISO was found up to date with these inputs, and what is told of it.

    Nothing is noted when the inputs have changed meanwhile, or so lately that a further change might not show.
    """
    place = workspace.output / name / NAME
    if inputs is None or not inputs.settled or (now := look(workspace, name)) is None or now.digest != inputs.digest:
        place.unlink(missing_ok=True)
        return
    put(place, json.dumps({"version": VERSION, "inputs": inputs.digest, "products": _products(place.parent), **told}))


def recall(workspace: Workspace, name: str, inputs: Inputs | None) -> dict[str, Any] | None:
    """Return what remember was told of a profile, if inputs and products are what they were then; else None."""
    with contextlib.suppress(OSError, ValueError):
        place = workspace.output / name / NAME
        record = json.loads(place.read_text())
        if inputs is not None and isinstance(record, dict) and (VERSION, inputs.digest, _products(place.parent)) == (
                record.get("version"), record.get("inputs"), record.get("products")):
            return record
    return None


def _products(folder: Path) -> str:
    found = sorted(entry for entry in folder.iterdir() if entry.name not in PASSING)
    return _digest([[path, *_known_by(stat)] for path, stat in _files(found)])


def _files(roots: Iterable[Path]) -> Iterator[tuple[str, os.stat_result]]:
    """Every file below some folders, by name, with its own stat; of installed packages the folder alone."""
    for root in roots:
        with contextlib.suppress(FileNotFoundError):
            stat = os.lstat(root)
            if not root.is_dir() or root.name == "site-packages":
                yield str(root), stat
            else:
                yield from _below(str(root))


def _below(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if not entry.is_dir(follow_symlinks=False):
            yield entry.path, entry.stat(follow_symlinks=False)
        elif entry.name != "__pycache__":
            yield from _below(entry.path)


def _known_by(stat: os.stat_result) -> list[int]:
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_mode]


def _digest(rows: list) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

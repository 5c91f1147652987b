"""`invoke clean`: what was built goes, and is named; the cache stays unless asked for."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from cornerstone.factory.settings import Workspace
from cornerstone.lib.error import CornerstoneError


def clean(workspace: Workspace, cache: bool) -> Iterator[Path]:
    """Remove what is in output/, with cache the cache there too; gives each path once it is gone.

    A symbolic link is removed, and what it points to stays. Without cache neither output/cache goes nor the cache that
    is set, wherever below output/ it lies. Raises CornerstoneError, before anything goes, when cache is asked for and
    lies elsewhere, and OSError when something can't be removed.
    """
    output, used = Path(os.path.realpath(workspace.output)), Path(os.path.realpath(workspace.cache))
    if cache and output not in used.parents:
        raise CornerstoneError(f"CORNERSTONE_CACHE is {workspace.cache}, outside {workspace.output}, and clean removes "
                               "nothing there", f"without --cache clean removes what was built; for the cache: "
                               f"rm -r {shlex.quote(str(workspace.cache))}")
    kept = {workspace.output / "README.md"}
    if not cache:
        kept |= {workspace.output / "cache", Path(os.path.normpath(workspace.cache)), used}
    yield from _remove(workspace.output, kept)


def _remove(folder: Path, kept: set[Path]) -> Iterator[Path]:
    """Remove what is in a folder but for what is kept, and of a folder with something kept in it what isn't."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        place = Path(os.path.realpath(path))
        if path in kept or (place in kept and not path.is_symlink()):
            continue
        if path.is_dir() and not path.is_symlink():
            if any({path, place} & {*each.parents} for each in kept):
                yield from _remove(path, kept)
                continue
            shutil.rmtree(path)
        else:
            path.unlink()
        yield path

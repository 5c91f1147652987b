"""`invoke clean`: what was built goes, and is named; the cache stays unless asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

from cornerstone.factory.settings import Workspace


def clean(workspace: Workspace, cache: bool) -> list[Path]:
    """Remove what is in output/, with cache the cache there too; returns the paths that are gone.

    A symbolic link is removed, and what it points to stays. OSError when something can't be removed.
    """
    if not workspace.output.is_dir():
        return []
    gone = []
    for path in sorted(workspace.output.iterdir()):
        if path.name == "README.md" or (path.name == "cache" and not cache):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        gone.append(path)
    return gone

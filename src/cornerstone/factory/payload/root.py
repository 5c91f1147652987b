"""One root: diskimage-builder lays our elements over the installed packages and packs the tree as squashfs."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cornerstone.factory.contained import CONTAINED, detach_loops, environment
from cornerstone.factory.packages import elements
from cornerstone.factory.payload import rooms
from cornerstone.lib import process

if TYPE_CHECKING:
    from cornerstone.factory.packages.lock import Lock
    from cornerstone.factory.settings import Workspace

# Chosen for build time and for reading speed on the node; docs/performance.md has the figures.
COMPRESSION = ("-comp", "zstd", "-Xcompression-level", "6", "-b", "256K")


def build_root(workspace: Workspace, lock: Lock, packages: Path, public_key: Path, target: Path, log: Path,
               keep: bool) -> None:
    """Build a root from the squashfs of its installed packages (package_tree.py) and pack it into target (squashfs).

    Everything happens in a private mount and process namespace below the workspace's temporary
    folder: when the build ends, however it ends, its mounts and processes are gone with it.
    keep leaves a copy of the unpacked tree in the cache's folder kept/, of a failed build too.
    """
    workspace.temporary.mkdir(parents=True, exist_ok=True)
    work = workspace.temporary / f"root-{lock.root}-{os.getpid()}"
    work.mkdir()
    try:
        rooms.copy(workspace.source, rooms.ROOMS[lock.root], work / "rooms")
        env = {
            **environment(work, lock.epoch),
            "CORNERSTONE_PACKAGES": str(packages),
            "CORNERSTONE_SQUASHFS": str(target),
            "CORNERSTONE_COMPRESSION": " ".join(COMPRESSION),
            "CORNERSTONE_PUBLIC_KEY": str(public_key),
            "CORNERSTONE_ROOMS": str(work / "rooms"),
            "DIB_RELEASE": lock.suite,
            "DIB_NO_TMPFS": "1",
            # what is left for the loop device after packing is an empty skeleton
            "DIB_IMAGE_EXTRA_SIZE": "32",
            "DIB_JOURNAL_SIZE": "4",
            "DIB_IMAGE_CACHE": str(work / "image-cache"),
            "DIB_LOCKFILES": str(work / "lockfiles"),
            "DIB_PYTHON_EXEC": sys.executable,
            "ELEMENTS_PATH": str(workspace.elements),
            # diskimage-builder orders elements by a set
            "PYTHONHASHSEED": "0",
            "TMP_DIR": str(work),
        }
        if keep:
            kept = workspace.cache / "kept" / f"{lock.suite}-{lock.root}"
            # diskimage-builder's own hook for a failed step; it opens a shell unless told what to run
            env |= {"CORNERSTONE_KEEP": str(kept), "break": "after-error", "break_outside_target": "1",
                    "break_cmd": str(workspace.elements / "reproducible/bin/keep-tree")}
        process.run([*CONTAINED, "disk-image-create", "-n", "-t", "raw", "-o", work / "unused",
                     *elements.ROOTS[lock.root]], log=log, env=env, cwd=work)
    finally:
        detach_loops(work)
        shutil.rmtree(work, ignore_errors=True)

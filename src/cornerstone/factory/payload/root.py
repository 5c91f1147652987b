"""One root: diskimage-builder assembles the tree from the lock and our elements, and packs it as squashfs."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from cornerstone.factory.packages import elements
from cornerstone.factory.packages.lock import Lock
from cornerstone.factory.packages.repository import make_repository
from cornerstone.factory.payload import rooms
from cornerstone.factory.scratch import detach_loops
from cornerstone.factory.settings import Workspace
from cornerstone.lib import process

# Chosen for build time and for reading speed on the node; docs/performance.md has the figures.
COMPRESSION = ("-comp", "zstd", "-Xcompression-level", "6", "-b", "256K")


def build_root(workspace: Workspace, lock: Lock, public_key: Path, target: Path, log: Path, keep: bool) -> None:
    """Build the root that a lock describes and pack it into target (squashfs).

    Everything happens in a private mount and process namespace below the workspace's temporary
    folder: when the build ends, however it ends, its mounts and processes are gone with it.
    keep leaves a copy of the unpacked tree in the cache's folder kept/, of a failed build too.
    """
    workspace.temporary.mkdir(parents=True, exist_ok=True)
    work = workspace.temporary / f"root-{lock.root}-{os.getpid()}"
    work.mkdir()
    try:
        repository = work / "repository"
        make_repository(workspace.pool, lock, repository, log)
        rooms.copy(workspace.source, rooms.ROOMS[lock.root], work / "rooms")
        env = {
            "CORNERSTONE_REPOSITORY": str(repository),
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
            "LC_ALL": "C.UTF-8",
            # diskimage-builder orders elements by a set
            "PYTHONHASHSEED": "0",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin",
            "SOURCE_DATE_EPOCH": str(lock.epoch),
            "TMP_DIR": str(work),
            "TMPDIR": str(work),
            "TZ": "UTC",
        }
        if keep:
            kept = workspace.cache / "kept" / f"{lock.suite}-{lock.root}"
            # diskimage-builder's own hook for a failed step; it opens a shell unless told what to run
            env |= {"CORNERSTONE_KEEP": str(kept), "break": "after-error", "break_outside_target": "1",
                    "break_cmd": str(workspace.elements / "reproducible/bin/keep-tree")}
        # a host name that resolves everywhere: sudo complains of any other, into output that others parse
        process.run(["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
                     "sh", "-c", 'umask 022; hostname localhost; exec disk-image-create "$@"', "-",
                     "-n", "-t", "raw", "-o", work / "unused", *elements.ROOTS[lock.root]],
                    log=log, env=env, cwd=work)
    finally:
        detach_loops(work)
        shutil.rmtree(work, ignore_errors=True)

"""The installed packages of a root, as one squashfs: what everything else of the root is laid over.

Installing takes most of a build's time, and its result follows from the lock alone. So it is a layer of its own, and a
change of a static file, a hook or a module unpacks it and goes on from there. It is never shipped: it is packed for
speed, and what differs in it from build to build (logs, caches) goes when the root is packed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from cornerstone.factory.contained import CONTAINED, environment
from cornerstone.factory.packages.repository import make_repository
from cornerstone.lib import process

if TYPE_CHECKING:
    from cornerstone.factory.packages.lock import Lock

NAME = "packages.squashfs"

# Read once by each root that is made from it: time counts here, and not size. docs/performance.md has the figures.
COMPRESSION = ("-comp", "lz4", "-b", "256K")


def install_packages(pool: Path, lock: Lock, target: Path, temporary: Path, log: Path) -> None:
    """Install exactly the packages of a lock, from the pool's files, and pack the tree into target (squashfs).

    No network, and no choice left to make. temporary: a folder for the tree, on a file system that takes one. Owners,
    devices, hard links, times up to the lock's and extended attributes are kept as mmdebstrap left them.
    """
    temporary.mkdir(parents=True, exist_ok=True)
    work = temporary / f"packages-{lock.root}-{os.getpid()}"
    work.mkdir()
    try:
        repository, tree = work / "repository", work / "tree"
        make_repository(pool, lock, repository, log)
        # The initramfs is made once, later, when the tree is whole: INITRD=No keeps the kernel's hook quiet.
        # Unattended fsync of every file is lost time in a tree that a failed build throws away.
        process.run([*CONTAINED, "mmdebstrap", "--mode=root", "--variant=essential", "--format=directory",
                     f"--include={','.join(sorted({package.name for package in lock.packages}))}",
                     '--aptopt=APT::Install-Recommends "false"', "--dpkgopt=force-unsafe-io",
                     "--dpkgopt=force-confold", "--skip=check/empty", "--skip=cleanup/reproducible/machine-id",
                     lock.suite, tree, f"deb [trusted=yes] copy:{repository} ./"],
                    log=log, env={**environment(work, lock.epoch), "INITRD": "No"})
        # The local repository means nothing to the machine that runs this root.
        (tree / "etc/apt/sources.list").unlink(missing_ok=True)
        pack_tree(tree, target, lock.epoch, log)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def pack_tree(tree: Path, target: Path, epoch: int, log: Path) -> None:
    """Pack a tree into target (squashfs), with all that its files are known by; times after epoch become epoch."""
    process.run(["mksquashfs", tree, target, "-noappend", "-no-progress", "-no-recovery", *COMPRESSION], log=log,
                env={"SOURCE_DATE_EPOCH": str(epoch)})

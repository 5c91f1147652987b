"""A build's own temporary folder: locked while any process of that build lives, swept by others after that."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cornerstone.factory.contained import detach_loops
from cornerstone.factory.settings import Workspace
from cornerstone.lib import process
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.filelock import Hold, try_hold


@contextlib.contextmanager
def own_folder(workspace: Workspace) -> Iterator[Workspace]:
    """The workspace with a temporary folder of its own, removed at the end; what killed builds left goes too.

    The folder's lock is handed down to every step's processes. So as long as one of them lives, even
    when we were killed, nobody takes the folder for left behind.
    """
    sweep(workspace.temporary)
    held, folder = _make(workspace.temporary)
    process.guards.add(held.fd)
    try:
        yield dataclasses.replace(workspace, build=folder.name)
    finally:
        process.guards.discard(held.fd)
        _remove(folder)
        held.release()


def _make(temporary: Path) -> tuple[Hold, Path]:
    temporary.mkdir(parents=True, exist_ok=True)
    while True:
        folder = Path(tempfile.mkdtemp(prefix="build-", dir=temporary))
        pass_nothing_on(folder)
        # None, or gone, when another build's sweep was quicker
        with contextlib.suppress(FileNotFoundError):
            if held := try_hold(folder):
                return held, folder


def pass_nothing_on(folder: Path) -> None:
    """Give a new folder our own group and mode 0700, without the setgid bit and the ACLs that its parent passed on.

    Otherwise they would go on to all that is made in it, and into the root trees.
    """
    for name in ("system.posix_acl_default", "system.posix_acl_access"):
        try:
            os.removexattr(folder, name)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                raise
    os.chown(folder, -1, os.getegid())
    # chmod(2) and not Path.mkdir's mode: only this takes the setgid bit away
    folder.chmod(0o700)


def sweep(temporary: Path) -> None:
    """Remove the folders of builds that have ended without doing so, and their loop devices."""
    for left in temporary.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            if held := try_hold(left):
                with held:
                    _remove(left)


def _remove(folder: Path) -> None:
    if any(folder.iterdir()):
        detach_loops(folder)
    shutil.rmtree(folder, ignore_errors=True)


def check_file_system(folder: Path) -> None:
    """Raise CornerstoneError (MACHINE) unless root trees can be made in a folder, naming what can't."""
    tried = folder / "tried"
    makers = {
        "symbolic links": lambda: tried.symlink_to("nowhere"),
        "owners": lambda: (tried.touch(), os.chown(tried, 1, 1)),
        "device nodes": lambda: (os.mknod(tried, stat.S_IFCHR | 0o666, os.makedev(1, 3)), tried.read_bytes()),
        "file capabilities": lambda: (tried.touch(), os.setxattr(tried, "security.capability", _ONE_CAPABILITY)),
    }
    lacking = []
    for what, make in makers.items():
        try:
            make()
        except OSError:
            lacking.append(what)
        finally:
            tried.unlink(missing_ok=True)
    if lacking:
        raise CornerstoneError(f"root trees can't be made in {folder.parent.parent}: it takes no {', '.join(lacking)}",
                               "set CORNERSTONE_CACHE to a file system such as ext4, xfs or btrfs, mounted without "
                               "nodev, and build as the machine's own root, not a container's", Code.MACHINE)


# CAP_NET_RAW, permitted and effective, as the kernel stores it (version 2)
_ONE_CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")

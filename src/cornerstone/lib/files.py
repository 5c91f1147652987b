"""Read files of others within bounds, and tell in which folders others may write."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from cornerstone.lib.error import Code, CornerstoneError


def open_regular(path: Path) -> BinaryIO:
    """Open a file that came along with something: a regular one, never a link's target, a device or a pipe.

    Raises OSError.
    """
    opened = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
        opened.close()
        raise OSError(errno.EINVAL, "it isn't a regular file", str(path))
    return opened


def read_regular(path: Path, most: int) -> bytes:
    """Read a file as open_regular opens it. Raises OSError, also when it has more than most bytes."""
    with open_regular(path) as opened:
        size = os.fstat(opened.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"it has {size} bytes, and at most {most} are read", str(path))
        return opened.read(most)


def others_may_write(status: os.stat_result, checkout: os.stat_result) -> bool:
    """Tell whether somebody may change a file or folder who can't change what runs here: root, us, or the checkout."""
    groups = {0, os.getegid(), *((checkout.st_gid,) if checkout.st_mode & stat.S_IWGRP else ())}
    return (status.st_uid not in (0, os.geteuid(), checkout.st_uid) or bool(status.st_mode & stat.S_IWOTH)
            or (bool(status.st_mode & stat.S_IWGRP) and status.st_gid not in groups))


def require_own(folders: Iterable[Path], checkout: Path) -> None:
    """Raise CornerstoneError (MACHINE) for a folder in which others may write, or which they may put another for.

    A folder that isn't there yet is looked at through those above it. In /tmp and the like (sticky) nobody can replace
    what is another's, and below a folder of ours that nobody else may enter nobody reaches anything.
    """
    own = checkout.stat()
    for folder in folders:
        open_to_others = None
        for place in (folder, *folder.absolute().parents):
            if not place.exists():
                continue
            status = place.stat()
            if others_may_write(status, own):
                if place == folder or not status.st_mode & stat.S_ISVTX:
                    open_to_others = open_to_others or place
            elif not status.st_mode & (stat.S_IXGRP | stat.S_IXOTH):
                open_to_others = None
        if open_to_others:
            raise CornerstoneError(
                f"others may write in {open_to_others}, and a release key signs nothing that they could put there",
                f"take the right away (chmod go-w {open_to_others}; its owner has to be you or root), or set "
                "CORNERSTONE_CACHE to a folder of your own", Code.MACHINE)


def is_stamp(value: Any) -> bool:
    """Whether a value is a file's size and time of change."""
    return isinstance(value, list) and len(value) == 2 and all(type(number) is int for number in value)

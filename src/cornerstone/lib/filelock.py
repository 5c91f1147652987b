"""Locks between builds that share a cache: flock on a file or a folder, gone with the processes that hold it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from cornerstone.lib import process
from cornerstone.lib.json_text import read_bounded

# flock can't be waited for and broken off at will at once, so it is asked again
AGAIN_SECONDS = 0.1


class Hold:
    """A lock that is held, until release or until the last process that inherited fd has ended."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def release(self) -> None:
        os.close(self.fd)

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def try_hold(path: Path, shared: bool = False) -> Hold | None:
    """Lock a folder, or a file *.lock, which is made when it isn't there; None when somebody else holds it.

    A file says who holds it alone: the process's id is its content.
    """
    is_file = path.suffix == ".lock"
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT if is_file else os.O_RDONLY | os.O_DIRECTORY, 0o644)
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            # who held it before may have removed it: then this is nobody's lock
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), path.stat()):
                    if is_file and not shared:
                        os.ftruncate(fd, 0)
                        os.write(fd, str(os.getpid()).encode())
                    return Hold(fd)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def hold(path: Path, waiting: Callable[[str], None], shared: bool = False) -> Hold:
    """Lock a folder or a file as try_hold does, waiting as long as it takes.

    waiting is told once who is waited for. Raises CornerstoneError (STEP) when the build ends meanwhile.
    """
    told = False
    while (held := try_hold(path, shared)) is None:
        if not told:
            waiting(holder(path))
            told = True
        process.pause(AGAIN_SECONDS)
    return held


def holder(path: Path) -> str:
    """Who holds a lock, for people."""
    with contextlib.suppress(OSError):
        if (process_id := read_bounded(path, 20).strip()).isdigit():
            return f"another build (process {process_id.decode()})"
    return "another build"

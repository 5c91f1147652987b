"""Learn that files in some folders were written: inotify(7), which Python's library doesn't have."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from pathlib import Path

# sys/inotify.h
IN_CLOSE_WRITE, IN_Q_OVERFLOW = 0x8, 0x4000
# struct inotify_event: watch, mask, cookie, length of the name after it
EVENT = struct.Struct("iIII")
IN_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC

_LIBC = ctypes.CDLL(None, use_errno=True)


class Written:
    """A file descriptor that is readable when a file in one of the folders was written and closed."""

    def __init__(self) -> None:
        self._fd = _checked(_LIBC.inotify_init1(IN_NONBLOCK_CLOEXEC))
        self._folders: dict[int, Path] = {}

    def fileno(self) -> int:
        return self._fd

    def watch(self, folder: Path) -> None:
        """Look at this folder too; twice is once."""
        self._folders[_checked(_LIBC.inotify_add_watch(self._fd, os.fsencode(folder), IN_CLOSE_WRITE))] = folder

    def folders(self) -> set[Path]:
        """Where something was written since the last time; every folder when that was too much to keep."""
        found: set[Path] = set()
        with contextlib.suppress(BlockingIOError):
            while events := os.read(self._fd, 65536):
                while events:
                    watch, mask, _, length = EVENT.unpack_from(events)
                    found |= set(self._folders.values()) if mask & IN_Q_OVERFLOW else {self._folders[watch]}
                    events = events[EVENT.size + length:]
        return found

    def close(self) -> None:
        os.close(self._fd)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result

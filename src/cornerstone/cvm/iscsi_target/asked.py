"""Learn that LIO is about to write a volume's ALUA state, and have it wait: fanotify(7), which Python hasn't.

LIO sets the state, writes it into a file, and only then answers the initiator's SET TARGET PORT GROUPS. As long as the
file's opening isn't allowed the initiator sends no command, so nothing is lost between its request and our hold.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

# linux/fanotify.h
FAN_CLOEXEC, FAN_NONBLOCK, FAN_CLASS_CONTENT, FAN_UNLIMITED_QUEUE = 0x1, 0x2, 0x4, 0x10
FAN_MARK_ADD = 0x1
FAN_OPEN_PERM, FAN_EVENT_ON_CHILD = 0x10000, 0x08000000
FAN_ALLOW = 1
AT_FDCWD = -100
# struct fanotify_event_metadata: length, version, reserved, length of this, mask, descriptor, process
EVENT = struct.Struct("IBBHQii")
# struct fanotify_response: descriptor, answer
RESPONSE = struct.Struct("iI")
# an initiator isn't kept waiting longer, whatever becomes of its volume: all that it sends waits behind this, and
# open-iscsi drops a session that doesn't answer a ping for 5 s
ANSWER_SECONDS = 4

_LIBC = ctypes.CDLL(None, use_errno=True)


class Asked:
    """A file descriptor that is readable when another process, or the kernel, opens a file in one of the folders."""

    def __init__(self) -> None:
        self._fd = _checked(_LIBC.fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC | FAN_NONBLOCK | FAN_UNLIMITED_QUEUE,
                                                os.O_RDONLY | os.O_CLOEXEC))

    def fileno(self) -> int:
        return self._fd

    def watch(self, folder: Path) -> None:
        """Look at this folder too; twice is once."""
        _checked(_LIBC.fanotify_mark(self._fd, FAN_MARK_ADD, ctypes.c_uint64(FAN_OPEN_PERM | FAN_EVENT_ON_CHILD),
                                     AT_FDCWD, os.fsencode(folder)))

    def openings(self) -> Iterator[tuple[Path, Callable[[], None]]]:
        """Yield the folders where a file is being opened, each with what lets that go on.

        It goes on after ANSWER_SECONDS at the latest, when this process ends, and at once when it is this process.
        """
        with contextlib.suppress(BlockingIOError):
            while events := os.read(self._fd, 65536):
                # all of them get their term before anything else is done
                for opened, process, allow in [*self._events(events)]:
                    if process == os.getpid():
                        allow()
                    else:
                        yield Path(f"/proc/self/fd/{opened}").readlink().parent, allow

    def _events(self, events: bytes) -> Iterator[tuple[int, int, Callable[[], None]]]:
        while events:
            length, _, _, _, _, opened, process = EVENT.unpack_from(events)
            events = events[length:]
            yield opened, process, self._allow(opened)

    def _allow(self, opened: int) -> Callable[[], None]:
        once = threading.Lock()

        def allow() -> None:
            if once.acquire(blocking=False):
                timer.cancel()
                os.write(self._fd, RESPONSE.pack(opened, FAN_ALLOW))
                os.close(opened)
        timer = threading.Timer(ANSWER_SECONDS, allow)
        timer.daemon = True
        timer.start()
        return allow

    def close(self) -> None:
        os.close(self._fd)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result

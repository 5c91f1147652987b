"""Waits that end early: when udev is through with a disk that came or went, or when somebody asks by SIGHUP."""

from __future__ import annotations

import os
import select
import signal
import socket
import time

# linux/netlink.h; the group of what udev has finished, with links and properties in place
NETLINK_KOBJECT_UEVENT, UDEV_GROUP = 15, 2
BLOCK = b"SUBSYSTEM=block\0"


class Wake:
    """What wakes genesis."""

    def __enter__(self) -> Wake:
        self._events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT)
        self._events.bind((0, UDEV_GROUP))
        self._asked, self._ask = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._ask, warn_on_full_buffer=False)
        self._before = signal.signal(signal.SIGHUP, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGHUP, self._before)
        signal.set_wakeup_fd(-1)
        self._events.close()
        os.close(self._asked)
        os.close(self._ask)

    def wait(self, seconds: float) -> None:
        """Until a disk comes or goes, SIGHUP, or the end of that time."""
        poll = select.poll()
        poll.register(self._events, select.POLLIN)
        poll.register(self._asked, select.POLLIN)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            woken = dict(poll.poll(left * 1000))
            if self._asked in woken:
                os.read(self._asked, 4096)
                return
            if self._events.fileno() in woken and self._disk_changed():
                return

    def _disk_changed(self) -> bool:
        """Whether what has come is about a disk. More than the buffer holds may be."""
        changed = False
        try:
            while True:
                changed |= BLOCK in self._events.recv(65536)
        except BlockingIOError:
            return changed
        except OSError:
            return True

"""Ctrl-C, SIGTERM and SIGHUP as something to wait for, so that a machine is ended in order and not in the middle
of a step."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from types import FrameType, TracebackType

from cornerstone.lib.error import Code, CornerstoneError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """While entered, a signal only makes fileno() readable; check() or leaving raises CornerstoneError INTERRUPTED.

    Outside the main thread Python delivers no signals, and this does nothing.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._wake, self._waker = socket.socketpair()
        self._handlers: dict[signal.Signals, object] = {}
        self._old_waker: int | None = None

    def fileno(self) -> int:
        return self._wake.fileno()

    def __enter__(self) -> Interrupts:
        self._wake.setblocking(False)
        self._waker.setblocking(False)
        self.hold()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.release()
        self._wake.close()
        self._waker.close()
        if error is None:
            self.check()

    def hold(self) -> None:
        """Take the signals."""
        if threading.current_thread() is threading.main_thread():
            self._old_waker = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
            for number in SIGNALS:
                # What the caller ignores (nohup, a background job) stays ignored.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._handlers[number] = signal.signal(number, self._note)

    def release(self) -> None:
        """Let signals do what they did before."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._handlers.clear()
        if self._old_waker is not None:
            signal.set_wakeup_fd(self._old_waker)
            self._old_waker = None

    def nudge(self) -> None:
        """Make fileno() readable without a signal."""
        self._waker.send(b"\0")

    def check(self) -> None:
        """Raise if a signal came. The wake-up byte is taken, so that fileno() is quiet again."""
        with contextlib.suppress(OSError):  # closed already
            self._wake.recv(64)
        if self.received is not None:
            raise CornerstoneError(f"interrupted by {self.received.name}; the machine was ended",
                                   "run the same command again", Code.INTERRUPTED)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)

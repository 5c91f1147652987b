"""A lease that no wall clock ends, on a text in the cluster that is changed by compare-and-swap.

Ceph's own locks with a duration end by the wall clock of an OSD, which may jump.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Protocol

from cornerstone.lib.error import CornerstoneError


class HeldByAnother(Exception):
    """What was ours is another's, although our time wasn't over: this machine must have stood still."""


class Register(Protocol):
    """A text; "" at first. Raises CornerstoneError when the cluster can't be asked."""

    def read(self) -> str: ...

    def swap(self, old: str, new: str) -> bool: ...


class MonotonicLease:
    """A lease that each renewal changes, and that another takes over when it has seen no change for `seconds`.

    Each counts by its own monotonic clock: the holder from before it wrote, the other from after it read that. So a
    wall clock that jumps, here or on an OSD, ends no lease. holder: what only this process calls itself.
    """

    def __init__(self, register: Register, holder: str, seconds: int,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._register = register
        self._holder = holder
        self._clock = clock
        self.seconds = seconds
        self._renewals = 0
        self._ours = False
        self._seen, self._since = "", 0.0

    def renew(self) -> bool:
        """Take it or keep it; False while another has it or the cluster can't be asked.

        Raises HeldByAnother when it was ours, and another has it now.
        """
        with contextlib.suppress(CornerstoneError):
            now = self._register.read()
            # a renewal that had no answer may have been carried out: any of our own texts is ours
            if now and not now.startswith(self._holder):
                self._observe(now)
                if self._clock() - self._since < self.seconds:
                    return False
            self._renewals += 1
            self._ours = self._register.swap(now, f"{self._holder} {self._renewals}")
            return self._ours
        return False

    def _observe(self, now: str) -> None:
        if now != self._seen:
            self._seen, self._since = now, self._clock()
        if self._ours:
            self._ours = False
            raise HeldByAnother

    def end(self) -> None:
        """Let another have it at once."""
        with contextlib.suppress(CornerstoneError):
            if (now := self._register.read()).startswith(self._holder):
                self._register.swap(now, "")

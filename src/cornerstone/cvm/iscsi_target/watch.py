"""A RADOS watch that is made anew when it is lost, with a look after it: what was told meanwhile wasn't heard."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from cornerstone.lib.event import Event, Listener

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1, 15
# An OSD drops a watch whose client it hasn't heard for so long (osd_client_watch_timeout). The client may be told of it
# minutes after the network is back, for its connection then waits for TCP to try again.
SILENT_SECONDS = 30
LOOKS = 6
STAGE, STEP = "data-services", "watch"


class Watched(Protocol):
    """A rados.Watch. check returns how long ago the cluster was last known to have the watch."""

    def check(self) -> timedelta: ...

    def close(self) -> None: ...


class LastingWatch:
    """make: watches, and calls what it is given when the watch is lost; renewed: called when it was made anew.

    Lost is also a watch that the cluster hasn't confirmed for some seconds. Whatever librados raises, the watch is made
    anew: without it a CVM is deaf.
    """

    def __init__(self, make: Callable[[Callable[[int], None]], Watched], renewed: Callable[[], None],
                 tell: Listener, seconds: float = SILENT_SECONDS) -> None:
        self._seconds = seconds
        self._make = make
        self._renewed = renewed
        self._tell = tell
        self._lost = threading.Event()
        self._closed = threading.Event()
        self._watch: Watched | None = None

    def open(self) -> None:
        """Watch. Raises what make raises."""
        self._lost.clear()
        self._watch = self._make(lambda _: self._lost.set())

    def check(self) -> None:
        """Have it made anew if it is lost and librados hasn't said so."""
        if (watch := self._watch) is not None:
            try:
                silent = watch.check() > timedelta(seconds=self._seconds)
            except Exception:
                silent = True
            if silent:
                self._lost.set()

    def run(self) -> None:
        """Make it anew whenever it was lost, until close."""
        while not self._closed.is_set():
            if not self._lost.wait(self._seconds / LOOKS):
                self.check()
                continue
            if self._closed.is_set():
                return
            self._tell(Event(STAGE, STEP, "warning", "the cluster's notifications are lost"))
            if self._renew():
                self._tell(Event(STAGE, STEP, "done", "the cluster's notifications are heard again"))
                self._renewed()

    def _renew(self) -> bool:
        """Watch again, as often as it takes; False when closed meanwhile."""
        pause = FIRST_PAUSE_SECONDS
        while not self._closed.is_set():
            watch, self._watch = self._watch, None
            with contextlib.suppress(Exception):
                # first, so that nobody hears everything twice
                if watch is not None:
                    watch.close()
            try:
                self.open()
                return True
            except Exception:
                self._closed.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return False

    def close(self) -> None:
        """End run and the watch."""
        self._closed.set()
        self._lost.set()
        if self._watch is not None:
            with contextlib.suppress(Exception):
                self._watch.close()

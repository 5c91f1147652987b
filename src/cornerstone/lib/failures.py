"""Loops that go on: whatever one turn raises is told once, and the next turn is taken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.event import note

# the same failure is news again when it wasn't met for so long
QUIET_SECONDS = 600.0
# failures that are remembered: words of others may be in them
MOST = 100


class Failures:
    """Tells failures in a line, by tell; of several threads, too."""

    def __init__(self, tell: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._lock = threading.Lock()
        # by the line, when it was met last; the latest comes last
        self._met: dict[str, float] = {}

    def attempt(self, do: Callable[..., object], *args: object) -> bool:
        """Call do. Returns whether it raised nothing; what it raised is told."""
        try:
            do(*args)
        except Exception as error:
            self.add(error)
            return False
        return True

    def add(self, error: BaseException) -> None:
        """Tell an error, unless it is known."""
        line = str(error) if isinstance(error, CornerstoneError) else f"{type(error).__name__}: {error}"
        with self._lock:
            now, before = self._clock(), self._met.pop(line, None)
            self._met[line] = now
            if len(self._met) > MOST:
                del self._met[next(iter(self._met))]
        if before is None or now - before > QUIET_SECONDS:
            try:
                self._tell(line)
            except Exception as problem:
                note(f"{line}; and it can't be told: {problem!r}")

"""A machine that is worked with: somebody has to hear it meanwhile, for a console that nobody reads stops it."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType

from cornerstone.lab.console import Failure, Matcher
from cornerstone.lab.running import RunningMachine
from cornerstone.model.error import CornerstoneError
from cornerstone.model.event import Event, Listener


class Watch:
    """While entered, a thread takes what the machine says. Signals reach this program again as they did before.

    failure: the first line of the console catalogue that was seen; ended: set when the machine is gone.
    """

    def __init__(self, running: RunningMachine, listener: Listener) -> None:
        self.failure: Failure | None = None
        self.ended = threading.Event()
        self._running = running
        self._listener = listener
        self._matcher = Matcher()
        self._rest = b""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._hear, name="watch")

    def __enter__(self) -> Watch:
        self._running.interrupts.release()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._stop.set()
        self._running.interrupts.nudge()
        self._thread.join()
        self._running.interrupts.hold()

    def _hear(self) -> None:
        while not (self._stop.is_set() or self.ended.is_set()):
            try:
                chunks = self._running.wait(3600)
            except CornerstoneError:
                return
            for chunk in chunks:
                if chunk.source == "console":
                    self.failure = self.failure or self._matcher.feed(chunk.data)
                elif chunk.source == "events":
                    self._tell(chunk.data)
                elif chunk.source == "exit":
                    self.ended.set()

    def _tell(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                self._listener(Event.from_json(line.decode(errors="replace")))

"""A machine that is worked with: somebody has to hear it meanwhile, for a console that nobody reads stops it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection
from types import TracebackType

from cornerstone.lab.console import PASSING, Failure, Matcher
from cornerstone.lab.running import RunningMachine
from cornerstone.lab.verdict import Limits
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.event import Event, Listener


class Watch:
    """While entered, a thread takes what the machine says. Signals reach this program again as they did before.

    failure: the first line of the console catalogue that was seen, without the expected ids and those that pass, which
    are the reason only of what doesn't go on; ended: set when the machine is gone; events: all that were told.
    """

    def __init__(self, running: RunningMachine, listener: Listener, expected: Collection[str] = ()) -> None:
        self.failure: Failure | None = None
        self.ended = threading.Event()
        self.events: list[Event] = []
        self._running = running
        self._listener = listener
        self._matcher = Matcher({*expected, *PASSING})
        self._rest = b""
        self._stop = threading.Event()
        self._news = threading.Condition()
        self._last = time.monotonic()
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

    def tell_machine(self, command: str, **arguments: object) -> None:
        """Give QEMU a command by QMP, whatever comes of it: its answers go by with all else that is heard."""
        self._running.tell(command, **arguments)

    def wait_for(self, what: str, reached: Callable[[Event], bool], limits: Limits, since: int = 0) -> Event:
        """The first event that reached says true of, from events[since] on; it may have been told already.

        CornerstoneError (BOOT) when the console shows a known failure, the machine ends, nothing new was told for
        limits.stall seconds, or limits.ceiling seconds have passed.
        """
        begun = time.monotonic()
        with self._news:
            while True:
                while since < len(self.events):
                    if reached(self.events[since]):
                        return self.events[since]
                    since += 1
                now = time.monotonic()
                if (why := self._hopeless(now, begun, limits)) is not None:
                    told = f"; the last word was: {self.events[-1].to_json()}" if self.events else ""
                    raise CornerstoneError(f"waited in vain for {what}: {why}{told}", f"see {self._running.logs}",
                                           Code.BOOT)
                self._news.wait(min(self._last + limits.stall, begun + limits.ceiling) - now)

    def _hopeless(self, now: float, begun: float, limits: Limits) -> str | None:
        if self.failure is not None:
            return f"{self.failure.sentence} [{self.failure.id}]"
        if self.ended.is_set():
            return "the machine is gone"
        if now >= self._last + limits.stall:
            doubt = self._matcher.doubt
            return f"nothing was told for {limits.stall:.0f} s" + (
                f", and before {doubt.sentence} [{doubt.id}]" if doubt else "")
        return f"{limits.ceiling:.0f} s have passed" if now >= begun + limits.ceiling else None

    def _hear(self) -> None:
        while not (self._stop.is_set() or self.ended.is_set()):
            try:
                chunks = self._running.wait(3600)
            except CornerstoneError:
                return
            with self._news:
                for chunk in chunks:
                    if chunk.source == "console":
                        self.failure = self.failure or self._matcher.feed(chunk.data)
                    elif chunk.source == "events":
                        self._tell(chunk.data)
                    elif chunk.source == "exit":
                        self.ended.set()
                self._news.notify_all()

    def _tell(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                event = Event.from_json(line.decode(errors="replace"))
                self.events.append(event)
                self._last = time.monotonic()
                self._listener(event)

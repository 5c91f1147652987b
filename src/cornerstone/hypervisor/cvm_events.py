"""What the Controller VM tells is told on: its event port is a socket of this host (see domain.py).

So whoever watches the node sees the CVM's states beside the host's. The CVM is another machine: its lines are
checked, it can't speak as one of the host's own stages, and what it may tell is bounded. A line that is dropped costs
nothing but itself: the first of its kind is noted on standard error, and how many there were is a warning at the end
of the minute.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from cornerstone.lib.event import Event, Listener, note

STAGE = "hypervisor"
STEP = "cvm-events"
SOCKET = Path("/run/cornerstone-cvm-events.sock")
# bytes
LONGEST_LINE = 1 << 14
# what a CVM may tell within a minute: one that forms a cluster tells some hundred lines in all
MINUTE = 60.0
MOST_LINES, MOST_BYTES = 240, 1 << 17
# the socket is there when the domain runs
RETRY_SECONDS = 1.0
HOST_STAGES = ("boot", "foundation", "first-boot", "hypervisor")
# The CVM tries again what failed and waits for what is missing: for the host neither is an end.
SOFTER = {"failed": "warning", "waiting": "progress"}
NO_EVENT = "no event that a CVM may tell"
TOO_LONG = f"longer than {LONGEST_LINE} bytes"
TOO_MUCH = f"told within a minute after {MOST_LINES} lines or {MOST_BYTES >> 10} KiB"


def relayed(line: bytes) -> Event | None:
    """The event of a line as the host tells it; None for what isn't one that a CVM may tell."""
    try:
        event = Event.from_json(line)
    except ValueError:
        return None
    if event.stage in HOST_STAGES:
        return None
    return replace(event, state=SOFTER.get(event.state, event.state))


class Lines:
    """Cuts what arrives into lines, without their ends. None stands for one that is longer than LONGEST_LINE."""

    def __init__(self) -> None:
        self._rest = b""
        self._too_long = False

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield None if self._too_long or len(line) > LONGEST_LINE else line
            self._too_long = False
        self._too_long = self._too_long or len(rest) > LONGEST_LINE
        self._rest = b"" if self._too_long else rest


class CvmEvents:
    """Listens in a thread of its own, for as long as this process lives, through all of the CVM's restarts."""

    def __init__(self, tell: Listener, path: Path = SOCKET, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._path = path
        self._clock = clock
        # the minute that counts: when it began, what was told in it, what was dropped and why
        self._begun = clock()
        self._lines = self._bytes = 0
        self._dropped: Counter[str] = Counter()
        self._noted: set[str] = set()
        self._stop = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self.run, name="cvm-events", daemon=True).start()

    def stop(self) -> None:
        """Have run end after the line that it is at."""
        self._stop.set()

    def run(self) -> None:
        """Tell on until stopped."""
        while not self._stop.is_set():
            self._attempt(self._connect)
            self._attempt(self._begin_minute)
            self._stop.wait(RETRY_SECONDS)

    def _connect(self) -> None:
        """Listen as long as the port is there; a CVM that doesn't run has none."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as port:
            port.connect(str(self._path))
            self._listen(port)

    def _listen(self, port: socket.socket) -> None:
        lines = Lines()
        while not self._stop.is_set():
            # what was dropped is told of when the minute is over, whether or not there is more to hear
            port.settimeout(MINUTE if self._dropped else None)
            try:
                data = port.recv(1 << 16)
            except TimeoutError:
                self._attempt(self._begin_minute)
                continue
            if not data:
                return
            for line in lines.feed(data):
                if self._stop.is_set():
                    return
                self._attempt(self._hear, line)

    @staticmethod
    def _attempt(do: Callable[..., None], *args: bytes | None) -> None:
        """Whatever it raises: nobody would start this thread again."""
        try:
            do(*args)
        except Exception as error:
            note(f"{STEP}: {error!r}")

    def _hear(self, line: bytes | None) -> None:
        """Tell a line on, or drop it."""
        self._begin_minute()
        if line is None:
            self._drop(TOO_LONG)
        elif (event := relayed(line)) is None:
            self._drop(NO_EVENT)
        elif self._lines >= MOST_LINES or self._bytes + len(line) > MOST_BYTES:
            self._drop(TOO_MUCH)
        else:
            self._lines += 1
            self._bytes += len(line)
            self._tell(event)

    def _drop(self, why: str) -> None:
        self._dropped[why] += 1
        if why not in self._noted:
            self._noted.add(why)
            note(f"{STEP}: a line of the Controller VM is dropped: {why}")

    def _begin_minute(self) -> None:
        """Tell what was dropped and count anew, if the minute is over."""
        if self._clock() < self._begun + MINUTE:
            return
        dropped, self._dropped = self._dropped, Counter()
        self._begun, self._lines, self._bytes = self._clock(), 0, 0
        for why, count in dropped.items():
            self._tell(Event(STAGE, STEP, "warning", f"lines of the Controller VM that were dropped: {count}, {why}",
                             {"dropped": count}))

"""Events: what every stage tells whoever watches, one JSON object a line (schema below).

    {"v": 1, "t": 1730000000.125, "stage": "foundation", "step": "verify", "state": "progress",
     "message": "hypervisor.squashfs", "data": {"percent": 40}}

t is seconds since the epoch; state is one of STATES; data depends on the step and may be absent.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

SCHEMA_VERSION = 1
PORT = Path("/dev/virtio-ports/org.cornerstone.events")
# how long another may have the port open before a line is lost
BUSY_SECONDS = 2.0
STATES = ("started", "progress", "done", "cached", "waiting", "warning", "failed")


@dataclass(frozen=True)
class Event:
    """One thing that happened: stage (which room), step (what it was doing), state (one of STATES)."""

    stage: str
    step: str
    state: str
    message: str = ""
    data: dict = field(default_factory=dict)
    t: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"event state {self.state!r} is not one of {', '.join(STATES)}")

    def to_json(self) -> str:
        """One line of JSON, without the line end."""
        record = {"v": SCHEMA_VERSION, "t": round(self.t, 3), "stage": self.stage, "step": self.step,
                  "state": self.state}
        if self.message:
            record["message"] = self.message
        if self.data:
            record["data"] = self.data
        return json.dumps(record, sort_keys=False)

    @classmethod
    def from_json(cls, line: str) -> Event:
        """Parse one line; ValueError when it isn't an event of this schema version."""
        record = json.loads(line)
        if not isinstance(record, dict) or record.get("v") != SCHEMA_VERSION:
            raise ValueError(f"not an event of schema version {SCHEMA_VERSION}: {line[:200]}")
        try:
            return cls(record["stage"], record["step"], record["state"], record.get("message", ""),
                       record.get("data", {}), record["t"])
        except KeyError as error:
            raise ValueError(f"an event without {error}: {line[:200]}") from error


Listener = Callable[[Event], None]


class JsonLines:
    """A listener that appends each event to a file, flushed at once so that a watcher sees it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def __call__(self, event: Event) -> None:
        self._file.write(event.to_json() + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class Port:
    """A virtio port that never holds us up: with nobody listening, a line is lost, not waited for.

    Opened for each line: the kernel lets one at a time have it open, and whoever else has it is done in an instant.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, event: Event) -> None:
        with contextlib.suppress(OSError):
            port = self._open()
            try:
                os.write(port, event.to_json().encode() + b"\n")
            finally:
                os.close(port)

    def _open(self) -> int:
        end = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                # there is nothing by which to wait for another's close
                if error.errno != errno.EBUSY or time.monotonic() > end:
                    raise
                time.sleep(0.01)


def open_listeners(events: Path, port: Path = PORT) -> Listener:
    """One listener that tells all: the file, and the port when the machine has one, by then."""
    listeners: list[Listener] = [JsonLines(events), Port(port)]

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)
    return tell

"""Events: what every stage tells whoever watches, one JSON object a line (schema below).

    {"v": 1, "t": 1730000000.125, "stage": "foundation", "step": "verify", "state": "progress",
     "message": "hypervisor.squashfs", "data": {"percent": 40}}

t is seconds since the epoch; state is one of STATES; data depends on the step and may be absent. A reader ignores other
keys, and reads newer versions as far as they have these.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cornerstone.lib.error import as_failure

SCHEMA_VERSION = 1
# the oldest that is read
FLOOR = 1
PORT = Path("/dev/virtio-ports/org.cornerstone.events")
# how long another may have the port open before a line is lost
BUSY_SECONDS = 2.0
STATES = ("started", "progress", "done", "cached", "waiting", "warning", "failed")
# bytes of events.jsonl; what was there before is kept once, in events.jsonl.1
LARGEST_FILE = 4 << 20
# one by each of several writers at once, when the file has to be another
MOST_TRIES = 16
# seconds since the epoch: the year 9999 ends
LATEST = 253402300800
# of objects and lists in each other: far below what any interpreter's stack holds
DEEPEST = 32
# of a whole number: 64 bit
MOST_DIGITS = 19


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
    def from_json(cls, line: str | bytes) -> Event:
        """Parse one line of JSON in UTF-8. Raises ValueError, and nothing else, for all but events that it reads.

        to_json of what it returns works, and each text in it can be encoded: lone surrogates are question marks.
        """
        text = line.decode() if isinstance(line, bytes) else line
        try:
            record = _plain(json.loads(text, object_pairs_hook=_once, parse_int=_integer, parse_float=_number,
                                       parse_constant=_number))
        except RecursionError:
            raise ValueError(f"nested too deeply: {text[:200]}") from None
        if not isinstance(record, dict) or type(record.get("v")) is not int or record["v"] < FLOOR:
            raise ValueError(f"not an event of version {FLOOR} or newer: {text[:200]}")
        for key, kinds in {"t": (int, float), "stage": (str,), "step": (str,), "state": (str,)}.items():
            # bool is an int to Python, not to us
            if type(record.get(key)) not in kinds:
                raise ValueError(f"an event without {key}, or with one of a wrong type: {text[:200]}")
        message, data = record.get("message", ""), record.get("data", {})
        if not isinstance(message, str) or not isinstance(data, dict) or not 0 <= record["t"] < LATEST:
            raise ValueError(f"an event whose message, data or t can't be: {text[:200]}")
        return cls(record["stage"], record["step"], record["state"], message, data, float(record["t"]))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is written twice")
    return found


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > MOST_DIGITS:
        raise ValueError(f"a number of more than {MOST_DIGITS} digits")
    return int(text)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no number of JSON, or too large")
    return number


def _plain(value: Any, depth: int = 0) -> Any:
    """The same value with texts that can be encoded. Raises ValueError when it is nested deeper than DEEPEST."""
    if depth > DEEPEST:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        return {_plain(key): _plain(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each, depth + 1) for each in value]
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


Listener = Callable[[Event], None]


def note(message: str) -> None:
    """Print a line on standard error, which may be a file on a full disk, or closed: then it is lost."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(message, file=sys.stderr, flush=True)


class JsonLines:
    """A listener that appends each event to a file as a whole line. Several processes may share the file.

    It has at most `largest` bytes: what would be more goes into a new one, and the old one is kept as path + ".1". A
    disk that is full, or any other OSError, costs events and a note on standard error, never the teller.
    """

    def __init__(self, path: Path, largest: int = LARGEST_FILE) -> None:
        self._path = path
        self._largest = largest
        self._failing = False

    def __call__(self, event: Event) -> None:
        try:
            self._append(event.to_json().encode() + b"\n")
            self._failing = False
        except OSError as error:
            if not self._failing:
                self._failing = True
                note(f"{self._path}: {error.strerror}: events are lost until it can be written")

    def close(self) -> None:
        """Nothing is open between two events."""

    def _append(self, line: bytes) -> None:
        if len(line) > self._largest:
            raise OSError(errno.EFBIG, f"an event of {len(line)} bytes")
        for _ in range(MOST_TRIES):
            if self._append_here(line):
                return
        raise OSError(errno.EBUSY, "others put another file in its place, again and again")

    def _append_here(self, line: bytes) -> bool:
        """Append to the file that has the name now; False when by then it has to be, or is, another one."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            # as long as it takes to write a line; released when the file is closed, or its process is gone
            fcntl.flock(file, fcntl.LOCK_EX)
            size = os.fstat(file).st_size
            if not self._is_named(file):
                return False
            # a power cut may have left half of a line
            if size and os.pread(file, 1, size - 1) != b"\n":
                line = b"\n" + line
            if size + len(line) > self._largest and size:
                self._path.rename(f"{self._path}.1")
                return False
            self._write(file, line, size)
        finally:
            os.close(file)
        return True

    def _is_named(self, file: int) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(file), self._path.stat())
        return False

    @staticmethod
    def _write(file: int, line: bytes, size: int) -> None:
        """All of it, or OSError and the file as it was."""
        try:
            if os.write(file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file, size)
            raise


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


@contextlib.contextmanager
def telling_the_end(tell: Listener, stage: str, step: str, *, again: bool = False) -> Iterator[None]:
    """Tell an event `failed` of the error that ends the body, whatever it is, with its code and its hint.

    again: what ends is started again by systemd, so that it is no more than a `warning`.
    """
    try:
        yield
    except Exception as error:
        failure = as_failure(error)
        tell(Event(stage, step, "warning" if again else "failed", failure.message,
                   {"code": failure.code.name.lower(), "hint": failure.hint}))
        raise

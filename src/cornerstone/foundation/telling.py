"""Where events and facts go: files, and the virtio ports of whoever watches this machine from outside."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cornerstone.model.event import Event, JsonLines, Listener
from cornerstone.model.facts import Facts

EVENTS = Path("/run/cornerstone/events.jsonl")
PORT = Path("/dev/virtio-ports/org.cornerstone.events")
FACTS = Path("/run/cornerstone/facts.json")
FACTS_PORT = Path("/dev/virtio-ports/org.cornerstone.facts")


def open_listeners(events: Path = EVENTS, port: Path = PORT) -> Listener:
    """One listener that tells all: the file always, the port when the machine has one."""
    listeners: list[Listener] = [JsonLines(events)]
    if port.exists():
        with contextlib.suppress(OSError):
            listeners.append(_Port(port))

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)
    return tell


def keep_facts(facts: Facts, file: Path = FACTS, port: Path = FACTS_PORT) -> None:
    """Write facts.json, and to the port too when the machine has one: who adds that port also reads it."""
    text = facts.to_json()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    if port.exists():
        port.write_text(text)


class _Port:
    """A virtio port that never holds us up: with nobody listening, a line is lost, not waited for."""

    def __init__(self, path: Path) -> None:
        self._port = os.open(path, os.O_WRONLY | os.O_NONBLOCK)

    def __call__(self, event: Event) -> None:
        with contextlib.suppress(OSError):
            os.write(self._port, event.to_json().encode() + b"\n")

"""Where Foundation's events and facts go: files, and for whoever watches this machine from outside, virtio ports."""

from __future__ import annotations

from pathlib import Path

from cornerstone.lib.atomic import put
from cornerstone.model.contracts.facts import Facts
from cornerstone.model.contracts.places import EVENTS_FILE, RUN

EVENTS = RUN / EVENTS_FILE
FACTS = RUN / "facts.json"
FACTS_PORT = Path("/dev/virtio-ports/org.cornerstone.facts")


def keep_facts(facts: Facts, file: Path = FACTS, port: Path = FACTS_PORT) -> None:
    """Write facts.json, and to the port too when the machine has one: who adds that port also reads it."""
    text = facts.to_json()
    file.parent.mkdir(parents=True, exist_ok=True)
    put(file, text, durable=False)
    if port.exists():
        port.write_text(text)

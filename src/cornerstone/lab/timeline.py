"""When a machine was where: the milestones and steps of one run, and how fast each phase of imaging went."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from cornerstone.lib.atomic import put
from cornerstone.lib.event import Event

MIB = 1 << 20


@dataclass
class Phase:
    """One phase of imaging. first and last: from when to when, in seconds since power-on; done: bytes."""

    first: float
    last: float
    done: int = 0

    @property
    def rate(self) -> float | None:
        """Bytes a second; None when nothing was counted."""
        return self.done / (self.last - self.first) if self.done and self.last > self.first else None


@dataclass
class Timeline:
    """A listener. start: power-on on the monotonic clock. The guest's own clock isn't used: it may be wrong."""

    start: float = field(default_factory=time.monotonic)
    stages: dict[str, float] = field(default_factory=dict)
    phases: dict[str, Phase] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        now = round(time.monotonic() - self.start, 3)
        if event.stage == "boot":
            if event.state == "progress":
                self.stages[event.step] = event.data.get("seconds", now)
        elif event.state in ("started", "done", "waiting", "failed"):
            self.stages.setdefault(f"{event.stage}/{event.step} {event.state}", now)
        if event.stage == "foundation" and event.step == "image":
            self._image(event, now)

    def _image(self, event: Event, now: float) -> None:
        # A phase lasts until the next one speaks: what it flushes after its last byte is its own.
        if self.phases:
            list(self.phases.values())[-1].last = now
        if (name := event.data.get("phase")) is not None:
            phase = self.phases.setdefault(name, Phase(now, now))
            phase.done = event.data.get("bytes", phase.done)

    def lines(self) -> list[str]:
        """A table for people."""
        rows = [f"{seconds:8.1f} s  {name}" for name, seconds in sorted(self.stages.items(), key=lambda item: item[1])]
        for name, phase in self.phases.items():
            speed = f", {phase.done / MIB:.0f} MiB at {phase.rate / MIB:.0f} MiB/s" if phase.rate else ""
            rows.append(f"{phase.last - phase.first:8.1f} s  for {name}{speed}")
        return rows

    def write(self, path: Path, **about: object) -> None:
        """Write it as JSON, with what the run was about; seconds since power-on, rates in bytes a second."""
        phases = {name: {"from": phase.first, "to": phase.last, "bytes": phase.done, "bytes_per_second":
                         phase.rate and round(phase.rate)} for name, phase in self.phases.items()}
        record = {**about, "stages": dict(sorted(self.stages.items(), key=lambda item: item[1])), "phases": phases}
        put(path, json.dumps(record, indent=2) + "\n", durable=False)

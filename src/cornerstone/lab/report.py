"""What a run of the lab came to, for people: where the time went, and how each check ended. Markdown."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cornerstone.lab.accel import choose
from cornerstone.lab.machine import qemu
from cornerstone.lab.timeline import Timeline
from cornerstone.lib import command
from cornerstone.lib.atomic import put

SLOWEST = 3
# what comes later is of the checks
LAST = "genesis/ready"


@dataclass(eq=False)
class Checks:
    """A plugin of pytest: the name, seconds and outcome of each check."""

    ran: list[tuple[str, float, str]] = field(default_factory=list)
    _took: float = 0.0

    def pytest_runtest_logreport(self, report) -> None:
        """Called by pytest after each phase of a check; what it waited for in its fixtures is its own."""
        self._took += report.duration
        if report.when == "teardown" and not report.failed:
            self._took = 0.0
        elif report.when == "call" or report.outcome != "passed":
            self.ran.append((report.nodeid.partition("::")[2], self._took, report.outcome))
            self._took = 0.0


def write(path: Path, title: str, about: Mapping[str, str], timelines: Mapping[str, Timeline], checks: Checks) -> None:
    """Write the report of a run. about: what was run, a row each; timelines: by member's name, from the same start."""
    program = command.run([qemu(), "--version"]).text.splitlines()
    computer = {"computer": f"{os.cpu_count()} CPUs; {choose()}", "QEMU": program[0] if program else "unknown"}
    lines = [f"# {title}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in {**about, **computer}.items()]
    lines += ["", "## Stages", "", "Seconds since all machines were powered on.", "",
              f"| stage | {' | '.join(timelines)} |", f"|---|{'---:|' * len(timelines)}"]
    done = {name: _done(timeline) for name, timeline in timelines.items()}
    stages = dict.fromkeys(stage for each in done.values() for stage in sorted(each, key=each.__getitem__))
    lines += [f"| {stage} | {' | '.join(_seconds(each.get(stage)) for each in done.values())} |" for stage in stages]
    first, times = next(iter(done.items()))
    lines += ["", f"The {SLOWEST} longest steps of {first}: {', '.join(_slowest(times))}"]
    lines += ["", "## Checks", "", "| check | seconds | |", "|---|---:|---|"]
    lines += [f"| {name} | {took:.0f} | {outcome} |" for name, took, outcome in checks.ran]
    put(path, "\n".join(lines) + "\n", durable=False)


def _done(timeline: Timeline) -> dict[str, float]:
    done = {stage.removesuffix(" done"): at for stage, at in timeline.stages.items() if stage.endswith(" done")}
    end = done.get(LAST, math.inf)
    return {stage: at for stage, at in done.items() if at <= end}


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _slowest(stages: Mapping[str, float]) -> list[str]:
    """What was waited for longest between one stage's end and the next one's."""
    order = sorted(stages.items(), key=lambda item: item[1])
    gaps = [(end - begin, name) for (_, begin), (name, end) in zip([("", 0.0), *order], order, strict=False)]
    return [f"{name} ({gap:.0f} s)" for gap, name in sorted(gaps, reverse=True)[:SLOWEST]]

"""What the tests of refusals ask of a machine that has refused."""

from __future__ import annotations

import re
import time

from cornerstone.lab.boot import QUIET_SECONDS
from cornerstone.lab.hotplug import SECONDS
from cornerstone.lab.running import RunningMachine
from cornerstone.lab.verdict import Verdict
from cornerstone.lib.error import Code

# how each refusal ends on the console
PROMPT = b"press Enter: the machine is looked at again"


def prompts(running: RunningMachine) -> int:
    """How many refusals have come to their end on the console."""
    return (running.logs / "console.log").read_bytes().count(PROMPT)


def hear_out(running: RunningMachine, number: int) -> None:
    """Take what the machine says until its refusal of this number is whole: what comes later is taken for the next one.

    The event comes first, and the serial line is slow.
    """
    end = time.monotonic() + SECONDS
    while prompts(running) < number:
        running.wait(end - time.monotonic())
        assert running.status is None and time.monotonic() < end, f"no prompt; see {running.logs / 'console.log'}"
    while running.wait(QUIET_SECONDS):
        assert time.monotonic() < end, "the machine doesn't become silent"


def refused(verdict: Verdict, step: str, says: str) -> None:
    """The machine has refused, at that step, and said exactly this (a pattern)."""
    assert not verdict.ok and verdict.reason == "guest-failed", verdict.sentence
    assert re.fullmatch(rf"foundation/{step} failed: {says}", verdict.sentence), verdict.sentence
    assert verdict.hint and verdict.code == Code.REFUSED


def written_to(running: RunningMachine, *disks: str) -> dict[str, int]:
    """How many bytes each disk was written, by its name."""
    told = {each["device"] or each["node-name"]: each["stats"]["wr_bytes"] for each in running.ask("query-blockstats")}
    return {name: told[name] for name in disks}

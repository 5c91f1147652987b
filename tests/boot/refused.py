"""What the tests of refusals ask of a machine that has refused."""

from __future__ import annotations

import re

from cornerstone.lab.running import RunningMachine
from cornerstone.lab.verdict import Verdict
from cornerstone.model.error import Code


def refused(verdict: Verdict, step: str, says: str) -> None:
    """The machine has refused, at that step, and said exactly this (a pattern)."""
    assert not verdict.ok and verdict.reason == "guest-failed", verdict.sentence
    assert re.fullmatch(rf"foundation/{step} failed: {says}", verdict.sentence), verdict.sentence
    assert verdict.hint and verdict.code == Code.REFUSED


def written_to(running: RunningMachine, *disks: str) -> dict[str, int]:
    """How many bytes each disk was written, by its name."""
    told = {each["device"] or each["node-name"]: each["stats"]["wr_bytes"] for each in running.ask("query-blockstats")}
    return {name: told[name] for name in disks}

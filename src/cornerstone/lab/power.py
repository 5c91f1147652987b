"""Installs whose power is cut: QEMU is killed at chosen points, and the same machine started again each time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cornerstone.lab.install import LOGIN, TO_INSTALLED, TO_READY, WHOLE, Outcome, Run, started
from cornerstone.lab.verdict import Goal, Leg, Verdict


@dataclass(frozen=True)
class Cut:
    """A point of imaging: a phase, and how many percent of it; or a step of first boot that has begun."""

    phase: str = ""
    percent: int = 0
    first_boot: str = ""

    @property
    def way(self) -> tuple[Leg, ...]:
        """To the point at which the power goes."""
        if self.first_boot:
            return TO_INSTALLED, Leg((Goal("first-boot", self.first_boot, "started", name="cut"),), "node")
        return (Leg((Goal("foundation", "image", "progress", phase=self.phase, percent=self.percent, name="cut"),)),)

    def __str__(self) -> str:
        return f"first-boot-{self.first_boot}" if self.first_boot else f"{self.phase}-{self.percent}"


@dataclass(frozen=True)
class Survived:
    """outcome: of the last start; alone: after each cut of imaging, what the machine came to without the medium."""

    outcome: Outcome
    alone: tuple[tuple[Cut, Verdict], ...] = ()


def cut(run: Run, at: Cut) -> None:
    """Start the machine with the medium in its drive, and kill it at a point."""
    with started(run, at.way, logs=f"cut-{at}") as outcome:
        outcome.check()
        outcome.running.kill()


def without_medium(run: Run, after: Cut) -> Verdict:
    """What the machine does when it is left alone with its disks, and with what the cut left on them."""
    with started(run, (Leg((Goal(console=LOGIN),)),), medium=False, logs=f"alone-{after}") as outcome:
        return outcome.verdict


@contextlib.contextmanager
def installed_in_spite(run: Run, cuts: Sequence[Cut]) -> Iterator[Survived]:
    """Cut the power at each point in turn, then let the machine come to its end; it runs until the block is left.

    A cut in first boot has to be the last one: the node then goes on from its own disk, without the medium.
    """
    alone = []
    for each in cuts:
        cut(run, each)
        if not each.first_boot:
            alone.append((each, without_medium(run, each)))
    by_itself = bool(cuts and cuts[-1].first_boot)
    with started(run, (Leg(TO_READY),) if by_itself else WHOLE, medium=not by_itself) as outcome:
        outcome.check()
        yield Survived(outcome, tuple(alone))

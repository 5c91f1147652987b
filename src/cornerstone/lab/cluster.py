"""Several machines of the lab as one cluster: installed from one ISO, then run together on a switch of their own."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cornerstone.lab.access import Access
from cornerstone.lab.install import TO_INSTALLED, Outcome, Run, started
from cornerstone.lab.network import SSH, closed_network
from cornerstone.lab.running import RunningMachine
from cornerstone.lab.shape import Shape
from cornerstone.lab.switch import DOOR, Switch, door
from cornerstone.lab.timeline import Timeline
from cornerstone.lab.verdict import Limits
from cornerstone.lab.watch import Watch
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.event import Event, JsonLines, Listener

# The machines share this computer's processors, and their CVMs are machines within them.
LIMITS = Limits(stall=900.0, ceiling=3600.0)
# What a host says when its volumes' CVM is away, which it has to bear.
WITHOUT_A_CVM = ("io-error",)


@dataclass
class Member:
    """One node of the cluster. name: its port of the switch, and what its events are told as; watch: while it runs.

    Without a switch it is a node alone, which can't be started again.
    """

    name: str
    run: Run
    switch: Switch | None
    listener: Listener
    watch: Watch | None = None
    starts: int = 0
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def power_on(self, clock_ahead: timedelta = timedelta()) -> None:
        """Start it from its own disks; its logs are in a folder of each start. clock_ahead: how wrong its clock is."""
        if self.switch is None:
            raise ValueError(f"{self.name} has no switch to be started on")
        self.starts += 1
        logs = self.run.folder / f"start-{self.starts}"
        logs.mkdir(exist_ok=True)
        machine = replace(self.run.machine(medium=False, network=self.switch.netdev(self.name)),
                          clock=datetime.now(UTC) + clock_ahead if clock_ahead else None)
        running = self._stack.enter_context(RunningMachine(machine, logs))
        self._stack.callback(running.kill)
        self.watch = self._stack.enter_context(Watch(running, self.listener, WITHOUT_A_CVM))

    def cut_power(self) -> None:
        """As if the plug was pulled."""
        self.watch = None
        self._stack.close()

    def wait_for(self, stage: str, step: str, state: str = "done", *, since: int = 0) -> Event:
        """Until it has told this event, among told() from since on. CornerstoneError (BOOT) when it won't."""
        return self._watched().wait_for(f"{stage}/{step} {state} of {self.name}", lambda event:
                                        (event.stage, event.step, event.state) == (stage, step, state), LIMITS, since)

    def wait_until_off(self) -> None:
        """Until it has turned itself off. CornerstoneError (BOOT) when it doesn't."""
        if not self._watched().ended.wait(LIMITS.stall):
            raise CornerstoneError(f"{self.name} is still on after {LIMITS.stall:.0f} s", f"see {self.run.folder}",
                                   Code.BOOT)
        self.cut_power()

    def told(self) -> int:
        """How many events it has told since it was started."""
        return len(self._watched().events)

    def unplug(self, disk: str) -> None:
        """Pull a SCSI disk out of its controller, by its name in the shape."""
        self._watched().tell_machine("device_del", id=disk)

    def _watched(self) -> Watch:
        if self.watch is None:
            raise ValueError(f"{self.name} is off")
        return self.watch


@dataclass(eq=False)
class Cluster:
    """Machines that run, the switch between them, and the way into all of them. timelines: by member's name."""

    members: tuple[Member, ...]
    switch: Switch | None
    timelines: dict[str, Timeline]
    access: Access

    def write_timelines(self) -> None:
        """Each member's timeline.json, in seconds since all of them were powered on."""
        for member in self.members:
            self.timelines[member.name].write(member.run.folder / "timeline.json", shape=member.run.shape.description,
                                              firmware=member.run.firmware, members=len(self.members))

    def wait_for(self, stage: str, step: str, state: str = "done") -> None:
        """Until each member that runs has told this event. CornerstoneError (BOOT) when one won't."""
        for member in self.members:
            if member.watch is not None:
                member.wait_for(stage, step, state)


def install(first: Run, shape: Shape, count: int, listener: Listener = lambda event: None) -> tuple[Run, ...]:
    """Install so many machines of a shape, one after the other, from the ISO of the first run.

    CornerstoneError (BOOT) when one doesn't get there.
    """
    runs = []
    for number in range(1, count + 1):
        twin = shape.twin(number)
        run = first if number == 1 else first.beside(first.folder.with_name(f"node-{number}"), twin)
        with started(run, (TO_INSTALLED,), listener) as outcome:
            outcome.check()
        runs.append(run)
    return tuple(runs)


@contextlib.contextmanager
def together(runs: tuple[Run, ...], listener: Callable[[str, Event], None] = lambda name, event: None
             ) -> Iterator[Cluster]:
    """Start installed machines on one network, all at once; they run until the block is left.

    listener(member's name, event) hears them all.
    """
    first = runs[0]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cornerstone-switch-")))
        names = tuple(f"node-{number}" for number in range(1, len(runs) + 1))
        switch = stack.enter_context(Switch(folder, (*names, DOOR)))
        ports = stack.enter_context(door(switch, closed_network(first.site, first.node),
                                         tuple((str(run.node.hypervisor.ip), SSH) for run in runs)))
        first.access.configure(*ports)
        stack.callback(first.access.disconnect)
        start = time.monotonic()
        members, timelines = [], {name: Timeline(start) for name in names}
        for name, run in zip(names, runs, strict=True):
            record = JsonLines(run.folder / "events.jsonl")
            stack.callback(record.close)
            member = Member(name, run, switch, _all(record, timelines[name], functools.partial(listener, name)))
            stack.callback(member.cut_power)
            member.power_on()
            members.append(member)
        yield Cluster(tuple(members), switch, timelines, first.access)


@contextlib.contextmanager
def alone(outcome: Outcome) -> Iterator[Cluster]:
    """A node that was installed and runs on, as a cluster of one on the network of its own."""
    name = "node-1"
    with outcome.watched(WITHOUT_A_CVM) as watch:
        member = Member(name, outcome.run, None, outcome.listener, watch)
        yield Cluster((member,), None, {name: outcome.timeline}, outcome.run.access)


def _all(*listeners: Listener) -> Listener:
    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)
    return tell

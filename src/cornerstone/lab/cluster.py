"""Several machines of the lab as one cluster: installed from one ISO, then run together on a switch of their own."""

from __future__ import annotations

import contextlib
import queue
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cornerstone.lab.install import TO_INSTALLED, Run, started
from cornerstone.lab.network import SSH, closed_network
from cornerstone.lab.running import RunningMachine
from cornerstone.lab.shape import Shape
from cornerstone.lab.switch import DOOR, Switch, door
from cornerstone.lab.timeline import Timeline
from cornerstone.lab.watch import Watch
from cornerstone.model.error import Code, CornerstoneError
from cornerstone.model.event import Event, JsonLines, Listener

# The machines share this computer's processors, so each is as many times slower as there are machines: seconds without
# a word from any of them, and for what is awaited at all.
STALL = 600.0
CEILING = 3600.0


@dataclass
class Member:
    """One node of the cluster. name: its port of the switch, and what its events are told as."""

    name: str
    run: Run
    switch: Switch
    heard: queue.Queue[tuple[str, Event]]
    watch: Watch | None = None
    running: RunningMachine | None = None
    starts: int = 0
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def power_on(self) -> None:
        """Start it from its own disks; its logs are in a folder of each start."""
        self.starts += 1
        logs = self.run.folder / f"start-{self.starts}"
        logs.mkdir(exist_ok=True)
        machine = self.run.machine(medium=False, network=self.switch.netdev(self.name))
        self.running = self._stack.enter_context(RunningMachine(machine, logs))
        self.watch = self._stack.enter_context(Watch(self.running, lambda event: self.heard.put((self.name, event))))

    def cut_power(self) -> None:
        """As if the plug was pulled."""
        if self.running is not None:
            self.running.kill()
        self._stack.close()
        self.running = self.watch = None

    def check(self) -> None:
        """CornerstoneError when its console has shown a known failure, or when it is gone without being asked to."""
        if self.watch is None or self.running is None:
            return
        if failure := self.watch.failure:
            raise CornerstoneError(f"{self.name}: {failure.sentence} [{failure.id}]; see {self.running.logs}",
                                   failure.hint, Code.BOOT)
        if self.watch.ended.is_set():
            raise CornerstoneError(f"{self.name} is gone; see {self.running.logs}", "", Code.BOOT)


@dataclass(eq=False)
class Cluster:
    """Machines that run, the switch between them, and what they have told. timeline: stages by member."""

    members: tuple[Member, ...]
    switch: Switch
    timelines: dict[str, Timeline]
    heard: queue.Queue[tuple[str, Event]]
    listener: Listener
    run: Run

    def wait(self, what: str, reached: Callable[[str, Event], bool]) -> None:
        """Until each member that runs has told an event for which reached(member, event) is true.

        CornerstoneError (BOOT) when one fails, or when nothing new comes for too long.
        """
        missing = {member.name for member in self.members if member.running}
        end = time.monotonic() + CEILING
        while missing:
            for member in self.members:
                member.check()
            try:
                name, event = self.heard.get(timeout=min(STALL, max(0.0, end - time.monotonic())))
            except queue.Empty:
                raise CornerstoneError(f"{', '.join(sorted(missing))} didn't tell {what} in time",
                                       f"see the logs in {self.run.folder.parent}", Code.BOOT) from None
            self.timelines[name](event)
            self.listener(event)
            if event.state == "failed":
                raise CornerstoneError(f"{name}: {event.stage}/{event.step} failed: {event.message}",
                                       str(event.data.get("hint", "")), Code.BOOT)
            if reached(name, event):
                missing.discard(name)


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
def together(runs: tuple[Run, ...], listener: Listener = lambda event: None) -> Iterator[Cluster]:
    """Start installed machines on one network, all at once; they run until the block is left."""
    site, node = runs[0].site, runs[0].node
    heard: queue.Queue[tuple[str, Event]] = queue.Queue()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cornerstone-switch-")))
        names = tuple(f"node-{number}" for number in range(1, len(runs) + 1))
        switch = stack.enter_context(Switch(folder, (*names, DOOR)))
        ports = stack.enter_context(door(switch, closed_network(site, node),
                                         tuple((str(run.node.hypervisor.ip), SSH) for run in runs)))
        runs[0].access.configure(*ports)
        stack.callback(runs[0].access.disconnect)
        record = JsonLines(runs[0].folder.parent / "events.jsonl")
        stack.callback(record.close)

        def tell(event: Event) -> None:
            record(event)
            listener(event)

        start = time.monotonic()
        members = tuple(Member(name, run, switch, heard) for name, run in zip(names, runs, strict=True))
        for member in members:
            stack.callback(member.cut_power)
            member.power_on()
        yield Cluster(members, switch, {name: Timeline(start) for name in names}, heard, tell, runs[0])

"""Install a machine of the lab from its Foundation ISO: from blank disks to the node that booted from its own."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cornerstone.lab.accel import choose
from cornerstone.lab.access import Access
from cornerstone.lab.boot import follow, write_verdict
from cornerstone.lab.machine import Machine
from cornerstone.lab.network import forwarded_port, user_network
from cornerstone.lab.running import RunningMachine
from cornerstone.lab.shape import Shape
from cornerstone.lab.timeline import Timeline
from cornerstone.lab.verdict import Goal, Judge, Leg, Limits, Verdict
from cornerstone.lab.watch import Watch
from cornerstone.model.error import Code, CornerstoneError
from cornerstone.model.event import Event, JsonLines, Listener
from cornerstone.model.site import Node, Site

LOGIN = re.compile(r"\blogin: ?$")
TO_INSTALLED = Leg((Goal("foundation", "install", "done", name="installed"),))
# The node tells when its first boot is complete, and shows its login: whichever comes first.
TO_READY = (Goal(console=LOGIN, name="login"), Goal("first-boot", "complete", "done", name="ready"))
# The medium stays in the drive: GRUB on it has to find the installed disk and start that.
WHOLE = (TO_INSTALLED, Leg(TO_READY, "node"))


@dataclass(frozen=True)
class Run:
    """One machine and its folder: disks/ with an image each, access/ with the way in, logs beside them.

    iso: customised with the site; None boots without a medium. node: which one of the site the machine is to become.
    """

    folder: Path
    shape: Shape
    site: Site
    node: Node
    iso: Path | None
    firmware: str = "uefi"
    media: str = "cd"

    @property
    def access(self) -> Access:
        return Access(self.folder / "access")

    def image(self, disk: str) -> Path:
        """A disk's image, by its name in the shape."""
        return self.folder / "disks" / f"{disk}.qcow2"

    def make_disks(self) -> None:
        """Blank ones, whatever was there before."""
        folder = self.folder / "disks"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for disk in self.shape.disks:
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", self.image(disk.name), str(disk.size)],
                           check=True)

    def machine(self) -> Machine:
        """What QEMU is asked for."""
        images = {disk.name: self.image(disk.name) for disk in self.shape.disks}
        return Machine(choose(), self.firmware, self.shape.memory_mib, self.shape.cpus, self.iso, self.media,
                       iommu=self.shape.iommu, reboots=True,
                       extra=self.shape.words(images, user_network(self.site, self.node)))


@dataclass(frozen=True)
class Outcome:
    """How a run went, while the machine still runs. watch: what it says from here on."""

    run: Run
    verdict: Verdict
    timeline: Timeline
    running: RunningMachine = field(repr=False)
    watch: Watch = field(repr=False)


@contextlib.contextmanager
def started(run: Run, legs: tuple[Leg, ...], listener: Listener | None = None) -> Iterator[Outcome]:
    """Start a run's machine and follow it to the end of its way; it runs on until the block is left.

    A way that wasn't gone to its end is an Outcome with a failed verdict. The folder gets timeline.json, verdict.json,
    events.jsonl and the machine's logs. CornerstoneError as from boot.
    """
    machine = run.machine()
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "events.jsonl").unlink(missing_ok=True)
    with contextlib.ExitStack() as stack:
        record = JsonLines(run.folder / "events.jsonl")
        stack.callback(record.close)
        running = stack.enter_context(RunningMachine(machine, run.folder))
        timeline = Timeline()
        listeners = [record, timeline, *([listener] if listener else [])]

        def tell(event: Event) -> None:
            for each in listeners:
                each(event)

        tell(Event("boot", "machine", "started", f"{run.firmware}, {run.media}, {run.shape.description}; "
                   f"{machine.accel}", {"firmware": run.firmware, "media": run.media, "accel": machine.accel.name}))
        if run.access.folder.is_dir():
            run.access.configure(forwarded_port(running))
        judge = Judge(run.firmware, legs, Limits.of(machine.accel.name), timeline.start, tell)
        ended = follow(running, judge)
        verdict = judge.verdict(run.media, machine.accel.name, ended, run.folder)
        write_verdict(run.folder / "verdict.json", verdict)
        timeline.write(run.folder / "timeline.json", firmware=run.firmware, media=run.media, ok=verdict.ok,
                       accel=machine.accel.name, shape=run.shape.description)
        tell(Event("boot", "verdict", "done" if verdict.ok else "failed", verdict.sentence,
                   {"ok": verdict.ok, "reason": verdict.reason, "seconds": verdict.seconds}))
        watch = stack.enter_context(Watch(running, tell))
        stack.callback(run.access.disconnect)
        yield Outcome(run, verdict, timeline, running, watch)


def checked(outcome: Outcome) -> Outcome:
    """The same outcome; CornerstoneError (BOOT) when its way wasn't gone to its end."""
    verdict = outcome.verdict
    if not verdict.ok:
        last = "\n  | ".join(("", *verdict.last_lines[-15:])) if verdict.last_lines else ""
        raise CornerstoneError(f"{verdict.sentence} [{verdict.reason}], after {verdict.seconds:.0f} s; "
                               f"see {verdict.console_log}{last}", verdict.hint, Code.BOOT)
    return outcome

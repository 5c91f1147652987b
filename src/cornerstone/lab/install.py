"""Install a machine of the lab from its Foundation ISO: from blank disks to the node that booted from its own."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from cornerstone.lab.accel import choose
from cornerstone.lab.access import Access, with_key
from cornerstone.lab.bmc import EmulatedBmc
from cornerstone.lab.boot import follow, write_verdict
from cornerstone.lab.machine import Machine
from cornerstone.lab.network import forwarded_port, user_network
from cornerstone.lab.running import RunningMachine
from cornerstone.lab.shape import Shape
from cornerstone.lab.timeline import Timeline
from cornerstone.lab.verdict import Goal, Judge, Leg, Limits, Verdict
from cornerstone.lab.watch import Watch
from cornerstone.lib import command
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.event import Event, JsonLines, Listener
from cornerstone.model.site.file import read_site
from cornerstone.model.site.site import Node, Site

LOGIN = re.compile(r"\blogin: ?$")
TO_INSTALLED = Leg((Goal("foundation", "install", "done", name="installed"),))
# The node tells when its first boot is complete, and shows its login: whichever comes first.
TO_READY = (Goal(console=LOGIN, name="login"), Goal("first-boot", "complete", "done", name="ready"))
# The medium stays in the drive: GRUB on it has to find the installed disk and start that.
NODE = Leg(TO_READY, "node", never="foundation")
WHOLE = (TO_INSTALLED, NODE)


@dataclass(frozen=True)
class Run:
    """One machine and its folder: disks/ with an image each, access/ with the way in, the customised ISO, and the logs.

    node: the one of the site that the machine is, or the first one when it is none: its addresses make the network.
    """

    folder: Path
    shape: Shape
    site: Site
    node: Node
    firmware: str = "uefi"
    media: str = "cd"

    @classmethod
    def prepare(cls, folder: Path, shape: Shape, site_file: bytes, customise: Callable[[Path, Path], object],
                firmware: str = "uefi", media: str = "cd") -> Run:
        """Make the folder anew: blank disks, a key, and an ISO whose site lets that key in.

        customise(site file, ISO to be made) writes the ISO. CornerstoneError when the site is wrong.
        """
        site = read_site(site_file)
        run = cls(folder, shape, site, _node(site, shape), firmware, media)
        _empty(folder)
        run.site_file.touch(0o600)
        run.site_file.write_bytes(with_key(site_file, run.access.draw()))
        customise(run.site_file, run.iso)
        run.make_disks()
        return run

    @property
    def site_file(self) -> Path:
        """The site with this run's key. It marks the folder as one of ours."""
        return self.folder / "site.json"

    @property
    def access(self) -> Access:
        return Access(self.folder / "access")

    @property
    def iso(self) -> Path:
        """The customised ISO. It may hold the cluster's bootstrap secret: it is its owner's alone."""
        return self.folder / "foundation.iso"

    def image(self, disk: str) -> Path:
        """A disk's image, by its name in the shape."""
        return self.folder / "disks" / f"{disk}.qcow2"

    def beside(self, folder: Path, shape: Shape) -> Run:
        """A run of another machine of the site, from the same ISO and with the same key; its folder is made anew."""
        other = replace(self, folder=folder, shape=shape, node=_node(self.site, shape))
        _empty(folder)
        for path in (self.site_file, self.iso):
            os.link(path, folder / path.name)
        self.access.share(other.access)
        other.make_disks()
        return other

    def make_disks(self) -> None:
        """Blank ones, whatever was there before."""
        folder = self.image("").parent
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for disk in self.shape.disks:
            command.read(["qemu-img", "create", "-q", "-f", "qcow2", self.image(disk.name), disk.size],
                         code=Code.MACHINE)

    def machine(self, *, medium: bool = True, network: str = "", bmc: EmulatedBmc | None = None) -> Machine:
        """What QEMU is asked for; without the medium it has to start from its disks.

        network: the -netdev value of its first card; else it has a network of its own (network.py). bmc: one that runs.
        """
        images = {disk.name: self.image(disk.name) for disk in self.shape.disks}
        words = self.shape.words(images, network or user_network(self.site, self.node))
        return Machine(choose(), self.firmware, self.shape.memory_mib, self.shape.cpus, self.iso if medium else None,
                       self.media, iommu=self.shape.iommu, reboots=True,
                       extra=(*words, *(bmc.qemu_arguments if bmc else ())))

    def remove_secrets(self) -> None:
        """The key and the ISO with its site go; disks and logs stay."""
        self.access.remove()
        self.iso.unlink(missing_ok=True)


@dataclass(frozen=True, eq=False)
class Outcome:
    """How a run went, while the machine still runs.

    written: disk → bytes that were written to it until it was installed; bmc: the LAN settings of its BMC then.
    """

    run: Run
    verdict: Verdict
    timeline: Timeline
    written: dict[str, int]
    bmc: dict[str, str]
    running: RunningMachine = field(repr=False)
    listener: Listener = field(repr=False)

    @contextlib.contextmanager
    def watched(self, expected: Collection[str] = ()) -> Iterator[Watch]:
        """For work on the node by ssh: somebody hears the machine meanwhile. expected: as Watch has it."""
        try:
            with Watch(self.running, self.listener, expected) as watch:
                yield watch
        finally:
            self.run.access.disconnect()

    @property
    def logs(self) -> Path:
        """Where its console.log, timeline.json and the others are."""
        return self.running.logs

    def check(self) -> None:
        """CornerstoneError (BOOT) when the machine didn't go its way to the end."""
        verdict = self.verdict
        if not verdict.ok:
            raise CornerstoneError(f"{verdict.sentence} [{verdict.reason}], after {verdict.seconds:.0f} s; "
                                   f"see {verdict.console_log}", verdict.hint, Code(verdict.code))


@contextlib.contextmanager
def started(run: Run, legs: tuple[Leg, ...] = WHOLE, listener: Listener = lambda event: None, *,
            medium: bool = True, logs: str = "") -> Iterator[Outcome]:
    """Start a run's machine and follow it to the end of its way; it runs on until the block is left.

    A way that wasn't gone to its end is an Outcome with a failed verdict. timeline.json, verdict.json, events.jsonl and
    the machine's logs go to the run's folder, or a folder in it that logs names. CornerstoneError as from boot.
    """
    folder = run.folder / logs
    folder.mkdir(exist_ok=True)
    (folder / "events.jsonl").unlink(missing_ok=True)
    with contextlib.ExitStack() as stack:
        record = JsonLines(folder / "events.jsonl")
        stack.callback(record.close)
        bmc = None
        if run.shape.bmc:
            of_bmc = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cornerstone-bmc-")))
            bmc = stack.enter_context(EmulatedBmc(of_bmc, secrets.token_hex(8)))
        machine = run.machine(medium=medium, bmc=bmc)
        running = stack.enter_context(RunningMachine(machine, folder))
        timeline = Timeline()
        written: dict[str, int] = {}
        settings: dict[str, str] = {}

        def tell(event: Event) -> None:
            for each in (record, timeline, listener):
                each(event)
            if (event.stage, event.step) == ("boot", "installed"):
                written.update(_written(running))
                settings.update(bmc.settings if bmc else {})

        tell(Event("boot", "machine", "started", f"{run.firmware}, {run.media}, {run.shape.description}; "
                   f"{machine.accel}", {"firmware": run.firmware, "media": run.media, "accel": machine.accel.name}))
        if run.shape.nics:
            run.access.configure(forwarded_port(running))
        limits = Limits.of(machine.accel.name)
        # on its way it writes and reads back a gigabyte, which other machines beside it make slow
        limits = replace(limits, ceiling=2 * limits.ceiling)
        judge = Judge(run.firmware, legs, limits, timeline.start, tell)
        ended = follow(running, judge)
        verdict = judge.verdict(run.media, machine.accel.name, ended, folder)
        write_verdict(folder / "verdict.json", verdict)
        timeline.write(folder / "timeline.json", firmware=run.firmware, media=run.media, ok=verdict.ok,
                       accel=machine.accel.name, shape=run.shape.description, written=written)
        tell(Event("boot", "verdict", "done" if verdict.ok else "failed", verdict.sentence,
                   {"ok": verdict.ok, "reason": verdict.reason, "seconds": verdict.seconds}))
        yield Outcome(run, verdict, timeline, written, settings, running, tell)


def _empty(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / "site.json").is_file():
        raise CornerstoneError(f"{folder} isn't empty, and not what an earlier run left", "name another folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _written(running: RunningMachine) -> dict[str, int]:
    return {drive["device"]: drive["stats"]["wr_bytes"] for drive in running.ask("query-blockstats")
            if drive.get("device")}


def _node(site: Site, shape: Shape) -> Node:
    identity = shape.identity
    try:
        return site.node_for(serial=identity.serial, block=identity.chassis, position=identity.position,
                             macs=[nic.mac for nic in shape.nics])
    except CornerstoneError:
        return site.nodes[0]

"""From a discovered machine to a restarting node: site, plan, addresses, image. Each stage tells what it does."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cornerstone.foundation.installer import address, boot_entry, live_network
from cornerstone.foundation.installer.ask import ask_site
from cornerstone.foundation.installer.block import open_disk, require_disk
from cornerstone.foundation.installer.imaging import Imaging, complete, is_complete
from cornerstone.foundation.installer.ipmi import BmcClient
from cornerstone.foundation.installer.medium import Medium
from cornerstone.foundation.installer.plan import Plan, make_plan
from cornerstone.foundation.installer.plan_text import lines
from cornerstone.foundation.installer.rows import fingerprint, summary, who_gets_in
from cornerstone.foundation.installer.screen import Screen
from cornerstone.foundation.installer.site_source import Found, find_site
from cornerstone.foundation.installer.webhook import Webhook
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.event import Event, Listener
from cornerstone.model.contracts.facts import Facts
from cornerstone.model.disk.slot_disk import ESP_NUMBER, layout
from cornerstone.model.site.file import check_releases, read_site, secrets_of, short_hash
from cornerstone.model.site.site import Site

STAGE = "foundation"
REINSTALL = "foundation.reinstall"
# a serial console isn't redrawn, every row is a line more
SHOWN_PERCENT = 10
# seconds before an installed node starts from its disk
COUNT_DOWN = 10
Ask = Callable[[Facts], bytes]


def as_refusal(error: Exception, step: str, screen: Screen) -> CornerstoneError:
    """Return the error that says why a machine isn't imaged.

    When nobody foresaw it, its traceback goes to the journal and to the serial consoles.
    """
    if isinstance(error, CornerstoneError):
        return error
    trace = "".join(traceback.format_exception(error))
    print(trace, file=sys.stderr, flush=True)
    screen.log(trace)
    hint = "see the journal: journalctl -u foundation; then have the machine looked at again, or restart it"
    if isinstance(error, OSError):
        where = f" with {error.filename}" if error.filename else ""
        return CornerstoneError(f"the step {step} failed{where}: {error.strerror or error}", hint, Code.STEP)
    return CornerstoneError(f"the step {step} failed by an error of Foundation's own: {type(error).__name__}: {error}",
                            f"{hint}; report it with the journal", Code.DEFECT)


@dataclass
class Install:
    """One machine's way to a node. arguments: the kernel's; ask: gets a site from a person when there is none.

    look_again: discovers the machine anew; a person may have taken hours to answer, and changed disks meanwhile.
    """

    medium: Medium
    facts: Facts
    arguments: Mapping[str, str]
    screen: Screen
    listener: Listener
    ask: Ask = ask_site
    look_again: Callable[[], Facts] | None = None
    _webhook: Webhook | None = field(default=None, init=False)
    _step: str = field(default="site", init=False)

    def run(self) -> None:
        """Make the machine a node. CornerstoneError, after all who listen were told, whatever kept it from that."""
        try:
            self._run()
        except Exception as error:
            refusal = as_refusal(error, self._step, self.screen)
            self._tell(Event(STAGE, self._step, "failed", refusal.message,
                             {"code": refusal.code.name.lower(), "hint": refusal.hint}))
            if refusal is error:
                raise
            raise refusal from error
        finally:
            if self._webhook is not None:
                self._webhook.close(self.listener)

    def _run(self) -> None:
        site = self._find_site()
        with self._stage("plan"):
            plan = make_plan(self.facts, site, self.medium.manifest, self.arguments.get(REINSTALL, ""))
            self._show(plan)
            if self._cut_at_the_end(plan) or self._installed(plan):
                return
            plan.check()
        with self._stage("address"):
            self._claim_addresses(site, plan)
        with self._stage("image"):
            self._image(plan, site)

    @contextmanager
    def _stage(self, name: str) -> Iterator[dict[str, Any]]:
        """Tell of a stage's begin and end; what is put into the yielded data is told at the end."""
        self._step = name
        self._tell(Event(STAGE, name, "started"))
        data: dict[str, Any] = {}
        yield data
        self._tell(Event(STAGE, name, "done", data=data))

    def _tell(self, event: Event) -> None:
        self.listener(event)
        if self._webhook is not None:
            self._webhook(event)

    def _find_site(self) -> Site:
        found = find_site(self.medium.mount_point, self.arguments, tell=self._leave_aside)
        if found is None:
            self.screen.wait("a site file: this medium carries none.")
            self._tell(Event(STAGE, "screen", "waiting", "site", summary(self.facts)))
            found = Found(self.ask(self.facts), "the text screen")
            if self.look_again is not None:
                self.facts = self.look_again()
        with self._stage("site") as data:
            self.screen.row("Site", f"{found.origin}, sha256 {short_hash(found.content)}")
            site = read_site(found.content, found.origin)
            # before anything is written: who is at the machine sees whose it will be
            self.screen.row("SSH keys", who_gets_in(site.authorized_keys))
            data.update(origin=found.origin, sha256=found.sha256, keys=[*map(fingerprint, site.authorized_keys)])
            profile = self.medium.manifest.profile
            check_releases(site, profile["aos"], profile["ahv"])
        return site

    def _leave_aside(self, text: str) -> None:
        self.screen.row("Left aside", text)
        self._tell(Event(STAGE, "site", "warning", text))

    def _show(self, plan: Plan) -> None:
        for number, line in enumerate(lines(plan), 1):
            self.screen.row(f"Plan {number}", line)
        for warning in plan.warnings:
            self._tell(Event(STAGE, "plan", "warning", warning))

    def _cut_at_the_end(self, plan: Plan) -> bool:
        """Whether imaging was whole and only what makes the disk start was cut off; then that is done now."""
        disk = plan.boot_disk
        if disk is None or disk.contents.installed is None or is_complete(device := Path("/dev", disk.name)):
            return False
        shape = layout(disk.serial, disk.size, plan.needs.root_slot)
        if {each.uuid for each in disk.contents.partitions} != {str(each.identity) for each in shape.partitions}:
            return False
        with open_disk(device) as descriptor:
            require_disk(descriptor, device, disk.identity, disk.contents.fingerprint)
            complete(descriptor, device, disk.serial, shape)
        self.screen.row("Imaging", "was whole but for its last step, which is done now")
        return True

    def _installed(self, plan: Plan) -> bool:
        """Whether the machine is a node, and its firmware starts that disk next; on a BIOS GRUB has seen to it."""
        if plan.boot_disk is None or not any(refusal.id == "disk.installed" for refusal in plan.refusals):
            return False
        disk = Path("/dev", plan.boot_disk.name)
        esp = next((each.uuid for each in plan.boot_disk.contents.partitions if each.number == ESP_NUMBER), "")
        if not boot_entry.start_next(disk, esp):
            return False
        self._tell(Event(STAGE, "plan", "warning", f"this machine is installed: {disk} starts in {COUNT_DOWN} s"))
        for left in range(COUNT_DOWN, 0, -1):
            self.screen.row("Installed", f"{plan.boot_disk} starts in {left} s; nothing is written")
            time.sleep(1)
        return True

    def _claim_addresses(self, site: Site, plan: Plan) -> None:
        node = plan.node
        self.screen.row("Addresses", "asking whether they are free")
        bmc = self.facts.bmc
        warnings = address.check(site, node, self.facts.nics, bmc_macs=[*filter(None, (bmc.mac, *bmc.other_macs))])
        for warning in warnings:
            self._tell(Event(STAGE, "address", "warning", warning))
        self.screen.row("Addresses", "; ".join(["free", *warnings]))
        if node.bmc is not None:
            self.screen.row("BMC", BmcClient().apply(node.bmc))
        if site.webhook:
            # they are this node's now, so it may speak from one of them
            uplink = address.link_up(node, self.facts.nics)[0]
            live_network.configure(uplink.name, node.hypervisor, site.hypervisor_gateway, site.nameservers,
                                   vlan=node.uplink.vlan)
            self._webhook = Webhook(site.webhook, {
                "serial": node.serial, "hostname": node.hostname, "profile": self.medium.manifest.profile["name"],
                "identity": self.medium.manifest.identity}, secrets_of(site))

    def _image(self, plan: Plan, site: Site) -> None:
        cluster = site.cluster_of(plan.node)

        def tell(event: Event) -> None:
            if event.data["percent"] % SHOWN_PERCENT == 0:
                self.screen.row("Imaging", f"{event.data['phase']} {event.data['percent']} %")
            self._tell(event)
        imaging = Imaging.of(plan, self.medium, cluster.bootstrap_secret if cluster else "", tell)
        imaging.run()
        try:
            boot_entry.register(imaging.disk)
        except CornerstoneError as error:
            self._tell(Event(STAGE, "image", "warning", f"the firmware's boot menu is as it was: {error.message}"))
        self.screen.row("Imaging", f"done: {plan.node.hostname} starts from {plan.boot_disk}")

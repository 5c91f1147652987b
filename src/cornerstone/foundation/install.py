"""From a discovered machine to a restarting node: site, plan, addresses, image. Each stage tells what it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cornerstone.foundation.block import opened
from cornerstone.foundation.imaging import Imaging, complete, completed
from cornerstone.foundation.medium import Medium
from cornerstone.foundation.plan import Plan, make_plan
from cornerstone.foundation.plan_text import lines
from cornerstone.foundation.screen import Screen
from cornerstone.model.event import Event, Listener
from cornerstone.model.facts import Facts
from cornerstone.model.manifest import SITE_AREA
from cornerstone.model.site import Site
from cornerstone.model.site_area import unpack
from cornerstone.model.site_file import check_releases, read_site
from cornerstone.model.slot_disk import layout

STAGE = "foundation"
REINSTALL = "foundation.reinstall"


@dataclass
class Install:
    """One machine's way to a node. arguments: the kernel's; step: what is being done, for who tells of a failure."""

    medium: Medium
    facts: Facts
    arguments: Mapping[str, str]
    screen: Screen
    tell: Listener
    step: str = "site"

    def run(self) -> bool:
        """Make the machine a node; false when there is no site to say which. CornerstoneError says why it isn't one."""
        content = unpack((self.medium.mount_point / SITE_AREA).read_bytes())
        if content is None:
            return False
        with self._step("site"):
            site = read_site(content, "the medium's site")
            check_releases(site, self.medium.manifest.profile["aos"], self.medium.manifest.profile["ahv"])
        with self._step("plan"):
            plan = make_plan(self.facts, site, self.medium.manifest, self.arguments.get(REINSTALL, ""))
            self._show(plan)
            if self._cut_at_the_end(plan):
                return True
            plan.check()
        with self._step("image"):
            self._image(plan, site)
        return True

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        self.step = name
        self.tell(Event(STAGE, name, "started"))
        yield
        self.tell(Event(STAGE, name, "done"))

    def _show(self, plan: Plan) -> None:
        for number, line in enumerate(lines(plan)):
            self.screen.row(f"Plan {number + 1}", line)
        for warning in plan.warnings:
            self.tell(Event(STAGE, "plan", "warning", warning))

    def _cut_at_the_end(self, plan: Plan) -> bool:
        """Whether imaging was whole and only what makes the disk start was cut off; then that is done now."""
        disk = plan.boot_disk
        if disk is None or disk.contents.installed is None or completed(device := Path("/dev", disk.name)):
            return False
        shape = layout(disk.serial, disk.size, plan.needs.root_slot)
        if {each.uuid for each in disk.contents.partitions} != {str(each.identity) for each in shape.partitions}:
            return False
        with opened(device) as descriptor:
            complete(descriptor, device, disk.serial, shape)
        self.screen.row("Imaging", "was whole but for its last step, which is done now")
        return True

    def _image(self, plan: Plan, site: Site) -> None:
        cluster = site.cluster_of(plan.node)

        def tell(event: Event) -> None:
            self.screen.row("Imaging", f"{event.data['phase']} {event.data['percent']} %")
            self.tell(event)
        Imaging.of(plan, self.medium, cluster.bootstrap_secret if cluster else "", tell).run()
        self.screen.row("Imaging", f"done: {plan.node.hostname} starts from {plan.boot_disk}")


"""Controller VMs as containers (lab/container.py), from the CVM's root as it is on the ISO."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.controller.ceph.cluster import wait_until
from cornerstone.factory.iso_image import Image
from cornerstone.factory.roots import copy_disk
from cornerstone.lab.container import Container, Switch
from cornerstone.model.genesis import Genesis
from cornerstone.model.manifest import CVM
from cornerstone.model.node import DataDisk, NodeConfig

NODE = Path(__file__).resolve().parents[1] / "data/nodes/passthrough.json"
DISK = 5 << 30
ADDRESS = "10.20.0.31"


class Controller(Container):
    """A container and what the tests ask it."""

    def ceph(self, *words: str) -> object:
        """The answer to a command of `ceph`."""
        done = self.run("ceph", *words, "--format", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def become_ready(self) -> Genesis:
        """Wait until systemd knows genesis as started, which is when it is ready; what genesis.json says then."""
        done = self.run("systemctl", "start", "genesis.service", seconds=300)
        genesis = Genesis.from_json(self.file("var/lib/cornerstone/genesis.json").read_bytes())
        assert done.returncode == 0 and genesis.ready, genesis
        return genesis

    def become_whole(self) -> None:
        """Wait until there are all copies of everything."""
        def states() -> list[dict]:
            return self.ceph("pg", "stat")["pg_summary"]["num_pg_by_state"]
        assert wait_until(lambda: {entry["name"] for entry in states()} == {"active+clean"}, 120), states()

    def osd_on(self, device: str) -> int:
        """The number of the OSD on a device: sda."""
        links = self.run("sh", "-c", "cd /var/lib/ceph/osd; for osd in *; do echo $osd $(readlink $osd/block); done")
        (name,) = [name for name, block in map(str.split, links.stdout.splitlines()) if block == f"/dev/{device}"]
        return int(name.removeprefix("ceph-"))

    def wait_for(self, text: str) -> None:
        """Wait until the node's events have this text."""
        follow = f"grep -q -m1 '{text}' <(exec tail -n +1 -F /var/lib/cornerstone/events.jsonl 2>/dev/null)"
        assert self.run("bash", "-c", follow, seconds=120).returncode == 0

    @property
    def events(self) -> list[dict]:
        """All that genesis has told, in all boots."""
        return [json.loads(line) for line in self.file("var/lib/cornerstone/events.jsonl").read_text().splitlines()]

    def state(self, name: str) -> object:
        """One state as `genesis status --json` has it."""
        told = json.loads(self.run("genesis", "status", "--json").stdout)
        return next(state for state in told["states"] if state["name"] == name)


@pytest.fixture(scope="session")
def root(iso, tmp_path_factory) -> Path:
    """The CVM's root, unpacked from slot A of the disk on the ISO."""
    folder = tmp_path_factory.mktemp("root")
    image = Image(iso)
    try:
        disk = copy_disk(iso, image.place(CVM), folder / "cvm.raw")
    finally:
        image.close()
    subprocess.run(["unsquashfs", "-quiet", "-no-progress", "-offset", str(disk.partition("root-a").start),
                    "-dest", folder / "root", disk.path], check=True)
    disk.path.unlink()
    return folder / "root"


@pytest.fixture(scope="module")
def controller(root, tmp_path_factory) -> Iterator[Callable[..., Controller]]:
    """Makes nodes with these data disks, each in a network and a cluster of its own; ends them afterwards."""
    with ExitStack() as running:
        def make(*disks: DataDisk, factor: int = 2) -> Controller:
            config = NodeConfig.from_json(NODE.read_text())
            config = replace(
                config, cluster=replace(config.cluster, members=(ADDRESS,), redundancy_factor=factor),
                controller=replace(config.controller, memory=3 << 30, disks=disks))
            node = Controller(tmp_path_factory.mktemp("node"), root, config, running.enter_context(Switch()))
            for disk in disks:
                node.add_disk(disk.serial, disk.size)
            running.callback(node.kill)
            return node
        yield make

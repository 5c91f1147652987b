"""What the tests of the tier share: a Controller VM as a container, and what is on its disks."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

from cornerstone.controller.ceph.cluster import wait_until
from cornerstone.lab.container import Container
from cornerstone.model.disk_identity import fingerprint
from cornerstone.model.genesis import Genesis
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

    def lose_boot_disk(self, *disks: DataDisk) -> None:
        """Take all that it has written but its data disks, as when it is imaged onto a new boot disk, with these."""
        self.kill()
        for name in ("upper", "work"):
            shutil.rmtree(self.folder / name)
            (self.folder / name).mkdir()
        credential = self.folder / "credentials/cornerstone.node"
        config = NodeConfig.from_json(credential.read_text())
        credential.write_text(replace(config, controller=replace(config.controller, disks=disks)).to_json())

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


def contents_of(path: Path) -> str:
    """Return the fingerprint of what a disk's file holds: what Foundation puts into node.json for a token."""
    with path.open("rb") as disk:
        return fingerprint(lambda offset, count: os.pread(disk.fileno(), count, offset), path.stat().st_size)

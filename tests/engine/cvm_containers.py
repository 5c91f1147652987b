"""What the tests of the tier share: a Controller VM as a container, and what is on its disks."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.cvm.ceph.cluster import wait_until
from cornerstone.lab.container import Container
from cornerstone.model.contracts.genesis import Genesis
from cornerstone.model.contracts.node import DataDisk, NodeConfig
from cornerstone.model.disk.identity import fingerprint

NODE = Path(__file__).resolve().parents[1] / "data/nodes/passthrough.json"
DISK = 5 << 30
ADDRESS = "10.20.0.31"
EVENTS = "var/lib/cornerstone/events.jsonl"
# of every wait for a node that is being starved by what runs beside
WAIT_SECONDS = 300


class CvmContainer(Container):
    """A container and what the tests ask it."""

    def ceph(self, *words: str) -> object:
        """The answer to a command of `ceph`; None when it is empty."""
        done = self.run("ceph", *words, "--format", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    def become_ready(self) -> Genesis:
        """Wait until systemd knows genesis as started, which is when it is ready; what genesis.json says then."""
        done = self.run("timeout", str(WAIT_SECONDS), "systemctl", "start", "genesis", seconds=WAIT_SECONDS + 30)
        genesis = Genesis.from_json(self.file("var/lib/cornerstone/genesis.json").read_bytes())
        assert done.returncode == 0 and genesis.ready, f"waited {WAIT_SECONDS} s for genesis to be ready: {genesis}"
        return genesis

    def become_whole(self) -> None:
        """Wait until there are all copies of everything."""
        def states() -> list[dict]:
            return self.ceph("pg", "stat")["pg_summary"]["num_pg_by_state"]
        assert wait_until(lambda: {entry["name"] for entry in states()} == {"active+clean"}, WAIT_SECONDS), \
            f"waited {WAIT_SECONDS} s for all copies: {states()}"

    def lose_boot_disk(self, *disks: DataDisk) -> None:
        """Take all that it has written but its data disks, as when it is imaged onto a new boot disk, with these."""
        self.kill()
        for name in ("upper", "work"):
            shutil.rmtree(self.folder / name)
            (self.folder / name).mkdir()
        credential = self.folder / "credentials/cornerstone.node"
        config = NodeConfig.from_json(credential.read_text())
        credential.write_text(replace(config, cvm=replace(config.cvm, disks=disks)).to_json())

    def osd_on(self, device: str) -> int:
        """The number of the OSD on a device: sda."""
        links = self.run("sh", "-c", "cd /var/lib/ceph/osd; for osd in *; do echo $osd $(readlink $osd/block); done")
        (name,) = [name for name, block in map(str.split, links.stdout.splitlines()) if block == f"/dev/{device}"]
        return int(name.removeprefix("ceph-"))

    def wait_for(self, *texts: str) -> None:
        """Wait until an event of the node has all of these, in this order."""
        wanted = ".*".join(texts)
        follow = f"grep -q -m1 '{wanted}' <(exec tail -n +1 -F /{EVENTS} 2>/dev/null)"
        if self.run("timeout", str(WAIT_SECONDS), "bash", "-c", follow, seconds=WAIT_SECONDS + 30).returncode:
            pytest.fail(f"waited {WAIT_SECONDS} s for an event {wanted!r}; the last: {self.events[-3:]}")

    @property
    def events(self) -> list[dict]:
        """All that genesis has told, in all boots."""
        path = self.file(EVENTS)
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def state(self, name: str) -> object:
        """One state as `genesis status --json` has it."""
        told = json.loads(self.run("genesis", "status", "--json").stdout)
        return next(state for state in told["states"] if state["name"] == name)


def contents_of(path: Path) -> str:
    """Return the fingerprint of what a disk's file holds: what Foundation puts into node.json for a token."""
    with path.open("rb") as disk:
        return fingerprint(lambda offset, count: os.pread(disk.fileno(), count, offset), path.stat().st_size)

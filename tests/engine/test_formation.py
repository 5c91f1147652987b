"""Three CVMs form their cluster as in the machine: systemd's credentials and services, the command, power cuts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.lab.container import Switch
from cornerstone.model.contracts.node import DataDisk, NodeConfig
from cvm_containers import CvmContainer, contents_of

NODE = Path(__file__).resolve().parents[1] / "data/nodes/passthrough.json"
MEMBERS = ("10.20.0.31", "10.20.0.32", "10.20.0.33")
DISK = 5 << 30
STATE = "var/lib/cornerstone"
SECRET = "YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBieXRlcywgeWVz"
OTHER = "YW5vdGhlciBzZWNyZXQgb2Ygc29tZSBtb3JlIGJ5dGVz"
DIFFER = "their bootstrap secrets or cluster names differ"


class Cvm(CvmContainer):
    """One of them."""

    def give(self, secret: str) -> None:
        """The bootstrap secret that it has from its next start on; "" is what the host leaves when it has wiped it."""
        (self.folder / "credentials" / "cornerstone.bootstrap-secret").write_text(secret)

    @property
    def membership(self) -> str:
        return self.file(f"{STATE}/membership.json").read_text()


@pytest.fixture(scope="module")
def three(root, tmp_path_factory) -> Iterator[list[Cvm]]:
    with Switch() as switch, ExitStack() as running:
        cvms = []
        for number, address in enumerate(MEMBERS):
            disk = DataDisk(f"DATA-{number}", "", DISK)
            config = NodeConfig.from_json(NODE.read_text())
            config = replace(
                config, cluster=replace(config.cluster, members=MEMBERS, redundancy_factor=2),
                cvm=replace(config.cvm, name=f"NTNX-TEST-{'ABC'[number]}-CVM", address=f"{address}/24",
                                   memory=3 << 30, disks=(disk,)))
            cvm = Cvm(tmp_path_factory.mktemp("cvm"), root, config, switch)
            cvm.add_disk(disk.serial, disk.size)
            running.callback(cvm.kill)
            cvms.append(cvm)
        yield cvms


def test_two_of_three_form_it_and_the_late_one_joins_them_when_they_have_the_secret_no_more(three):
    """The late one has another cluster's secret at first."""
    first, second, late = three
    for cvm in (second, first):
        cvm.give(SECRET)
        cvm.start()
    second.wait_for('"step": "membership", "state": "waiting"', f"waiting for {MEMBERS[0]}")
    for cvm in (first, second):
        cvm.wait_for('"step": "membership", "state": "done"')
        cvm.kill()
        cvm.give("")
        cvm.start()
    late.give(OTHER)
    late.start()
    late.wait_for('"step": "membership", "state": "failed"', DIFFER)
    assert f"{MEMBERS[2]}: doesn't take this node for a member: {DIFFER}" in \
        first.run("journalctl", "--unit=membership", "--output=cat").stdout
    late.kill()
    late.give(SECRET)
    late.start()
    late.wait_for('"step": "membership", "state": "done"')
    assert first.membership == second.membership == late.membership


def test_every_member_shows_all(three):
    fsid = json.loads(three[0].membership)["fsid"]
    for cvm in three:
        answers = json.loads(cvm.run("cluster", "status", "--json").stdout)
        assert {answer["address"]: answer["state"]["fsid"] for answer in answers} == dict.fromkeys(MEMBERS, fsid)
        assert f"CVM: {MEMBERS[2]} Up" in cvm.run("cluster", "status").stdout


def test_nothing_secret_is_readable_or_told(three):
    kept = json.loads(three[0].membership)
    for cvm in three:
        for name in ("member.pem", "membership.json"):
            assert cvm.file(f"{STATE}/{name}").stat().st_mode & 0o777 == 0o600
        told = cvm.run("journalctl", "--no-pager").stdout + cvm.file(f"{STATE}/events.jsonl").read_text()
        assert "membership" in told
        for secret in (SECRET, OTHER, kept["monitor_key"], kept["admin_key"]):
            assert secret not in told


def test_a_second_formation_is_refused(three):
    done = three[2].run("cluster", "-s", ",".join(MEMBERS), "create")
    assert done.returncode == 8 and "there is no second formation" in done.stderr


def test_a_member_that_is_imaged_again_takes_its_place_with_its_old_disk(three):
    """Its disk may be erased and isn't, for it is this cluster's. It is let in once somebody has said so."""
    late = three[2]
    for cvm in three:
        cvm.wait_for('"step": "engine", "state": "done"')
    late.kill()
    for name in ("upper", "work"):
        shutil.rmtree(late.folder / name)
        (late.folder / name).mkdir()
    credential = late.folder / "credentials/cornerstone.node"
    config = NodeConfig.from_json(credential.read_text())
    disks = tuple(replace(disk, contents=contents_of(late.folder / f"{disk.serial}.disk"))
                  for disk in config.cvm.disks)
    credential.write_text(replace(config, cvm=replace(config.cvm, disks=disks)).to_json())
    late.start()
    # A21: it has another key than it had
    late.wait_for('"step": "membership", "state": "failed"', f"cluster admit {MEMBERS[2]}")
    done = three[0].run("cluster", "admit", MEMBERS[2])
    assert done.returncode == 0 and "may join with another key" in done.stdout, done.stderr
    late.wait_for('"step": "engine", "state": "done"')
    assert late.membership == three[0].membership
    assert "making an OSD" not in late.file(f"{STATE}/events.jsonl").read_text()
    osds = json.loads(late.run("ceph", "osd", "dump", "--format", "json").stdout)["osds"]
    assert [osd["up"] for osd in osds] == [1, 1, 1]


def test_stopped_it_stays_stopped_over_a_power_cut(three):
    first = three[0]
    assert first.run("sh", "-c", "echo 'I agree' | cluster stop", seconds=300).returncode == 0
    first.kill()
    # what it told before
    first.file(f"{STATE}/events.jsonl").unlink()
    first.start()
    first.wait_for('"step": "engine", "state": "waiting"', "services are stopped")
    assert "The state of the cluster: stop" in three[1].run("cluster", "status").stdout
    assert first.run("systemctl", "is-active", "ceph-osd@0", "ceph-osd@1", "ceph-osd@2").stdout.split() == \
        ["inactive"] * 3

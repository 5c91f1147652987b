"""Disks that share their serial: on one node, and on two nodes of a cluster."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.lab.container import Switch
from cornerstone.model.contracts.node import DataDisk, NodeConfig
from cvm_containers import DISK, NODE, CvmContainer, contents_of

LEFT_ALONE, CHOSEN = "naa.5000000000000001", "naa.5000000000000002"
MEMBERS = ("10.20.0.31", "10.20.0.32")
SECRET = "YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBieXRlcywgeWVz"


def test_d1_of_two_disks_the_one_that_was_chosen_becomes_an_osd(cvm):
    node = cvm(DataDisk("0000", CHOSEN, DISK), factor=1)
    chosen = node.remove_disk("0000", CHOSEN)
    photos = node.add_disk("0000", DISK, LEFT_ALONE)
    subprocess.run(["mkfs.ext4", "-q", "-L", "photos", photos], check=True)
    subprocess.run(["sfdisk", "--quiet", chosen], input="label: gpt\n", text=True, check=True)
    node.add_disk("0000", DISK, CHOSEN)
    credential = node.folder / "credentials/cornerstone.node"
    config = NodeConfig.from_json(credential.read_text())
    entry = DataDisk("0000", CHOSEN, DISK, contents_of(chosen))
    credential.write_text(replace(config, cvm=replace(config.cvm, disks=(entry,))).to_json())
    before = contents_of(photos)
    node.start()
    assert all(state.warnings == () for state in node.become_ready().states)
    assert node.run("readlink", "/var/lib/ceph/osd/ceph-0/block").stdout == "/dev/sdb\n"
    assert contents_of(photos) == before
    assert contents_of(chosen).startswith("osd:")


@pytest.fixture(scope="module")
def two(root, tmp_path_factory) -> Iterator[list[CvmContainer]]:
    """A cluster of two nodes, each of whose data disks says that its serial is 0000 and nothing else."""
    with Switch() as switch, ExitStack() as running:
        nodes = []
        for number, address in enumerate(MEMBERS):
            config = NodeConfig.from_json(NODE.read_text())
            config = replace(
                config, cluster=replace(config.cluster, members=MEMBERS, redundancy_factor=2),
                cvm=replace(config.cvm, name=f"NTNX-TEST-{'AB'[number]}-CVM", address=f"{address}/24",
                                   memory=3 << 30, disks=(DataDisk("0000", "", DISK),)))
            node = CvmContainer(tmp_path_factory.mktemp("node"), root, config, switch,
                              {"cornerstone.bootstrap-secret": SECRET})
            node.add_disk("0000", DISK)
            running.callback(node.kill)
            nodes.append(node)
        for node in nodes:
            node.start()
        for node in nodes:
            node.become_ready()
        yield nodes


def test_d6_each_node_s_disk_is_an_osd_of_its_own(two):
    osds = two[0].ceph("osd", "dump")["osds"]
    assert [entry["up"] for entry in osds] == [1, 1] and len({entry["uuid"] for entry in osds}) == 2
    hosts = {two[0].ceph("osd", "find", str(entry["osd"]))["host"] for entry in osds}
    assert hosts == {"NTNX-TEST-A-CVM", "NTNX-TEST-B-CVM"}
    two[0].become_whole()


def test_d6_another_node_s_osd_is_not_started(two):
    """The disk of the one in the place of the other's, whose serial it has."""
    mine, theirs = (Path(node.folder / "0000.disk") for node in two)
    for node in two:
        node.kill()
    aside = mine.with_name("aside")
    mine.rename(aside)
    subprocess.run(["cp", "--sparse=always", theirs, mine], check=True)
    before = contents_of(mine)
    two[0].start()
    two[0].wait_for("isn't used: it holds osd.* which is of the node NTNX-TEST-B-CVM".replace("'", "."))
    assert contents_of(mine) == before
    assert json.loads(two[0].run("sh", "-c", "ls -A /var/lib/ceph/osd | wc -l").stdout) <= 1

"""A single node whose boot disk died has its cluster back from its data disks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cornerstone.model.contracts.node import DataDisk
from cvm_containers import CvmContainer, contents_of

DISK = 5 << 30
# timeout(1)
TIMED_OUT = 124
DISKS = (DataDisk("0000", "naa.5000000000000001", DISK), DataDisk("0000", "naa.5000000000000002", DISK))


@pytest.fixture(scope="module")
def node(cvm) -> CvmContainer:
    """A node without its boot disk's contents, that waits for an operator; it had an object and a volume's image."""
    node = cvm(*DISKS)
    node.start()
    node.become_ready()
    said = node.run("sh", "-ec", """
        pool=$(rados lspools | grep ^default-container)
        echo kept | rados --pool $pool put letter -
        seq 200000 > /tmp/volume
        rbd import /tmp/volume $pool/volume
        ceph fsid > /dev/null
        sync""")
    assert said.returncode == 0, said.stderr
    node.become_whole()
    node.fsid = node.ceph("fsid")["fsid"]
    node.lose_boot_disk(*(replace(disk, contents=contents_of(node.folder / f"{disk.serial}-{disk.wwn}.disk"))
                          for disk in DISKS))
    node.start()
    node.wait_for('"step": "membership", "state": "waiting"')
    return node


def test_d11_it_waits_and_names_both_ways(node):
    told = node.state("membership")
    assert told["error"].count(f"of cluster {node.fsid}") == len(DISKS)
    assert "cluster recover" in told["hint"] and "--new create" in told["hint"]


def test_d11_recovered_it_has_all_that_was_written(node):
    # it waits for all services, and the iSCSI target doesn't run in a container
    assert node.run("timeout", "10", "cluster", "recover").returncode == TIMED_OUT
    node.become_ready()
    assert node.ceph("fsid")["fsid"] == node.fsid
    node.become_whole()
    said = node.run("sh", "-ec", """
        pool=$(rados lspools | grep ^default-container)
        rados --pool $pool get letter -
        rbd export $pool/volume /tmp/again
        seq 200000 | cmp - /tmp/again""")
    assert (said.returncode, said.stdout) == (0, "kept\n"), said.stderr
    assert {entry["up"] for entry in node.ceph("osd", "dump")["osds"]} == {1}


def test_d11_after_a_power_cut_it_is_the_same(node):
    """And takes writes."""
    node.kill()
    node.start()
    assert all(state.warnings == () for state in node.become_ready().states)
    assert node.ceph("fsid")["fsid"] == node.fsid

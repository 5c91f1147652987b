"""A node alone brings its storage engine up, with the real daemons; after a power cut it comes back with all it had."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest

from cornerstone.cvm.ceph.cluster import wait_until
from cornerstone.model.contracts.node import DataDisk
from cornerstone.model.disk.identity import OPENED_BY
from cvm_containers import contents_of

DISK = 5 << 30
DISKS = (DataDisk("DATA-1", "", DISK), DataDisk("DATA-2", "", DISK))


@pytest.fixture(scope="module")
def node(cvm):
    """A node that is ready for the first time, after a power cut while its OSDs were made."""
    node = cvm(*DISKS)
    node.start()
    node.wait_for("making an OSD")
    node.kill()
    node.start()
    node.become_ready()
    return node


def test_each_data_disk_is_an_osd(node):
    tree = node.ceph("osd", "tree")["nodes"]
    assert [entry["status"] for entry in tree if entry["type"] == "osd"] == ["up", "up"]
    assert [entry["name"] for entry in tree if entry["type"] == "host"] == ["NTNX-22SM6D010001-A-CVM"]
    devices = {node.run("readlink", f"/var/lib/ceph/osd/ceph-{number}/block").stdout for number in (0, 1)}
    assert devices == {"/dev/sda\n", "/dev/sdb\n"}


def test_pool_and_container_have_the_names_and_the_redundancy_that_are_expected(node):
    number = int(node.ceph("fsid")["fsid"][-4:], 16)
    (pool,) = [pool for pool in node.ceph("osd", "pool", "ls", "detail") if pool["pool_name"].startswith("default-")]
    assert pool["pool_name"] == f"default-container-{number}"
    assert (pool["size"], pool["min_size"], list(pool["application_metadata"])) == (2, 1, ["rbd"])
    rule = node.ceph("osd", "crush", "rule", "dump", f"default-storage-pool-{number}")
    assert rule["rule_id"] == pool["crush_rule"]
    assert [step["type"] for step in rule["steps"] if "type" in step] == ["osd"]


def test_nothing_is_wrong_with_it(node):
    """But for room: the monitor's disk is this machine's. What the manager says of the pools is seconds old."""
    def wrong() -> list[str]:
        return [name for name in node.ceph("health")["checks"] if not name.startswith("MON_DISK")]
    assert wait_until(lambda: not wrong(), 60), f"waited 60 s for the cluster's health: {wrong()}"


def test_what_is_commanded_is_in_the_journal_and_costs_the_monitors_no_write(node):
    node.ceph("mon", "stat")
    assert '"prefix": "mon stat"' in node.run("journalctl", "--unit", "ceph-mon@*", "--grep", "mon stat").stdout
    assert node.ceph("log", "last", "10", "debug", "audit") == []


def test_everything_on_the_wire_is_encrypted(node):
    (monitor,) = node.ceph("mon", "dump")["mons"]
    assert [address["type"] for address in monitor["public_addrs"]["addrvec"]] == ["v2"]
    listening = node.run("ss", "--tcp", "--listening", "--numeric", "--processes").stdout
    assert ":3300" in listening and ":6789" not in listening
    refused = node.run("ceph", "--ms-mon-client-mode", "crc", "--connect-timeout", "3", "status")
    assert refused.returncode != 0
    nobody = node.run("ceph", "--keyring", "/dev/null", "--connect-timeout", "3", "status")
    assert nobody.returncode != 0


def test_keys_are_root_s_and_ceph_s_alone(node):
    said = node.run("find", "/etc/ceph", "/var/lib/ceph", "/var/lib/cornerstone", "-type", "f", "-perm", "/004",
                    "(", "-name", "*keyring*", "-o", "-name", "membership.json", "-o", "-name", "member.pem", ")")
    assert (said.returncode, said.stdout) == (0, "")


def test_status_says_so(node):
    told = json.loads(node.run("genesis", "status", "--json").stdout)
    assert {state["state"] for state in told["states"]} == {"done"}
    assert {"genesis", "ceph-mon@10-20-0-31", "ceph-mgr@10-20-0-31", "ceph-osd@0", "ceph-osd@1"} == {
        service["name"] for service in told["services"] if service["up"]}
    assert node.run("genesis", "status").returncode == 0


def test_after_a_power_cut_it_is_the_same_with_nothing_made_anew(node):
    container = next(name for name in node.ceph("osd", "pool", "ls") if name.startswith("default-"))
    assert node.run("sh", "-c", f"echo kept | rados --pool {container} put letter -").returncode == 0
    before, fsid = len(node.events), node.ceph("fsid")
    node.kill()
    node.start()
    node.become_ready()
    assert not [event for event in node.events[before:] if "making" in event.get("message", "")]
    assert node.ceph("fsid") == fsid
    assert len(node.ceph("osd", "dump")["osds"]) == 2
    assert node.run("rados", "--pool", container, "get", "letter", "-").stdout == "kept\n"


def opened_by(node, device: str) -> str:
    """Return what the label of the OSD on a device says of who has opened it last."""
    (label,) = json.loads(node.run("ceph-bluestore-tool", "show-label", "--dev", device).stdout).values()
    return label[OPENED_BY]


def test_a_disk_that_a_newer_ceph_has_opened_is_left_alone_and_not_called_broken(node):
    """An older Ceph kills such a store (RocksDB: unknown checksum type), so no daemon may be started."""
    installed = re.search(r"\d+\.\d+\.\d+", node.run("ceph-osd", "--version").stdout)[0]
    assert {opened_by(node, device) for device in ("/dev/sda", "/dev/sdb")} == {installed}
    assert json.loads(node.file("var/lib/cornerstone/engine.json").read_text())["ceph"] == installed
    node.run("systemctl", "stop", "genesis", "ceph-osd@*", "ceph-mgr@*", "ceph-mon@*")
    marked = ("ceph-bluestore-tool", "set-label-key", "--no-mon-config", "--dev", "/dev/sda", "--key", OPENED_BY,
              "--value")
    assert node.run(*marked, "99.2.1").returncode == 0
    node.kill()
    node.start()
    node.wait_for('"step": "engine", "state": "waiting"')
    told = node.state("engine")
    assert told["error"].startswith("data disk sda (DATA-1, 5.4 GB) was last opened by Ceph 99.2, and this CVM has ")
    assert "boot the release that opened them" in told["hint"]
    assert told["warnings"] == node.state("disks")["warnings"] == []
    assert node.run("pgrep", "--exact", "ceph-(osd|mon|mgr)").returncode == 1
    # as a release has left it that wrote no such key
    unmarked = node.run("ceph-bluestore-tool", "rm-label-key", "--no-mon-config", "--dev", "/dev/sda", "--key",
                        OPENED_BY)
    assert unmarked.returncode == 0, unmarked.stderr
    node.kill()
    node.start()
    assert all(state.warnings == () for state in node.become_ready().states)
    assert opened_by(node, "/dev/sda") == installed


def test_a_killed_osd_is_back_with_all_copies(node):
    def up_from() -> int:
        (entry,) = [entry for entry in node.ceph("osd", "dump")["osds"] if entry["osd"] == 0]
        return entry["up"] and entry["up_from"]
    before = up_from()
    assert node.run("systemctl", "kill", "--signal=KILL", "ceph-osd@0").returncode == 0
    assert wait_until(lambda: up_from() > before, 60), "waited 60 s for osd.0 to be up again"
    node.become_whole()


def test_a_disk_that_may_alone_have_the_last_write_is_asked_for_and_the_write_is_kept(node):
    """With one copy out of reach the other takes writes; should that one be missed later, nothing older may answer."""
    container = next(name for name in node.ceph("osd", "pool", "ls") if name.startswith("default-"))
    other = node.osd_on("sdb")
    assert node.run("systemctl", "stop", f"ceph-osd@{node.osd_on('sda')}").returncode == 0
    assert node.run("sh", "-c", f"echo newest | rados --pool {container} put letter -").returncode == 0
    node.kill()
    node.remove_disk("DATA-2")
    node.start()
    node.wait_for('"step": "ready", "state": "failed"')
    assert node.state("ready")["error"] == f"container {container} doesn't take a write: " \
        f"what was written last may be on osd.{other} (data disk DATA-2) alone"
    node.kill()
    node.add_disk("DATA-2", DISK)
    node.start()
    assert all(state.warnings == () for state in node.become_ready().states)
    assert node.run("rados", "--pool", container, "get", "letter", "-").stdout == "newest\n"


def test_a_pulled_disk_is_told_and_the_other_goes_on(node):
    node.become_whole()
    node.kill()
    node.remove_disk("DATA-2")
    node.add_disk("OTHER", DISK)
    node.start()
    node.become_ready()
    assert node.state("disks")["warnings"] == ["data disk DATA-2 isn't there",
                                               "there are disks that node.json doesn't name: OTHER"]
    assert sorted(entry["up"] for entry in node.ceph("osd", "dump")["osds"]) == [0, 1]


def test_a_disk_whose_osd_fails_is_told_and_the_other_goes_on(node):
    """All behind the disk's label, 4 KiB, is gone."""
    number = node.osd_on("sda")
    node.kill()
    node.remove_disk("OTHER")
    disk = node.add_disk("DATA-2", DISK)
    os.truncate(disk, 4096)
    os.truncate(disk, DISK)
    node.start()
    node.become_ready()
    failed = 1 - number
    assert node.state("engine")["warnings"] == [
        f"data disk sdb (DATA-2, 5.4 GB) isn't used: osd.{failed} didn't come up; see: journalctl -u ceph-osd@{failed}"]
    assert {entry["osd"]: entry["up"] for entry in node.ceph("osd", "dump")["osds"]} == {number: 1, failed: 0}


def test_a_disk_that_takes_another_s_place_in_node_json_is_used(node):
    """And when the old one's OSD is purged, all copies are there again."""
    gone = node.osd_on("sdb")
    node.kill()
    node.remove_disk("DATA-2")
    node.add_disk("NEW", DISK)
    credential = node.folder / "credentials/cornerstone.node"
    credential.write_text(credential.read_text().replace('"DATA-2"', '"NEW"'))
    node.start()
    states = node.become_ready().states
    assert all(state.warnings == () for state in states if state.name != "ready")
    # until it is purged, what only it had has one copy
    assert f"down: osd.{gone} of " in " ".join(next(state.warnings for state in states if state.name == "ready"))
    osds = {entry["osd"]: entry["up"] for entry in node.ceph("osd", "dump")["osds"]}
    assert osds == {1 - gone: 1, gone: 0, 2: 1}
    assert node.run("ceph", "osd", "purge", str(gone), "--yes-i-really-mean-it").returncode == 0
    node.become_whole()


@pytest.mark.parametrize("erase", [False, True])
def test_an_old_cluster_s_disk_is_refused_unless_it_may_be_erased(node, cvm, erase):
    """As when a node is imaged again (d9, d10): the disk's token isn't enough, somebody has to say so to the cluster.

    A disk alone holds one copy.
    """
    node.kill()
    old = node.folder / "DATA-1.disk"
    again = cvm(DataDisk("DATA-1", "", DISK, contents_of(old) if erase else ""), factor=1)
    subprocess.run(["cp", "--sparse=always", old, again.folder], check=True)
    again.start()
    if erase:
        again.wait_for('"step": "membership", "state": "waiting"')
        assert re.fullmatch("data disks hold OSDs of another cluster: 10.20.0.31 has sda .DATA-1, 5.4 GB. of cluster "
                            "[0-9a-f-]{36}", again.state("membership")["error"])
        assert contents_of(again.folder / "DATA-1.disk") == contents_of(old)
        # it waits for all services, and the iSCSI target doesn't run in a container
        again.run("sh", "-c", "echo 'I agree' | timeout 10 cluster -s 10.20.0.31 --new create")
        again.become_ready()
        assert [pool["size"] for pool in again.ceph("osd", "pool", "ls", "detail")
                if pool["pool_name"].startswith("default-")] == [1]
        # what was said once is used up
        assert not again.file("var/lib/cornerstone/new-cluster").exists()
        return
    again.wait_for('"step": "disks", "state": "failed"')
    assert again.state("disks")["error"] == \
        "data disk sda (DATA-1, 5.4 GB) isn't empty and isn't this cluster's: a BlueStore OSD"
    assert again.state("membership")["state"] == "waiting"
    assert again.run("head", "-c", "22", "/dev/sda").stdout == "bluestore block device"


def test_too_few_disks_for_the_redundancy_are_said(cvm):
    node = cvm(DISKS[0])
    node.start()
    node.wait_for('"step": "container", "state": "failed"')
    assert node.state("container")["error"] == "a redundancy factor of 2 takes 2 data disks, and 1 are up"

"""A node alone brings its storage engine up, with the real daemons; after a power cut it comes back with all it had."""

from __future__ import annotations

import json
import subprocess

import pytest

from cornerstone.model.node import DataDisk

DISK = 5 << 30
DISKS = (DataDisk("DATA-1", "", DISK), DataDisk("DATA-2", "", DISK))


@pytest.fixture(scope="module")
def node(controller):
    """A node that is ready for the first time."""
    node = controller(*DISKS)
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
    """But for room: the monitor's disk is this machine's."""
    checks = node.ceph("health")["checks"]
    assert {name: check for name, check in checks.items() if not name.startswith("MON_DISK")} == {}


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


def test_a_killed_osd_is_back(node):
    before = node.run("systemctl", "show", "--value", "--property", "MainPID", "ceph-osd@0").stdout.strip()
    assert node.run("kill", "-KILL", before).returncode == 0
    again = f"until systemctl show --value -P MainPID ceph-osd@0 | grep -qvxE '0|{before}'; do sleep 0.1; done"
    assert node.run("sh", "-c", again, seconds=60).returncode == 0


def test_a_pulled_disk_is_told_and_the_other_goes_on(node):
    node.kill()
    path = node.remove_disk("DATA-2")
    node.add_disk("OTHER", DISK)
    node.start()
    node.become_ready()
    assert node.state("disks")["warnings"] == ["data disk DATA-2 isn't there",
                                               "there are disks that node.json doesn't name: OTHER"]
    up = [entry["up"] for entry in node.ceph("osd", "dump")["osds"]]
    assert sorted(up) == [0, 1]
    node.kill()
    assert path.stat().st_size == DISK
    node.remove_disk("OTHER")
    node.add_disk("DATA-2", DISK)
    node.start()
    assert all(state.warnings == () for state in node.become_ready().states)
    assert {entry["up"] for entry in node.ceph("osd", "dump")["osds"]} == {1}


def test_a_disk_that_takes_another_s_place_in_node_json_is_used(node):
    node.kill()
    node.remove_disk("DATA-2")
    node.add_disk("NEW", DISK)
    credential = node.folder / "credentials/cornerstone.node"
    credential.write_text(credential.read_text().replace('"DATA-2"', '"NEW"'))
    node.start()
    node.become_ready()
    osds = {entry["osd"]: entry["up"] for entry in node.ceph("osd", "dump")["osds"]}
    assert len(osds) == 3 and osds[2] == 1 and sorted(osds.values()) == [0, 1, 1]


def test_a_power_cut_while_osds_are_made_is_survived(controller):
    node = controller(*DISKS)
    node.start()
    node.wait_for("making an OSD")
    node.kill()
    node.start()
    node.become_ready()
    assert [entry["up"] for entry in node.ceph("osd", "dump")["osds"]] == [1, 1]


@pytest.mark.parametrize("erase", [False, True])
def test_a_disk_with_contents_is_refused_unless_it_may_be_erased(controller, erase):
    node = controller(DataDisk("FULL", "", DISK, erase), DISKS[0])
    subprocess.run(["mke2fs", "-q", "-F", node.add_disk("FULL", DISK)], check=True)
    node.start()
    if erase:
        node.become_ready()
        return
    node.wait_for('"step": "disks", "state": "failed"')
    assert node.state("disks")["error"] == \
        "data disk sda (FULL, 5.4 GB) isn't empty and isn't this cluster's: ext2"
    assert node.state("membership")["state"] == "waiting"
    assert node.run("wipefs", "--noheadings", "--output", "TYPE", "/dev/sda").stdout == "ext2\n"


def test_too_few_disks_for_the_redundancy_are_said(controller):
    node = controller(DISKS[0])
    node.start()
    node.wait_for('"step": "container", "state": "failed"')
    assert node.state("container")["error"] == "a redundancy factor of 2 takes 2 data disks, and 1 are up"


def test_one_disk_holds_one_copy(controller):
    node = controller(DISKS[0], factor=1)
    node.start()
    node.become_ready()
    assert [pool["size"] for pool in node.ceph("osd", "pool", "ls", "detail")
            if pool["pool_name"].startswith("default-")] == [1]

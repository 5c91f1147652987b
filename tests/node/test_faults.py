"""What a cluster survives: a dead CVM, a host without power and one whose clock is wrong, a cable, a pulled disk.

Each test leaves the cluster as it was, but the last: a pulled disk doesn't come back.
"""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from cornerstone.lab.guest import ENDED, STARTED

# of a clock whose battery is old
WRONG = timedelta(minutes=5)
# the container's pool, without a manager that has to answer
RADOS = "rados --pool $(rados lspools | grep ^default-container)"
# One process, for each `ceph` would take seconds of the processor that the cluster is waiting for.
UNTIL = """
from cornerstone.cvm.ceph.cluster import Cluster, wait_until
def quorum():
    return cluster.command("quorum_status")
def groups():
    return [each["name"] for each in cluster.report("pg stat")["pg_summary"]["num_pg_by_state"]]
with Cluster() as cluster:
    if not wait_until(lambda: {so}, 1800):
        raise SystemExit(f"{{quorum()}} {{groups()}}")
"""
WHOLE = "len(quorum()['quorum']) == len(quorum()['monmap']['mons']) and groups() == ['active+clean']"


@pytest.fixture
def several(cluster):
    if len(cluster.members) < 3:
        pytest.skip("it takes three nodes")


def health(cvm) -> dict:
    return json.loads(cvm.check_output("ceph --format json status"))


def osds(cvm) -> tuple[int, int]:
    """How many there are, and how many are up."""
    found = health(cvm)["osdmap"]
    return found["num_osds"], found["num_up_osds"]


def wait_until(so: str, cvm) -> None:
    """Wait in a CVM for an expression of UNTIL: WHOLE, so all monitors in the quorum and nothing without its copies."""
    cvm.check_output("PYTHONPATH=/usr/lib/cornerstone python3 -c %s", UNTIL.format(so=so))


def clock_of(machine) -> float:
    return float(machine.check_output("date +%s"))


def put(cvm, name: str, text: str) -> None:
    cvm.check_output(f"echo %s | {RADOS} put %s -", text, name)


def got(cvm, name: str) -> str:
    return cvm.check_output(f"{RADOS} get %s -", name)


def test_a_cvm_that_is_killed_is_started_again_and_serves(cluster, nodes, cvms):
    put(cvms[0], "before-kill", "still here")
    member = cluster.members[0]
    told = member.told()
    nodes[0].check_output("kill -9 $(cat /run/libvirt/qemu/NTNX-*.pid)")
    member.wait_for("hypervisor", "cvm", "started", since=told)
    member.wait_for("genesis", "ready", since=told)
    assert got(cvms[0], "before-kill") == "still here"
    count, up = osds(cvms[0])
    assert count == up


def test_a_guest_loses_no_write_when_its_cvm_is_killed(cluster, nodes, new_guest):
    """It waits for its disk, by another CVM where there is one, and then finds all that was acknowledged."""
    member = cluster.members[0]
    new_guest.start(256 << 10, 10)
    new_guest.wait_for(STARTED, 900)
    told = member.told()
    nodes[0].check_output("kill -9 $(cat /run/libvirt/qemu/NTNX-*.pid)")
    new_guest.wait_for(ENDED, 3600)
    said = new_guest.words()
    assert re.search(rf"{ENDED} 0\b", said), said[-3000:]
    member.wait_for("genesis", "ready", since=told)


def test_a_host_whose_power_was_cut_comes_back_even_with_a_wrong_clock(cluster, nodes, cvms):
    """Its host is the one whose CVM has the lowest address, which chrony would follow first (d24)."""
    put(cvms[-1], "before-cut", "still here")
    others = len(cluster.members) > 1
    member = cluster.members[0]
    member.cut_power()
    if others:
        # the others are a quorum, and have all data
        assert got(cvms[-1], "before-cut") == "still here"
        put(cvms[-1], "meanwhile", "written by two")
    cluster.access.disconnect()
    member.power_on(WRONG if others else timedelta())
    member.wait_for("genesis", "ready")
    assert got(cvms[0], "before-cut") == "still here"
    wait_until(WHOLE, cvms[0])
    count, up = osds(cvms[-1])
    assert count == up
    if others:
        assert got(cvms[0], "meanwhile") == "written by two"
        assert clock_of(nodes[0]) - time.time() > WRONG.total_seconds() / 2
        # its CVM has the time of the others
        cvms[0].check_output("chronyc waitsync 90 0.05")
        assert health(cvms[-1])["health"]["checks"].keys().isdisjoint({"MON_CLOCK_SKEW", "MON_DOWN"})


def test_a_cut_between_two_nodes_heals(several, cluster, cvms):
    """The third reaches both, so there is a quorum and no two clusters; what has a copy on each of the two waits."""
    one, other = (member.name for member in cluster.members[:2])
    before = json.loads(cvms[2].check_output("ceph --format json quorum_status"))["election_epoch"]
    with ThreadPoolExecutor() as writers:
        cluster.switch.cut(one, other)
        try:
            wait_until(f"quorum()['election_epoch'] > {before}", cvms[2])
            writing = [writers.submit(put, cvms[2], f"in-two-minds-{number}", "one answer") for number in range(3)]
        finally:
            cluster.switch.heal(one, other)
        for each in writing:
            each.result()
    wait_until(WHOLE, cvms[2])
    assert {got(cvm, "in-two-minds-1") for cvm in cvms} == {"one answer"}


def test_a_pulled_disk_is_told_and_nothing_is_lost_with_two_copies(several, cluster, cvms):
    put(cvms[0], "before-pull", "still here")
    member = cluster.members[1]
    told = member.told()
    member.unplug("data-2")
    member.wait_for("genesis", "disks", "warning", since=told)
    assert "LAB-2-DATA-2" in cvms[1].check_output("genesis status")
    assert {got(cvm, "before-pull") for cvm in cvms} == {"still here"}

"""Every node's CVM runs with the planned controllers, the cluster is formed, and its services answer for real.

For one node (`invoke lab.node`) and for several (`invoke lab.cluster`).
"""

from __future__ import annotations

import json

import pytest

from cornerstone.model.contracts.node import NodeConfig
from cornerstone.model.packet_filter import cvm_rules, host_rules

STATE = "/var/lib/cornerstone"
INTERNAL = "192.168.5.2"


def admin(member, words: str):
    """A command of `ceph` on a member's CVM, its JSON parsed."""
    return json.loads(member.cvm.check_output(f"ceph --format json {words}"))


@pytest.fixture(scope="session")
def first(members):
    return members[0]


def test_genesis_is_ready_everywhere(members):
    for member in members:
        status = json.loads(member.cvm.check_output("genesis status --json"))
        assert {state["name"]: state["state"] for state in status["states"]} \
            == dict.fromkeys([state["name"] for state in status["states"]], "done")


def test_each_domain_runs_with_exactly_the_planned_controllers(members):
    for member in members:
        name = member.config["cvm"]["name"]
        assert member.host.check_output("virsh domstate %s", name) == "running"
        xml = member.host.check_output("virsh dumpxml %s", name)
        assert xml.count("<hostdev ") == len(member.config["cvm"]["passthrough"])
        for address in member.config["cvm"]["passthrough"]:
            assert member.host.file(f"/sys/bus/pci/devices/{address}/driver").linked_to.endswith("/vfio-pci")


def test_the_data_disks_are_the_cvms_and_not_the_hosts(members):
    for member in members:
        serials = {disk["serial"] for disk in member.config["cvm"]["disks"]}
        listed = "lsblk --nodeps --noheadings --output SERIAL"
        assert serials <= set(member.cvm.check_output(listed).split())
        assert not serials & set(member.host.check_output(listed).split())


def test_monitors_are_a_quorum_and_every_osd_is_up(members, first):
    status = admin(first, "status")
    monitors = 5 if len(members) >= 5 else 3 if len(members) >= 3 else 1
    assert len(status["quorum_names"]) == monitors
    disks = sum(len(member.config["cvm"]["disks"]) for member in members)
    assert (status["osdmap"]["num_osds"], status["osdmap"]["num_up_osds"], status["osdmap"]["num_in_osds"]) \
        == (disks, disks, disks)


def test_pool_and_container_have_the_sites_redundancy(members, first):
    cluster = first.config["cluster"]
    pools = {pool["pool_name"]: pool for pool in admin(first, "osd pool ls detail")}
    container = next(pool for name, pool in pools.items() if name.startswith("default-container-"))
    assert container["size"] == cluster["redundancy_factor"]
    rule = next(rule for rule in admin(first, "osd crush rule dump") if rule["rule_id"] == container["crush_rule"])
    assert rule["rule_name"].startswith("default-storage-pool-")
    kinds = [step["type"] for step in rule["steps"] if "type" in step]
    assert kinds == ["host" if len(members) > 1 else "osd"]
    assert "rbd" in container["application_metadata"]


def test_connections_are_encrypted(first):
    for key in ("ms_cluster_mode", "ms_service_mode", "ms_client_mode", "ms_mon_cluster_mode"):
        assert first.cvm.check_output("ceph-conf --name client.admin --lookup %s", key) == "secure"
    # version 1 of the protocol, which knows no encryption, isn't spoken
    assert first.cvm.run("ss -Hltn sport = :6789").stdout == ""


def test_a14_host_and_cvm_take_what_their_node_json_says(members):
    """Both filters are the kernel's, and somebody outside, as this host is to its CVM's outer address, meets them."""
    for member in members:
        config = NodeConfig.from_json(json.dumps(member.config))
        for at, rules in ((member.host, host_rules(config)), (member.cvm, cvm_rules(config))):
            assert at.check_output("cat /etc/nftables.conf") == rules.strip()
            chain = at.check_output("nft list chain inet node input")
            assert "policy drop" in chain and chain.count(" accept\n") == rules.count(" accept\n")
        address = config.cvm.address.partition("/")[0]
        found = {port: member.host.run("timeout %s bash -c '</dev/tcp/'%s", str(seconds), f"{address}/{port}").rc
                 for port, seconds in ((22, 60), (3260, 60), (2100, 5), (3300, 5), (6800, 5))}
        # of a member's host the last three get no answer: timeout(1)
        assert found == {22: 0, 3260: 0, 2100: 124, 3300: 124, 6800: 124}


def test_a21_every_member_knows_the_others_keys(members):
    """So nobody takes the place of one of them any more."""
    addresses = {member.config["cvm"]["address"].partition("/")[0] for member in members}
    for member in members:
        own = {member.config["cvm"]["address"].partition("/")[0]}
        kept = member.cvm.run("cat %s", f"{STATE}/member-keys.json")
        assert set(json.loads(kept.stdout or "{}")) >= addresses - own


def test_the_bootstrap_secret_is_gone(members):
    for member in members:
        assert member.host.file(f"{STATE}/bootstrap-secret").size == 0


def test_all_members_say_the_same_of_the_cluster(members):
    assert len({admin(member, "fsid")["fsid"] for member in members}) == 1
    for member in members:
        said = member.cvm.check_output("cluster status")
        for each in members:
            assert each.config["cvm"]["address"].partition("/")[0] in said


def test_no_unit_has_failed_in_a_cvm(members):
    for member in members:
        assert member.cvm.check_output("systemctl --failed --plain --no-legend") == ""

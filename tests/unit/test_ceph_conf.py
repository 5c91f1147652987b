"""What Ceph is told of a node: ceph.conf, which members run monitors, keyrings, and names that all members agree on."""

from __future__ import annotations

import configparser
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.cvm.ceph import conf, osd, pool
from cornerstone.cvm.ceph.monitor import first_keyring
from cornerstone.cvm.membership import Membership
from cornerstone.cvm.node import Node
from cornerstone.model.contracts.node import Cluster, NodeConfig

NODES = Path(__file__).resolve().parents[1] / "data/nodes"
CONFIG = NodeConfig.from_json((NODES / "passthrough.json").read_text())
MEMBER = Membership("1c7a3a3e-6d0b-4d0c-9a51-3f2f6a0d00ff", "MONITOR==", "ADMIN==")
GIB = 1 << 30


def node(members: int = 1, factor: int = 2, memory: int = 20 * GIB) -> Node:
    """The first member of a cluster of so many."""
    addresses = tuple(f"10.20.0.{31 + number}" for number in range(members))
    config = replace(CONFIG, cvm=replace(CONFIG.cvm, memory=memory),
                     cluster=Cluster("one", addresses, factor, True, "", "", ""))
    return Node(config, lambda event: None, MEMBER)


def options(of: Node, section: str = "global") -> dict[str, str]:
    parser = configparser.ConfigParser()
    parser.read_string(conf.ceph_conf(of))
    return dict(parser[section])


@pytest.mark.parametrize(("members", "running"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (8, 5)])
def test_an_odd_number_of_members_runs_monitors(members, running):
    addresses = node(members).members
    assert conf.monitors(addresses) == addresses[:running]


@pytest.mark.parametrize(("members", "running"), [(1, 1), (2, 1), (3, 2), (5, 3), (8, 3)])
def test_a_manager_is_left_for_as_long_as_a_quorum_is(members, running):
    addresses = node(members).members
    assert conf.managers(addresses) == addresses[:running]


def test_only_the_encrypted_protocol_is_spoken_and_only_with_keys():
    told = options(node(3))
    assert told["mon host"] == "[v2:10.20.0.31:3300] [v2:10.20.0.32:3300] [v2:10.20.0.33:3300]"
    assert told["mon initial members"] == "10-20-0-31,10-20-0-32,10-20-0-33"
    assert told["public network"] == "10.20.0.0/24"
    assert {value for key, value in told.items() if key.startswith("auth ") and key.endswith("required")} == {"cephx"}
    assert {value for key, value in told.items() if key.startswith("ms ") and key.endswith(" mode")} == {"secure"}
    assert told["ms bind msgr1"] == "false"


@pytest.mark.parametrize(("members", "factor", "size", "least", "domain", "single"), [
    (1, 1, "1", "1", "0", "true"), (1, 2, "2", "1", "0", "false"), (3, 2, "2", "1", "1", "false"),
    (5, 3, "3", "2", "1", "false")])
def test_copies_are_as_many_as_the_site_says_on_hosts_or_on_a_single_one_s_disks(members, factor, size, least, domain,
                                                                                 single):
    told = options(node(members, factor))
    assert (told["osd pool default size"], told["osd pool default min size"], told["osd crush chooseleaf type"],
            told["mon allow pool size one"]) == (size, least, domain, single)


@pytest.mark.parametrize(("memory", "each"), [(3 * GIB, 896 << 20), (20 * GIB, 8 * GIB), (10 * GIB, 3 * GIB)])
def test_osds_share_the_memory_that_others_leave(memory, each):
    assert len(CONFIG.cvm.disks) == 2
    assert conf.osd_memory(node(memory=memory)) == each


@pytest.mark.parametrize("patience", [1, 4])
def test_a_patient_cluster_takes_nobody_for_dead_too_early(patience):
    one = node(3)
    cluster = replace(one.config.cluster, patience=patience)
    patient = Node(replace(one.config, cluster=cluster), lambda event: None, MEMBER)
    told = options(patient)
    assert (told["mon lease"], told["mon election timeout"], told["osd heartbeat grace"]) \
        == (str(5 * patience), str(5 * patience), str(20 * patience))
    assert set(options(patient, "client").values()) == {str(60 * patience)}


def test_all_monitors_begin_with_the_same_keys():
    assert first_keyring(MEMBER) == (
        '[mon.]\n\tkey = MONITOR==\n\tcaps mon = "allow *"\n'
        '[client.admin]\n\tkey = ADMIN==\n\tcaps mon = "allow *"\n\tcaps osd = "allow *"\n\tcaps mgr = "allow *"\n'
        '\tcaps mds = "allow *"\n')


def test_names_come_from_the_cluster_s_id_and_osds_from_their_disk_s_serial_too():
    assert (pool.pool_name(MEMBER), pool.container_name(MEMBER)) == \
        ("default-storage-pool-255", "default-container-255")
    other = replace(MEMBER, fsid="1c7a3a3e-6d0b-4d0c-9a51-3f2f6a0d00fe")
    assert len({osd.uuid_of(member, serial) for member in (MEMBER, other) for serial in ("A", "B")}) == 4

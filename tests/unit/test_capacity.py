"""When a cluster is nearly full, what it can promise, and what `ceph health` and the OSD map say that is warned of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.cvm.ceph import check, osd, pool
from cornerstone.cvm.ceph.capacity import NEARFULL, capacity, nearfull_ratio
from cornerstone.cvm.membership import Membership
from cornerstone.cvm.node import Node
from cornerstone.model.contracts.node import DataDisk, NodeConfig

MEMBERS = ("10.20.0.31", "10.20.0.32", "10.20.0.33")
MEMBER = Membership("5e5ea3ca-2b0b-4a0f-8bd0-6a5a3d5e5801", "monitor", "admin")
NODE = Path(__file__).resolve().parents[1] / "data/nodes/passthrough.json"


@pytest.mark.parametrize("domains, copies, ratio", [
    ([1, 1], 2, NEARFULL),
    ([1, 1, 1], 2, 0.60),
    ([1, 1, 1], 3, NEARFULL),
    ([1] * 4, 2, 0.67),
    ([1] * 16, 2, NEARFULL),
    ([1, 1, 2], 2, 0.45),
    ([1, 1, 0], 2, NEARFULL),
    ([1], 1, NEARFULL),
    ([], 1, NEARFULL),
])
def test_d26_room_is_kept_for_the_copies_of_the_largest_domain(domains, copies, ratio):
    assert nearfull_ratio(domains, copies) == ratio


def asked(total: int = 1000, free: int = 300, pool_name: str = "c") -> tuple[dict, dict]:
    return ({"stats": {"total_bytes": total}, "pools": [{"name": pool_name, "stats": {"max_avail": free}}]},
            {"nearfull_ratio": 0.8, "pools": [{"pool_name": "c", "size": 2}]})


def test_d26_capacity_counts_each_byte_with_its_copies():
    found = capacity("c", *asked())
    assert (found.usable, found.free, found.most_sold) == (400, 300, 4000)


def test_a_pool_that_ceph_does_not_count_yet_has_no_known_capacity():
    assert capacity("c", *asked(pool_name="other")).usable == 0


def health(**checks: list[str]) -> dict:
    return {"checks": {code: {"summary": {"message": f"about {code}"}, "muted": code == "POOL_FULL",
                              "detail": [{"message": each} for each in details]} for code, details in checks.items()}}


def test_d25_each_code_of_ceph_that_tells_of_room_is_a_warning():
    said = check.capacity_warnings(health(
        OSD_NEARFULL=["osd.0 is near full", "osd.1 is near full"], PG_BACKFILL_FULL=[], OSD_BACKFILLFULL=["x"],
        OSD_FULL=["y"], POOL_NEARFULL=["z"], POOL_FULL=["muted"], OSD_DOWN=["other"], MON_DISK_LOW=["other"],
        MON_DISK_CRIT=["mon.a has 3% avail"]))
    assert [each.partition(";")[0] for each in said] == [
        "MON_DISK_CRIT: mon.a has 3% avail", "OSD_BACKFILLFULL: x", "OSD_FULL: y",
        "OSD_NEARFULL: osd.0 is near full, osd.1 is near full", "PG_BACKFILL_FULL: about PG_BACKFILL_FULL",
        "POOL_NEARFULL: z"]


class Cluster:
    """Answers as the monitors and the manager do. osds: by host, whether each is up; numbers go on from 0."""

    def __init__(self, node: Node, stuck: bool = False, nearfull: float = 0.85, **osds: list[bool]) -> None:
        self.done: list[tuple[str, dict]] = []
        self.nearfull = nearfull
        self.kept: dict[str, str] = {}
        self._stuck = stuck
        numbers = iter(range(100))
        hosts = {host: {next(numbers): up for up in found} for host, found in osds.items()}
        every = {number: up for found in hosts.values() for number, up in found.items()}
        uuid = osd.uuid_of(MEMBER, node.config.cvm.disks[0].serial)
        self._answers = {
            "osd tree": {"stray": [], "nodes": [
                *({"id": -number, "type": "host", "name": host, "children": list(found)}
                  for number, (host, found) in enumerate(hosts.items(), 2)),
                *({"id": number, "type": "osd", "name": f"osd.{number}", "status": "up" if up else "down",
                   "crush_weight": 1.0} for number, up in every.items())]},
            "osd dump": {"osds": [{"osd": number, "uuid": uuid if number == 0 else "other"} for number in every]}}

    def command(self, prefix: str, **arguments: object) -> object:
        if prefix == "config-key dump":
            return self.kept
        if prefix in self._answers:
            return self._answers[prefix] | ({"nearfull_ratio": self.nearfull} if prefix == "osd dump" else {})
        self.done.append((prefix, arguments))
        if prefix == "config-key set":
            self.kept[arguments["key"]] = arguments["val"]
        if prefix == "osd set-nearfull-ratio":
            self.nearfull = arguments["ratio"]
        return None

    def report(self, prefix: str, **arguments: object) -> dict:
        assert prefix == "pg dump_stuck" and arguments["threshold"] >= check.LACKING_SECONDS
        return {"stuck_pg_stats": [1] if self._stuck else []}


def node(members: tuple[str, ...] = MEMBERS, factor: int = 2) -> Node:
    config = NodeConfig.from_json(NODE.read_text())
    config = replace(config, cluster=replace(config.cluster, members=members, redundancy_factor=factor),
                     cvm=replace(config.cvm, disks=(DataDisk("HDD-1", "", 1 << 40),)))
    return Node(config, lambda event: None, MEMBER)


@pytest.mark.parametrize("osds, stuck, said", [
    ({"a": [True], "b": [True]}, False, []),
    ({"a": [False], "b": [True]}, False, ["down: osd.0 of a (data disk HDD-1)", "1 of 2 copies can be written, on b"]),
    ({"a": [True], "b": [False], "c": [True]}, False, ["down: osd.1 of b"]),
    ({"a": [True, False], "b": [True]}, False, ["down: osd.1 of a"]),
    ({"a": [True]}, False, ["1 of 2 copies can be written, on a"]),
    ({"a": [False], "b": [False]}, False, ["down: osd.0 of a (data disk HDD-1), osd.1 of b",
                                           "0 of 2 copies can be written, on nothing"]),
    ({"a": [True], "b": [True]}, True, ["some data has had fewer than 2 copies for a long time"]),
])
def test_d33_what_is_missing_is_named_as_long_as_it_is_missing(osds, stuck, said):
    one = node()
    found = check.copy_warnings(one, Cluster(one, stuck, **osds))
    assert [text[:len(start)] for text, start in zip(found, said, strict=True)] == said


def test_d26_the_nearfull_ratio_follows_the_hosts_and_leaves_an_operator_s_alone():
    one = node()
    cluster = Cluster(one, a=[True], b=[True])
    pool.set_nearfull_ratio(one, cluster)
    assert cluster.nearfull == 0.80
    kept = cluster.kept
    cluster = Cluster(one, a=[True], b=[True], c=[False], nearfull=0.80)
    cluster.kept = kept
    pool.set_nearfull_ratio(one, cluster)
    assert cluster.nearfull == 0.60
    done = list(cluster.done)
    pool.set_nearfull_ratio(one, cluster)
    assert cluster.done == done, "a second look changes nothing"
    cluster.nearfull = 0.75
    pool.set_nearfull_ratio(one, cluster)
    assert cluster.nearfull == 0.75

"""The state `ready`: every part of the storage engine is asked for real."""

from __future__ import annotations

import errno
import re
import secrets
from collections.abc import Mapping
from typing import Any

from cornerstone.cvm.ceph import conf, osd, pool
from cornerstone.cvm.ceph.capacity import MORE_ROOM
from cornerstone.cvm.ceph.cluster import Cluster, wait_until
from cornerstone.cvm.node import Node
from cornerstone.lib.error import Code, CornerstoneError

MANAGER_SECONDS = 180
# Ceph's health checks that say that room runs out: OSD_NEARFULL, POOL_FULL, PG_BACKFILL_FULL, …
CAPACITY = re.compile(r"(OSD|POOL|PG)_\w*FULL|MON_DISK_CRIT")
# times the patience: what has lacked a copy for so long isn't about to get it. OSDs that are down are told at once.
LACKING_SECONDS = 600


def check(node: Node) -> None:
    """A quorum with this node's monitor in it, a manager that reports, and a write that is read back."""
    with Cluster() as cluster:
        quorum = cluster.command("quorum_status")["quorum_names"]
        mine = conf.name(node.address)
        if node.address in conf.monitors(node.members) and mine not in quorum:
            raise CornerstoneError(f"this node's monitor isn't in the quorum of {', '.join(quorum)}",
                                   "see: journalctl -u 'ceph-mon@*'", Code.FAILED)
        if not wait_until(lambda: cluster.command("mgr stat")["available"], MANAGER_SECONDS):
            raise CornerstoneError("no manager is active", "see: journalctl -u 'ceph-mgr@*'", Code.FAILED)
        for warning in (*capacity_warnings(cluster.command("health", detail="detail")), *copy_warnings(node, cluster)):
            node.warn(warning)
        _write_and_read(node, cluster)


def capacity_warnings(health: Mapping[str, Any]) -> list[str]:
    """Return the warnings of `ceph health` about room that runs out, without those that an operator has muted."""
    return [f"{code}: {', '.join(entry['message'] for entry in found['detail']) or found['summary']['message']}; "
            + MORE_ROOM
            for code, found in sorted(health["checks"].items()) if CAPACITY.fullmatch(code) and not found["muted"]]


def copy_warnings(node: Node, cluster: Cluster) -> list[str]:
    """Which OSDs are missed, and whether there are fewer copies than the container has to have."""
    count, disks, domains = conf.replicas(node), osd.serials(node), pool.domains(node, cluster)
    tree = cluster.command("osd tree")
    hosts = {number: entry["name"] for entry in tree["nodes"] if entry["type"] == "host"
             for number in entry["children"]}
    uuids = {entry["osd"]: entry["uuid"] for entry in cluster.command("osd dump")["osds"]}
    down = [f"{entry['name']} of {hosts.get(entry['id'], 'no host')}"
            + (f" (data disk {disks[uuids[entry['id']]]})" if uuids.get(entry["id"]) in disks else "")
            for entry in (*tree["nodes"], *tree["stray"]) if entry["type"] == "osd" and entry["status"] != "up"]
    up = sorted(name for name, (_, is_up) in domains.items() if is_up)
    warnings = []
    if down:
        warnings.append(f"down: {', '.join(down)}; bring it back, or replace its disk (docs/cvm.md)")
    if len(up) < count:
        warnings.append(f"{len(up)} of {count} copies can be written, on {', '.join(up) or 'nothing'}: one more "
                        "failure may lose what is written meanwhile")
    elif _stuck(cluster.report("pg dump_stuck", stuckops=["undersized", "degraded"],
                               threshold=LACKING_SECONDS * node.config.patience)):
        warnings.append(f"some data has had fewer than {count} copies for a long time; see: ceph pg dump_stuck")
    return warnings


def _stuck(answer: Any) -> bool:
    """Whether `pg dump_stuck` names a placement group: in a list, by itself or in an object, or it says nothing."""
    return bool(answer.get("stuck_pg_stats") if isinstance(answer, Mapping) else answer)


def _write_and_read(node: Node, cluster: Cluster) -> None:
    name, said = pool.container_name(node.member), secrets.token_bytes(4096)
    what = f"genesis-check-{conf.name(node.address)}"
    try:
        with cluster.rados.open_ioctx(name) as container:
            # else a full cluster would let it wait
            container.set_osdmap_full_try()
            container.write_full(what, said)
            heard = container.read(what, len(said))
            container.remove_object(what)
    except cluster.error as error:
        if getattr(error, "errno", 0) == errno.ENOSPC:
            raise CornerstoneError(f"container {name} is full: volumes can't be written", MORE_ROOM,
                                   Code.FAILED) from error
        if missed := _missed(node, cluster):
            raise CornerstoneError(
                f"container {name} doesn't take a write: what was written last may be on {missed} alone",
                "bring it back; if it is lost for good, docs/cvm.md says how to go on without it", Code.FAILED
            ) from error
        raise CornerstoneError(f"container {name} doesn't take a write: {error}", "see: ceph health detail",
                               Code.FAILED) from error
    if heard != said:
        raise CornerstoneError(f"container {name} returns something else than was written", "see: ceph health detail",
                               Code.FAILED)


def _missed(node: Node, cluster: Cluster) -> str:
    """The OSDs that are down and that others wait for because they may have newer data; those of this node by disk."""
    disks = osd.serials(node)
    found = cluster.report("osd blocked-by")["osd_blocked_by"]["osd_blocked_by_infos"]
    blocking = {entry["id"] for entry in found}
    return ", ".join(
        f"osd.{entry['osd']}" + (f" (data disk {disks[entry['uuid']]})" if entry["uuid"] in disks else "")
        for entry in cluster.command("osd dump")["osds"] if entry["osd"] in blocking and not entry["up"])

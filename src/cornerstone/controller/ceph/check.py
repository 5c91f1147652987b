"""The state `ready`: every part of the storage engine is asked for real."""

from __future__ import annotations

import secrets

from cornerstone.controller.ceph import conf, osd, pool
from cornerstone.controller.ceph.cluster import Cluster, wait_until
from cornerstone.controller.node import Node
from cornerstone.model.error import Code, CornerstoneError

MANAGER_SECONDS = 180


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
        _write_and_read(node, cluster)


def _write_and_read(node: Node, cluster: Cluster) -> None:
    name, said = pool.container_name(node.member), secrets.token_bytes(4096)
    what = f"genesis-check-{conf.name(node.address)}"
    try:
        with cluster.rados.open_ioctx(name) as container:
            container.write_full(what, said)
            heard = container.read(what, len(said))
            container.remove_object(what)
    except cluster.error as error:
        if missed := _missed(node, cluster):
            raise CornerstoneError(
                f"container {name} doesn't take a write: what was written last may be on {missed} alone",
                "bring it back; if it is lost for good, docs/controller.md says how to go on without it", Code.FAILED
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

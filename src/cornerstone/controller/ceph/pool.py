"""The states `pool` and `container`: what the disks are together, and what volumes are made in.

The storage pool is a CRUSH rule over all OSDs, a container is a Ceph pool by that rule. Their names have a number, as
operators know it; here it comes from the cluster's id, so that all members mean the same.
"""

from __future__ import annotations

from cornerstone.controller.ceph import conf
from cornerstone.controller.ceph.cluster import Cluster
from cornerstone.controller.membership import Membership
from cornerstone.controller.node import Node
from cornerstone.controller.waiting import Waiting
from cornerstone.model.error import Code, CornerstoneError

# Ceph's own least; its autoscaler raises it as data comes
PLACEMENT_GROUPS = 32
APPLICATION = "rbd"


def number(membership: Membership) -> int:
    """The number in the names."""
    return int(membership.fsid[-4:], 16)


def pool_name(membership: Membership) -> str:
    return f"default-storage-pool-{number(membership)}"


def container_name(membership: Membership) -> str:
    return f"default-container-{number(membership)}"


def make_pool(node: Node) -> None:
    """The rule: each copy on another host, or on a single one on another disk."""
    with Cluster() as cluster:
        name = pool_name(node.member)
        if name not in cluster.command("osd crush rule ls"):
            cluster.command("osd crush rule create-replicated", name=name, root="default",
                            type=conf.failure_domain(node))


def make_container(node: Node) -> None:
    """The Ceph pool, with as many copies as the site's redundancy factor."""
    count, name = conf.replicas(node), container_name(node.member)
    with Cluster() as cluster:
        if name not in _applications(cluster):
            _check_room(node, cluster, count)
            # how many copies a write needs comes from ceph.conf
            cluster.command("osd pool create", pool=name, pg_num=PLACEMENT_GROUPS, pool_type="replicated",
                            rule=pool_name(node.member), size=count, yes_i_really_mean_it=True)
        if APPLICATION not in _applications(cluster)[name]:
            cluster.command("osd pool application enable", pool=name, app=APPLICATION)


def _applications(cluster: Cluster) -> dict[str, dict]:
    """What each Ceph pool is for, by its name."""
    return {pool["pool_name"]: pool["application_metadata"] for pool in cluster.command("osd pool ls", detail="detail")}


def _check_room(node: Node, cluster: Cluster, count: int) -> None:
    """There must be a host, or a disk, for each copy."""
    tree = cluster.command("osd tree")["nodes"]
    up = {entry["id"] for entry in tree if entry["type"] == "osd" and entry["status"] == "up"}
    if conf.failure_domain(node) == "osd":
        if len(up) < count:
            raise CornerstoneError(f"a redundancy factor of {count} takes {count} data disks, and {len(up)} are up",
                                   "add a disk, or give the site a redundancy_factor of 1", Code.MACHINE)
        return
    hosts = [entry["name"] for entry in tree if entry["type"] == "host" and up.intersection(entry["children"])]
    if len(hosts) < count:
        raise Waiting(f"a redundancy factor of {count} takes {count} nodes with disks; up are "
                      f"{', '.join(sorted(hosts)) or 'none'}")

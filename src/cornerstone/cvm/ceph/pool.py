"""The states `pool` and `container`: what the disks are together, and what volumes are made in.

The storage pool is a CRUSH rule over all OSDs, a container is a Ceph pool by that rule. Their names have a number, as
operators know it; here it comes from the cluster's id, so that all members mean the same.
"""

from __future__ import annotations

from cornerstone.cvm.ceph import capacity, conf
from cornerstone.cvm.ceph.cluster import Cluster
from cornerstone.cvm.membership import Membership
from cornerstone.cvm.node import Node
from cornerstone.cvm.waiting import Waiting
from cornerstone.lib.error import Code, CornerstoneError

# Ceph's own least; its autoscaler raises it as data comes
PLACEMENT_GROUPS = 32
APPLICATION = "rbd"
# the nearfull ratio that genesis has set, and the one that a new cluster has (mon_osd_nearfull_ratio)
NEARFULL_KEY = "cornerstone/nearfull-ratio"
CEPH_NEARFULL = 0.85


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
        set_nearfull_ratio(node, cluster)


def _applications(cluster: Cluster) -> dict[str, dict]:
    """What each Ceph pool is for, by its name."""
    return {pool["pool_name"]: pool["application_metadata"] for pool in cluster.command("osd pool ls", detail="detail")}


def domains(node: Node, cluster: Cluster) -> dict[str, tuple[float, bool]]:
    """Return the failure domains (hosts, or a single host's disks) by name: CRUSH weight, and whether one is up."""
    tree = cluster.command("osd tree")["nodes"]
    osds = {entry["id"]: (entry["crush_weight"], entry["status"] == "up") for entry in tree if entry["type"] == "osd"}
    if conf.failure_domain(node) == "osd":
        return {f"osd.{number}": found for number, found in osds.items()}
    hosts = {entry["name"]: [osds[number] for number in entry["children"] if number in osds]
             for entry in tree if entry["type"] == "host"}
    return {name: (sum(weight for weight, _ in found), any(up for _, up in found)) for name, found in hosts.items()}


def set_nearfull_ratio(node: Node, cluster: Cluster) -> None:
    """Have the cluster warn while there is room for a rebuild. A ratio that an operator has set stays."""
    weights = [weight for weight, _ in domains(node, cluster).values()]
    wanted = capacity.nearfull_ratio(weights, conf.replicas(node))
    now = round(cluster.command("osd dump")["nearfull_ratio"], 4)
    ours = cluster.command("config-key dump", key=NEARFULL_KEY).get(NEARFULL_KEY)
    if now != wanted and now in (CEPH_NEARFULL, float(ours or 0)):
        cluster.command("osd set-nearfull-ratio", ratio=wanted)
        now = wanted
    # after a crash in between, too
    if now == wanted and ours != str(wanted):
        cluster.command("config-key set", key=NEARFULL_KEY, val=str(wanted))


def _check_room(node: Node, cluster: Cluster, count: int) -> None:
    """There must be a host, or a disk, for each copy."""
    up = sorted(name for name, (_, is_up) in domains(node, cluster).items() if is_up)
    if conf.failure_domain(node) == "osd":
        if len(up) < count:
            raise CornerstoneError(f"a redundancy factor of {count} takes {count} data disks, and {len(up)} are up",
                                   "add a disk, or give the site a redundancy_factor of 1", Code.MACHINE)
        return
    if len(up) < count:
        raise Waiting(f"a redundancy factor of {count} takes {count} nodes with disks; up are "
                      f"{', '.join(up) or 'none'}")

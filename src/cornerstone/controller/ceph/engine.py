"""The state `engine`: monitor, manager and OSDs of this node run, and the cluster knows them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from cornerstone.controller import disks, services
from cornerstone.controller.ceph import conf, files, manager, monitor, osd
from cornerstone.controller.ceph.cluster import Cluster, wait_until
from cornerstone.controller.disks import Disk
from cornerstone.controller.node import Node
from cornerstone.model.error import Code, CornerstoneError

# OSDs that are given up on aren't killed; the state is tried again
UP_SECONDS = 180


def bring_up(node: Node) -> None:
    """Start what an earlier boot made, make what is missing, and wait until the OSDs are up."""
    services.check_held()
    files.write(files.CONF, conf.ceph_conf(node))
    files.write(files.ADMIN_KEYRING, files.keyring("client.admin", node.member.admin_key), mode=0o600)
    runs_monitor = node.address in conf.monitors(node.members)
    if runs_monitor:
        monitor.prepare(node)
        services.start(monitor.unit(node))
    found = usable(node)
    uuids = {disk: osd.uuid_of(node.member, disk.serial) for disk in found}
    with ThreadPoolExecutor(max(1, len(found))) as pool:
        # this needs no monitor, so it passes the time until there is one
        there = dict(zip(found, pool.map(_activate, found, uuids.values()), strict=True))
        numbers = [number for number in there.values() if number is not None]
        services.start(*map(osd.unit, numbers))
        with Cluster() as cluster:
            empty = [disk for disk in found if there[disk] is None]
            if empty:
                node.say(f"making an OSD on {', '.join(map(str, empty))}")
                made = list(pool.map(lambda disk: osd.make(disk, uuids[disk], cluster), empty))
                services.start(*map(osd.unit, made))
                numbers += made
            if runs_monitor:
                manager.prepare(node, cluster)
                services.start(manager.unit(node))
            _wait_until_up(cluster, numbers)
            _mark_down(cluster, node.config.controller.name, numbers)


def usable(node: Node) -> tuple[Disk, ...]:
    """The data disks that are there and may be used; what is wrong with the others the state `disks` has told."""
    named = node.config.controller.disks
    ours = {osd.uuid_of(node.member, entry.serial) for entry in named}
    found = disks.find(entry.serial for entry in named)
    return tuple(disk for disk in found if not disks.check([e for e in named if e.serial == disk.serial], [disk], ours))


def _activate(disk: Disk, uuid: str) -> int | None:
    number = osd.running(uuid)
    return osd.activate(disk, uuid) if number is None else number


def _mark_down(cluster: Cluster, host: str, numbers: list[int]) -> None:
    """Tell the cluster which OSDs of this host don't run: others may be long in noticing."""
    tree = cluster.command("osd tree")["nodes"]
    here = {number for entry in tree if entry["type"] == "host" and entry["name"] == host
            for number in entry["children"]}
    gone = [str(entry["id"]) for entry in tree if entry["id"] in here - set(numbers) and entry.get("status") == "up"]
    if gone:
        cluster.command("osd down", ids=gone)


def _wait_until_up(cluster: Cluster, numbers: list[int]) -> None:
    def down() -> list[int]:
        up = {entry["osd"] for entry in cluster.command("osd dump")["osds"] if entry["up"]}
        return sorted(set(numbers) - up)
    if not wait_until(lambda: not down(), UP_SECONDS):
        named = ", ".join(f"osd.{number}" for number in down())
        raise CornerstoneError(f"{named} didn't come up within {UP_SECONDS} s",
                               "see: journalctl -u 'ceph-osd@*'", Code.FAILED)

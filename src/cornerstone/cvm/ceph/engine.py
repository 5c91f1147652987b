"""The state `engine`: monitor, manager and OSDs of this node run, and the cluster knows them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from cornerstone.cvm import disks, services
from cornerstone.cvm.ceph import conf, files, floor, manager, monitor, osd
from cornerstone.cvm.ceph.cluster import Cluster, wait_until
from cornerstone.cvm.disks import Choice, Disk
from cornerstone.cvm.membership import words
from cornerstone.cvm.node import Node
from cornerstone.lib.error import CornerstoneError
from cornerstone.model.contracts.node import DataDisk

# Of an OSD whose daemon runs: emulated, it has taken over four minutes. One that is given up on isn't killed; the next
# look may find it up.
UP_SECONDS = 600


def bring_up(node: Node) -> None:
    """Start what an earlier boot made, make what is missing, and wait until the OSDs are up.

    A disk that can't be used is a warning: the node serves with the others.
    """
    services.check_held()
    chosen = choose(node)
    found = dict(chosen.usable)
    require_floor(node, found.values())
    files.write(files.CONF, conf.ceph_conf(node))
    files.write(files.ADMIN_KEYRING, files.keyring("client.admin", node.member.admin_key), mode=0o600)
    runs_monitor = node.address in conf.monitors(node.members)
    if runs_monitor:
        monitor.prepare(node, found.values())
        services.start(monitor.unit(node))
    # this needs no monitor, so it passes the time until there is one
    numbers = _each(node, partial(_begin, node), found)
    with Cluster() as cluster:
        left = [entry for entry, number in numbers.items() if number is None]
        # of an older release, or of another node of the cluster: only the cluster's map can tell
        strange = {entry: found[entry] for entry in left if found[entry].cluster == node.member.fsid
                   and found[entry].osd != osd.own_uuid(node, entry)}
        empty = {entry: found[entry] for entry in left if entry not in strange}
        numbers |= _each(node, partial(_adopt, node, cluster), strange)
        if empty:
            node.say(f"making an OSD on {', '.join(map(str, empty.values()))}")
            there = {disk.osd for disk in found.values()}
            numbers |= _each(node, partial(_make, node, cluster, there), empty)
            node.say("waiting until the OSDs are up")
        if node.address in conf.managers(node.members):
            manager.prepare(node, cluster)
            services.start(manager.unit(node))
        up = _wait_until_up(node, {found[entry]: number for entry, number in numbers.items() if number is not None})
        _mark_down(cluster, node.config.cvm.name, up)
    if not chosen.problems:
        # it was said of the disks that there were
        words.forget(words.NEW)


def require_floor(node: Node, found: Collection[Disk]) -> None:
    """Raise Waiting when a newer Ceph has opened what is to be started; else keep that it is this one from now on."""
    ours = osd.ours(node, found)
    version = floor.installed()
    floor.require([disk for disk in found if disk.osd in ours], version)
    floor.keep(version)


def choose(node: Node) -> Choice:
    """Choose the data disks that are there and may be used; what is wrong with the others the state `disks` tells."""
    named = node.config.cvm.disks
    found = disks.find(entry.serial for entry in named)
    return disks.choose(named, found, osd.ours(node, found), anew=words.said(words.NEW))


def _each(node: Node, work: Callable[[DataDisk, Disk], int | None], found: Mapping[DataDisk, Disk]
          ) -> dict[DataDisk, int | None]:
    """Return what came of work on each disk. With one that fails the others go on: it is left out, with a warning."""
    done: dict[DataDisk, int | None] = {}
    with ThreadPoolExecutor(max(1, len(found))) as pool:
        working = {entry: pool.submit(work, entry, disk) for entry, disk in found.items()}
    for entry, future in working.items():
        try:
            done[entry] = future.result()
        except CornerstoneError as error:
            node.warn(f"data disk {found[entry]} isn't used: {error.message}; {error.hint}")
    return done


def _begin(node: Node, entry: DataDisk, disk: Disk) -> int | None:
    """Start the OSD that this node has made on a disk; None when none is there."""
    uuid = osd.own_uuid(node, entry)
    number = osd.running(disk.osd or uuid)
    return number if number is not None else _activate(disk, uuid)


def _activate(disk: Disk, uuid: str) -> int | None:
    number = osd.activate(disk, uuid)
    if number is not None:
        services.start(osd.unit(number))
    return number


def _adopt(node: Node, cluster: Cluster, entry: DataDisk, disk: Disk) -> int | None:
    osd.require_own(disk.osd, node.config.cvm.name, cluster)
    return _activate(disk, disk.osd)


def _make(node: Node, cluster: Cluster, there: Collection[str], entry: DataDisk, disk: Disk) -> int:
    """Make an OSD on a disk, and start it. there: uuids of the OSDs that were found on this node's disks."""
    host, former = node.config.cvm.name, osd.uuid_of(node.member, entry.serial)
    if former not in there:
        osd.check_former(former, host, cluster)
    number = osd.make(disk, osd.own_uuid(node, entry), host, cluster)
    services.start(osd.unit(number))
    return number


def _wait_until_up(node: Node, numbers: dict[Disk, int]) -> set[int]:
    """Wait until each OSD is up or its daemon has ended; those that are up. One that isn't doesn't keep the others."""
    def pending(number: int) -> bool:
        state = osd.state(number)
        return state != osd.UP and (state != "" or services.active(osd.unit(number)))
    wait_until(lambda: not any(map(pending, numbers.values())), UP_SECONDS)
    up = {number for number in numbers.values() if osd.state(number) == osd.UP}
    for disk, number in numbers.items():
        if number not in up:
            node.warn(f"data disk {disk} isn't used: osd.{number} didn't come up; see: journalctl -u ceph-osd@{number}")
    return up


def _mark_down(cluster: Cluster, host: str, up: set[int]) -> None:
    """Tell the cluster which OSDs of this host aren't up: others may be long in noticing."""
    tree = cluster.command("osd tree")["nodes"]
    here = {number for entry in tree if entry["type"] == "host" and entry["name"] == host
            for number in entry["children"]}
    gone = [str(entry["id"]) for entry in tree if entry["id"] in here - up and entry.get("status") == "up"]
    if gone:
        cluster.command("osd down", ids=gone)

"""The state `engine`: monitor, manager and OSDs of this node run, and the cluster knows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from cornerstone.controller import disks, services
from cornerstone.controller.ceph import conf, files, manager, monitor, osd
from cornerstone.controller.ceph.cluster import Cluster, wait_until
from cornerstone.controller.disks import Disk
from cornerstone.controller.node import Node
from cornerstone.model.error import CornerstoneError

# Of an OSD whose daemon runs: emulated, it has taken over four minutes. One that is given up on isn't killed; the next
# look may find it up.
UP_SECONDS = 600


def bring_up(node: Node) -> None:
    """Start what an earlier boot made, make what is missing, and wait until the OSDs are up.

    A disk that can't be used is a warning: the node serves with the others.
    """
    services.check_held()
    files.write(files.CONF, conf.ceph_conf(node))
    files.write(files.ADMIN_KEYRING, files.keyring("client.admin", node.member.admin_key), mode=0o600)
    runs_monitor = node.address in conf.monitors(node.members)
    if runs_monitor:
        monitor.prepare(node)
        services.start(monitor.unit(node))
    found = usable(node)
    # this needs no monitor, so it passes the time until there is one
    numbers = _each(node, _begin, found)
    with Cluster() as cluster:
        if empty := [disk for disk, number in numbers.items() if number is None]:
            node.say(f"making an OSD on {', '.join(map(str, empty))}")
            numbers |= _each(node, partial(_make, cluster), empty)
        if node.address in conf.managers(node.members):
            manager.prepare(node, cluster)
            services.start(manager.unit(node))
        up = _wait_until_up(node, {disk: number for disk, number in numbers.items() if number is not None})
        _mark_down(cluster, node.config.controller.name, up)


def usable(node: Node) -> tuple[Disk, ...]:
    """The data disks that are there and may be used; what is wrong with the others the state `disks` has told."""
    named = node.config.controller.disks
    ours = {osd.uuid_of(node.member, entry.serial) for entry in named}
    found = disks.find(entry.serial for entry in named)
    return tuple(disk for disk in found if not disks.check([e for e in named if e.serial == disk.serial], [disk], ours))


def _each(node: Node, work: Callable[[Disk, str], int | None], found: Sequence[Disk]) -> dict[Disk, int | None]:
    """What came of work on each disk and its OSD's uuid. With one that fails the others go on: it is left out."""
    done: dict[Disk, int | None] = {}
    with ThreadPoolExecutor(max(1, len(found))) as pool:
        working = {disk: pool.submit(work, disk, osd.uuid_of(node.member, disk.serial)) for disk in found}
    for disk, future in working.items():
        try:
            done[disk] = future.result()
        except CornerstoneError as error:
            node.warn(f"data disk {disk} isn't used: {error.message}; {error.hint}")
    return done


def _begin(disk: Disk, uuid: str) -> int | None:
    """Start the OSD that is on a disk; None when none is."""
    number = osd.running(uuid)
    if number is None and (number := osd.activate(disk, uuid)) is not None:
        services.start(osd.unit(number))
    return number


def _make(cluster: Cluster, disk: Disk, uuid: str) -> int:
    number = osd.make(disk, uuid, cluster)
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

"""OSDs: one a data disk, BlueStore on the whole disk, without LVM below it.

An OSD's uuid and its cluster's id stand at the disk's beginning: so a disk tells by itself whose it is. The uuid of a
new one is derived from the cluster's id and what identifies the disk, so that an OSD that was begun is found again. All
else that an OSD needs to start is on its disk too, and is taken from there.
"""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path

from cornerstone.cvm import disks, services
from cornerstone.cvm.ceph import files, floor
from cornerstone.cvm.ceph.cluster import Cluster
from cornerstone.cvm.ceph.tool import run
from cornerstone.cvm.disks import Disk
from cornerstone.cvm.membership import Membership
from cornerstone.cvm.node import Node
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.gpt import derived_id
from cornerstone.lib.json_text import MOST, parse_once
from cornerstone.lib.sysfs import read_text
from cornerstone.model.contracts.node import DataDisk

HOME = files.HOME / "osd"
# device nodes of disks while OSDs are made on them
DEVICES = Path("/dev/cornerstone")
SOCKETS = Path("/run/ceph")
SOCKET_SECONDS = 5
# what an OSD says of itself when the cluster's map shows this very process as up
UP = "active"


def uuid_of(membership: Membership, serial: str, place: str = "") -> str:
    """Return the uuid of the OSD on the disk of a serial; place tells disks of one serial apart.

    Until release 0.1.0 there was no place.
    """
    return str(derived_id(membership.fsid, "osd", json.dumps([serial, place]) if place else serial))


def own_uuid(node: Node, disk: DataDisk) -> str:
    """Return the uuid of the OSD that this node makes on a disk: no other disk's, on no other node.

    Serials aren't unique, neither on a node nor in a cluster, and makers have given world-wide names twice too. `osd
    new` gives whoever asks for a uuid the same OSD, so two nodes must never ask for one.
    """
    return uuid_of(node.member, disk.serial, f"{disk.wwn} {node.address}")


def serials(node: Node) -> dict[str, str]:
    """Return the serials of node.json's data disks by the uuids that an OSD on each may have."""
    named = node.config.cvm.disks
    return ({uuid_of(node.member, disk.serial): disk.serial for disk in named}
            | {own_uuid(node, disk): disk.serial for disk in named})


def ours(node: Node, found: Iterable[Disk]) -> set[str]:
    """Return the uuids of this cluster's OSDs, among those on disks that were found and those begun on this node."""
    # one that was cut off while it was made doesn't name its cluster yet
    return ({disk.osd for disk in found if disk.cluster == node.member.fsid}
            | {own_uuid(node, disk) for disk in node.config.cvm.disks})


def unit(number: int) -> str:
    return f"ceph-osd@{number}.service"


def running(uuid: str) -> int | None:
    """The number of an OSD that runs here already."""
    for home in HOME.glob("ceph-*"):
        if read_text(home / "fsid") == uuid and services.active(unit(number := int(home.name.partition("-")[2]))):
            return number
    return None


def state(number: int) -> str:
    """What an OSD's process here says how it is, UP in the end; "" when there is none, "starting" when it can't yet.

    The cluster's map may still show as up one that ran before a power cut.
    """
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(SOCKET_SECONDS)
        try:
            line.connect(str(SOCKETS / f"ceph-osd.{number}.asok"))
        except OSError:
            return ""
        try:
            line.sendall(b'{"prefix": "status", "format": "json"}\0')
            with line.makefile("rb") as answer:
                # as long as it says itself, and never longer than is read
                size = min(int.from_bytes(answer.read(4), "big"), MOST + 1)
                return str(parse_once(answer.read(size))["state"])
        except (OSError, ValueError, KeyError, TypeError):
            return "starting"


def activate(disk: Disk, uuid: str) -> int | None:
    """Take the OSD's folder from its disk, and return its number; None when no whole OSD of this uuid is there."""
    if disk.osd != uuid:
        return None
    # udev gives devices to root
    shutil.chown(disk.device, files.USER, files.USER)
    new = _fresh(HOME / f".{uuid}.new")
    run("ceph-bluestore-tool", "prime-osd-dir", "--no-mon-config", "--dev", disk.device, "--path", new)
    number = read_text(new / "whoami")
    if not (read_text(new / "ready") and number and read_text(new / "fsid") == uuid):
        return None
    # whoever opens it next is this CVM's Ceph
    floor.mark(disk)
    return _place(new, disk, int(number))


def require_own(uuid: str, host: str, cluster: Cluster) -> None:
    """Raise CornerstoneError unless the cluster's map has the OSD of this uuid on this host.

    An OSD that this node wouldn't have made under this uuid was made by an older release here, or on another node.
    """
    number = _number(uuid, cluster)
    if number is None:
        raise CornerstoneError(f"it holds an OSD {uuid} of this cluster that the cluster doesn't know any more",
                               "if its data may go, erase it: wipefs --all; it is made anew then", Code.REFUSED)
    if (where := _host_of(number, cluster)) != host:
        raise CornerstoneError(f"it holds osd.{number}, which is of the node {where or '(unknown)'}",
                               "put the disk back there", Code.REFUSED)


def check_former(uuid: str, host: str, cluster: Cluster) -> None:
    """Raise CornerstoneError when the cluster's map has on this host an OSD that no disk here holds any more."""
    number = _number(uuid, cluster)
    if number is not None and _host_of(number, cluster) == host:
        _check_lost(number, cluster)


def _number(uuid: str, cluster: Cluster) -> int | None:
    """Return the number of the OSD of a uuid, or None when the cluster's map has none."""
    return next((entry["osd"] for entry in cluster.command("osd dump")["osds"] if entry["uuid"] == uuid), None)


def make(disk: Disk, uuid: str, host: str, cluster: Cluster) -> int:
    """Make an OSD on a disk, erasing what was seen there, and return its number; its folder is in place.

    host: this node's name in the cluster's map. The disk is held meanwhile: what is erased and what becomes an OSD is
    what was looked at, or nothing is written.
    """
    number = cluster.command("osd new", uuid=uuid)["osdid"]
    if (where := _host_of(number, cluster)) not in ("", host):
        raise CornerstoneError(f"its OSD would be osd.{number}, which the node {where} has", "see: ceph osd tree",
                               Code.REFUSED)
    _check_lost(number, cluster)
    key = cluster.key(f"osd.{number}", mon="allow profile osd", mgr="allow profile osd", osd="allow *")
    new, device = _fresh(HOME / f".{uuid}.new"), DEVICES / uuid
    (new / "block").symlink_to(device)
    with disks.hold(disk) as held:
        held.erase()
        held.make_node(device)
        try:
            shutil.chown(device, files.USER, files.USER)
            run("ceph-osd", "--mkfs", "--no-mon-config", "--id", str(number), "--osd-objectstore", "bluestore",
                "--osd-data", new, "--osd-uuid", uuid, "--keyfile", "-", "--setuser", files.USER, "--setgroup",
                files.USER, stdin=key)
            held.check_same(contents=False)
            floor.mark_device(device)
        finally:
            device.unlink()
    files.write(new / "keyring", files.keyring(f"osd.{number}", key), files.USER, 0o600)
    return _place(new, disk, number)


def _host_of(number: int, cluster: Cluster) -> str:
    """Return the name of the host that the cluster's map has an OSD on; "" while it has never been up."""
    return cluster.command("osd find", id=number).get("crush_location", {}).get("host", "")


def _check_lost(number: int, cluster: Cluster) -> None:
    """An OSD that has held data isn't made again on its own: whoever emptied its disk may not have meant to."""
    entry = next(entry for entry in cluster.command("osd dump")["osds"] if entry["osd"] == number)
    if entry["up_from"]:
        raise CornerstoneError(f"it held osd.{number} and doesn't any more", "if its data may go, say: "
                               f"ceph osd purge {number} --yes-i-really-mean-it; it is made anew then", Code.REFUSED)


def _fresh(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    return files.folder(path)


def _place(new: Path, disk: Disk, number: int) -> int:
    """Rename the OSD's folder to its lasting name, with a link to the disk as it is called in this boot."""
    (new / "block").unlink(missing_ok=True)
    (new / "block").symlink_to(disk.device)
    for path in (new, *new.iterdir()):
        shutil.chown(path, files.USER, files.USER)
    home = HOME / f"ceph-{number}"
    shutil.rmtree(home, ignore_errors=True)
    new.rename(home)
    return number

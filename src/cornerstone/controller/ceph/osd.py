"""OSDs: one a data disk, BlueStore on the whole disk, without LVM below it.

An OSD's uuid is derived from the cluster's id and the disk's serial, and stands at the disk's beginning: so a disk
tells by itself whose it is. All else that an OSD needs to start is on its disk too, and is taken from there.
"""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

from cornerstone.controller import disks, services
from cornerstone.controller.ceph import files
from cornerstone.controller.ceph.cluster import Cluster
from cornerstone.controller.ceph.tool import run
from cornerstone.controller.disks import Disk
from cornerstone.controller.membership import Membership
from cornerstone.model.error import Code, CornerstoneError
from cornerstone.model.gpt import derived_id

HOME = files.HOME / "osd"
SOCKETS = Path("/run/ceph")
SOCKET_SECONDS = 5
# what an OSD says of itself when the cluster's map shows this very process as up
UP = "active"


def uuid_of(membership: Membership, serial: str) -> str:
    """The OSD's on the disk of this serial."""
    return str(derived_id(membership.fsid, "osd", serial))


def unit(number: int) -> str:
    return f"ceph-osd@{number}.service"


def running(uuid: str) -> int | None:
    """The number of an OSD that runs here already."""
    for home in HOME.glob("ceph-*"):
        if _read(home / "fsid") == uuid and services.active(unit(number := int(home.name.partition("-")[2]))):
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
                return json.loads(answer.read(int.from_bytes(answer.read(4), "big")))["state"]
        except (OSError, ValueError, KeyError):
            return "starting"


def activate(disk: Disk, uuid: str) -> int | None:
    """Take the OSD's folder from its disk, and return its number; None when no whole OSD of this uuid is there."""
    if disk.osd != uuid:
        return None
    # udev gives devices to root
    shutil.chown(disk.device, files.USER, files.USER)
    new = _fresh(HOME / f".{uuid}.new")
    run("ceph-bluestore-tool", "prime-osd-dir", "--no-mon-config", "--dev", disk.device, "--path", new)
    number = _read(new / "whoami")
    if not (_read(new / "ready") and number):
        return None
    return _place(new, disk, int(number))


def make(disk: Disk, uuid: str, cluster: Cluster) -> int:
    """Make an OSD on a disk, erasing what is there, and return its number; its folder is in place."""
    number = cluster.command("osd new", uuid=uuid)["osdid"]
    key = cluster.key(f"osd.{number}", mon="allow profile osd", mgr="allow profile osd", osd="allow *")
    _check_lost(number, cluster)
    disks.erase(disk)
    shutil.chown(disk.device, files.USER, files.USER)
    new = _fresh(HOME / f".{uuid}.new")
    (new / "block").symlink_to(disk.device)
    run("ceph-osd", "--mkfs", "--no-mon-config", "--id", str(number), "--osd-objectstore", "bluestore",
        "--osd-data", new, "--osd-uuid", uuid, "--keyfile", "-", "--setuser", files.USER, "--setgroup", files.USER,
        stdin=key)
    files.write(new / "keyring", files.keyring(f"osd.{number}", key), files.USER, 0o600)
    return _place(new, disk, number)


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


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

"""The node's data disks: found by serial, whatever their names are in this boot; what is on them; erased if allowed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cornerstone.model.disk_identity import disk_serial, fingerprint, read_osd
from cornerstone.model.error import Code, CornerstoneError
from cornerstone.model.node import DataDisk

SECTOR = 512
# Tables begin and most formats tell themselves within this much; GPT and RAID have copies as near the end.
EDGE = 16 << 20
HEAD = 1 << 20
# linux/fs.h
BLKRRPART = 0x125F


@dataclass(frozen=True)
class Disk:
    """A disk that is there.

    osd: uuid of the BlueStore OSD on it, or ""; contents: what is on it, or "" for nothing; fault: why it can't be
    read, or ""; fingerprint: of what is on it (model/disk_identity.py).
    """

    serial: str
    device: Path
    size: int
    osd: str = ""
    contents: str = ""
    fault: str = ""
    fingerprint: str = ""

    def __str__(self) -> str:
        return f"{self.device.name} ({self.serial}, {self.size / 10**9:.1f} GB)"


def present(root: Path = Path("/")) -> dict[str, tuple[Path, int]]:
    """All disks with a serial: their device and size in bytes. Of two with one serial, the same disk by two paths."""
    found = {}
    for block in sorted((root / "sys/block").glob("*"), reverse=True):
        # without a device: loop, dm, rbd and the like; size 0: a reader without a card
        if (block / "device").exists() and (size := int((block / "size").read_text())) and \
                (serial := disk_serial(block)):
            found[serial] = (root / "dev" / block.name, size * SECTOR)
    return found


def find(serials: Iterable[str], root: Path = Path("/")) -> tuple[Disk, ...]:
    """Those disks of these serials that are there, with what is on them; several at a time."""
    there = present(root)
    named = [(serial, *there[serial]) for serial in serials if serial in there]
    with ThreadPoolExecutor() as pool:
        return tuple(pool.map(lambda entry: _look(*entry), named))


def _look(serial: str, device: Path, size: int) -> Disk:
    try:
        with device.open("rb") as disk:
            head = disk.read(HEAD)
            found = fingerprint(lambda offset, count: os.pread(disk.fileno(), count, offset), size)
        osd = read_osd(head)
        return Disk(serial, device, size, osd, "a BlueStore OSD" if osd else _contents(device, head), "", found)
    except OSError as error:
        return Disk(serial, device, size, fault=error.strerror)


def _contents(device: Path, head: bytes) -> str:
    done = subprocess.run(["wipefs", "--no-act", "--json", device], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(errno.EIO, done.stderr.strip())
    found = json.loads(done.stdout)["signatures"] if done.stdout.strip() else []
    return ", ".join(sorted({entry["type"] for entry in found})) or ("data" if any(head) else "")


def check(named: Iterable[DataDisk], found: Iterable[Disk], ours: Iterable[str] = ()) -> list[str]:
    """What is wrong with the data disks of node.json, one sentence each. ours: uuids of this cluster's OSDs here."""
    there, problems = {disk.serial: disk for disk in found}, []
    for entry in named:
        disk = there.get(entry.serial)
        if disk is None:
            problems.append(f"data disk {entry.serial} isn't there")
        elif disk.fault:
            problems.append(f"data disk {disk} can't be read: {disk.fault}")
        elif disk.contents and disk.osd not in ours and (not entry.contents or disk.fingerprint != entry.contents):
            problems.append(f"data disk {disk} isn't empty and isn't this cluster's: {disk.contents}")
    return problems


def unnamed(named: Iterable[DataDisk], root: Path = Path("/")) -> list[str]:
    """Serials of disks that are there and that node.json doesn't know."""
    return sorted(present(root).keys() - {entry.serial for entry in named})


def erase(disk: Disk) -> None:
    """Take away what tells of contents: the disk's first and last 16 MiB. Refused while something uses it."""
    try:
        handle = os.open(disk.device, os.O_RDWR | os.O_EXCL)
        try:
            for offset in (0, max(disk.size - EDGE, 0)):
                os.pwrite(handle, bytes(min(EDGE, disk.size)), offset)
            os.fsync(handle)
            # so that the partitions that were there go too
            with contextlib.suppress(OSError):
                fcntl.ioctl(handle, BLKRRPART)
        finally:
            os.close(handle)
    except OSError as error:
        raise CornerstoneError(f"{disk} can't be erased: {error.strerror}", "see what uses it: lsblk; or replace it",
                               Code.MACHINE) from error

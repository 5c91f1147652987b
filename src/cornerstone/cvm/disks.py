"""The node's data disks: found by all that identifies them, judged by what is on them, erased if that is allowed.

A disk's name may be another's in the next boot, after a bus reset or in a hot-plug bay, and its serial may be that of
others too. So a disk is chosen by its whole identity (model/disk/identity.py), and whoever writes to it holds it by a
descriptor and compares identity and contents once more through that.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from cornerstone.lib import command
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.json_text import parse_once
from cornerstone.model.contracts.node import DataDisk
from cornerstone.model.disk.identity import (
    BLUESTORE,
    DiskIdentity,
    fingerprint,
    read_ceph,
    read_identity,
    read_opened_by,
)

# Tables begin and most formats tell themselves within this much; GPT and RAID have copies as near the end.
EDGE = 16 << 20
HEAD = 1 << 20
BLUESTORE_OSD = "a BlueStore OSD"
# linux/fs.h; the second gives the kernel's number of the attachment that a descriptor is of, as eight bytes
BLKRRPART, BLKGETDISKSEQ = 0x125F, 0x8008_1280


@dataclass(frozen=True)
class Disk:
    """A disk that is there.

    osd: uuid of the Ceph OSD on it, or ""; cluster: the id of that OSD's cluster, as far as it tells; contents: what is
    on it, or "" for nothing; fault: why it can't be read, or ""; fingerprint: of what is on it; sequence: of this
    attachment, or None (model/disk/identity.py); opened_by: versions of Ceph, as its OSD's label has them.
    """

    serial: str
    device: Path
    size: int
    osd: str = ""
    contents: str = ""
    fault: str = ""
    fingerprint: str = ""
    wwn: str = ""
    model: str = ""
    sequence: int | None = None
    cluster: str = ""
    opened_by: tuple[str, ...] = ()

    @property
    def holds_osd(self) -> bool:
        """Tell whether a Ceph OSD is on it, of whichever cluster."""
        return bool(self.osd or self.cluster) or self.contents == BLUESTORE_OSD

    @property
    def identity(self) -> DiskIdentity:
        """Return by what the disk is known."""
        return DiskIdentity(self.serial, self.wwn, self.size, self.model, self.sequence)

    def __str__(self) -> str:
        return f"{self.device.name} ({self.serial}, {self.size / 10**9:.1f} GB)"


@dataclass(frozen=True)
class Choice:
    """What came of looking for node.json's data disks. usable: each with its disk; problems: a sentence each.

    foreign: disks that node.json allows to be erased and that hold an OSD of another cluster; usable only with anew.
    """

    usable: tuple[tuple[DataDisk, Disk], ...]
    problems: tuple[str, ...]
    foreign: tuple[Disk, ...] = field(default=())


def present(root: Path = Path("/")) -> tuple[Disk, ...]:
    """Return all disks with a serial, without what is on them, by name: sda, sdb. Two paths to one disk are two."""
    found = []
    for block in sorted((root / "sys/block").glob("*")):
        # without a device: loop, dm, rbd and the like; size 0: a reader without a card
        if (block / "device").exists():
            disk = read_identity(block)
            if disk.size and disk.serial:
                found.append(Disk(disk.serial, root / "dev" / block.name, disk.size, wwn=disk.wwn, model=disk.model,
                                  sequence=disk.sequence))
    return tuple(found)


def find(serials: Iterable[str], root: Path = Path("/")) -> tuple[Disk, ...]:
    """Return all disks of these serials that are there, with what is on them; several are read at a time."""
    there = present(root)
    named = [disk for serial in dict.fromkeys(serials) for disk in there if disk.serial == serial]
    with ThreadPoolExecutor() as pool:
        return tuple(pool.map(_look, named))


def _look(disk: Disk) -> Disk:
    try:
        with disk.device.open("rb") as device:
            head = device.read(HEAD)
            found = _fingerprint(device.fileno(), disk.size)
        osd, cluster = read_ceph(head) or ("", "")
        contents = BLUESTORE_OSD if head.startswith(BLUESTORE) else _contents(disk.device, head, found)
        return replace(disk, osd=osd, cluster=cluster, contents=contents, fingerprint=found,
                       opened_by=read_opened_by(head))
    except OSError as error:
        return replace(disk, fault=error.strerror or str(error))


def _fingerprint(handle: int, size: int) -> str:
    return fingerprint(lambda offset, count: os.pread(handle, count, offset), size)


def _contents(device: Path, head: bytes, found: str) -> str:
    """Return what wipefs takes the contents for: "gpt, ext4"; "data" for what it doesn't know, "" for nothing."""
    # without labels, which may be any bytes
    done = command.run(["wipefs", "--no-act", "--json", "--output", "TYPE", device])
    if done.code:
        raise OSError(errno.EIO, done.said)
    try:
        said = parse_once(done.text, controls=True) if done.text.strip() else {"signatures": ()}
        types = {str(entry["type"]) for entry in said["signatures"]}
    except (ValueError, KeyError, TypeError):
        types = {"data"}
    return ", ".join(sorted(types)) or ("data" if any(head) or found else "")


def choose(named: Iterable[DataDisk], found: Collection[Disk], ours: Collection[str] = (), *, anew: bool = False
           ) -> Choice:
    """Choose node.json's data disks among those that find() has returned. ours: uuids of this cluster's OSDs here.

    anew: an operator has said that other clusters' OSDs go (`cluster create --new`).
    """
    usable, problems, foreign = {}, [], []
    for entry in dict.fromkeys(named):
        disk, problem = _match(entry, [disk for disk in found if disk.serial == entry.serial], ours)
        if disk and disk in usable.values():
            problem = f"data disk {disk} is named twice in node.json"
        elif disk and not problem:
            problem = _judge(entry, disk, ours)
        if problem:
            problems.append(problem)
        elif disk:
            other = disk.holds_osd and disk.osd not in ours
            if other:
                foreign.append(disk)
            if anew or not other:
                usable[entry] = disk
    return Choice(tuple(usable.items()), tuple(problems), tuple(foreign))


def _match(entry: DataDisk, there: Collection[Disk], ours: Collection[str]) -> tuple[Disk | None, str]:
    """Return the one disk that an entry of node.json means, or None with what is wrong."""
    if not there:
        return None, f"data disk {entry.serial} isn't there"
    differences = {disk: entry.identity.difference(disk.identity) for disk in there}
    same = [disk for disk, difference in differences.items() if not difference]
    if not same:
        said = "; ".join(f"{disk.device.name} has {difference}" for disk, difference in differences.items())
        return None, f"data disk {entry.serial} is another disk than node.json means: {said}"
    if len(same) == 1:
        return same[0], ""
    if len(own := [disk for disk in same if disk.osd and disk.osd in ours]) == 1:
        return own[0], ""
    readable = [disk for disk in same if not disk.fault] or same
    # what two paths lead to has one world-wide name, and the same on it whoever looks
    if entry.wwn and len({(disk.fingerprint, disk.contents, disk.fault) for disk in readable}) == 1:
        return readable[0], ""
    names = " and ".join(disk.device.name for disk in same)
    return None, f"data disk {entry.serial} isn't used: {names} can't be told apart"


def _judge(entry: DataDisk, disk: Disk, ours: Collection[str]) -> str:
    """Return why the disk of an entry can't be used, or ""."""
    if disk.fault:
        return f"data disk {disk} can't be read: {disk.fault}"
    if disk.contents and disk.osd not in ours and (not entry.contents or disk.fingerprint != entry.contents):
        return f"data disk {disk} isn't empty and isn't this cluster's: {disk.contents}"
    return ""


def check(named: Iterable[DataDisk], found: Iterable[Disk], ours: Collection[str] = ()) -> list[str]:
    """Return what is wrong with the data disks of node.json, a sentence each, as choose() has it."""
    return list(choose(named, tuple(found), ours).problems)


def unnamed(named: Iterable[DataDisk], root: Path = Path("/")) -> list[str]:
    """Return the serials of disks that are there and that node.json doesn't mean."""
    entries = tuple(named)
    return sorted({disk.serial for disk in present(root)
                   if not any(entry.serial == disk.serial and not entry.identity.difference(disk.identity)
                              for entry in entries)})


@dataclass(frozen=True)
class Held:
    """A disk held by a descriptor: as long as it is open the kernel gives its device number to no other disk."""

    disk: Disk
    handle: int

    def check_same(self, *, contents: bool) -> None:
        """Raise CornerstoneError when this isn't the disk that was looked at; contents: or has something else on it."""
        difference = self.disk.identity.difference(self._identity())
        if contents and not difference:
            try:
                difference = _fingerprint(self.handle, self.disk.size) != self.disk.fingerprint and "other contents"
            except OSError as error:
                difference = error.strerror
        if difference:
            raise CornerstoneError(f"{self.disk} isn't the disk that was looked at any more: {difference}",
                                   "nothing was written; it is looked at anew within a minute", Code.REFUSED)

    def _identity(self) -> DiskIdentity:
        status = os.fstat(self.handle)
        if not stat.S_ISBLK(status.st_mode):
            # a file in the place of a device
            return read_identity(self.disk.device.parents[1] / "sys/block" / self.disk.device.name)
        found = read_identity(Path(f"/sys/dev/block/{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"))
        with contextlib.suppress(OSError):
            # the number of what this descriptor is of, whatever sysfs has at its place by now
            sequence = struct.unpack("=Q", fcntl.ioctl(self.handle, BLKGETDISKSEQ, bytes(8)))[0]
            return replace(found, sequence=sequence)
        return found

    def erase(self) -> None:
        """Take away what tells of contents: the disk's first and last 16 MiB, if they are still what was looked at."""
        self.check_same(contents=True)
        try:
            for offset in (0, max(self.disk.size - EDGE, 0)):
                _write_zeros(self.handle, min(EDGE, self.disk.size), offset)
            os.fsync(self.handle)
        except OSError as error:
            raise CornerstoneError(f"{self.disk} can't be erased: {error.strerror}", "see: journalctl -k; replace it",
                                   Code.MACHINE) from error
        # so that the partitions that were there go too
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.handle, BLKRRPART)

    def make_node(self, path: Path) -> None:
        """Make a device node that can be no other disk's while this one is held, whatever names udev gives."""
        path.parent.mkdir(mode=0o755, exist_ok=True)
        path.unlink(missing_ok=True)
        os.mknod(path, 0o600 | stat.S_IFBLK, os.fstat(self.handle).st_rdev)


@contextlib.contextmanager
def hold(disk: Disk) -> Iterator[Held]:
    """Hold a disk that nothing else uses; CornerstoneError when something does, or when it is gone."""
    try:
        handle = _open(disk.device)
    except OSError as error:
        raise CornerstoneError(f"{disk} can't be erased: {error.strerror}", "see what uses it: lsblk; or replace it",
                               Code.MACHINE) from error
    try:
        yield Held(disk, handle)
    finally:
        os.close(handle)


def _open(device: Path) -> int:
    """Open a device that nothing else uses. It isn't kept to us: the OSD's own tool wants it to itself in the end."""
    exclusive = os.open(device, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    try:
        # the very same disk, by no name that could be another's by now
        return os.open(f"/proc/self/fd/{exclusive}", os.O_RDWR | os.O_CLOEXEC)
    finally:
        os.close(exclusive)


def erase(disk: Disk) -> None:
    """Take away what tells of a disk's contents. Refused while something uses it, and when it isn't that disk."""
    with hold(disk) as held:
        held.erase()


def _write_zeros(handle: int, count: int, offset: int) -> None:
    zeros = bytes(1 << 20)
    while count > 0:
        written = os.pwrite(handle, zeros[:count], offset)
        count, offset = count - written, offset + written

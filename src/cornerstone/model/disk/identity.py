"""Which disk a block device is: what it says of itself, what is on it, and whether it is the one that was chosen.

The one definition of "the same disk". Whoever writes or erases reads identity and contents from the descriptor that it
then writes through, and compares both with what was decided. Standard library only: it runs in the live environment, on
the host and in the Controller VM alike.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cornerstone.lib.gpt import SECTOR, read_header
from cornerstone.lib.sysfs import number, read_bytes

# Tables, superblocks and labels lie within this much of the begin of a disk or partition, and copies as near its end.
# The farthest that libblkid knows is VMFS's, at 2 MiB.
EDGE = 4 << 20
# What a BlueStore device begins with; the OSD's uuid follows as text (BlueStore's _read_bdev_label).
BLUESTORE = b"bluestore block device\n"
_OSD_UUID = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# In BlueStore's label the length of the value as 32 bits stands between name and value.
_CLUSTER = re.compile(rb"ceph_fsid\x24\0\0\0([0-9a-f-]{36})")
# The tags that ceph-volume gives to its logical volumes stand in LVM's metadata, as text.
# Keys of a BlueStore label that say which Ceph has made or opened the OSD; the first is ours (cvm/ceph/floor.py). Each
# text has its length before it, in four bytes.
OPENED_BY = "cornerstone_opened_by"
_VERSIONS = re.compile(rb"(?:%b|ceph_version_when_created|require_osd_release)(.\0\0\0)" % OPENED_BY.encode(),
                       re.DOTALL)
_LVM_OSD = re.compile(rb"ceph\.osd_fsid=([0-9a-f-]{36})")
_LVM_CLUSTER = re.compile(rb"ceph\.cluster_fsid=([0-9a-f-]{36})")
# MBR: four entries of 16 bytes from here on, each with its type at 4, first sector and length at 8 (UEFI 2.10, 5.2.1)
_MBR_ENTRIES, _MBR_ENTRY = 446, struct.Struct("<4xB3xII")
_MBR_SIGNATURE = b"\x55\xaa"
_PROTECTIVE = 0xEE
# Extended partitions, whose tables are chained: DOS's, Windows's and Linux's type.
_EXTENDED = (0x05, 0x0F, 0x85)
# A table is somebody's word: no more partitions than this are looked at, nor entries of more bytes.
_MOST_PARTITIONS = 256
_MOST_ENTRIES = 1 << 20

Read = Callable[[int, int], bytes]


@dataclass(frozen=True)
class DiskIdentity:
    """What a disk says of itself. "" and None: it doesn't tell. size in bytes.

    wwn: naa., eui. or uuid. form, as sysfs has it. sequence: the kernel's number of this attachment of the disk
    (diskseq), never given twice while a kernel runs, and of no meaning to another kernel.
    """

    serial: str = ""
    wwn: str = ""
    size: int = 0
    model: str = ""
    sequence: int | None = None

    def difference(self, found: DiskIdentity) -> str:
        """Return in what found differs from this, the chosen disk, as "wwn naa.1 instead of naa.2"; "" for nothing.

        A paravirtual front of a disk (virtio-blk) passes on its serial alone: of one that tells neither WWN nor model
        these two aren't compared. Nor is a model of which the chosen disk's record has none.
        """
        names = ["serial", "size"]
        if found.wwn or found.model:
            names.append("wwn")
        if found.model and self.model:
            names.append("model")
        if None not in (self.sequence, found.sequence):
            names.append("sequence")
        return ", ".join(f"{name} {getattr(found, name) or 'none'} instead of {getattr(self, name) or 'none'}"
                         for name in names if getattr(self, name) != getattr(found, name))


def read_identity(block: Path) -> DiskIdentity:
    """Read what a disk says of itself from its folder in sysfs: /sys/block/sda, /sys/dev/block/8:0."""
    return DiskIdentity(disk_serial(block), disk_wwn(block), (number(block / "size") or 0) * SECTOR, disk_model(block),
                        number(block / "diskseq"))


def disk_serial(block: Path) -> str:
    """Read a disk's serial from sysfs: NVMe's, virtio's, SCSI's, or that of the USB device that it is; "" for none.

    It is the same on the host and, passed through, in the Controller VM.
    """
    return (_read(block / "device/serial") or _read(block / "serial") or _unit_serial(block / "device/vpd_pg80")
            or next((_read(parent / "serial") for parent in block.resolve().parents
                     if (parent / "idVendor").exists()), ""))


def disk_wwn(block: Path) -> str:
    """Read a disk's world-wide name from sysfs; "" for none."""
    # t10. is the serial once more, in a form of its own
    wwid = _read(block / "wwid") or _read(block / "device/wwid")
    return wwid if wwid.startswith(("naa.", "eui.", "uuid.")) else ""


def disk_model(block: Path) -> str:
    """Read a disk's model from sysfs; "" for none."""
    return _read(block / "device/model") or _read(block / "device/name")


def _unit_serial(page: Path) -> str:
    # SCSI vital product data, page 0x80: four bytes of header, then the serial in ASCII (SPC-4, 7.8.15)
    return printable(read_bytes(page)[4:])


def _read(path: Path) -> str:
    return printable(read_bytes(path))


def printable(content: bytes) -> str:
    """Return what hardware says as text, other bytes than printable ASCII as \\x81: different bytes stay different.

    Padding at both ends is left out: blanks, zeros and line ends.
    """
    return "".join(chr(byte) if 0x20 <= byte < 0x7f and byte != 0x5c else f"\\x{byte:02x}"
                   for byte in content.strip(b"\0 \t\r\n"))


def read_osd(head: bytes) -> str:
    """Return the uuid of the BlueStore OSD that a device beginning with head is; "" when it is none."""
    found = _OSD_UUID.match(head, len(BLUESTORE)) if head.startswith(BLUESTORE) else None
    return found[0].decode() if found else ""


def read_ceph(head: bytes) -> tuple[str, str] | None:
    """Return the uuids of the Ceph OSD that begins with head and of its cluster, "" for what isn't told; None: no OSD.

    An OSD is BlueStore on the whole device, or on a logical volume that ceph-volume has made.
    """
    if head.startswith(BLUESTORE):
        cluster = _CLUSTER.search(head, 0, 1 << 12)
        return read_osd(head), cluster[1].decode() if cluster else ""
    if found := _LVM_OSD.search(head):
        cluster = _LVM_CLUSTER.search(head)
        return found[1].decode(), cluster[1].decode() if cluster else ""
    return None


def read_opened_by(head: bytes) -> tuple[str, ...]:
    """Return the versions of Ceph that have made or opened the BlueStore OSD that begins with head, as it has them."""
    if not head.startswith(BLUESTORE):
        return ()
    return tuple(head[found.end():found.end() + found[1][0]].decode("ascii", "replace")
                 for found in _VERSIONS.finditer(head, 0, 1 << 12))


def fingerprint(read: Read, size: int) -> str:
    """Return what a disk of size bytes holds, in a few words: "" for nothing, "osd:UUID", or "sha256:…".

    read(offset, count) gives bytes of the disk. The hash is over the edges of the disk and of each of its partitions,
    where tables, superblocks, labels and their uuids lie: any format, table or label that comes, goes or changes gives
    another fingerprint. "" means that both edges of the disk are zeros.
    """
    head = read(0, min(EDGE, size))
    if osd := read_osd(head):
        return f"osd:{osd}"
    tail = read(max(size - EDGE, 0), min(EDGE, size))
    # counted, because any() would take a tenth of a second for each
    if all(edge.count(0) == len(edge) for edge in (head, tail)):
        return ""
    digest = hashlib.sha256(struct.pack("<Q", size) + head + tail)
    for offset, length in partitions(read, size):
        for at in sorted({offset, max(offset + length - EDGE, offset)}):
            digest.update(struct.pack("<QQ", at, length) + read(at, min(EDGE, offset + length - at)))
    return f"sha256:{digest.hexdigest()}"


def partitions(read: Read, size: int) -> list[tuple[int, int]]:
    """Return offset and length in bytes of each partition that any table on a disk names, in the order of the disk.

    GPT (both copies; sectors of 512 and of 4096 bytes) and MBR with logical partitions. Whatever a table says, each
    lies on the disk, and there are at most 256.
    """
    found = {(offset, min(length, size - offset)) for offset, length in islice(_entries(read, size), _MOST_PARTITIONS)
             if 0 < offset < size and length > 0}
    return sorted(found)


def _entries(read: Read, size: int) -> Iterator[tuple[int, int]]:
    for sector in (SECTOR, 4096):
        for at in (sector, size - sector):
            yield from _gpt_entries(read, size, at, sector)
    yield from _mbr_entries(read, size)


def _gpt_entries(read: Read, size: int, at: int, sector: int) -> Iterator[tuple[int, int]]:
    header = read_header(read, size, at)
    if header is None or header.entry_size < 56:
        return
    start, length = header.entries_at * sector, header.count * header.entry_size
    if start >= size:
        return
    table = read(start, min(length, _MOST_ENTRIES, size - start))
    for place in range(0, len(table) - 55, header.entry_size):
        first, last = struct.unpack_from("<QQ", table, place + 32)
        if any(table[place:place + 16]):
            yield first * sector, (last - first + 1) * sector


def _mbr_entries(read: Read, size: int) -> Iterator[tuple[int, int]]:
    for kind, first, sectors in _mbr(read, size, 0):
        if kind in _EXTENDED:
            yield from _logical(read, size, first)
        elif kind != _PROTECTIVE:
            yield first * SECTOR, sectors * SECTOR


def _logical(read: Read, size: int, begin: int) -> Iterator[tuple[int, int]]:
    """Yield the logical partitions of the extended one that begins at this sector.

    Each table names its partition, from its own place on, and the next table, from the extended partition's place on.
    """
    at, seen = begin, set[int]()
    while at not in seen and len(seen) < _MOST_PARTITIONS:
        seen.add(at)
        following = None
        for kind, first, sectors in _mbr(read, size, at * SECTOR):
            if kind in _EXTENDED:
                following = begin + first
            else:
                yield (at + first) * SECTOR, sectors * SECTOR
        if following is None:
            return
        at = following


def _mbr(read: Read, size: int, offset: int) -> list[tuple[int, int, int]]:
    """Return type, first sector and length of the entries in use of the MBR at an offset; none when there is no MBR."""
    table = read(offset, SECTOR) if 0 <= offset <= size - SECTOR else b""
    if table[510:] != _MBR_SIGNATURE:
        return []
    entries = (_MBR_ENTRY.unpack_from(table, _MBR_ENTRIES + 16 * number) for number in range(4))
    return [entry for entry in entries if entry[0]]

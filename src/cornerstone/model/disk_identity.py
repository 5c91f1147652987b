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
from pathlib import Path

from cornerstone.model.gpt import ENTRIES, ENTRY_SIZE, HEADER, MAGIC, SECTOR

# Tables, superblocks and labels lie within this much of the begin of a disk or partition, and copies as near its end.
EDGE = 1 << 20
# What a BlueStore device begins with; the OSD's uuid follows as text (BlueStore's _read_bdev_label).
BLUESTORE = b"bluestore block device\n"
_OSD_UUID = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# MBR: four entries of 16 bytes from here on, each with its type at 4, first sector and length at 8 (UEFI 2.10, 5.2.1)
_MBR_ENTRIES, _MBR_ENTRY = 446, struct.Struct("<4xB3xII")
_MBR_SIGNATURE = b"\x55\xaa"
_PROTECTIVE = 0xEE

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
    sectors, sequence = _read(block / "size"), _read(block / "diskseq")
    return DiskIdentity(disk_serial(block), disk_wwn(block), int(sectors) * SECTOR if sectors.isdecimal() else 0,
                        disk_model(block), int(sequence) if sequence.isdecimal() else None)


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
    try:
        return printable(page.read_bytes()[4:])
    except OSError:
        return ""


def _read(path: Path) -> str:
    try:
        return printable(path.read_bytes())
    except OSError:
        return ""


def printable(content: bytes) -> str:
    """Return what hardware says as text, other bytes than printable ASCII as \\x81: different bytes stay different."""
    text = content.strip(b"\0 \t\r\n").decode("ascii", "backslashreplace")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def read_osd(head: bytes) -> str:
    """Return the uuid of the BlueStore OSD that a device beginning with head is; "" when it is none."""
    found = _OSD_UUID.match(head, len(BLUESTORE)) if head.startswith(BLUESTORE) else None
    return found[0].decode() if found else ""


def fingerprint(read: Read, size: int) -> str:
    """Return what a disk of size bytes holds, in a few words: "" for nothing, "osd:UUID", or "sha256:…".

    read(offset, count) gives bytes of the disk. The hash is over the edges of the disk and of each of its partitions,
    where tables, superblocks, labels and their uuids lie: any format, table or label that comes, goes or changes gives
    another fingerprint. "" means that both edges of the disk are zeros.
    """
    head = read(0, EDGE)
    if osd := read_osd(head):
        return f"osd:{osd}"
    tail = read(max(size - EDGE, 0), EDGE)
    if not any(head) and not any(tail):
        return ""
    digest = hashlib.sha256(struct.pack("<Q", size) + head + tail)
    for offset, length in _partitions(head, size):
        for at in {offset, max(offset + length - EDGE, offset)}:
            digest.update(struct.pack("<QQ", at, length) + read(at, min(EDGE, length)))
    return f"sha256:{digest.hexdigest()}"


def _partitions(head: bytes, size: int) -> Iterator[tuple[int, int]]:
    """Yield offset and length in bytes of each partition of the table in a disk's head, as far as the disk goes."""
    for first, sectors in _gpt_entries(head) or _mbr_entries(head):
        offset = first * SECTOR
        if 0 < offset < size and sectors > 0:
            yield offset, min(sectors * SECTOR, size - offset)


def _gpt_entries(head: bytes) -> list[tuple[int, int]]:
    header = head[SECTOR:2 * SECTOR]
    if len(header) < SECTOR or header[:8] != MAGIC:
        return []
    at, count, size = struct.unpack_from(HEADER, header)[10:13]
    if not ENTRY_SIZE <= size <= SECTOR or count > ENTRIES:
        return []
    entries = (head[at * SECTOR + number * size:][:ENTRY_SIZE] for number in range(count))
    found = []
    for entry in entries:
        if len(entry) == ENTRY_SIZE and any(entry[:16]):
            first, last = struct.unpack_from("<QQ", entry, 32)
            found.append((first, last - first + 1))
    return found


def _mbr_entries(head: bytes) -> list[tuple[int, int]]:
    if head[510:512] != _MBR_SIGNATURE:
        return []
    entries = (_MBR_ENTRY.unpack_from(head, _MBR_ENTRIES + 16 * number) for number in range(4))
    return [(first, sectors) for kind, first, sectors in entries if kind not in (0, _PROTECTIVE)]

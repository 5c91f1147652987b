"""GUID partition tables, byte for byte (UEFI specification 2.10, section 5), for the CVM's disk and the hybrid ISO."""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

SECTOR = 512
ENTRIES = 128
ENTRY_SIZE = 128
TABLE_SECTORS = ENTRIES * ENTRY_SIZE // SECTOR
FIRST_USABLE = 2 + TABLE_SECTORS
MAGIC = b"EFI PART"
HEADER = "<8sIIIIQQQQ16sQIII"
HEADER_SIZE = struct.calcsize(HEADER)
BOOT_CODE_SIZE = 440

BIOS_BOOT = uuid.UUID("21686148-6449-6e6f-744e-656564454649")
EFI_SYSTEM = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
LINUX_ROOT_X86_64 = uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")
LINUX_DATA = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")

Read = Callable[[int, int], bytes]
NAMESPACE = uuid.UUID("1c7a3a3e-6d0b-5d0c-9a51-3f2f6a0d8a11")


@dataclass(frozen=True)
class Partition:
    """One partition: type, own id, name (36 UTF-16 units), first sector and number of sectors of 512 bytes."""

    kind: uuid.UUID
    identity: uuid.UUID
    name: str
    start: int
    sectors: int

    @property
    def offset(self) -> int:
        """Where it begins, in bytes."""
        return self.start * SECTOR

    @property
    def size(self) -> int:
        """How long it is, in bytes."""
        return self.sectors * SECTOR


def derived_id(*words: str) -> uuid.UUID:
    """A UUID that depends on the words alone, so that equal inputs give equal disks."""
    return uuid.uuid5(NAMESPACE, "/".join(words))


@dataclass(frozen=True)
class Copy:
    """One of the two copies of a table, with the places of its parts in bytes."""

    header: bytes
    header_offset: int
    entries: bytes
    entries_offset: int


@dataclass(frozen=True)
class Tables:
    """A whole GPT. mbr: what belongs from byte 440 to the end of the first sector; the boot code before it stays."""

    mbr: bytes
    primary: Copy
    backup: Copy


def tables(size: int, disk_id: uuid.UUID, partitions: Sequence[Partition], bootable_mbr: bool = False) -> Tables:
    """Both copies of a GPT and the protective MBR for a disk of size bytes.

    bootable_mbr adds the active, empty entry that some BIOSes want before they start a disk at all. ValueError when
    partitions overlap or don't fit.
    """
    sectors = size // SECTOR
    last_usable = sectors - TABLE_SECTORS - 2
    free = FIRST_USABLE
    for partition in sorted(partitions, key=lambda p: p.start):
        if partition.sectors < 1 or partition.start < free or partition.start + partition.sectors - 1 > last_usable:
            raise ValueError(f"partition {partition.name!r} overlaps another or doesn't fit the disk")
        free = partition.start + partition.sectors

    entries = b"".join(
        struct.pack("<16s16sQQQ72s", p.kind.bytes_le, p.identity.bytes_le, p.start, p.start + p.sectors - 1, 0,
                    p.name.encode("utf-16-le"))
        for p in partitions).ljust(ENTRIES * ENTRY_SIZE, b"\0")

    def copy(own: int, other: int, entries_at: int) -> Copy:
        def fields(crc: int) -> bytes:
            return struct.pack(HEADER, MAGIC, 0x10000, HEADER_SIZE, crc, 0, own, other, FIRST_USABLE, last_usable,
                               disk_id.bytes_le, entries_at, ENTRIES, ENTRY_SIZE, zlib.crc32(entries))
        return Copy(fields(zlib.crc32(fields(0))).ljust(SECTOR, b"\0"), own * SECTOR, entries, entries_at * SECTOR)

    protective = struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, min(sectors - 1, 0xFFFFFFFF))
    active = struct.pack("<B3sB3sII", 0x80, b"\0\0\0", 0, b"\0\0\0", 0, 1) if bootable_mbr else bytes(16)
    mbr = disk_id.bytes[:4] + b"\0\0" + protective + active + bytes(32) + b"\x55\xaa"
    return Tables(mbr, copy(1, sectors - 1, 2), copy(sectors - 1, 1, sectors - 1 - TABLE_SECTORS))


def write_gpt(disk: BinaryIO, size: int, disk_id: uuid.UUID, partitions: Sequence[Partition],
              bootable_mbr: bool = False) -> None:
    """Write both copies and the protective MBR, as `tables` makes them, onto an open disk of size bytes."""
    made = tables(size, disk_id, partitions, bootable_mbr)
    for content, offset in ((made.mbr, BOOT_CODE_SIZE), (made.primary.header + made.primary.entries, SECTOR),
                            (made.backup.entries + made.backup.header, made.backup.entries_offset)):
        disk.seek(offset)
        disk.write(content)


@dataclass(frozen=True)
class Header:
    """A header as it is on a disk, its own checksum right: all else is only what it says.

    entries_at: its entries' first sector; entries_crc: their CRC-32.
    """

    disk_id: uuid.UUID
    entries_at: int
    count: int
    entry_size: int
    entries_crc: int


def read_header(read: Read, size: int, at: int) -> Header | None:
    """Return the header at an offset of a disk of size bytes; None when none is there, or its checksum is wrong.

    read(offset, count) gives bytes of the disk.
    """
    header = read(at, SECTOR) if 0 < at <= size - SECTOR else b""
    if len(header) < SECTOR or header[:8] != MAGIC:
        return None
    fields = struct.unpack_from(HEADER, header)
    length, crc = fields[2:4]
    if not HEADER_SIZE <= length <= SECTOR or zlib.crc32(header[:16] + bytes(4) + header[20:length]) != crc:
        return None
    return Header(uuid.UUID(bytes_le=fields[9]), *fields[10:])


def table_guid(read: Read, size: int, at: int) -> uuid.UUID | None:
    """Return the GUID of the copy of a table whose header is at an offset; None when that copy isn't whole.

    Sectors of 512 bytes, and entries as we write them at most.
    """
    header = read_header(read, size, at)
    if header is None:
        return None
    start, length = header.entries_at * SECTOR, header.count * header.entry_size
    if length > ENTRIES * ENTRY_SIZE or start + length > size:
        return None
    return header.disk_id if zlib.crc32(read(start, length)) == header.entries_crc else None


def disk_guid(read: Read, size: int) -> uuid.UUID | None:
    """Return the GUID of the table that counts: the primary copy when it is whole, else the backup; None: neither."""
    return table_guid(read, size, SECTOR) or table_guid(read, size, size - SECTOR)

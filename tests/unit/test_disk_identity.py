"""What a disk says of itself and what is on it: identities that differ, fingerprints of tables that real tools make."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import uuid
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.lib.gpt import LINUX_DATA, SECTOR, Partition, tables
from cornerstone.lib.printable import escaped
from cornerstone.model.contracts.node import OSD_TOKEN, erase_token
from cornerstone.model.disk.identity import (
    BLUESTORE,
    EDGE,
    DiskIdentity,
    fingerprint,
    partitions,
    printable,
    read_ceph,
    read_identity,
    read_osd,
)
from cornerstone.model.disk.slot_disk import disk_identity, is_unfinished

MIB = 1 << 20
OSD, CLUSTER = "4a2c7a3e-6d0b-4d0c-9a51-3f2f6a0d8a11", "6d0b5d0c-1111-4222-8333-2f2f6a0d8a11"
CHOSEN = DiskIdentity("S1", "naa.1", 1 << 30, "MODEL", 7)


class Image:
    """A disk in memory; reads beyond its end are short, as a device's, and negative places an error."""

    def __init__(self, size: int) -> None:
        self.size, self.content, self.read_bytes = size, bytearray(size), 0

    def write(self, offset: int, content: bytes) -> Image:
        self.content[offset:offset + len(content)] = content
        return self

    def read(self, offset: int, count: int) -> bytes:
        # as os.pread has it
        if not 0 <= offset < 1 << 63 or not 0 <= count < 1 << 63:
            raise OverflowError
        self.read_bytes += count
        return bytes(self.content[offset:offset + count])

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.read, self.size)


def disk_of(script: str, size: int, tmp_path: Path) -> Image:
    """A disk with the table that sfdisk makes of a script."""
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run(["sfdisk", "--quiet", path], input=script, text=True, check=True, capture_output=True)
    return Image(size).write(0, path.read_bytes())


@pytest.mark.parametrize(("found", "difference"), [
    (CHOSEN, ""), (replace(CHOSEN, serial="S2"), "serial S2 instead of S1"),
    (replace(CHOSEN, wwn="naa.2"), "wwn naa.2 instead of naa.1"),
    (replace(CHOSEN, wwn=""), "wwn none instead of naa.1"),
    (replace(CHOSEN, size=5), "size 5 instead of 1073741824"), (replace(CHOSEN, model="X"), "model X instead of MODEL"),
    (replace(CHOSEN, sequence=8), "sequence 8 instead of 7"), (replace(CHOSEN, sequence=None), ""),
    # a paravirtual front
    (replace(CHOSEN, wwn="", model=""), ""),
    (replace(CHOSEN, serial="S2", size=5), "serial S2 instead of S1, size 5 instead of 1073741824"),
])
def test_d1_another_disk_differs_in_what_is_told(found, difference):
    assert CHOSEN.difference(found) == difference


@pytest.mark.parametrize(("said", "text"), [
    (b"  ZC1-77\0", "ZC1-77"), (b"M\x81LLER\n", "M\\x81LLER"), (b"a\nb\x1b[2J", "a\\x0ab\\x1b[2J"), (b"", ""),
    (b"\0\0", ""), (b"a\\x81", "a\\x5cx81"), (b"a\x81", "a\\x81"), (b"\x01\x02", "\\x01\\x02"),
])
def test_d1_bytes_of_hardware_are_text_that_keeps_them_apart(said, text):
    assert printable(said) == text
    assert printable(said).isprintable()


def test_m22_text_is_fit_for_a_terminal():
    assert escaped("photos\n2024\x1b[2J \ud800 Grüße \ufffd") == "photos\\x0a2024\\x1b[2J \\xd800 Grüße \ufffd"


def test_d1_an_identity_is_read_whatever_bytes_there_are(tmp_path):
    device = tmp_path / "device"
    device.mkdir()
    for path, content in ((tmp_path / "size", b"2048\n"), (tmp_path / "diskseq", b"12\n"),
                          (device / "model", b"DISK \xff\n"), (device / "wwid", b"naa.5\n"),
                          (device / "vpd_pg80", b"\0\x80\0\x06S\n\xfe1  ")):
        path.write_bytes(content)
    assert read_identity(tmp_path) == DiskIdentity("S\\x0a\\xfe1", "naa.5", 1 << 20, "DISK \\xff", 12)
    for path in (tmp_path / "size", tmp_path / "diskseq"):
        path.write_bytes(b"9" * 5000)
    (device / "wwid").write_bytes(b"t10.ATA     MODEL   S1")
    found = read_identity(tmp_path)
    assert (found.size, found.sequence, found.wwn) == (0, None, "")
    assert read_identity(tmp_path / "none") == DiskIdentity()


def test_a_blank_disk_has_no_fingerprint():
    assert Image(32 * MIB).fingerprint == "" and Image(0).fingerprint == "" and Image(5).fingerprint == ""


def test_d9_an_osd_is_known_by_its_uuid_alone():
    label = BLUESTORE + OSD.encode() + b"\n" + bytes(30) + b"\x09\0\0\0ceph_fsid\x24\0\0\0" + CLUSTER.encode()
    disk = Image(32 * MIB).write(0, label)
    assert disk.fingerprint == f"osd:{OSD}"
    assert disk.write(20 * MIB, b"data").write(3 * MIB, b"x").fingerprint == f"osd:{OSD}"
    assert (read_osd(label), read_ceph(label)) == (OSD, (OSD, CLUSTER))
    torn = BLUESTORE + b"no uuid" * 9
    assert (read_osd(torn), read_ceph(torn)) == ("", ("", ""))
    assert Image(32 * MIB).write(0, torn).fingerprint.startswith("sha256:")
    lvm = bytes(4096) + (f'tags = ["ceph.cluster_fsid={CLUSTER}", "ceph.osd_fsid={OSD}", "ceph.osd_id=3"]').encode()
    assert read_ceph(lvm) == (OSD, CLUSTER)
    assert read_ceph(bytes(4096)) is None and read_ceph(b"") is None


@pytest.mark.parametrize("place", [0, 511, 1024, 65536, EDGE - 1, 32 * MIB - 1, 32 * MIB - EDGE])
def test_one_byte_at_an_edge_is_another_fingerprint(place):
    disk = Image(32 * MIB).write(4096, b"x")
    before = disk.fingerprint
    assert before and disk.write(place, b"y").fingerprint != before
    assert Image(32 * MIB).write(place, b"y").fingerprint


SCRIPTS = {
    "gpt": "label: gpt\nstart=6MiB, size=12MiB\nstart=30MiB, size=12MiB\n",
    "mbr": "label: dos\nstart=6MiB, size=12MiB, type=83\nstart=30MiB, size=12MiB, type=83\n",
    "logical": "label: dos\nstart=6MiB, size=12MiB, type=83\nstart=20MiB, type=f\nstart=30MiB, size=12MiB, type=83\n"
               "start=44MiB, size=10MiB, type=83\n",
}


@pytest.mark.parametrize("kind", SCRIPTS)
def test_what_is_in_a_partition_counts_at_its_edges(kind, tmp_path):
    disk = disk_of(SCRIPTS[kind], 64 * MIB, tmp_path)
    found = partitions(disk.read, disk.size)
    assert [(at // MIB, length // MIB) for at, length in found][:2] == [(6, 12), (30, 12)]
    assert len(found) == (3 if kind == "logical" else 2)
    seen = {disk.fingerprint}
    for place in (6 * MIB, 18 * MIB - 1, 30 * MIB + 1024, 42 * MIB - 1, *([50 * MIB] if kind == "logical" else [])):
        disk.write(place, b"x")
        assert disk.fingerprint not in seen
        seen.add(disk.fingerprint)
    # in the middle of one, and between two
    assert disk.write(12 * MIB, b"y").write(27 * MIB, b"y").fingerprint in seen


def gpt(size: int, entry_size: int, count: int, spans: list[tuple[int, int]], *, sector: int = SECTOR) -> Image:
    """A disk with a primary table of odd measures, its header's checksum right."""
    made = tables(size, uuid.UUID(int=1), ()).primary.header
    fields = list(struct.unpack_from("<8sIIIIQQQQ16sQIII", made))
    fields[3], fields[11], fields[12] = 0, count, entry_size
    fields[3] = zlib.crc32(struct.pack("<8sIIIIQQQQ16sQIII", *fields))
    disk = Image(size).write(sector, struct.pack("<8sIIIIQQQQ16sQIII", *fields))
    for number, (first, last) in enumerate(spans):
        disk.write(2 * sector + number * entry_size, b"\1" * 32 + struct.pack("<QQ", first, last))
    return disk


@pytest.mark.parametrize(("entry_size", "count", "sector"), [
    (128, 128, 512), (256, 64, 512), (512, 32, 512), (4096, 8, 512), (128, 256, 512), (136, 9, 512), (128, 128, 4096)])
def test_tables_of_odd_measures_are_read(entry_size, count, sector):
    scale = sector // 512
    spans = [(12288 // scale, 24576 // scale - 1), (61440 // scale, 86016 // scale - 1)]
    disk = gpt(64 * MIB, entry_size, count, spans, sector=sector)
    assert [(at // MIB, length // MIB) for at, length in partitions(disk.read, disk.size)] == [(6, 6), (30, 12)]


HUGE = (1 << 64) - 1


@pytest.mark.parametrize("disk", [
    gpt(16 * MIB, 0, 128, []), gpt(16 * MIB, 1, 128, []), gpt(16 * MIB, 0xFFFFFFFF, 0xFFFFFFFF, [(1, 2)]),
    gpt(16 * MIB, 128, 0xFFFFFFFF, [(0, HUGE), (HUGE, 0), (HUGE, HUGE), (34, 33), (1, HUGE)]),
    gpt(16 * MIB, 128, 128, [(34 + number, HUGE) for number in range(128)]),
], ids=["entries of 0", "entries of 1", "huge entries", "huge places", "128 that overlap"])
def test_d1_no_table_makes_us_read_beyond_the_disk_or_for_ever(disk):
    assert all(0 < at < disk.size and 0 < length <= disk.size - at for at, length in partitions(disk.read, disk.size))
    assert disk.fingerprint.startswith("sha256:")
    assert disk.read_bytes < 5 << 30


@pytest.mark.parametrize("follows", [0, 1, 0xFFFFFFFF, 2048, 4096])
def test_d1_a_chain_of_logical_partitions_ends(follows):
    disk = Image(16 * MIB)
    for at, entry in ((0, (5, 2048, 8192)), (2048, (5, follows, 4096)), (4096, (5, 0, 1)), (6144, (0x85, 2048, 1))):
        disk.write(at * SECTOR + 446, struct.pack("<4xB3xII", *entry)).write(at * SECTOR + 510, b"\x55\xaa")
    assert partitions(disk.read, disk.size) == []
    assert disk.fingerprint


def test_d1_no_bytes_at_all_raise():
    """20,000 heads of chance and of damaged tables, each read as a disk."""
    chance, whole = random.Random(17), {}
    for kind, made in (("gpt", gpt(MIB, 128, 128, [(100, 200), (300, 400)])), ("blank", Image(MIB)),
                       ("osd", Image(MIB).write(0, BLUESTORE + OSD.encode()))):
        whole[kind] = made
    # a chain of logical partitions
    chain = Image(MIB)
    for at, entry in ((0, (5, 100, 1000)), (100, (5, 200, 100))):
        chain.write(at * SECTOR + 446, struct.pack("<4xB3xII", *entry)).write(at * SECTOR + 510, b"\x55\xaa")
    whole["chain"] = chain
    for _ in range(20_000):
        disk = Image(0)
        base = whole[chance.choice(list(whole))]
        disk.size, disk.content = 96 * SECTOR, bytearray(base.content[:96 * SECTOR])
        for _ in range(chance.randrange(1, 6)):
            at = chance.choice((0, 446, 450, 454, 510, SECTOR, SECTOR + chance.randrange(92),
                                1024 + chance.randrange(512), chance.randrange(disk.size)))
            disk.write(at, chance.randbytes(chance.choice((1, 4, 8, 64))))
        disk.size = len(disk.content) - chance.choice((0, 0, 1, 511, 600, disk.size))
        assert disk.fingerprint[:4] in ("", "sha2", "osd:")
        is_unfinished(disk.read, disk.size, "S")
        read_ceph(disk.read(0, 4096))


# an imaging that was cut off

def slots(size: int, finished: bool, serial: str = "S") -> Image:
    """A disk with tables as imaging writes them."""
    only = Partition(LINUX_DATA, uuid.UUID(int=2), "state", 2048, 4096)
    made = tables(size, uuid.UUID(disk_identity(serial, finished)), (only,), True)
    disk = Image(size).write(440, made.mbr)
    for copy in (made.primary, made.backup):
        disk.write(copy.entries_offset, copy.entries).write(copy.header_offset, copy.header)
    return disk


SIZE = 16 * MIB


@pytest.mark.parametrize(("change", "unfinished"), [
    (lambda disk: None, True),
    (lambda disk: disk.write(0, bytes(34 * SECTOR)), True),
    (lambda disk: disk.write(0, bytes(2 * SECTOR)), True),
    (lambda disk: disk.write(disk.size - SECTOR, bytes(SECTOR)), True),
    # an MBR and a file system by dd, md's superblock of version 1.2, an MBR alone, one entry changed
    (lambda disk: disk.write(0, bytes(446) + struct.pack("<4xB3xII", 0x83, 2048, 4096) + bytes(48) + b"\x55\xaa"
                             + bytes(MIB - 512)), False),
    (lambda disk: disk.write(4096, b"\xfc\x4e\x2b\xa9" + bytes(252)), False),
    (lambda disk: disk.write(446, struct.pack("<4xB3xII", 0x83, 2048, 4096)), False),
    (lambda disk: disk.write(1024 + 40, b"\1"), False),
    (lambda disk: disk.write(0, bytes(34 * SECTOR)).write(1080, b"\x53\xef"), False),
    (lambda disk: disk.write(0, slots(SIZE, True).content[:34 * SECTOR]), False),
], ids=["whole", "blank head", "cut between entries and header", "backup gone", "dd of an MBR disk", "md 1.2",
        "MBR alone", "an entry changed", "a file system on a blank head", "finished since"])
def test_d12_a_mark_at_the_end_does_not_outlive_what_was_written_over_the_begin(change, unfinished):
    disk = slots(SIZE, finished=False)
    change(disk)
    assert is_unfinished(disk.read, disk.size, "S") == unfinished
    assert not is_unfinished(disk.read, disk.size, "T")


def test_tokens_differ_by_all_that_they_are_bound_to():
    made = [erase_token("S"), erase_token("S", "W"), erase_token("S", "", "W"), erase_token("SW"),
            erase_token("S", "W", "C"), erase_token("S", "W", "C", osd=True)]
    assert len(set(made)) == len(made)
    assert made[-1].startswith(OSD_TOKEN) and not made[0].startswith(OSD_TOKEN)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_kernel_tells_sequence_numbers():
    assert all(read_identity(path).sequence for path in Path("/sys/block").iterdir())

"""Partition tables and the CVM's disk: what we write, read back by the tools that others read it with."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import uuid
import zlib
from io import BytesIO
from pathlib import Path

import pytest

from cornerstone.factory.payload import cvm_disk
from cornerstone.lib import gpt
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.gpt import BIOS_BOOT, EFI_SYSTEM, LINUX_DATA, LINUX_ROOT_X86_64, SECTOR, Partition, derived_id
from cornerstone.model.disk import slot_disk

MIB = 1 << 20


def part(name: str, start: int, sectors: int, kind: uuid.UUID = LINUX_DATA) -> Partition:
    return Partition(kind, derived_id("test", name), name, start, sectors)


def output_of(*argv: str | Path) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def sgdisk_finds_nothing(disk: Path) -> None:
    said = output_of("sgdisk", "--verify", disk)
    assert "No problems found" in said, said


def sfdisk_partitions(disk: Path) -> list[dict]:
    return json.loads(output_of("sfdisk", "--json", disk))["partitiontable"]["partitions"]


TABLES = {
    "none": (8 * MIB, []),
    "one": (8 * MIB, [part("only", 2048, 2048, EFI_SYSTEM)]),
    "first to last sector": (8 * MIB, [part("all", 34, 8 * MIB // SECTOR - 67)]),
    "neighbours": (64 * MIB, [part("a", 2048, 2048, BIOS_BOOT), part("b", 4096, 1, EFI_SYSTEM),
                              part("c", 4097, 9000, LINUX_ROOT_X86_64)]),
    "not in the order of the disk": (64 * MIB, [part("late", 8192, 100), part("early", 2048, 100)]),
    "beyond 2 TiB": (3 << 40, [part("far", (5 << 40) // 2 // SECTOR, 2048)]),
    "names": (8 * MIB, [part("größer, 36 Zeichen".ljust(36, "!"), 2048, 8)]),
    "all 128": (8 * MIB, [part(f"p{n}", 2048 + 8 * n, 8) for n in range(128)]),
}


@pytest.mark.parametrize("bootable", [False, True])
@pytest.mark.parametrize(("size", "partitions"), TABLES.values(), ids=TABLES.keys())
def test_tools_read_back_what_was_written(tmp_path, size, partitions, bootable):
    disk, identity = tmp_path / "disk", derived_id("a disk")
    with disk.open("wb") as out:
        out.truncate(size)
        gpt.write_gpt(out, size, identity, partitions, bootable_mbr=bootable)
    assert disk.stat().st_size == size
    sgdisk_finds_nothing(disk)
    table = json.loads(output_of("sfdisk", "--json", disk))["partitiontable"]
    assert (table["label"], table["id"].lower()) == ("gpt", str(identity))
    found = [(p["start"], p["size"], p["type"].lower(), p["uuid"].lower(), p["name"])
             for p in table.get("partitions", [])]
    assert found == [(p.start, p.sectors, str(p.kind), str(p.identity), p.name) for p in partitions]


@pytest.mark.parametrize("partitions", [
    [part("a", 2048, 100), part("b", 2147, 100)],
    [part("b", 2048, 100), part("a", 2000, 49)],
    [part("same", 2048, 100), part("place", 2048, 100)],
    [part("in the table", 33, 100)],
    [part("in the backup", 2048, 8 * MIB // SECTOR - 2048 - 32)],
    [part("empty", 2048, 0)],
], ids=lambda partitions: partitions[-1].name)
def test_refuses_what_does_not_fit(partitions):
    disk = BytesIO(b"untouched")
    with pytest.raises(ValueError, match="overlaps another or doesn't fit"):
        gpt.write_gpt(disk, 8 * MIB, derived_id("x"), partitions)
    assert disk.getvalue() == b"untouched"


@pytest.mark.parametrize("seed", range(20))
def test_primary_and_backup_agree(seed):
    chance = random.Random(seed)
    size = chance.randrange(2, 65) * MIB
    partitions, start = [], 34
    while (start := start + chance.randrange(500)) < size // SECTOR - 34 - 3000 and len(partitions) < 128:
        partitions.append(part(f"part {start}", start, chance.randrange(1, 3000)))
        start += partitions[-1].sectors
    chance.shuffle(partitions)
    disk = BytesIO(bytes(size))
    gpt.write_gpt(disk, size, derived_id(str(seed)), partitions)
    content, last = disk.getvalue(), size // SECTOR - 1
    assert len(content) == size

    primary, backup = (struct.unpack_from("<8sIIIIQQQQ16sQIII", content, sector * SECTOR) for sector in (1, last))
    assert primary[5:7] == (1, last)
    assert backup[5:7] == (last, 1)
    # all but the header's own checksum, the two places and where the table is
    assert [primary[i] for i in (0, 1, 2, 7, 8, 9, 11, 12, 13)] == [backup[i] for i in (0, 1, 2, 7, 8, 9, 11, 12, 13)]
    for fields in (primary, backup):
        raw = bytearray(content[fields[5] * SECTOR:][:92])
        raw[16:20] = bytes(4)
        assert zlib.crc32(raw) == fields[3]
        assert zlib.crc32(content[fields[10] * SECTOR:][:128 * 128]) == fields[13]


def test_boot_code_stays():
    disk = BytesIO(b"\xeb" * 440 + bytes(8 * MIB - 440))
    gpt.write_gpt(disk, 8 * MIB, derived_id("x"), [], bootable_mbr=True)
    sector = disk.getvalue()[:SECTOR]
    assert sector[:440] == b"\xeb" * 440
    assert sector[510:] == b"\x55\xaa"
    assert (sector[446 + 4], sector[446 + 16]) == (0xEE, 0x80)


def test_derived_ids_follow_the_words():
    assert derived_id("cvm", "esp") == derived_id("cvm", "esp")
    assert len({derived_id("cvm", "esp"), derived_id("cvm", "state"), derived_id("esp", "cvm")}) == 3


# the CVM's disk

SLOT = 8 * MIB
SIZE = 1024 * MIB
EPOCH = 1_800_000_000
SQUASHFS = random.Random(1).randbytes(3 * MIB + 777)
CORE = random.Random(2).randbytes(37 * SECTOR + 1)


def boot_folder(folder: Path) -> Path:
    folder.mkdir()
    for name in ("shimx64.efi", "grubx64.efi", "mmx64.efi", "vmlinuz", "initrd.img"):
        (folder / name).write_bytes(f"this is {name}".encode() * 1000)
    (folder / "boot.img").write_bytes(bytes(range(256)) * 2)
    (folder / "disk.img").write_bytes(CORE)
    return folder


def make_disk(folder: Path, **changes) -> Path:
    folder.mkdir(parents=True)
    (folder / "root.squashfs").write_bytes(SQUASHFS)
    wanted = {"squashfs": folder / "root.squashfs", "boot": boot_folder(folder / "boot"), "size": SIZE, "slot": SLOT,
              "epoch": EPOCH, "log": folder / "log"} | changes
    cvm_disk.build_disk(folder / "cvm.qcow2", **wanted)
    return folder / "cvm.qcow2"


@pytest.fixture(scope="module")
def disk(tmp_path_factory) -> Path:
    """A small CVM disk, raw."""
    made = make_disk(tmp_path_factory.mktemp("cvm") / "disk")
    raw = made.with_suffix(".raw")
    output_of("qemu-img", "convert", "-f", "qcow2", "-O", "raw", made, raw)
    return raw


@pytest.fixture(scope="module")
def partitions() -> dict[str, Partition]:
    return {p.name: p for p in slot_disk.layout("cvm", SIZE, SLOT).partitions}


def bytes_at(disk: Path, offset: int, size: int) -> bytes:
    with disk.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def test_layout_is_the_a_b_shape(partitions):
    assert [(p.name, p.kind) for p in partitions.values()] == [
        ("bios-boot", BIOS_BOOT), ("esp", EFI_SYSTEM), ("root-a", LINUX_ROOT_X86_64), ("root-b", LINUX_ROOT_X86_64),
        ("state", LINUX_DATA)]
    assert all(p.offset % MIB == 0 and p.size % MIB == 0 for p in partitions.values())
    assert partitions["root-a"].size == partitions["root-b"].size == SLOT
    state = partitions["state"]
    assert state.offset + state.size == SIZE - MIB
    assert len({p.identity for p in partitions.values()}) == 5


@pytest.mark.parametrize(("size", "slot", "message"), [
    (1024 * MIB, 256 * MIB, "a disk of 1024 MiB leaves 253 MiB for state beside two root slots of 256 MiB"),
    (1024 * MIB, 2048 * MIB, "leaves -"),
])
def test_disk_too_small_for_its_slots(size, slot, message):
    with pytest.raises(CornerstoneError) as caught:
        slot_disk.layout("cvm", size, slot)
    assert message in caught.value.message
    assert "root_slot in the profile" in caught.value.hint
    assert caught.value.code is Code.INPUT


def test_root_too_large_for_its_slot(tmp_path):
    with pytest.raises(CornerstoneError, match="has 3 MiB and doesn't fit a root slot of 2 MiB") as caught:
        make_disk(tmp_path / "disk", slot=2 * MIB)
    assert "cvm.root_slot" in caught.value.hint
    assert not list((tmp_path / "disk").glob("cvm.qcow2*"))


def test_a_failing_tool_leaves_no_scratch_file(tmp_path, monkeypatch):
    monkeypatch.setattr(cvm_disk, "_make_state", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_disk(tmp_path / "disk")
    assert not list((tmp_path / "disk").glob("cvm.qcow2*"))


def test_disk_has_a_sound_table(disk, partitions):
    sgdisk_finds_nothing(disk)
    assert [(p["name"], p["start"], p["size"]) for p in sfdisk_partitions(disk)] == [
        (p.name, p.start, p.sectors) for p in partitions.values()]


def test_root_a_is_the_squashfs_and_root_b_is_empty(disk, partitions):
    root_a, root_b = partitions["root-a"], partitions["root-b"]
    assert bytes_at(disk, root_a.offset, root_a.size) == SQUASHFS.ljust(SLOT, b"\0")
    assert bytes_at(disk, root_b.offset, root_b.size) == bytes(SLOT)


def test_bios_grub_is_patched_as_grub_bios_setup_does(disk, partitions):
    start = partitions["bios-boot"].start
    boot, core = bytes_at(disk, 0, SECTOR), bytes_at(disk, start * SECTOR, len(CORE))
    expected = bytearray(bytes(range(256)) * 2)[:440]
    expected[0x5c:0x64] = struct.pack("<Q", start)
    expected[0x66:0x68] = b"\x90\x90"
    assert boot[:440] == expected
    assert struct.unpack_from("<QH", core, 0x1f4) == (start + 1, 37), "the 38 sectors without the first"
    assert core[:0x1f4] + core[0x1fe:] == CORE[:0x1f4] + CORE[0x1fe:]


def test_core_image_larger_than_its_partition():
    disk = BytesIO()
    with pytest.raises(ValueError, match="larger than the BIOS boot partition"):
        slot_disk.install_bios_grub(disk, part("bios-boot", 2048, 8), bytes(SECTOR), bytes(8 * SECTOR + 1))
    assert disk.getvalue() == b""


def test_esp_holds_what_starts_the_machine(disk, partitions, tmp_path):
    at = f"{disk}@@{partitions['esp'].offset}"
    names = {line.removeprefix("::/") for line in output_of("mdir", "-i", at, "-b", "-s", "-/", "::").splitlines()}
    assert {name for name in names if not name.endswith("/")} == {
        "EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/grubx64.efi", "EFI/BOOT/mmx64.efi", "EFI/debian/grub.cfg",
        "boot/grub/grub.cfg", "boot/a/vmlinuz", "boot/a/initrd.img"}
    boot = disk.parent / "boot"
    for inside, source in (("EFI/BOOT/BOOTX64.EFI", "shimx64.efi"), ("EFI/BOOT/grubx64.efi", "grubx64.efi"),
                           ("boot/a/vmlinuz", "vmlinuz"), ("boot/a/initrd.img", "initrd.img")):
        output_of("mcopy", "-i", at, f"::/{inside}", tmp_path / source)
        assert (tmp_path / source).read_bytes() == (boot / source).read_bytes()


def test_grub_config_names_this_disk_s_partitions(disk, partitions):
    at = f"{disk}@@{partitions['esp'].offset}"
    config = output_of("mtype", "-i", at, "::/boot/grub/grub.cfg")
    assert config == output_of("mtype", "-i", at, "::/EFI/debian/grub.cfg")
    for slot in ("a", "b"):
        line = next(line for line in config.splitlines() if f"/boot/{slot}/vmlinuz" in line)
        assert f"cornerstone.root={partitions[f'root-{slot}'].identity} " in line
        assert f"cornerstone.state={partitions['state'].identity} " in line


def test_state_is_a_sound_file_system(disk, partitions, tmp_path):
    state = partitions["state"]
    image = tmp_path / "state"
    output_of("dd", f"if={disk}", f"of={image}", "bs=1M", f"skip={state.offset // MIB}", f"count={state.size // MIB}",
              "conv=sparse", "status=none")
    checked = subprocess.run(["e2fsck", "-fn", image], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    told = dict(line.split(":", 1) for line in output_of("dumpe2fs", "-h", image).splitlines() if ":" in line)
    assert told["Filesystem UUID"].strip() == str(state.identity)
    assert told["Filesystem volume name"].strip() == "state"
    assert int(told["Block count"]) * int(told["Block size"]) == state.size


def test_two_builds_are_the_same_bytes(disk, tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    monkeypatch.setenv("LC_ALL", "C")
    again = make_disk(tmp_path / "another place")
    assert again.read_bytes() == disk.with_suffix(".qcow2").read_bytes()
    assert not list(again.parent.glob("cvm.qcow2.*")), "scratch files are gone"


def written(tmp_path, *states):
    """A disk file with a table of each GUID written over the one before; the last one only as far as its parts say."""
    disk = tmp_path / "disk"
    with disk.open("wb") as out:
        out.truncate(8 * MIB)
        for identity, parts in states:
            made = gpt.tables(8 * MIB, identity, [part("only", 2048, 2048)])
            for name in parts:
                copy = getattr(made, name.partition(" ")[0])
                content, at = {"header": (copy.header, copy.header_offset),
                               "entries": (copy.entries, copy.entries_offset)}[name.partition(" ")[2]]
                out.seek(at)
                out.write(content if identity != NEW or "header" in name else content[:64] + b"new" + content[67:])
    content = disk.read_bytes()
    return gpt.disk_guid(lambda offset, size: content[offset:offset + size], 8 * MIB)


OLD, NEW = derived_id("old"), derived_id("new")
WHOLE = ("primary entries", "primary header", "backup entries", "backup header")


@pytest.mark.parametrize(("states", "found"), [
    ([], None),
    ([(OLD, WHOLE)], OLD),
    ([(OLD, ("backup entries", "backup header"))], OLD),
    ([(OLD, ("backup entries",))], None),
    ([(OLD, ("primary header", "backup header"))], None),
    ([(OLD, WHOLE), (NEW, ("primary entries",))], OLD),
], ids=["blank", "whole", "backup alone", "entries alone", "headers alone", "primary torn: the backup counts"])
def test_the_guid_is_that_of_the_copy_that_counts(tmp_path, states, found):
    assert written(tmp_path, *states) == found

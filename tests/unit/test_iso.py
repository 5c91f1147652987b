"""Mastering: small ISOs, read back by pycdlib, xorriso and the partition tools."""

from __future__ import annotations

import io
import json
import os
import random
import re
import struct
import subprocess
import time
from pathlib import Path

import pycdlib
import pytest

from cornerstone.customize import iso_image
from cornerstone.factory.iso import mastering
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.gpt import derived_id
from cornerstone.model.contracts.manifest import Manifest, entry_of

EPOCH = 1_800_000_000
IDENTITY = str(derived_id("test iso"))
BLOCK, SECTOR, MIB = 2048, 512, 1 << 20
HYBRID = bytes(random.Random(3).randbytes(SECTOR))

CONTENT = {
    mastering.BIOS_IMAGE: random.Random(4).randbytes(9 * BLOCK + 100),
    mastering.EFI_IMAGE: random.Random(5).randbytes(2 * MIB),
    "manifest.json": b'{"schema": 1}\n',
    "site.area": b"FOUNDATION-SITE 1 empty\n".ljust(8192, b"\0"),
    f".disk/{IDENTITY}": b"",
    ".disk/info": b"a test\n",
    "layers/hypervisor.squashfs": random.Random(6).randbytes(BLOCK * 3),
    "layers/a name with spaces and Capitals, of more than 31 letters.txt": b"names\n",
    "layers/one.squashfs": b"1" * 2047,
    "layers/One.squashfs": b"2" * 2049,
    **{f"deep/{'/'.join('abcdefg'[:depth])}/file": f"depth {depth}\n".encode() for depth in range(1, 7)},
    **{f"many/file-{n:02}.efi": f"file {n}\n".encode() * n for n in range(30)},
}


def sources(folder: Path, content: dict[str, bytes] = CONTENT) -> dict[str, Path]:
    files = {}
    for number, (path, data) in enumerate(content.items()):
        files[path] = folder / f"source-{number}"
        files[path].parent.mkdir(parents=True, exist_ok=True)
        files[path].write_bytes(data)
    return files


def master(target: Path, files: dict[str, Path], **changes) -> Path:
    wanted = {"boot_hybrid": HYBRID, "identity": IDENTITY, "epoch": EPOCH, "progress": lambda *_: None} | changes
    mastering.master(target, files, **wanted)
    return target


def manifest_of(files: dict[str, Path]) -> Manifest:
    entries = tuple(entry_of(path, source, iso_image.BIOS_IMAGE_MASK if path == mastering.BIOS_IMAGE else ())
                    for path, source in files.items())
    return Manifest(IDENTITY, {}, "development", EPOCH, entries, 8192)


def output_of(*argv: str | Path) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def xorriso(image: Path, *commands: str) -> str:
    return output_of("xorriso", "-abort_on", "FAILURE", "-indev", f"stdio:{image}", *commands)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    return sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def image(files, tmp_path_factory) -> Path:
    return master(tmp_path_factory.mktemp("iso") / "test.iso", files)


def unmasked(path: str, data: bytes) -> bytes:
    """What is on the ISO, with what mastering may write into the BIOS image taken back."""
    if path != mastering.BIOS_IMAGE:
        return data
    changed = bytearray(data)
    for offset, length in iso_image.BIOS_IMAGE_MASK:
        changed[offset:offset + length] = CONTENT[path][offset:offset + length]
    return bytes(changed)


def test_pycdlib_reads_every_file_by_both_names(image):
    reader = pycdlib.PyCdlib()
    reader.open(str(image))
    for names in ("rr_path", "joliet_path"):
        for path, expected in CONTENT.items():
            out = io.BytesIO()
            reader.get_file_from_iso_fp(out, **{names: f"/{path}"})
            assert unmasked(path, out.getvalue()) == expected, f"{names} {path}"
    reader.close()


def test_xorriso_reads_every_file_and_no_other(image, tmp_path):
    xorriso(image, "-osirrox", "on", "-extract", "/", str(tmp_path / "out"))
    found = {str(p.relative_to(tmp_path / "out")): p for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert found.keys() == CONTENT.keys() | {mastering.BOOT_CATALOG}
    for path, expected in CONTENT.items():
        assert unmasked(path, found[path].read_bytes()) == expected, path


def test_dates_owners_and_modes_are_fixed(image):
    listing = xorriso(image, "-find", "/", "-exec", "lsdl", "--").splitlines()
    date = time.strftime("%b %e  %Y", time.gmtime(EPOCH))
    assert len(listing) > len(CONTENT)
    for line in listing:
        mode, _, user, group, *_ = line.split()
        assert (user, group) == ("0", "0"), line
        # e: El Torito's own catalog
        assert mode in ("dr-xr-xr-x", "-r--r--r--", "er--r--r--"), line
        assert date in line or time.strftime("%b %e %H:%M", time.gmtime(EPOCH)) in line, line


def test_label(image):
    assert re.search("^Volume Id +: FOUNDATION$", xorriso(image, "-pvd_info"), re.M)
    assert "FOUNDATION" in output_of("blkid", "--probe", "--output", "value", "--match-tag", "LABEL", image)
    joliet = image.read_bytes()[17 * BLOCK:20 * BLOCK]
    assert "FOUNDATION".encode("utf-16-be") in joliet


def test_el_torito_starts_bios_and_uefi(image):
    said = xorriso(image, "-report_el_torito", "plain")
    entries = re.findall(r"El Torito boot img +: +\d+ +(\w+) +y +(\w+) +0x0000 +0x00 +(\d+) +(\d+)", said)
    assert [entry[:2] for entry in entries] == [("BIOS", "none"), ("UEFI", "none")], said
    paths = re.findall(r"El Torito img path +: +\d+ +(\S+)", said)
    assert paths == [f"/{mastering.BIOS_IMAGE}", f"/{mastering.EFI_IMAGE}"], said
    assert entries[0][2] == "4", "BIOS loads four sectors, GRUB the rest"
    assert "grub2-boot-info" in said


def test_bios_image_knows_its_place(image):
    said = xorriso(image, "-report_el_torito", "plain")
    block = int(re.search(r"El Torito boot img +: +1 .* (\d+)$", said, re.M)[1])
    with image.open("rb") as file:
        file.seek(block * BLOCK)
        bios = file.read(len(CONTENT[mastering.BIOS_IMAGE]))
        mbr = (file.seek(0), file.read(SECTOR))[1]
    assert struct.unpack_from("<III", bios, 8) == (16, block, len(bios)), "boot info table: PVD, own block, size"
    assert struct.unpack_from("<Q", bios, 2548)[0] == block * 4 + 5
    assert mbr[:0x1b0] == HYBRID[:0x1b0]
    assert struct.unpack_from("<Q", mbr, 0x1b0)[0] == block * 4 + 4
    assert mbr[510:] == b"\x55\xaa"


def test_boot_info_table_has_the_right_checksum(image):
    assert "boot-info-table" in xorriso(image, "-report_el_torito", "plain")


def test_as_a_disk_it_has_a_sound_table_with_an_esp(image):
    assert "No problems found" in output_of("sgdisk", "--verify", image)
    table = json.loads(output_of("sfdisk", "--json", image))["partitiontable"]
    esp = next(p for p in table["partitions"] if p["name"] == "ESP")
    assert esp["type"].lower() == "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
    with image.open("rb") as file:
        file.seek(esp["start"] * SECTOR)
        assert file.read(esp["size"] * SECTOR) == CONTENT[mastering.EFI_IMAGE], "the bytes that a CD starts, too"
    assert image.stat().st_size % MIB == 0


def test_nothing_lies_in_the_padding(image):
    """GRUB reads ahead past the last file when it boots from CD."""
    said = xorriso(image, "-toc")
    blocks = int(re.search(r"Media summary:.*?(\d+) data blocks", said)[1])
    tail = image.read_bytes()[-mastering.TAIL_PADDING:-33 * SECTOR]
    assert blocks * BLOCK <= image.stat().st_size
    assert not any(tail), "zeros up to the backup GPT"


@pytest.mark.parametrize(("zone", "umask"), [("UTC", 0o022), ("Pacific/Kiritimati", 0o077), ("America/St_Johns", 0)])
def test_nothing_of_the_machine_gets_in(image, tmp_path, monkeypatch, zone, umask):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    before = os.umask(umask)
    try:
        files = sources(tmp_path / "elsewhere")
        for number, source in enumerate(files.values()):
            os.utime(source, (number * 1e6, number * 2e6))
            source.chmod(0o400 if number % 2 else 0o755)
        again = master(tmp_path / "another name.iso", dict(reversed(files.items())))
    finally:
        os.umask(before)
        monkeypatch.undo()
        time.tzset()
    assert again.read_bytes() == image.read_bytes()


@pytest.mark.parametrize("change", [{"epoch": EPOCH + 2}, {"identity": str(derived_id("other"))},
                                    {"boot_hybrid": bytes(SECTOR)}], ids=lambda change: next(iter(change)))
def test_each_input_shows(image, files, tmp_path, change):
    assert master(tmp_path / "x.iso", files, **change).read_bytes() != image.read_bytes()


def test_clock_is_given_back(image):
    assert pycdlib.pycdlib.time is time
    assert pycdlib.udf.random is random


def test_clock_is_given_back_after_an_error(files, tmp_path):
    with pytest.raises(OSError, match="missing"):
        master(tmp_path / "missing" / "x.iso", files)
    assert pycdlib.pycdlib.time is time


def test_pycdlib_that_reads_the_clock_in_another_way(files, tmp_path, monkeypatch):
    monkeypatch.setattr(pycdlib.dates, "time", object())
    with pytest.raises(CornerstoneError, match="wouldn't be reproducible") as caught:
        master(tmp_path / "x.iso", files)
    assert caught.value.code is Code.MACHINE
    assert not (tmp_path / "x.iso").exists()


def test_missing_source(files, tmp_path):
    with pytest.raises(CornerstoneError) as caught:
        master(tmp_path / "x.iso", {**files, "layers/gone": tmp_path / "gone"})
    assert caught.value.message == f"{tmp_path / 'gone'} (for layers/gone on the ISO) is missing"
    assert caught.value.code is Code.STEP
    assert not (tmp_path / "x.iso").exists()


def test_progress_reaches_the_whole(files, tmp_path):
    seen = []
    master(tmp_path / "x.iso", files, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] >= sum(len(data) for data in CONTENT.values())


def test_large_files_begin_at_pages(files, tmp_path):
    large = tmp_path / "large"
    with large.open("wb") as out:
        out.write(b"first")
        # an odd number of blocks, so that what follows can't fall into place by itself
        out.truncate(mastering.PIECE + BLOCK)
    more = {f"layers/large-{number}": large for number in range(4)}
    image = master(tmp_path / "x.iso", files | more)
    for path in more:
        said = xorriso(image, "-find", f"/{path}", "-exec", "report_lba")
        lba = int(said.splitlines()[-1].split(",")[1])
        assert lba % 2 == 0, said
        with image.open("rb") as whole:
            whole.seek(lba * BLOCK)
            assert whole.read(6) == b"first\0"
    assert mastering.read_back(image, manifest_of(files | more)) == []


def test_read_back_finds_nothing_wrong(image, files):
    seen = []
    assert mastering.read_back(image, manifest_of(files), seen.append) == []
    assert seen == list(files)


@pytest.mark.parametrize("path", [mastering.BIOS_IMAGE, mastering.EFI_IMAGE, "layers/hypervisor.squashfs",
                                  "many/file-07.efi", "manifest.json"])
@pytest.mark.parametrize("place", ["first", "last"])
def test_one_changed_byte_names_its_file(image, files, tmp_path, path, place):
    listing = xorriso(image, "-find", f"/{path}", "-exec", "report_lba", "--")
    block = int(re.search(r"File data lba: +\d+ , +(\d+) ,", listing)[1])
    changed = bytearray(image.read_bytes())
    changed[block * BLOCK + (0 if place == "first" else len(CONTENT[path]) - 1)] ^= 1
    (tmp_path / "x.iso").write_bytes(changed)
    name = path.removeprefix("layers/")
    assert mastering.read_back(tmp_path / "x.iso", manifest_of(files)) == [f"layer {name} does not match the manifest"]


def test_read_back_tells_what_the_manifest_has_and_the_iso_has_not(image, files, tmp_path):
    (tmp_path / "more").write_bytes(b"more")
    (tmp_path / "longer").write_bytes(b"longer")
    manifest = manifest_of({**files, ".disk/info": tmp_path / "longer", "layers/cvm.qcow2": tmp_path / "more"})
    assert mastering.read_back(image, manifest) == ["layer .disk/info has 7 bytes, the manifest says 6",
                                              "layer cvm.qcow2 isn't on the ISO"]


@pytest.mark.parametrize("content", [b"", b"no ISO at all", bytes(64 * BLOCK)])
def test_read_back_of_what_is_no_iso(files, tmp_path, content):
    (tmp_path / "x.iso").write_bytes(content)
    wrong = mastering.read_back(tmp_path / "x.iso", manifest_of(files))
    assert len(wrong) == 1
    assert wrong[0].startswith("x.iso can't be read as an ISO: ")


@pytest.mark.parametrize("kept", [0.1, 0.3, 0.6])
def test_read_back_of_half_an_iso(image, files, tmp_path, kept):
    content = image.read_bytes()
    (tmp_path / "x.iso").write_bytes(content[:int(len(content) * kept)])
    assert mastering.read_back(tmp_path / "x.iso", manifest_of(files))

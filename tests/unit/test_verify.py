"""`invoke verify` on a small ISO, made by the real mastering: it passes, and tampering of each kind is refused."""

import ast
import contextlib
import hashlib
import json
import os
import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pycdlib
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cornerstone.cli import inputs
from cornerstone.customize.customize import customize
from cornerstone.customize.iso_image import Image
from cornerstone.factory.iso import mastering
from cornerstone.factory.iso.iso_checks import CHECKS, GRUB, INITRAMFS, KERNEL, MOK_MANAGER, SHIM, Subject, run_checks
from cornerstone.factory.settings import Workspace
from cornerstone.factory.signing.signing import SoftwareKey
from cornerstone.factory.verify import boot_checks, verify
from cornerstone.factory.verify.authenticode import signatures
from cornerstone.factory.verify.boot_checks import MICROSOFT
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.fat import MIB, make_fat
from cornerstone.model.contracts.boot_area import BootSettings
from cornerstone.model.contracts.manifest import BOOT_AREA, CVM, FIRST_BOOT, HYPERVISOR, NAME, SIGNATURE_NAME, SITE_AREA
from cornerstone.model.contracts.site_area import pack
from small_iso import EPOCH, GRUB_SBAT, KEY, SHIM_SBAT, Workshop, pe

ROOT = Path(__file__).resolve().parents[2]
FILES = (SHIM, GRUB, MOK_MANAGER, KERNEL, INITRAMFS, mastering.BIOS_IMAGE, mastering.EFI_IMAGE, HYPERVISOR, CVM,
         FIRST_BOOT, ".disk/info", "boot/grub/grub.cfg", "boot/grub/loopback.cfg")


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> bytes:
    return Workshop(tmp_path_factory.mktemp("workshop")).master().read_bytes()


@pytest.fixture
def medium(good, tmp_path) -> Path:
    """A whole ISO of one's own, with its key beside it."""
    path = tmp_path / "tiny.iso"
    path.write_bytes(good)
    (tmp_path / verify.KEY_NAME).write_bytes(KEY.public_pem())
    return path


@pytest.fixture
def workshop(tmp_path) -> Workshop:
    return Workshop(tmp_path)


def wrong(path: Path, key: bytes | None = None) -> dict[str, list[str]]:
    """What the checks find wrong, by their ids."""
    subject = Subject(path, key or KEY.public_pem())
    try:
        return {f.check.id: list(f.wrong) for f in run_checks(subject) if f.wrong}
    finally:
        subject.close()


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x55]))


def place(path: Path, name: str):
    with contextlib.closing(Image(path)) as image:
        return image.place(name)


def refused(path: Path, capsys, key: Path | None = None) -> list[str]:
    """The lines with ✗ that `verify` prints while it ends with Code.VERIFY."""
    assert verify.verify_iso(path, key) == Code.VERIFY == 6
    printed = capsys.readouterr().out
    assert "the roots inside were not looked at" in printed
    return [line for line in printed.splitlines() if line.startswith("✗")]


def test_a_good_iso_passes_every_check(workshop):
    medium = workshop.master()
    workshop.certify(medium)
    workshop.serve(medium)
    subject = Subject(medium, KEY.public_pem())
    said: list[str] = []
    findings = list(verify.told(subject, said.append))
    assert [f.check.id for f in findings] == list(CHECKS)
    assert all(f.passed for f in findings), said
    assert all(line.startswith("✓") for line in said)
    assert verify.summary(findings, 1).startswith(f"{len(CHECKS)} of {len(CHECKS)} checks passed (")


@pytest.mark.parametrize("name", FILES)
def test_one_byte_changed_in_a_file_is_refused_by_its_name(medium, capsys, name):
    extent = place(medium, name)
    flip(medium, extent.start + extent.size // 3)
    layer = name.removeprefix("layers/")
    assert refused(medium, capsys) == [f"✗  {'layers'.ljust(verify.WIDTH)}  layer {layer} does not match the manifest"]


@pytest.mark.parametrize("at", [0, -1])
def test_first_and_last_byte_of_a_layer_count(medium, at):
    extent = place(medium, HYPERVISOR)
    flip(medium, extent.start + at % extent.size)
    assert wrong(medium) == {"layers": ["layer hypervisor.squashfs does not match the manifest"]}


def test_a_changed_manifest_is_refused(medium, capsys):
    content = medium.read_bytes()
    medium.write_bytes(content.replace(b'"epoch": 1795', b'"epoch": 1796'))
    assert medium.read_bytes() != content
    assert refused(medium, capsys) == [f"✗  {'signature'.ljust(verify.WIDTH)}  manifest.json isn't signed by this key"]


def test_a_malformed_manifest_is_refused(medium):
    flip(medium, place(medium, NAME).start)
    assert list(wrong(medium)) == ["manifest"]
    assert "manifest.json: not a Foundation manifest" in wrong(medium)["manifest"][0]


def test_a_changed_signature_is_refused(medium):
    flip(medium, place(medium, SIGNATURE_NAME).start + 3)
    assert wrong(medium) == {"signature": ["manifest.json isn't signed by this key"]}


@pytest.mark.parametrize("signature", [b"", b"short", bytes(65)])
def test_a_signature_of_another_length_is_refused(workshop, signature):
    workshop.extra[SIGNATURE_NAME] = signature
    assert wrong(workshop.master()) == {"signature": ["manifest.json isn't signed by this key"]}


@pytest.mark.parametrize(("missing", "check"), [(SIGNATURE_NAME, "signature"), (NAME, "manifest")])
def test_without_signature_or_manifest_it_is_refused(workshop, capsys, missing, check):
    workshop.extra[missing] = None
    assert refused(workshop.master(), capsys) == [f"✗  {check.ljust(verify.WIDTH)}  {missing} isn't on the ISO"]


def test_another_key_is_refused(medium, capsys, tmp_path):
    other = tmp_path / "other.pem"
    other.write_bytes(SoftwareKey(Ed25519PrivateKey.generate(), "release").public_pem())
    assert refused(medium, capsys, other) == [
        f"✗  {'signature'.ljust(verify.WIDTH)}  manifest.json isn't signed by this key"]


def test_an_iso_alone_wants_a_key(medium):
    medium.with_name(verify.KEY_NAME).unlink()
    with pytest.raises(CornerstoneError, match="nothing says whose signature to trust") as caught:
        verify.verify_iso(medium)
    assert "--key" in caught.value.hint
    assert caught.value.code is Code.INPUT


def test_a_key_that_is_no_key_is_named(medium, tmp_path):
    with pytest.raises(CornerstoneError, match="there is no key"):
        verify.verify_iso(medium, tmp_path / "none.pem")
    (tmp_path / "bad.pem").write_text("no key\n")
    (tmp_path / "rsa.pem").write_bytes(rsa.generate_private_key(65537, 2048).public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    for name in ("bad.pem", "rsa.pem"):
        with pytest.raises(CornerstoneError, match="isn't the PEM of an ed25519 public key") as caught:
            verify.verify_iso(medium, tmp_path / name)
        assert caught.value.code is Code.INPUT


def test_a_truncated_iso_is_refused(medium, capsys):
    size = medium.stat().st_size
    with medium.open("r+b") as file:
        file.truncate(size - 700_000)
    assert refused(medium, capsys) == [
        f"✗  {'iso-whole'.ljust(verify.WIDTH)}  tiny.iso is cut short: {size - 700_000} of {size} bytes are there"]


def test_an_iso_without_its_last_sector_is_refused(medium):
    size = medium.stat().st_size
    with medium.open("r+b") as file:
        file.truncate(size - 512)
    assert wrong(medium) == {"iso-whole": [f"tiny.iso is cut short: {size - 512} of {size} bytes are there"]}


def all_right(path: Path, capsys, monkeypatch, *, behind: int) -> list[str]:
    """The lines that `verify` prints of an ISO that passes, with so many bytes behind it; its roots pass, too."""
    monkeypatch.setattr(verify, "check_roots", lambda *_, **__: 0)
    key = path.with_name(verify.KEY_NAME)
    assert verify.verify_iso(path, key) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not any(line.startswith("✗") for line in lines)
    assert [line for line in lines if "behind" in line] == ([
        f"note: {behind} bytes lie behind the ISO's own end, as on a stick that is larger: they aren't part of it, and "
        "weren't looked at"] if behind else [])
    assert verify.verify_iso(path, key, "json") == 0
    assert json.loads(capsys.readouterr().out)["behind"] == behind
    return lines


@pytest.mark.parametrize("behind", [b"", b"more", b"\xff" * 70_000, bytes(5 << 20)])
def test_m7_the_image_of_a_larger_stick_is_checked_as_far_as_the_iso_reaches(workshop, capsys, monkeypatch, behind):
    medium = workshop.master()
    workshop.certify(medium)
    with medium.open("ab") as file:
        file.write(behind)
    lines = all_right(medium, capsys, monkeypatch, behind=len(behind))
    assert any(line.startswith("✓  evidence ") for line in lines), "the ISO's sum is that of its own bytes"


@pytest.mark.parametrize("name", FILES)
def test_m7_a_changed_byte_on_a_larger_stick_is_named(medium, name):
    extent = place(medium, name)
    flip(medium, extent.start + extent.size // 2)
    os.truncate(medium, medium.stat().st_size + (1 << 20))
    assert wrong(medium) == {"layers": [f"layer {name.removeprefix('layers/')} does not match the manifest"]}


def test_m7_a_damaged_second_partition_table_on_a_larger_stick_is_named(medium):
    size = medium.stat().st_size
    flip(medium, size - 500)
    os.truncate(medium, size + (1 << 20))
    assert list(wrong(medium)) == ["gpt"]


@pytest.mark.parametrize("last", [40, 2, 1 << 62])
def test_m7_a_partition_table_that_says_another_end_is_refused(medium, last):
    """What bounds the check is itself checked: a header that was changed says so by its sum."""
    content = bytearray(medium.read_bytes())
    struct.pack_into("<Q", content, 512 + 32, last)
    medium.write_bytes(content)
    assert wrong(medium).keys() & {"iso-whole", "gpt"}


def test_m7_a_file_that_reaches_behind_the_iso_is_refused(medium):
    """Its manifest's bytes could lie behind, where the tables don't reach; then they aren't the ISO's."""
    extent, size = place(medium, CVM), medium.stat().st_size
    content = bytearray(medium.read_bytes())
    number = extent.start // 2048
    old, new = (struct.pack("<I", n) + struct.pack(">I", n) for n in (number, size // 2048))
    assert content.count(old) >= 2
    content = content.replace(old, new) + content[extent.start:extent.start + extent.size]
    medium.write_bytes(content)
    assert wrong(medium)["layers"] == [f"layer cvm.qcow2 has 0 bytes, the manifest says {extent.size}"]


@pytest.fixture
def stick(medium, tmp_path) -> Iterator[Path]:
    """A block device of 16 MiB more than the ISO that was written onto it."""
    if os.geteuid():
        pytest.skip("loop devices take root")
    file = tmp_path / "stick.img"
    file.write_bytes(medium.read_bytes())
    os.truncate(file, medium.stat().st_size + (16 << 20))
    device = subprocess.run(["losetup", "--find", "--show", file], capture_output=True, text=True,
                            check=True).stdout.strip()
    yield Path(device)
    subprocess.run(["losetup", "--detach", device], check=True)


def test_m7_a_written_stick_is_verified(stick, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(verify, "check_roots", lambda *_, **__: 0)
    assert inputs.find_iso(Workspace(tmp_path), str(stick), device=True) == stick
    assert verify.verify_iso(stick, tmp_path / verify.KEY_NAME) == 0
    assert f"note: {16 << 20} bytes lie behind" in capsys.readouterr().out
    with pytest.raises(CornerstoneError, match=r"no manifest\.pem beside /dev/loop") as caught:
        verify.verify_iso(stick)
    assert "--key FILE" in caught.value.hint


def test_m7_what_the_stick_holds_counts_not_what_memory_remembers(stick, tmp_path):
    assert wrong(stick) == {}
    # behind the device's back, as flash that loses a byte
    extent = place(stick, CVM)
    flip(tmp_path / "stick.img", extent.start)
    assert wrong(stick) == {"layers": ["layer cvm.qcow2 does not match the manifest"]}


def test_m7_other_commands_still_want_a_file(stick, tmp_path):
    with pytest.raises(CornerstoneError, match="is a device, not a file"):
        inputs.find_iso(Workspace(tmp_path), str(stick))
    with pytest.raises(CornerstoneError, match="is a device, not a file"):
        inputs.find_iso(Workspace(tmp_path), "/dev/null", device=True)


@pytest.mark.parametrize("content", [b"", b"no ISO\n", bytes(1 << 20), random.Random(1).randbytes(1 << 20)])
def test_what_is_no_iso_is_refused(tmp_path, capsys, content):
    path = tmp_path / "garbage.iso"
    path.write_bytes(content)
    (tmp_path / verify.KEY_NAME).write_bytes(KEY.public_pem())
    lines = refused(path, capsys)
    assert len(lines) == 1
    assert "garbage.iso can't be read as an ISO" in lines[0]


def test_a_file_that_nobody_signed_is_refused(workshop):
    workshop.extra["boot/grub/custom.cfg"] = b"set superusers=\n"
    assert wrong(workshop.master()) == {
        "names": ["boot/grub/custom.cfg is on the ISO, but the manifest doesn't name it"]}


def test_a_file_that_is_missing_is_named(workshop):
    path = workshop.master()
    with contextlib.closing(Image(path)) as image:
        manifest = image.content(NAME).replace(b"layers/cvm.qcow2", b"layers/cvm.QCOW2")
    workshop.extra |= {NAME: manifest, SIGNATURE_NAME: KEY.sign(manifest)}
    assert wrong(workshop.master()) == {"manifest": ["the manifest doesn't name layers/cvm.qcow2"]}
    file = b',{"path": "layers/cvm.qcow2", "size": 1, "sha256": "%s"}]}\n' % (b"0" * 64)
    manifest = manifest.replace(b"]}\n", file, 1) \
        if manifest.endswith(b"}\n]}\n") else b""
    workshop.extra |= {NAME: manifest, SIGNATURE_NAME: KEY.sign(manifest)}
    assert wrong(workshop.master())["names"] == ["layer cvm.QCOW2 isn't on the ISO"]


def test_a_site_area_of_another_size_is_refused(workshop):
    workshop.site_area = 2048
    assert wrong(workshop.master()) == {"names": ["site.area has 2048 bytes, the manifest reserves 4096"]}


def test_a_site_area_that_is_damaged_is_named(medium):
    flip(medium, place(medium, SITE_AREA).start + 100)
    assert wrong(medium) == {"site-area": ["the ISO's site area is damaged: something is behind its content"]}


@pytest.mark.parametrize("content", [b"init=/bin/sh", b"a b;c", b"x=$root"])
def test_a_boot_area_with_words_that_customize_does_not_take_is_named(medium, capsys, content):
    area = place(medium, BOOT_AREA)
    text = b"# GRUB Environment Block\nkernel_arguments=" + content + b"\n"
    with medium.open("r+b") as file:
        file.seek(area.start)
        file.write(text.ljust(area.size, b"#"))
    [line] = refused(medium, capsys)
    assert line.startswith(f"✗  {'boot-area'.ljust(verify.WIDTH)}  the ISO's boot area can't be trusted: ")


def test_boot_settings_are_told_and_the_evidence_holds(workshop, capsys, monkeypatch):
    medium = workshop.master()
    workshop.certify(medium)
    monkeypatch.setattr(verify, "check_roots", lambda *_, **__: 0)
    key = medium.with_name(verify.KEY_NAME)
    assert verify.verify_iso(medium, key) == 0
    assert "customised" not in capsys.readouterr().out
    customize(medium, boot=BootSettings("ttyS1,115200", ("nomodeset",)))
    assert verify.verify_iso(medium, key) == 0
    printed = capsys.readouterr().out
    assert "note: customised: it starts with serial port ttyS1,115200; kernel arguments nomodeset\n" in printed
    assert "✓  evidence " in printed
    assert verify.verify_iso(medium, key, "json") == 0
    assert json.loads(capsys.readouterr().out)["boot"] == {"console": "ttyS1,115200", "arguments": ["nomodeset"]}


def test_menus_take_two_variables_from_the_boot_area_and_hand_them_on(medium):
    """The order counts: the kernel takes the last of two arguments, and findiso is never one of the area's."""
    with contextlib.closing(Image(medium)) as image:
        menus = {path: image.content(path).decode() for path in ("boot/grub/grub.cfg", "boot/grub/loopback.cfg")}
    for menu in menus.values():
        assert [line.strip() for line in menu.splitlines() if "load_env" in line] == [
            "load_env --file /boot/grub/grubenv serial_console kernel_arguments"]
        assert menu.index("set serial_console=ttyS0,115200\n") < menu.index("load_env") < menu.index("set arguments=")
        assert "console=tty0 console=$serial_console " in menu and "console=ttyS0" not in menu.partition("load_env")[2]
    assert ' $kernel_arguments"\n' in menus["boot/grub/grub.cfg"]
    assert ' $kernel_arguments findiso=${iso_path}"\n' in menus["boot/grub/loopback.cfg"]


def test_a_site_area_that_is_filled_passes(medium):
    area = place(medium, SITE_AREA)
    with medium.open("r+b") as file:
        file.seek(area.start)
        file.write(pack(b"{}", area.size))
    assert wrong(medium) == {}


def test_a_label_of_another_name_is_refused(medium):
    flip(medium, 16 * 2048 + 40)
    assert wrong(medium) == {"label": ["the ISO 9660 volume label is '\\x13OUNDATION', not FOUNDATION"]}


def test_something_between_the_files_is_found(medium):
    extent = place(medium, FIRST_BOOT)
    at = extent.start + extent.size + 10
    flip(medium, at)
    words = f"byte {at} of the ISO, between the files, isn't zero: something is hidden there"
    assert wrong(medium) == {"gaps": [words]}
    flip(medium, at)
    flip(medium, 20_000)
    assert "before the file system" in wrong(medium)["gaps"][0]
    flip(medium, 20_000)
    flip(medium, medium.stat().st_size - 18_000)
    assert "after the file system" in wrong(medium)["gaps"][0]


def test_joliet_must_show_the_same_files(medium):
    with contextlib.closing(Image(medium)) as image:
        folder = image.joliet.folders["layers"]
        # in a record the size is 10 bytes in, in both byte orders, and the name 33
        record = folder.start + image.at(folder.start, folder.size).index("first-boot.sh".encode("utf-16-be")) - 33
    flip(medium, record + 10)
    assert "in one byte order and" in wrong(medium)["iso-readable"][0]
    flip(medium, record + 17)
    assert wrong(medium) == {
        "trees": ["layers/first-boot.sh: a reader of Joliet names (Windows) gets another file than Linux does"]}


def test_a_file_in_several_parts_is_one_file(medium):
    """How a layer over 4 GiB stands on the ISO; the hypervisor's is the last record of its folder in both trees."""
    extent = place(medium, HYPERVISOR)
    with contextlib.closing(Image(medium)) as image:
        folders = [(tree.folders["layers"].start, image.at(tree.folders["layers"].start, 2048))
                   for tree in (image.rock_ridge, image.joliet)]
    with medium.open("r+b") as file:
        for start, content in folders:
            at = last_record(content)
            record = bytearray(content[at:at + content[at]])
            parts = ((extent.start, 2048, 0x80), (extent.start + 2048, extent.size - 2048, 0))
            for part, (first, size, flags) in enumerate(parts):
                record[2:18] = b"".join(number.to_bytes(4, order) for number in (first // 2048, size)
                                        for order in ("little", "big"))
                record[25] = flags
                file.seek(start + at + part * len(record))
                file.write(record)
    assert place(medium, HYPERVISOR) == extent
    assert wrong(medium) == {}
    flip(medium, extent.start + 3000)
    assert wrong(medium) == {"layers": ["layer hypervisor.squashfs does not match the manifest"]}
    with medium.open("r+b") as file:  # now the last part says that it goes on, too
        start, content = folders[0]
        file.seek(start + last_record(content) + content[last_record(content)] + 25)
        file.write(b"\x80")
    assert "the last part of a file in 'layers' is missing" in wrong(medium)["iso-readable"][0]


def last_record(folder: bytes) -> int:
    at = 0
    while folder[at + folder[at]]:
        at += folder[at]
    return at


def test_boot_entries_are_checked(medium, good):
    catalog = place(medium, mastering.BOOT_CATALOG).start
    for at, words in ((catalog + 40, "BIOS entry points at block"), (catalog + 104, "UEFI entry points at block"),
                      (catalog + 32, "isn't marked as bootable"), (catalog + 38, "GRUB wants 4"),
                      (catalog + 65, "entries for platforms"), (catalog + 4, "validation entry is damaged"),
                      (17 * 2048 + 8, "no El Torito boot record")):
        medium.write_bytes(good)
        flip(medium, at)
        assert words in wrong(medium)["el-torito"][0]


def test_pointers_are_checked(medium, good):
    image = place(medium, mastering.BIOS_IMAGE).start
    for at, words in ((image + 8, "where the image is"), (image + 12, "where the image is"), (image + 30, "where the"),
                      (image + 20, "checksum"), (image + 2548, "GRUB's pointer in boot/bios.img"),
                      (0x1B0, "GRUB's pointer in the MBR")):
        medium.write_bytes(good)
        flip(medium, at)
        found = wrong(medium)
        assert found.keys() - {"boot-again"} == {"boot-pointers"}
        assert any(words in line for line in found["boot-pointers"])


@pytest.mark.parametrize("at", [3, 100, 0x1B0 - 1])
def test_a31_changed_boot_code_of_the_mbr_is_told_from_the_manifest(medium, at):
    flip(medium, at)
    found = wrong(medium)
    assert found["boot-code"] == ["the MBR's boot code does not match the manifest"]


def test_a31_a_manifest_of_before_names_no_boot_code(workshop):
    workshop.named_boot_code = ""
    subject = Subject(workshop.master(), KEY.public_pem())
    finding = {each.check.id: each for each in run_checks(subject)}["boot-code"]
    subject.close()
    assert finding.absent == "the manifest is of a release that named no boot code"


def test_the_mbr_is_checked(medium, good, workshop):
    for at, words in ((510, "no signature"), (450, "doesn't protect the GPT"), (462, "active, empty entry")):
        medium.write_bytes(good)
        flip(medium, at)
        assert words in wrong(medium)["mbr"][0]
    workshop.boot_hybrid = bytes(512)
    assert "no boot code" in wrong(workshop.master())["mbr"][0]


def test_the_gpt_is_checked(medium, good):
    size = len(good)
    # disk id and last usable sector in the header, a place in the table; the same in the backup
    for at in (512 + 56, 512 + 48, 1024 + 128 + 32, size - 512 + 60, size - 512 + 56, size - 33 * 512 + 128 + 40):
        medium.write_bytes(good)
        flip(medium, at)
        assert "sgdisk finds problems in the GPT" in wrong(medium)["gpt"][0]


def test_the_esp_must_hold_the_same_programs(workshop):
    workshop.fat[GRUB] = pe(b"evil" * 400, "Debian Secure Boot Signer")
    workshop.fat["EFI/BOOT/extra.efi"] = b"x"
    assert wrong(workshop.master()) == {"efi-files": [
        "EFI/BOOT/extra.efi is in boot/efi.img", "EFI/BOOT/grubx64.efi in boot/efi.img is another than the ISO's own"]}


def test_a1_an_esp_whose_folders_go_round_comes_to_an_end(tmp_path, monkeypatch):
    """Two folders in each of which both are again: a reader that walks them has no end."""
    image = tmp_path / "esp"
    make_fat(image, MIB, "ESP", {}, epoch=EPOCH, log=tmp_path / "log")
    subprocess.run(["mmd", "-i", image, "::/X", "::/X/A", "::/X/B"], check=True)
    content = bytearray(image.read_bytes())
    own = content.index(b"X          ")
    for name in (b"A          ", b"B          "):
        at = content.index(name)
        content[at + 26:at + 28] = content[own + 26:own + 28]
    image.write_bytes(content)
    monkeypatch.setattr(boot_checks, "BOUNDS", ("prlimit", "--cpu=1", "--fsize=0", "--core=0"))
    monkeypatch.setattr(boot_checks, "MOST", 1 << 20)
    with pytest.raises(CornerstoneError, match="can't be read") as caught:
        boot_checks.fat(image, 0, "mdir", "-b", "-/", "::/")
    assert caught.value.code is Code.VERIFY


@pytest.mark.parametrize("words", [("sh", "-c", "while :; do :; done"), ("head", "-c", str(2 << 20), "/dev/zero")])
def test_a1_a_reader_without_an_end_is_ended(monkeypatch, words):
    monkeypatch.setattr(boot_checks, "BOUNDS", ("prlimit", "--cpu=1", "--fsize=0", "--core=0"))
    monkeypatch.setattr(boot_checks, "MOST", 1 << 20)
    done = boot_checks.tool(*words)
    assert done.code
    assert len(done.out) <= 1 << 20


def test_an_esp_that_is_no_fat_is_refused(workshop):
    workshop.content[mastering.EFI_IMAGE] = bytes(MIB)
    assert "the FAT file system can't be read" in wrong(workshop.master())["efi-files"][0]


@pytest.mark.parametrize(("path", "content", "words"), [
    (KERNEL, pe(b"kern" * 600, None), "isn't signed, so a machine with Secure Boot on wouldn't start it"),
    (KERNEL, b"bzImage", "can't be started by UEFI: it isn't a PE file"),
    (KERNEL, pe(b"kern" * 600, "Somebody"), "isn't signed by Debian but by CN=Somebody"),
    (KERNEL, pe(b"kern" * 600, "Debian").replace(b"kern", b"evil", 1), "was changed after it was signed"),
    (KERNEL, pe(b"kern" * 600, "Debian")[:-60], "its table of signatures is damaged"),
    (KERNEL, b"MZ", "it is cut short"),
    (SHIM, pe(SHIM_SBAT.replace(b"shim,4", b"shim,3"), *MICROSOFT), "SBAT level 3 of shim, and below 4 it is revoked"),
    (SHIM, pe(b"shim" * 400, *MICROSOFT), "has no SBAT entry of shim, and below 4 it is revoked"),
    (GRUB, pe(GRUB_SBAT.replace(b"grub,5", b"grub,4"), "Debian"), "SBAT level 4 of grub, and below 5 it is revoked"),
    (SHIM, pe(SHIM_SBAT, MICROSOFT[0]),
     "isn't signed under Microsoft UEFI CA 2023, so machines that know only this one don't start it"),
    (SHIM, pe(SHIM_SBAT, MICROSOFT[1]),
     "isn't signed under Microsoft Corporation UEFI CA 2011, so machines that know only this one don't start it"),
])
def test_a4_signatures_and_levels_of_efi_programs(workshop, path, content, words):
    workshop.content[path] = content
    if path in workshop.fat:
        workshop.fat[path] = content
    found = wrong(workshop.master())
    assert list(found) == ["secure-boot"]
    assert found["secure-boot"][0].endswith(words)


def test_names_and_payload_are_said(workshop):
    workshop.content[".disk/info"] = b"Nutanix AOS\n"
    workshop.content["boot/grub/grub.cfg"] = b"linux /boot/vmlinuz\n"
    found = wrong(workshop.master())["identity"]
    assert len([line for line in found if ".disk/info" in line]) == 3
    assert any("could mount another medium" in line for line in found)
    assert any("names Nutanix" in line for line in found)


def test_damage_anywhere_is_no_traceback(medium, good):
    """The file system's own blocks, one byte at a time: every answer is a finding, never an exception."""
    chance = random.Random(2)
    marked = [at for at in range(46 * 2048) if good[at]]
    for at in chance.sample(marked, 40):
        medium.write_bytes(good)
        flip(medium, at)
        for lines in wrong(medium).values():
            assert all("\n" not in line and "Traceback" not in line for line in lines)


def test_signatures_wants_a_pe_file():
    assert signatures(pe(b"12345678", None)) == []
    assert [s.over_these_bytes for s in signatures(pe(b"12345678", "x"))] == [True]
    with pytest.raises(ValueError, match="PE32"):
        signatures(b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + b"PE\0\0" + bytes(300))


def test_the_page_lists_every_check():
    page = (ROOT / "docs" / "verify.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page if line.startswith("| `")]
    assert [(row[0].strip("`"), row[1]) for row in rows] == [(c.id, c.sentence) for c in CHECKS.values()]
    assert all(c.sentence.endswith(".") and c.hint for c in CHECKS.values())


def run_roots(tmp_path: Path, body: str) -> int:
    tests = tmp_path / "roots"
    tests.mkdir()
    (tests / "test_root.py").write_text(f"import os\n\ndef test_root():\n    {body}\n")
    return verify.check_roots(tmp_path / "some.iso", tmp_path / "some.pem", tests)


def test_the_verdict_on_the_roots_is_the_exit_code(tmp_path):
    settings = (f"assert os.environ['CORNERSTONE_ISO'] == {str(tmp_path / 'some.iso')!r}\n"
                f"    assert os.environ['CORNERSTONE_KEY'] == {str(tmp_path / 'some.pem')!r}")
    assert run_roots(tmp_path, settings) == 0


def test_a_bad_root_fails_the_verification(tmp_path):
    assert run_roots(tmp_path, "assert False") == Code.VERIFY


def test_tests_that_cannot_run_are_no_pass(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CornerstoneError, match="pytest ended with 5") as caught:
        verify.check_roots(tmp_path / "some.iso", tmp_path / "some.pem", tmp_path / "empty")
    assert caught.value.code is Code.MACHINE


def test_a9_the_tests_of_the_roots_see_no_key_and_no_pin(tmp_path, monkeypatch):
    monkeypatch.setenv("CORNERSTONE_SIGNING_KEY_PEM", "SECRET")
    monkeypatch.setenv("CORNERSTONE_PKCS11_PIN", "SECRET")
    assert run_roots(tmp_path, "assert 'SECRET' not in os.environ.values()") == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights")
def test_a1_looking_into_the_roots_needs_no_rights(tmp_path):
    code = ("import sys; from pathlib import Path; from cornerstone.factory.verify import verify\n"
            "sys.exit(verify.check_roots(Path('x.iso'), Path('x.pem'), Path(sys.argv[1])))")
    (tmp_path / "test_rights.py").write_text(
        "from pathlib import Path\n\ndef test_rights():\n"
        "    assert f'CapEff:\\t{0:016x}\\n' in Path('/proc/self/status').read_text()\n")
    done = subprocess.run(["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", sys.executable, "-c",
                           code, tmp_path], cwd=ROOT, env={"PYTHONPATH": "src", "PATH": os.environ["PATH"]},
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "tests/image").glob("*.py")), ids=lambda path: path.name)
def test_a1_tests_of_an_iso_run_programs_of_this_machine_alone(path):
    """What they start is named here, and none of it is told to enter a root."""
    module = ast.parse(path.read_text())
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("subprocess."):
            program = node.args[0].elts[0].value
            assert program in {"qemu-img", "bash", "shellcheck", "e2fsck", "debugfs"}, f"{path.name}:{node.lineno}"
    names = {each.name for node in ast.walk(module) if isinstance(node, ast.Import) for each in node.names}
    assert names & {"testinfra", "os.chroot", "ctypes"} == set()
    assert not [node for node in ast.walk(module) if isinstance(node, ast.Attribute)
                and node.attr in ("chroot", "mknod", "system", "symlink_to")]


def test_a3_it_tells_which_key_and_that_one_from_beside_proves_no_origin(medium, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(verify, "check_roots", lambda *words, **more: 0)
    der = serialization.load_pem_public_key(KEY.public_pem()).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digest = hashlib.sha256(der).hexdigest()
    assert verify.verify_iso(medium) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["sha256", digest]
    assert lines[-1].startswith("integrity only: ")
    given = tmp_path / "maker.pem"
    # the same key in other lines has the same fingerprint
    given.write_bytes(b"the maker's key\n" + KEY.public_pem())
    assert verify.verify_iso(medium, given) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["sha256", digest]
    assert not [line for line in lines if "integrity only" in line]
    assert verify.verify_iso(medium, format="json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["key_sha256"], said["vouches_for"]) == (digest, "integrity only")


def test_a3_a_forger_s_key_beside_a_forger_s_iso_is_integrity_only(workshop, capsys, monkeypatch):
    """Whoever replaces ISO and key together passes every check; only the key's fingerprint is another."""
    monkeypatch.setattr(verify, "check_roots", lambda *words, **more: 0)
    assert verify.verify_iso(workshop.master()) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("integrity only: ")


@pytest.mark.parametrize("make", [
    lambda path: path.symlink_to("/etc/hostname"), os.mkfifo, lambda path: path.symlink_to("/dev/zero"),
    lambda path: path.mkdir()])
@pytest.mark.parametrize("name", ["SHA256SUMS", "SHA256SUMS.sig", "report.md", "provenance.intoto.json"])
def test_a1_nothing_beside_an_iso_leads_elsewhere(workshop, make, name):
    medium = workshop.master()
    workshop.certify(medium)
    medium.with_name(name).unlink()
    make(medium.with_name(name))
    found = wrong(medium)
    assert found.keys() == {"evidence"}
    assert f"{name} beside the ISO can't be read" in found["evidence"][0]


def test_a1_a_key_beside_an_iso_is_no_link(medium, tmp_path):
    key = medium.with_name(verify.KEY_NAME)
    key.rename(tmp_path / "real.pem")
    key.symlink_to("real.pem")
    with pytest.raises(CornerstoneError, match="can't be read"):
        verify.verify_iso(medium)


def test_the_second_reader_is_another_program(medium, tmp_path):
    """Without xorriso there is one witness only: that ends with a clear error, not with a pass."""
    code = ("from cornerstone.factory.iso.iso_checks import Subject, run_checks; import sys; from pathlib import Path\n"
            "from cornerstone.factory.verify.verify import read_key\n"
            "list(run_checks(Subject(Path(sys.argv[1]), read_key(Path(sys.argv[2])))))")
    done = subprocess.run([sys.executable, "-c", code, medium, medium.with_name(verify.KEY_NAME)], capture_output=True,
                          text=True, env={"PYTHONPATH": str(ROOT / "src"), "PATH": str(tmp_path)}, check=False)
    assert "xorriso is not installed" in done.stderr


def test_the_small_iso_is_a_real_one(medium):
    """The tests above rest on it: pycdlib and GPT readers take it as they take a large one."""
    opened = pycdlib.PyCdlib()
    opened.open(str(medium))
    assert opened.joliet_vd is not None
    opened.close()

"""`invoke verify` on the folder netboot beside a small ISO: whole it passes, and what was changed is named by file."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cornerstone.factory.build import netboot
from cornerstone.factory.iso.iso_checks import INITRAMFS, KERNEL, Finding, Subject, run_checks
from cornerstone.factory.signing.signing import SoftwareKey
from cornerstone.factory.verify import netboot_checks, verify
from cornerstone.lib.error import Code
from cornerstone.model.contracts.manifest import CVM, HYPERVISOR, NAME, SIGNATURE_NAME
from small_iso import IDENTITY, KEY, Workshop

FILES = (HYPERVISOR, CVM, KERNEL, INITRAMFS, "boot/bios.img", ".disk/info", netboot.INITRD, netboot.SCRIPT)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    workshop = Workshop(tmp_path_factory.mktemp("workshop"))
    iso = workshop.master()
    workshop.serve(iso)
    return iso


@pytest.fixture
def iso(made, tmp_path) -> Path:
    """An ISO of one's own, its key and its folder netboot beside it."""
    for name in (made.name, verify.KEY_NAME):
        shutil.copy(made.with_name(name), tmp_path)
    shutil.copytree(netboot.folder_of(made), netboot.folder_of(tmp_path / made.name))
    return tmp_path / made.name


@pytest.fixture
def folder(iso) -> Path:
    return netboot.folder_of(iso)


def finding(iso: Path) -> Finding:
    subject = Subject(iso, KEY.public_pem())
    try:
        return next(each for each in run_checks(subject) if each.check.id == "netboot")
    finally:
        subject.close()


def signed_anew(folder: Path, name: str, content: bytes) -> None:
    """Change a file as the maker could: with checksums and signature to match."""
    (folder / name).write_bytes(content)
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}" if line.endswith(f"  {name}") else line
             for line in (folder / netboot.SUMS).read_text().splitlines()]
    sign(folder, "".join(f"{line}\n" for line in lines).encode())


def sign(folder: Path, sums: bytes, key: SoftwareKey = KEY) -> None:
    (folder / netboot.SUMS).write_bytes(sums)
    (folder / netboot.SUMS_SIGNATURE).write_bytes(key.sign(sums))


def test_the_folder_as_it_was_made_passes(iso):
    assert finding(iso).passed


def test_an_iso_without_the_folder_is_none_the_worse(iso, folder):
    shutil.rmtree(folder)
    assert finding(iso).absent == "the folder netboot isn't beside the ISO"


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_a_failed_check_that_names_it(iso, folder, capsys, name):
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    assert verify.verify_iso(iso) == Code.VERIFY
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("✗")]
    what = netboot.FOLDER + "/" + netboot.SUMS if name in (netboot.INITRD, netboot.SCRIPT) else "the manifest"
    assert " ".join(line.split()[1:]) == f"netboot netboot/{name} does not match {what}"


def test_a_byte_that_the_manifest_masks_counts_here_too(iso, folder):
    """The files are the ISO's, place and all: what is there says where they lie on it."""
    path = folder / "boot/bios.img"
    content = bytearray(path.read_bytes())
    content[12] ^= 1
    path.write_bytes(content)
    assert finding(iso).wrong == ("netboot/boot/bios.img does not match netboot/SHA256SUMS",)


@pytest.mark.parametrize("name", [*FILES, NAME, SIGNATURE_NAME, netboot.SUMS, netboot.SUMS_SIGNATURE])
def test_a_missing_file_is_named(iso, folder, name):
    (folder / name).unlink()
    assert finding(iso).wrong == (f"netboot/{name} isn't there",)


@pytest.mark.parametrize("make", [
    lambda path: path.write_bytes(b"x"), lambda path: path.symlink_to("/etc/passwd"),
    lambda path: path.symlink_to("/etc"), os.mkfifo], ids=["file", "link", "link to a folder", "pipe"])
@pytest.mark.parametrize("name", ["more", "layers/more", "new/deeper/more"])
def test_what_belongs_to_no_network_boot_is_named(iso, folder, name, make: Callable[[Path], object]):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    make(folder / name)
    assert finding(iso).wrong == (f"netboot/{name} belongs to no network boot of this ISO",)


@pytest.mark.parametrize("make", [
    lambda path, kept: path.symlink_to(kept), lambda path, kept: os.mkfifo(path),
    lambda path, kept: path.mkdir(), lambda path, kept: path.write_bytes(kept.read_bytes() + b"x"),
    lambda path, kept: path.open("wb").truncate(1 << 42)], ids=["link", "pipe", "folder", "longer", "endless"])
@pytest.mark.parametrize("name", [HYPERVISOR, netboot.INITRD, netboot.SCRIPT, netboot.SUMS, NAME])
def test_something_else_in_a_file_s_place_is_refused_at_once(iso, folder, tmp_path, name, make):
    kept = tmp_path / "kept"
    (folder / name).rename(kept)
    make(folder / name, kept)
    assert any(name in wrong for wrong in finding(iso).wrong)


def test_the_folder_of_another_iso_of_the_same_key_is_refused(iso, folder, tmp_path):
    (tmp_path / "other").mkdir()
    workshop = Workshop(tmp_path / "other")
    workshop.content[CVM] = b"QFI\xfb" * 778
    shutil.rmtree(folder)
    shutil.move(workshop.serve(workshop.master()), folder)
    assert finding(iso).wrong == ("netboot/manifest.json is another than on the ISO: the folder is another ISO's, or "
                                  "was changed",)


def test_checksums_that_another_key_signed_are_refused(iso, folder):
    sign(folder, (folder / netboot.SUMS).read_bytes(), SoftwareKey(Ed25519PrivateKey.generate(), "development"))
    assert finding(iso).wrong == ("netboot/SHA256SUMS isn't signed by this key",)


@pytest.mark.parametrize("change", [
    lambda sums: sums.partition(b"\n")[2], lambda sums: sums + b"0" * 64 + b"  more\n", lambda sums: b"",
    lambda sums: b"\xff\n" + sums])
def test_signed_checksums_of_other_files_are_refused(iso, folder, change):
    sign(folder, change((folder / netboot.SUMS).read_bytes()))
    assert finding(iso).wrong == ("netboot/SHA256SUMS doesn't list the files that belong there",)


@pytest.mark.parametrize(("name", "old", "new", "words"), [
    (netboot.INITRD, b"initramfs", b"other one", "doesn't begin with the ISO's boot/initrd.img"),
    (netboot.SCRIPT, b"cornerstone.manifest.sha256=", b"cornerstone.manifest.sha256=0",
     "doesn't pin the ISO's manifest.json"),
    (netboot.SCRIPT, IDENTITY.encode(), b"another", f"doesn't name the ISO's identity {IDENTITY}"),
])
def test_signed_files_that_start_something_else_are_refused(iso, folder, name, old, new, words):
    signed_anew(folder, name, (folder / name).read_bytes().replace(old, new))
    assert finding(iso).wrong == (f"netboot/{name} {words}",)


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("elsewhere"), lambda path: path.write_bytes(b"")])
def test_what_is_no_folder_is_refused(iso, folder, make):
    folder.rename(folder.with_name("elsewhere"))
    make(folder)
    assert finding(iso).wrong == ("netboot beside the ISO isn't a folder",)


def test_of_very_many_files_too_many_some_are_named(iso, folder):
    for number in range(netboot_checks.MOST_TOLD + 5):
        (folder / f"more{number:02}").touch()
    wrong = finding(iso).wrong
    assert len(wrong) == netboot_checks.MOST_TOLD + 1
    assert wrong[-1] == "and so do 5 more"

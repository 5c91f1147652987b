"""Media that aren't a CD or a raw copy of the ISO: its files on FAT, the ISO as a file, and the ISO in memory."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cornerstone.lab.boot import boot
from test_boot_ways import assert_arrived

MIB = 1 << 20
START = 2048
# GRUB's own name for the file on the stick, and how a stick with several ISOs starts one of them
MULTI_BOOT = """\
search --no-floppy --file --set=stick /isos/foundation.iso
loopback loop ($stick)/isos/foundation.iso
set iso_path=/isos/foundation.iso
set root=loop
set timeout=1
export iso_path timeout
configfile /boot/grub/loopback.cfg
"""


@pytest.fixture
def files(iso, tmp_path) -> Path:
    """The files of the ISO in a folder."""
    folder = tmp_path / "files"
    subprocess.run(["xorriso", "-osirrox", "on", "-indev", iso, "-extract", "/", folder], check=True,
                   capture_output=True)
    return folder


@pytest.fixture
def stick(tmp_path) -> Iterator[Path]:
    """An image of a stick with one FAT32 partition, labelled FOUNDATION; gone afterwards, for it is large."""
    path = tmp_path / "stick.img"
    with path.open("wb") as image:
        image.truncate(1200 * MIB)
    subprocess.run(["sfdisk", "--quiet", path], input=f"label: dos\nstart={START},type=c,bootable\n", text=True,
                   check=True)
    subprocess.run(["mkfs.vfat", "-F32", "-n", "FOUNDATION", "--offset", str(START), path,
                    str((1200 * MIB - START * 512) // 1024)], check=True, capture_output=True)
    yield path
    path.unlink()


def copy(stick: Path, *sources: Path, to: str = "::/") -> None:
    subprocess.run(["mcopy", "-s", "-Q", "-i", f"{stick}@@{START * 512}", *sources, to], check=True)


def test_m4_files_copied_onto_fat_boot_to_the_screen(files, stick, logs):
    copy(stick, *files.iterdir())
    assert_arrived(boot(stick, firmware="secureboot", media="usb", log_dir=logs), "secureboot")


@pytest.mark.nightly
def test_m4_an_iso_that_is_a_file_on_a_stick_boots_to_the_screen(iso, files, stick, tmp_path, logs):
    tree = tmp_path / "stick"
    (tree / "isos").mkdir(parents=True)
    (tree / ".disk").mkdir()
    (tree / ".disk/info").touch()
    (tree / "boot/grub").mkdir(parents=True)
    (tree / "boot/grub/grub.cfg").write_text(MULTI_BOOT)
    copy(stick, *tree.iterdir(), files / "EFI")
    copy(stick, iso, to="::/isos/foundation.iso")
    assert_arrived(boot(stick, firmware="uefi", media="usb", log_dir=logs), "uefi")


@pytest.mark.nightly
def test_m6_an_iso_that_firmware_left_in_memory_is_the_medium(iso, files, stick, logs):
    """What UEFI HTTP boot leaves behind: a loader that has started, and the ISO as memory that NFIT describes."""
    copy(stick, files / "EFI", files / "boot", files / ".disk")
    verdict = boot(stick, firmware="uefi", media="usb", memory_mib=3072, log_dir=logs, extra=(
        "-machine", "nvdimm=on", "-m", "slots=2,maxmem=8G",
        "-object", f"memory-backend-file,id=iso,share=off,readonly=on,mem-path={iso},size={iso.stat().st_size}",
        "-device", "nvdimm,id=nvdimm0,memdev=iso,unarmed=on"))
    assert_arrived(verdict, "uefi")
    assert "cornerstone: medium /dev/pmem0" in verdict.console_log.read_text(errors="replace")

"""The CVM's data disks: found by serial in a made-up /sys and /dev, judged by what is on them, erased."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cornerstone.controller import disks
from cornerstone.controller.disks import Disk, check, erase, find, present, unnamed
from cornerstone.model.disk_identity import BLUESTORE
from cornerstone.model.error import CornerstoneError
from cornerstone.model.node import DataDisk

SIZE = 64 << 20
OSD = "4a2c7a3e-6d0b-4d0c-9a51-3f2f6a0d8a11"


def add(root: Path, name: str, serial: str, content: bytes = b"", size: int = SIZE) -> Path:
    """A disk of the machine below root: its folder in sysfs, and a file for its device."""
    block = root / "sys/block" / name
    (block / "device").mkdir(parents=True)
    (block / "device/serial").write_text(f"{serial}\n")
    (block / "size").write_text(f"{size // 512}\n")
    device = root / "dev" / name
    device.parent.mkdir(exist_ok=True)
    with device.open("wb") as file:
        file.write(content)
        file.truncate(size)
    return device


def test_disks_are_found_by_serial_whatever_they_are_called(tmp_path):
    add(tmp_path, "sdb", "S1")
    add(tmp_path, "nvme0n1", "S2")
    add(tmp_path, "sdc", "")
    add(tmp_path, "sr0", "DVD", size=0)
    (tmp_path / "sys/block/loop0").mkdir()
    assert sorted(disk.serial for disk in present(tmp_path)) == ["S1", "S2"]
    assert find(["S2", "S1", "S3"], tmp_path) == (
        Disk("S2", tmp_path / "dev/nvme0n1", SIZE), Disk("S1", tmp_path / "dev/sdb", SIZE))
    assert unnamed([DataDisk("S1", "", SIZE)], tmp_path) == ["S2"]


def test_what_is_on_a_disk(tmp_path):
    add(tmp_path, "sda", "EMPTY")
    add(tmp_path, "sdb", "DATA", bytes(4096) + b"x")
    add(tmp_path, "sdc", "OSD", BLUESTORE + OSD.encode() + b"\n")
    subprocess.run(["mkfs.vfat", add(tmp_path, "sdd", "FAT")], check=True, capture_output=True)
    subprocess.run(["sfdisk", "--quiet", add(tmp_path, "sde", "GPT")], input="label: gpt\n", text=True, check=True)
    found = {disk.serial: disk for disk in find(["EMPTY", "DATA", "OSD", "FAT", "GPT"], tmp_path)}
    assert {serial: disk.contents for serial, disk in found.items()} == {
        "EMPTY": "", "DATA": "data", "OSD": "a BlueStore OSD", "FAT": "vfat", "GPT": "PMBR, gpt"}
    assert found["OSD"].osd == OSD


@pytest.mark.parametrize(("disk", "contents", "ours", "problem"), [
    (Disk("S", Path("/dev/sda"), SIZE), "", (), None),
    (Disk("S", Path("/dev/sda"), SIZE, "", "ext4", "", "sha256:1"), "sha256:1", (), None),
    (Disk("S", Path("/dev/sda"), SIZE, OSD, "a BlueStore OSD"), "", (OSD,), None),
    (Disk("S", Path("/dev/sda"), SIZE, OSD, "a BlueStore OSD"), "sha256:1", (OSD,), None),
    (Disk("S", Path("/dev/sda"), SIZE, "", "ext4"), "", (OSD,),
     "data disk sda (S, 0.1 GB) isn't empty and isn't this cluster's: ext4"),
    (Disk("S", Path("/dev/sda"), SIZE, OSD, "a BlueStore OSD"), "", (),
     "data disk sda (S, 0.1 GB) isn't empty and isn't this cluster's: a BlueStore OSD"),
    (Disk("T", Path("/dev/sda"), SIZE), "sha256:1", (), "data disk S isn't there"),
    (Disk("S", Path("/dev/sda"), SIZE, fault="Input/output error"), "sha256:1", (),
     "data disk sda (S, 0.1 GB) can't be read: Input/output error"),
])
def test_a_disk_is_used_when_it_is_there_and_empty_or_ours_or_may_be_erased(disk, contents, ours, problem):
    assert check([DataDisk("S", "", SIZE, contents)], [disk], ours) == ([problem] if problem else [])


def test_erased_a_disk_is_empty(tmp_path):
    device = add(tmp_path, "sda", "S")
    subprocess.run(["sfdisk", "--quiet", device], input="label: gpt\n,,L\n", text=True, check=True)
    (disk,) = find(["S"], tmp_path)
    assert disk.contents
    erase(disk)
    assert find(["S"], tmp_path) == (Disk("S", device, SIZE),)
    with device.open("rb") as file:
        file.seek(-disks.EDGE, 2)
        assert not any(file.read())


def test_a_disk_that_is_gone_meanwhile_is_an_error_with_its_name(tmp_path):
    with pytest.raises(CornerstoneError, match=r"sda \(S, .*\) can't be erased: No such file"):
        erase(Disk("S", tmp_path / "sda", SIZE))


def test_a_disk_that_cant_be_read_hides_no_other(tmp_path):
    dead, good = add(tmp_path, "sda", "DEAD"), add(tmp_path, "sdb", "GOOD")
    dead.unlink()
    assert find(["DEAD", "GOOD"], tmp_path) == (
        Disk("DEAD", dead, SIZE, fault="No such file or directory"), Disk("GOOD", good, SIZE))

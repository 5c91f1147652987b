"""The CVM's data disks: found by serial in a made-up /sys and /dev, judged by what is on them, erased."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies

from cornerstone.cvm import disks
from cornerstone.cvm.disks import Disk, check, choose, erase, find, present, unnamed
from cornerstone.lib.error import CornerstoneError
from cornerstone.model.contracts.node import DataDisk
from cornerstone.model.disk.identity import BLUESTORE

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


# linux/loop.h; numbers from here on are made by these tests
LOOP_CTL_REMOVE, OUR_LOOPS = 0x4C81, 1000
WWN = "naa.500000000000000"


def entry(number: int, contents: str = "", serial: str = "0000") -> DataDisk:
    return DataDisk(serial, f"{WWN}{number}", SIZE, contents)


def named(root: Path, name: str, number: int, content: bytes = b"", serial: str = "0000", size: int = SIZE) -> Path:
    """A disk with a world-wide name of this number, and a serial that others have too."""
    device = add(root, name, serial, content, size)
    (root / "sys/block" / name / "device/wwid").write_text(f"{WWN}{number}\n")
    return device


def osd_label(osd: str = OSD, cluster: str = "") -> bytes:
    """A BlueStore device's first bytes, as Ceph writes them: key and value each with its length before it."""
    words = b"".join(len(word).to_bytes(4, "little") + word for word in (b"ceph_fsid", cluster.encode()))
    return BLUESTORE + osd.encode() + b"\n" + (words if cluster else b"")


def test_d1_of_two_disks_of_one_serial_the_one_that_was_chosen_is_used(tmp_path):
    photos = named(tmp_path, "sda", 1)
    subprocess.run(["mkfs.ext4", "-q", "-L", "photos", photos], check=True)
    subprocess.run(["sfdisk", "--quiet", named(tmp_path, "sdb", 2)], input="label: gpt\n", text=True, check=True)
    found = find(["0000"], tmp_path)
    assert [disk.device.name for disk in found] == ["sda", "sdb"]
    wanted = entry(2, found[1].fingerprint)
    chosen = choose([wanted], found)
    assert (chosen.usable, chosen.problems) == (((wanted, found[1]),), ())
    assert unnamed([wanted], tmp_path) == ["0000"]


@pytest.mark.parametrize(("wanted", "difference"), [
    (entry(2), f"sda has wwn {WWN}1 instead of {WWN}2"),
    (DataDisk("0000", "", SIZE), f"sda has wwn {WWN}1 instead of none"),
    (DataDisk("0000", f"{WWN}1", 2 * SIZE), f"sda has size {SIZE} instead of {2 * SIZE}"),
])
def test_d1_another_disk_of_the_serial_is_not_used(tmp_path, wanted, difference):
    named(tmp_path, "sda", 1)
    found = find(["0000"], tmp_path)
    chosen = choose([wanted], found)
    assert chosen.usable == ()
    assert chosen.problems == (f"data disk 0000 is another disk than node.json means: {difference}",)
    assert check([wanted], found) == list(chosen.problems)


def test_d7_a_disk_by_two_paths_is_one_disk(tmp_path):
    for name, number in (("sda", 1), ("sdb", 1), ("sdc", 2), ("sdd", 2)):
        named(tmp_path, name, number, b"%d" % number, f"HDD{number}")
    found = find(["HDD1", "HDD1", "HDD2"], tmp_path)
    entries = [entry(1, found[0].fingerprint, "HDD1"), entry(2, found[2].fingerprint, "HDD2")]
    # as an older plan has it, each twice
    chosen = choose([*entries, *entries], found)
    assert [disk.device.name for _, disk in chosen.usable] == ["sda", "sdc"]
    assert chosen.problems == ()


def test_a_disk_that_can_be_read_by_one_of_two_paths_is_used_by_that(tmp_path):
    named(tmp_path, "sda", 1).unlink()
    named(tmp_path, "sdb", 1)
    assert [disk.device.name for _, disk in choose([entry(1)], find(["0000"], tmp_path)).usable] == ["sdb"]


@pytest.mark.parametrize("wwn", [True, False])
def test_d1_two_disks_that_cannot_be_told_apart_are_left_alone(tmp_path, wwn):
    """Without a world-wide name not even when their contents are the same: two blank disks of a cheap maker."""
    for name, content in (("sda", b"photos"), ("sdb", b"letters" if wwn else b"photos")):
        if wwn:
            named(tmp_path, name, 1, content)
        else:
            add(tmp_path, name, "0000", content)
    found = find(["0000"], tmp_path)
    wanted = DataDisk("0000", f"{WWN}1" if wwn else "", SIZE, found[0].fingerprint)
    chosen = choose([wanted], found)
    assert chosen.usable == ()
    assert chosen.problems == ("data disk 0000 isn't used: sda and sdb can't be told apart",)


def test_of_two_alike_the_one_with_this_cluster_s_osd_is_it(tmp_path):
    add(tmp_path, "sda", "0000")
    add(tmp_path, "sdb", "0000", osd_label())
    found = find(["0000"], tmp_path)
    assert choose([DataDisk("0000", "", SIZE)], found, {OSD}).usable[0][1].device.name == "sdb"


CLUSTER = "1c7a3a3e-6d0b-4d0c-9a51-3f2f6a0d00ff"


def test_d9_another_cluster_s_osd_takes_its_token_and_a_word(tmp_path):
    named(tmp_path, "sda", 1, osd_label(OSD, CLUSTER))
    found = find(["0000"], tmp_path)
    assert (found[0].osd, found[0].cluster, found[0].fingerprint) == (OSD, CLUSTER, f"osd:{OSD}")
    # a token that was given for an older file system, and none
    for contents in ("sha256:1", ""):
        chosen = choose([entry(1, contents)], found, anew=True)
        assert (chosen.usable, chosen.foreign, len(chosen.problems)) == ((), (), 1)
    wanted = entry(1, f"osd:{OSD}")
    assert choose([wanted], found).usable == () and choose([wanted], found).foreign == found
    assert choose([wanted], found, anew=True).usable == ((wanted, found[0]),)
    assert choose([entry(1)], found, {OSD}).usable == ((entry(1), found[0]),)


@pytest.mark.parametrize("change", ["contents", "serial", "wwn", "size"])
def test_d5_a_disk_that_was_swapped_meanwhile_is_not_erased(tmp_path, change):
    device = named(tmp_path, "sda", 1, b"old")
    (disk,) = find(["0000"], tmp_path)
    block = tmp_path / "sys/block/sda"
    if change == "contents":
        device.write_bytes(b"new".ljust(SIZE, b"\0"))
    elif change == "size":
        (block / "size").write_text(f"{SIZE // 256}\n")
    else:
        (block / "device" / {"serial": "serial", "wwn": "wwid"}[change]).write_text("naa.other\n")
    before = device.read_bytes()
    with pytest.raises(CornerstoneError, match=f"isn't the disk that was looked at any more: .*{change}"):
        erase(disk)
    assert device.read_bytes() == before


@pytest.fixture
def loop(tmp_path):
    """Give files as loop devices, the way disks come and go; detached at the end."""
    devices = []

    def attach(path: Path, device: Path | None = None) -> Path:
        done = subprocess.run(["losetup", "--show", device or "--find", path], capture_output=True, text=True,
                              check=True)
        devices.append(Path(done.stdout.strip()))
        return devices[-1]
    yield attach
    for device in devices:
        subprocess.run(["losetup", "--detach", device], capture_output=True, check=False)
        if (number := int(device.name.removeprefix("loop"))) >= OUR_LOOPS:
            with Path("/dev/loop-control").open("rb") as control, contextlib.suppress(OSError):
                fcntl.ioctl(control, LOOP_CTL_REMOVE, number)


def seen(device: Path) -> Disk:
    """What present() and find() would say of a loop device."""
    block = Path("/sys/block", device.name)
    known = disks.read_identity(block)
    return disks._look(Disk(known.serial, device, known.size, sequence=known.sequence))


def test_d5_the_kernel_s_number_of_an_attachment_tells_a_swap(tmp_path, loop):
    """Another disk of the very same name, size and contents."""
    old, new = (tmp_path / name for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"photos".ljust(SIZE, b"\0"))
    # far from the numbers that whoever else wants a loop device now is given
    device = Path(f"/dev/loop{OUR_LOOPS + os.getpid() % 1000}")
    loop(old, device)
    disk = seen(device)
    assert disk.sequence is not None
    subprocess.run(["losetup", "--detach", device], check=True)
    loop(new, device)
    with pytest.raises(CornerstoneError, match=r"looked at any more: sequence \d+ instead of \d+"):
        erase(disk)
    assert old.read_bytes() == new.read_bytes() == b"photos".ljust(SIZE, b"\0")
    erase(seen(device))
    assert not any(new.read_bytes())


def test_d5_while_a_disk_is_held_its_node_is_no_other_disk(tmp_path, loop):
    """Pulled out meanwhile, its number isn't given away; back under another name, the node still isn't that."""
    old, new = (tmp_path / name for name in ("old", "new"))
    for path, text in ((old, b"old"), (new, b"new")):
        path.write_bytes(text.ljust(SIZE, b"\0"))
    device = loop(old)
    node = Path("/dev/cornerstone-test") / str(os.getpid())
    try:
        with disks.hold(seen(device)) as held:
            subprocess.run(["losetup", "--detach", device], check=True)
            other = loop(new)
            assert other != device
            held.make_node(node)
            with node.open("rb") as disk:
                assert disk.read(3) == b"old"
            held.check_same(contents=True)
    finally:
        node.unlink(missing_ok=True)
        node.parent.rmdir()


def test_a_disk_in_use_is_not_held(tmp_path, loop):
    path = tmp_path / "disk"
    path.write_bytes(bytes(SIZE))
    device = loop(path)
    disk = seen(device)
    user = os.open(device, os.O_RDWR | os.O_EXCL)
    try:
        with pytest.raises(CornerstoneError, match="can't be erased: Device or resource busy"):
            erase(disk)
    finally:
        os.close(user)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(label=strategies.binary(min_size=16, max_size=16))
@example(label=b"\xff\xfe\x80photos\0\0\0\0\0\0\0")
@example(label=b'"}\\\n\x1b[2J\x00\xc3\x28\x01\x02\x03\x04')
def test_m23_labels_of_any_bytes_hide_no_disk(tmp_path, label):
    """ext4's label stands 120 bytes into its superblock, which is 1024 bytes into the disk."""
    if not (tmp_path / "sys").exists():
        subprocess.run(["mkfs.ext4", "-q", "-O", "^metadata_csum", add(tmp_path, "sda", "ODD")], check=True)
        add(tmp_path, "sdb", "GOOD")
    with (tmp_path / "dev/sda").open("r+b") as device:
        device.seek(1024 + 120)
        device.write(label)
    assert [(disk.contents, disk.fault) for disk in find(["ODD", "GOOD"], tmp_path)] == [("ext4", ""), ("", "")]

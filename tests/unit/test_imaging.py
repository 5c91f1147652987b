"""Imaging on a real block device: what is on the disk at the end, and at every point where the power may go."""

import json
import os
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cornerstone.foundation import block, copying, esp, imaging
from cornerstone.foundation.block import mounted
from cornerstone.foundation.imaging import Imaging, completed
from cornerstone.foundation.medium import Medium
from cornerstone.foundation.plan import Plan
from cornerstone.model.error import Code, CornerstoneError
from cornerstone.model.gpt import SECTOR, disk_guid
from cornerstone.model.manifest import CVM, FIRST_BOOT, HYPERVISOR, Manifest, entry_of
from cornerstone.model.node import CVM_FILE, NODE_FILE, SECRET_FILE, Controller, Hypervisor, NodeConfig, Uplink
from cornerstone.model.slot_disk import BOOT_FOLDER, MIB, disk_identity, layout

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it writes a loop device")

SIZE, SLOT, SERIAL = 1200 * MIB, 32 * MIB, "DISK-1"
LAYERS = {HYPERVISOR: os.urandom(3 * MIB + 77), CVM: os.urandom(9 * MIB + 1), FIRST_BOOT: b"#!/bin/bash\n",
          "boot/vmlinuz": os.urandom(MIB), "boot/initrd.img": os.urandom(2 * MIB)}
LOADERS = {"boot.img": os.urandom(SECTOR), "disk.img": os.urandom(30 * SECTOR), "shimx64.efi": b"shim",
           "grubx64.efi": b"grub", "mmx64.efi": b"mm"}
CONFIG = NodeConfig("identity", "profile", "LAB-1", "", "A", SERIAL,
                    Hypervisor("host-1", "10.20.0.11/24", "10.20.0.1", (), (), Uplink((), "", "", "", 0, 1500)),
                    Controller("cvm", "10.20.0.12/24", "10.20.0.1", (), (), 1, 1, (), (), ()), None, ())


class Cut(Exception):
    """The power goes."""


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@contextmanager
def attached(file: Path):
    device = subprocess.run(["losetup", "--find", "--show", file], capture_output=True, text=True,
                            check=True).stdout.strip()
    try:
        yield Path(device)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture
def disk():
    # in memory: some hundred flushes take their time elsewhere
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.truncate(SIZE)
        with attached(file.name) as device:
            yield device


@pytest.fixture
def medium(tmp_path):
    write_files(tmp_path / "medium", LAYERS)
    write_files(tmp_path / "root", {f"{BOOT_FOLDER}/{name}": content for name, content in LOADERS.items()})
    entries = tuple(entry_of(path, tmp_path / "medium" / path) for path in LAYERS)
    return Medium(tmp_path / "medium", "", Manifest("identity", {}, "development", 0, entries, 0))


@pytest.fixture
def told():
    return []


@pytest.fixture
def job(disk, medium, told, tmp_path):
    return Imaging(medium, disk, SERIAL, SIZE, layout(SERIAL, SIZE, SLOT), CONFIG, told.append, "c2VjcmV0",
                   tmp_path / "root")


def guid(device: Path) -> str:
    with device.open("rb") as file:
        def read(offset: int, size: int) -> bytes:
            file.seek(offset)
            return file.read(size)
        return str(disk_guid(read, SIZE))


def read_at(device: Path, offset: int, size: int) -> bytes:
    with device.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def test_a_blank_disk_becomes_a_node(job):
    job.run()
    shape = job.layout
    assert guid(job.disk) == disk_identity(SERIAL, finished=True)
    assert "No problems found" in subprocess.run(["sgdisk", "--verify", job.disk], capture_output=True, text=True,
                                                 check=True).stdout
    listed = json.loads(subprocess.run(["sfdisk", "--json", job.disk], capture_output=True, text=True,
                                       check=True).stdout)["partitiontable"]["partitions"]
    assert [(p["name"], p["uuid"].lower(), p["type"].lower(), p["start"], p["size"]) for p in listed] == [
        (p.name, str(p.identity), str(p.kind), p.start, p.sectors) for p in shape.partitions]
    assert read_at(job.disk, shape.root_a.offset, len(LAYERS[HYPERVISOR])) == LAYERS[HYPERVISOR]
    assert read_at(job.disk, 0, 0x5c) == LOADERS["boot.img"][:0x5c]
    assert read_at(job.disk, shape.bios.offset, 0x1f4) == LOADERS["disk.img"][:0x1f4]
    with block.part(job.disk, job.layout.esp, read_only=True) as device:
        assert esp.read(device, "EFI/BOOT/BOOTX64.EFI") == b"shim"
        assert esp.read(device, "boot/a/vmlinuz") == LAYERS["boot/vmlinuz"]
        assert str(shape.root_a.identity) in esp.read(device, "boot/grub/grub.cfg").decode()
        assert esp.read(device, "cornerstone/installed") == f"{SERIAL}\n".encode()
        assert not [path for path in esp.files(device) if path.endswith("TMP")]
        assert subprocess.run(["fsck.vfat", "-n", device], check=False).returncode == 0
    with mounted(job.disk, job.layout.state, "ext4", read_only=True) as state:
        assert NodeConfig.from_json((state / NODE_FILE).read_text()) == CONFIG
        assert (state / CVM_FILE).read_bytes() == LAYERS[CVM]
        assert (state / SECRET_FILE).read_text() == "c2VjcmV0"
        assert (state / SECRET_FILE).stat().st_mode & 0o777 == 0o600
    assert completed(job.disk)


def test_progress_tells_phase_percent_and_bytes(job, told):
    job.run()
    seen = [event.data for event in told]
    assert list(dict.fromkeys(data["phase"] for data in seen)) == list(imaging.PHASES)
    for phase in ("root", "controller", "check"):
        steps = [data for data in seen if data["phase"] == phase]
        assert steps[-1]["percent"] == 100 and steps[-1]["bytes"] == steps[-1]["total"] > 0
        assert [data["percent"] for data in steps] == sorted(data["percent"] for data in steps)
    assert "c2VjcmV0" not in "".join(event.to_json() for event in told)


# every call that may change the disk, where imaging finds it
CALLS = ((imaging, "write_all"), (imaging, "run"), (imaging, "put"), (imaging, "forget_cached"), (esp, "run"),
         (esp, "flush"), (block, "run"), (copying, "write_all"))


def watch(patch, before) -> None:
    """Have before() called ahead of each; what was mounted or attached comes off in any case."""
    def watched(real):
        def call(*arguments, **keywords):
            words = arguments[0] if isinstance(arguments[0], list) else []
            if "umount" not in words and "--detach" not in words:
                before()
            return real(*arguments, **keywords)
        return call
    for module, name in CALLS:
        patch.setattr(module, name, watched(getattr(module, name)))


def count_changes(job, monkeypatch) -> int:
    made = []
    with monkeypatch.context() as patch:
        watch(patch, lambda: made.append(1))
        job.run()
    return len(made)


def cut_after(patch, count: int) -> None:
    """Let count changes be made, and then the power goes."""
    left = [count]

    def before():
        if not left[0]:
            raise Cut
        left[0] -= 1
    watch(patch, before)


def bootable(job) -> bool:
    """Whether a firmware would start this disk: boot code, or a loader by its name on any FAT partition."""
    if read_at(job.disk, 0, 5) != imaging.NO_BOOT_CODE and any(read_at(job.disk, 0, 440)):
        return True
    for each in job.layout.partitions:
        with block.part(job.disk, each, read_only=True) as device:
            try:
                if "EFI/BOOT/BOOTX64.EFI" in esp.files(device):
                    return True
            except CornerstoneError:
                continue
    return False


def test_a_power_cut_at_any_point_leaves_no_half_node(job, monkeypatch):
    changes = count_changes(job, monkeypatch)
    assert changes > 40
    finished = disk_identity(SERIAL, finished=True)
    # the tables' writing and what makes it start, call by call; what lies between only fills the disk
    for point in [*range(12), *range(12, changes - 14, 4), *range(changes - 14, changes)]:
        subprocess.run(["blkdiscard", "--zeroout", job.disk], check=True)
        with monkeypatch.context() as patch:
            cut_after(patch, point)
            with pytest.raises(Cut):
                job.run()
        if guid(job.disk) == finished:
            # all was checked: only what makes it start may be missing, and can be done again
            with block.opened(job.disk) as descriptor:
                imaging.complete(descriptor, job.disk, SERIAL, job.layout, job.root)
            assert completed(job.disk), f"cut after change {point}"
        else:
            assert not bootable(job), f"cut after change {point}"
            assert guid(job.disk) in (disk_identity(SERIAL, finished=False), "None"), f"cut after change {point}"
            if guid(job.disk) == "None":
                assert not any(read_at(job.disk, 0, MIB)), f"cut after change {point}: not known as ours, nor blank"
    job.run()
    assert guid(job.disk) == finished


def test_a_layer_that_changes_while_it_is_copied_is_named(job, medium):
    (medium.mount_point / CVM).write_bytes(LAYERS[CVM][:-1] + b"?")
    with pytest.raises(CornerstoneError, match=r"layer cvm.qcow2 changed while it was copied") as caught:
        job.run()
    assert caught.value.code is Code.VERIFY
    assert guid(job.disk) == disk_identity(SERIAL, finished=False)
    assert not bootable(job)


def test_a_disk_that_reads_back_other_bytes_is_refused(job, monkeypatch):
    real = copying.read_back

    def rotten(target, offset, *rest):
        os.pwrite(target, b"rot", offset + 12345)
        real(target, offset, *rest)
    monkeypatch.setattr(copying, "read_back", rotten)
    with pytest.raises(CornerstoneError, match="root slot A reads back other bytes than layer hypervisor.squashfs"):
        job.run()
    assert not bootable(job)


def test_a_disk_of_another_size_than_planned_is_left_alone(job):
    with pytest.raises(CornerstoneError, match="disk.changed"):
        replace(job, size=SIZE + SECTOR).run()
    assert not any(read_at(job.disk, 0, MIB))


def test_a_mounted_disk_is_left_alone(job, tmp_path):
    subprocess.run(["mkfs.ext4", "-q", "-F", job.disk], check=True)
    (tmp_path / "at").mkdir()
    subprocess.run(["mount", job.disk, tmp_path / "at"], check=True)
    try:
        before = read_at(job.disk, 0, MIB)
        with pytest.raises(CornerstoneError, match="disk.in-use"):
            job.run()
        assert read_at(job.disk, 0, MIB) == before
    finally:
        subprocess.run(["umount", tmp_path / "at"], check=True)


def test_a_plan_that_refuses_isnt_carried_out(medium):
    with pytest.raises(ValueError, match="refuses"):
        Imaging.of(Plan(SimpleNamespace(), SimpleNamespace()), medium, "", print)

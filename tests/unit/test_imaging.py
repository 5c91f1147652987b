"""Imaging on a real block device: what is on the disk at the end, and at every point where the power may go."""

import errno
import json
import os
import re
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cornerstone.foundation.installer import block, copying, esp, imaging
from cornerstone.foundation.installer.block import mounted
from cornerstone.foundation.installer.imaging import Imaging, completed
from cornerstone.foundation.installer.medium import Medium
from cornerstone.foundation.installer.plan import Plan
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.gpt import LINUX_DATA, SECTOR, Partition, disk_guid
from cornerstone.model.contracts.manifest import CVM, FIRST_BOOT, HYPERVISOR, Manifest, entry_of
from cornerstone.model.contracts.node import (
    CVM_FILE,
    FIRST_BOOT_FILE,
    NODE_FILE,
    SECRET_FILE,
    Cvm,
    Hypervisor,
    NodeConfig,
    Uplink,
)
from cornerstone.model.disk.identity import fingerprint, read_identity
from cornerstone.model.disk.slot_disk import BOOT_FOLDER, ESP_FILES, HYPERVISOR_ARGUMENTS, MIB, disk_identity, layout

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it writes a loop device")

SIZE, SLOT, SERIAL = 1200 * MIB, 32 * MIB, "DISK-1"
# the hypervisor's is made below, of LOADERS
LAYERS = {HYPERVISOR: b"", CVM: os.urandom(9 * MIB + 1), FIRST_BOOT: b"#!/bin/bash\n",
          "boot/vmlinuz": os.urandom(MIB), "boot/initrd.img": os.urandom(2 * MIB)}
LOADERS = {"boot.img": os.urandom(SECTOR), "disk.img": os.urandom(30 * SECTOR), "shimx64.efi": b"shim",
           "grubx64.efi": b"grub", "mmx64.efi": b"mm"}
CONFIG = NodeConfig("identity", "profile", "LAB-1", "", "A", SERIAL,
                    Hypervisor("host-1", "10.20.0.11/24", "10.20.0.1", (), (), Uplink((), "", "", "", 0, 1500)),
                    Cvm("cvm", "10.20.0.12/24", "10.20.0.1", (), (), 1, 1, (), (), ()), None, ())


REAL_PWRITE = os.pwrite


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


@pytest.fixture(scope="module", autouse=True)
def hypervisor(tmp_path_factory):
    """A squashfs whose size is no multiple of anything."""
    folder = tmp_path_factory.mktemp("hypervisor")
    write_files(folder / "root", {"noise": os.urandom(3 * MIB + 77),
                                  **{f"{BOOT_FOLDER}/{name}": content for name, content in LOADERS.items()}})
    subprocess.run(["mksquashfs", folder / "root", folder / "squashfs", "-nopad", "-quiet", "-no-progress"], check=True)
    LAYERS[HYPERVISOR] = (folder / "squashfs").read_bytes()


@pytest.fixture
def medium(tmp_path):
    write_files(tmp_path / "medium", LAYERS)
    entries = tuple(entry_of(path, tmp_path / "medium" / path) for path in LAYERS)
    return Medium(tmp_path / "medium", "", Manifest("identity", {}, "development", 0, entries, 0))


@pytest.fixture
def told():
    return []


@pytest.fixture
def job(disk, medium, told):
    return Imaging(medium, disk, SERIAL, SIZE, layout(SERIAL, SIZE, SLOT), CONFIG, told.append, "c2VjcmV0")


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
        # A25: of the CVM's disk, too
        assert {(state / name).stat().st_mode & 0o777 for name in (SECRET_FILE, CVM_FILE)} == {0o600}
    assert completed(job.disk)


def test_both_slots_start_with_what_the_profile_adds(job):
    profile = {"hypervisor": {"extra": {"kernel_arguments": ["pci=noaer", "nosmt"]}}}
    job = replace(job, medium=replace(job.medium, manifest=replace(job.medium.manifest, profile=profile)))
    job.run()
    with block.part(job.disk, job.layout.esp, read_only=True) as device:
        for path in ("boot/grub/grub.cfg", "EFI/debian/grub.cfg"):
            assert esp.read(device, path).decode().count(f" {HYPERVISOR_ARGUMENTS} pci=noaer nosmt\n") == 2


def test_progress_tells_phase_percent_and_bytes(job, told):
    job.run()
    seen = [event.data for event in told]
    assert list(dict.fromkeys(data["phase"] for data in seen)) == list(imaging.PHASES)
    for phase in ("root", "cvm", "check"):
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
    for point in [*range(12), *range(12, changes - 16, 4), *range(changes - 16, changes)]:
        subprocess.run(["blkdiscard", "--zeroout", job.disk], check=True)
        with monkeypatch.context() as patch:
            cut_after(patch, point)
            with pytest.raises(Cut):
                job.run()
        if guid(job.disk) == finished:
            # all was checked: only what makes it start may be missing, and can be done again
            with block.opened(job.disk) as descriptor:
                imaging.complete(descriptor, job.disk, SERIAL, job.layout)
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


@pytest.mark.parametrize("path", ["boot/vmlinuz", "boot/initrd.img", FIRST_BOOT])
@pytest.mark.parametrize("change", [lambda content: content[:-1] + b"?", lambda content: content[:-1],
                                    lambda content: content + b"?", lambda content: b""])
def test_a7_a_file_that_is_another_than_the_manifests_is_named_before_the_disk_is_touched(job, medium, path, change):
    (medium.mount_point / path).write_bytes(change(LAYERS[path]))
    with pytest.raises(CornerstoneError, match=f"layer {path.removeprefix('layers/')} ") as caught:
        job.run()
    assert caught.value.code is Code.VERIFY and "manifest" in caught.value.message
    assert not any(read_at(job.disk, 0, MIB))


def on_disk(job) -> dict[str, bytes]:
    """What came from the medium, by its name there or in the root, as the finished disk has it."""
    with block.part(job.disk, job.layout.esp, read_only=True) as device, \
            mounted(job.disk, job.layout.state, "ext4", read_only=True) as state:
        return {**{name: esp.read(device, path) for path, name in ESP_FILES.items()},
                FIRST_BOOT: (state / FIRST_BOOT_FILE).read_bytes(), CVM: (state / CVM_FILE).read_bytes(),
                "boot.img": read_at(job.disk, 0, 0x5c), "disk.img": read_at(job.disk, job.layout.bios.offset, 0x1f4),
                HYPERVISOR: read_at(job.disk, job.layout.root_a.offset, len(LAYERS[HYPERVISOR]))}


def expected() -> dict[str, bytes]:
    named = {name.removeprefix("boot/"): content for name, content in LAYERS.items()}
    return {**named, **LOADERS, "boot.img": LOADERS["boot.img"][:0x5c], "disk.img": LOADERS["disk.img"][:0x1f4]}


@pytest.mark.parametrize("path", ["boot/vmlinuz", "boot/initrd.img", FIRST_BOOT])
@pytest.mark.parametrize("phase", imaging.PHASES[:2])
def test_a7_what_was_compared_is_what_is_written(job, medium, path, phase):
    """The medium is swapped after that."""
    def tell(event) -> None:
        if event.data["phase"] == phase:
            (medium.mount_point / path).write_bytes(b"other")
    replace(job, tell=tell).run()
    assert on_disk(job) == expected()


def test_a7_boot_loaders_are_those_of_the_root_that_was_compared(job, monkeypatch):
    """Not those of the live one: it is read from the medium piece by piece, long after the initramfs has hashed it."""
    opened, real = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path) or real(path))
    job.run()
    loaders = [path for path in opened if BOOT_FOLDER in str(path)]
    assert {path.name for path in loaders} == LOADERS.keys()
    assert not [path for path in loaders if path.is_relative_to(Path("/") / BOOT_FOLDER)]
    assert on_disk(job) == expected()


@pytest.mark.parametrize("name", [*ESP_FILES, FIRST_BOOT_FILE])
def test_a7_what_reads_back_otherwise_is_named(job, monkeypatch, name):
    """As of a disk that loses bits: what is on it is changed between writing and reading back."""
    def spoil() -> None:
        if name == FIRST_BOOT_FILE:
            with mounted(job.disk, job.layout.state, "ext4") as state:
                (state / name).write_bytes(b"spoilt")
        else:
            with block.part(job.disk, job.layout.esp) as device:
                esp.put(device, "EFI/BOOT/SHIM.TMP" if name.endswith("BOOTX64.EFI") else name, b"spoilt")
    real = Imaging._check
    monkeypatch.setattr(Imaging, "_check", lambda self, *rest: (spoil(), real(self, *rest))[1])
    with pytest.raises(CornerstoneError, match="reads back other bytes than were written") as caught:
        job.run()
    assert Path(name).name in caught.value.message or "SHIM.TMP" in caught.value.message
    assert caught.value.code is Code.VERIFY and not bootable(job)


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


# the disk that was chosen, and no other

def write_at(device: Path, offset: int, content: bytes) -> None:
    with device.open("r+b", buffering=0) as file:
        file.seek(offset)
        file.write(content)


def held_by(device: Path) -> str:
    with device.open("rb", buffering=0) as file:
        return fingerprint(lambda at, count: os.pread(file.fileno(), count, at), SIZE)


def mkfs(kind: str, device: Path) -> None:
    subprocess.run({"ext4": ["mkfs.ext4", "-q", "-F", device], "vfat": ["mkfs.vfat", "-I", device],
                    "swap": ["mkswap", "-q", "-f", device], "gpt": ["sgdisk", "--new=1:0:+10M", device],
                    "osd": ["true"]}[kind], check=True, capture_output=True)
    if kind == "osd":
        write_at(device, 0, b"bluestore block device\n4a2c7a3e-6d0b-4d0c-9a51-3f2f6a0d8a11\n")


def require_untouched(job, words: str) -> None:
    before = held_by(job.disk)
    with pytest.raises(CornerstoneError, match="disk.changed") as caught:
        job.run()
    assert caught.value.code is Code.REFUSED and words in caught.value.message
    assert held_by(job.disk) == before


@pytest.mark.parametrize("kind", ["ext4", "vfat", "swap", "gpt", "osd"])
def test_d4_contents_that_came_since_are_not_written_over(job, kind):
    mkfs(kind, job.disk)
    require_untouched(job, "contents")
    replace(job, contents=held_by(job.disk)).run()
    assert guid(job.disk) == disk_identity(SERIAL, finished=True)


@pytest.mark.parametrize("place", [0, MIB - 1, SIZE - 1])
def test_d4_bytes_that_came_since_are_not_written_over(job, place):
    write_at(job.disk, place, os.urandom(1))
    require_untouched(job, "contents")


def test_d4_contents_other_than_those_that_may_go_are_not_written_over(job):
    mkfs("ext4", job.disk)
    planned = replace(job, contents=held_by(job.disk))
    mkfs("ext4", job.disk)
    require_untouched(planned, "contents")
    subprocess.run(["wipefs", "-q", "-a", job.disk], check=True)
    require_untouched(planned, "contents")


def test_d4_a_disk_swapped_behind_its_name_is_not_written(job, tmp_path):
    """The same file, so the same bytes and size: only the kernel's number tells that it isn't the same disk."""
    chosen = replace(job, sequence=read_identity(Path("/sys/block") / job.disk.name).sequence)
    assert chosen.sequence
    [told] = json.loads(subprocess.run(["losetup", "--json", "--list", job.disk], capture_output=True,
                                       check=True).stdout)["loopdevices"]
    file = told["back-file"]
    subprocess.run(["losetup", "--detach", job.disk], check=True)
    subprocess.run(["losetup", job.disk, file], check=True)
    require_untouched(chosen, "sequence")
    job.run()


@pytest.fixture
def told_of(job, tmp_path, monkeypatch):
    """A sysfs in which the job's disk tells serial, WWN, model and number, all as the job says."""
    found = job.disk.stat().st_rdev
    folder = tmp_path / "sys/dev/block" / f"{os.major(found)}:{os.minor(found)}"
    real = read_identity(Path("/sys/block") / job.disk.name)
    says = {"device/serial": SERIAL, "device/wwid": "naa.1", "device/model": "MODEL", "diskseq": str(real.sequence)}

    def tell(**others: str) -> None:
        for name, text in (says | others).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"{text}\n")
    tell()
    monkeypatch.setattr(block, "SYSFS", tmp_path / "sys")
    return tell, replace(job, wwn="naa.1", model="MODEL", sequence=real.sequence)


@pytest.mark.parametrize(("path", "text", "words"), [
    ("device/serial", "DISK-2", "serial DISK-2 instead of DISK-1"), ("device/wwid", "naa.2", "wwn naa.2"),
    ("device/model", "OTHER", "model OTHER"), ("diskseq", "1", "sequence 1"), ("device/serial", "", "serial none"),
])
def test_d1_d4_a_disk_that_says_otherwise_is_not_written(told_of, path, text, words):
    tell, job = told_of
    tell(**{path: text})
    require_untouched(job, words)


def test_d4_the_disk_that_says_the_same_is_written(told_of):
    told_of[1].run()
    assert completed(told_of[1].disk)


def test_d4_a_disk_that_is_gone_is_told_so(job, tmp_path):
    with pytest.raises(CornerstoneError, match=r"disk\.changed: .* isn't there any more") as caught:
        replace(job, disk=tmp_path / "sdx").run()
    assert caught.value.code is Code.REFUSED


def test_d4_a_file_in_place_of_a_disk_is_compared_by_what_it_has(job, tmp_path):
    file = tmp_path / "disk"
    with file.open("wb") as out:
        out.truncate(SIZE)
    write_at(file, MIB, b"x")
    require_untouched(replace(job, disk=file), "contents")


def test_d4_partitions_are_reached_through_the_open_disk_whatever_its_name_leads_to(job, tmp_path):
    """The name is a link that leads elsewhere as soon as the disk is open."""
    name, elsewhere = tmp_path / "sda", tmp_path / "elsewhere"
    name.symlink_to(job.disk)
    elsewhere.touch()

    def tell(event) -> None:
        name.unlink(missing_ok=True)
        name.symlink_to(elsewhere)
    replace(job, disk=name, tell=tell).run()
    assert completed(job.disk) and elsewhere.stat().st_size == 0


def test_d4_an_imaging_that_was_cut_off_is_done_again_by_the_same_plan(job, monkeypatch):
    mkfs("ext4", job.disk)
    planned = replace(job, contents=held_by(job.disk))
    with monkeypatch.context() as patch:
        cut_after(patch, 20)
        with pytest.raises(Cut):
            planned.run()
    planned.run()
    assert completed(job.disk)


def test_d12_a_stale_backup_table_does_not_let_a_disk_go(job):
    with block.opened(job.disk) as descriptor:
        imaging.write_tables(descriptor, SERIAL, job.layout, finished=False)
    with tempfile.NamedTemporaryFile() as image:
        image.truncate(64 * MIB)
        subprocess.run(["sfdisk", "--quiet", image.name], input="label: dos\nstart=2048, type=83\n", text=True,
                       check=True)
        with attached(Path(image.name)) as device, block.part(device, Partition(
                LINUX_DATA, LINUX_DATA, "", 2048, 100 * 2048 - 2048)) as inner:
            subprocess.run(["mkfs.ext4", "-q", "-F", inner, "40M"], check=True)
        subprocess.run(["dd", f"if={image.name}", f"of={job.disk}", "bs=1M", "conv=notrunc", "status=none"], check=True)
    require_untouched(job, "contents")


# what fails is told

@pytest.mark.parametrize("point", range(0, 60, 6))
def test_d32_an_error_of_the_disk_is_told_with_disk_and_step(job, monkeypatch, point):
    changes, real = [0], imaging.os.fsync

    def failing(*_: object) -> None:
        changes[0] += 1
        if changes[0] > point:
            raise OSError(errno.EIO, "Input/output error")
    monkeypatch.setattr(block.os, "pwrite", lambda *arguments: (failing(), REAL_PWRITE(*arguments))[1])
    monkeypatch.setattr(block.os, "fsync", lambda descriptor: (failing(), real(descriptor))[1])
    with pytest.raises(CornerstoneError) as caught:
        job.run()
        if changes[0] <= point:
            raise CornerstoneError("", code=Code.STEP)
    assert caught.value.code is Code.STEP
    if changes[0] > point:
        assert re.match(rf"{job.disk} failed at the step \w+: Input/output error", caught.value.message)
        assert caught.value.hint


def test_d32_a_tool_that_fails_is_told_with_disk_and_step(job, monkeypatch):
    real = block.run

    def failing(argv, **options):
        return real(["false"] if argv[0] == "mkfs.ext4" else argv, **options)
    monkeypatch.setattr(imaging, "run", failing)
    with pytest.raises(CornerstoneError, match=f"{job.disk}, at the step state: false failed") as caught:
        job.run()
    assert caught.value.code is Code.STEP


@pytest.mark.parametrize(("path", "name"), [(HYPERVISOR, "layer hypervisor.squashfs"), (CVM, "layer cvm.qcow2"),
                                            (FIRST_BOOT, "first-boot.sh"), ("boot/vmlinuz", "vmlinuz")])
def test_d32_a_medium_that_is_gone_is_not_called_a_bad_disk(job, medium, path, name):
    (medium.mount_point / path).unlink()
    with pytest.raises(CornerstoneError, match=f"{name} can't be read from the medium: No such file") as caught:
        job.run()
    assert caught.value.code is Code.VERIFY

"""The CVM's boot disk: two root slots, state, and boot loaders that know both slots."""

import io
import os
import subprocess

import pytest

from cornerstone.factory.verify.boot_checks import fat, gpt_problems
from cornerstone.model.disk import slot_disk


def test_qcow2_is_sound(cvm_disk):
    said = subprocess.run(["qemu-img", "check", cvm_disk.qcow2], capture_output=True, text=True, check=True).stdout
    assert "No errors were found" in said


def test_size_is_the_profile_s(cvm_disk, product):
    assert cvm_disk.path.stat().st_size == product.manifest.profile["cvm"]["disk"]


def test_partition_table(cvm_disk):
    assert gpt_problems(cvm_disk.path) == ""


def test_layout(cvm_disk, product):
    sizes = product.manifest.profile["cvm"]
    wanted = slot_disk.layout("cvm", sizes["disk"], sizes["root_slot"]).partitions
    found = [(p["name"], p["type"].lower(), p["uuid"].lower(), p["start"], p["size"])
             for p in cvm_disk.table["partitions"]]
    assert found == [(p.name, str(p.kind), str(p.identity), p.start, p.sectors) for p in wanted]
    assert [p.name for p in wanted] == ["bios-boot", "esp", "root-a", "root-b", "state"]


def test_root_a_holds_a_squashfs_and_zeros(cvm_disk, product):
    slot, used = cvm_disk.partition("root-a"), cvm_disk.squashfs().size
    assert slot.size == product.manifest.profile["cvm"]["root_slot"]
    assert 100 << 20 < used <= slot.size
    # mksquashfs fills up to 4 KiB
    assert blank(cvm_disk, slot.start + used, slot.size - used)


def test_root_b_is_empty(cvm_disk):
    slot = cvm_disk.partition("root-b")
    assert blank(cvm_disk, slot.start, slot.size)


def blank(disk, start, size):
    """Whether a range is all zeros; holes of the sparse file aren't read."""
    with disk.path.open("rb") as file:
        at, end = start, start + size
        while at < end:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # no data up to the end of the file
                return True
            if at >= end:
                return True
            chunk = os.pread(file.fileno(), min(1 << 20, end - at), at)
            if any(chunk):
                return False
            at += len(chunk)
    return True


def test_esp_holds_the_boot_files(cvm_disk):
    start = cvm_disk.partition("esp").start
    found = fat(cvm_disk.path, start, "mdir", "-b", "-/", "::/").decode().split()
    assert sorted(line.removeprefix("::/") for line in found if not line.endswith("/")) == sorted([
        "EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/grubx64.efi", "EFI/BOOT/mmx64.efi", "EFI/debian/grub.cfg",
        "boot/a/initrd.img", "boot/a/vmlinuz", "boot/grub/grub.cfg"])


@pytest.mark.parametrize(("path", "source"), [
    ("boot/a/vmlinuz", "boot/vmlinuz"), ("boot/a/initrd.img", "boot/initrd.img"),
    ("EFI/BOOT/BOOTX64.EFI", "usr/share/cornerstone/boot/shimx64.efi"),
    ("EFI/BOOT/grubx64.efi", "usr/share/cornerstone/boot/grubx64.efi"),
    ("EFI/BOOT/mmx64.efi", "usr/share/cornerstone/boot/mmx64.efi")])
def test_boot_files_are_the_root_s_own(cvm_disk, cvm, path, source):
    content = fat(cvm_disk.path, cvm_disk.partition("esp").start, "mtype", f"::/{path}")
    assert content == cvm.tree.read(source)


def test_grub_knows_both_slots(cvm_disk):
    start = cvm_disk.partition("esp").start
    menus = [fat(cvm_disk.path, start, "mtype", f"::/{path}").decode()
             for path in ("boot/grub/grub.cfg", "EFI/debian/grub.cfg")]
    assert menus[0] == menus[1]
    ids = {p["name"]: p["uuid"].lower() for p in cvm_disk.table["partitions"]}
    for slot in ("a", "b"):
        assert f"--id slot-{slot} " in menus[0]
        assert f"/boot/{slot}/vmlinuz boot=cornerstone cornerstone.root={ids[f'root-{slot}']} " \
               f"cornerstone.state={ids['state']} " in menus[0]
    assert "set slot=a\n" in menus[0]


def test_a_bios_boots_the_root_s_grub(cvm_disk, cvm):
    boot = "usr/share/cornerstone/boot"
    sizes = cvm.product.manifest.profile["cvm"]
    partition = slot_disk.layout("cvm", sizes["disk"], sizes["root_slot"]).bios
    wanted, core = io.BytesIO(), cvm.tree.read(f"{boot}/disk.img")
    slot_disk.install_bios_grub(wanted, partition, cvm.tree.read(f"{boot}/boot.img"), core)
    assert cvm_disk.read(0, 440) == wanted.getvalue()[:440]
    assert cvm_disk.read(partition.offset, len(core)) == wanted.getvalue()[partition.offset:]


def test_state_is_a_clean_empty_file_system(cvm_disk):
    state = cvm_disk.partition("state")
    # e2fsprogs would open a journal of another device, wherever the superblock says that it is
    superblock = cvm_disk.read(state.start + 1024, 1024)
    assert (superblock[0xD0:0xE0], superblock[0xE4:0xE8]) == (bytes(16), bytes(4))
    # libext2fs takes the offset of a file system in a file after a question mark
    where = f"{cvm_disk.path}?offset={state.start}"
    done = subprocess.run(["e2fsck", "-f", "-n", where], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = subprocess.run(["debugfs", "-R", "stats -h", where], capture_output=True, text=True, check=True).stdout
    facts = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    facts = {name: value.strip() for name, value in facts.items()}
    assert facts["Filesystem volume name"] == "state"
    assert facts["Filesystem state"] == "clean"
    assert int(facts["Block count"]) * int(facts["Block size"]) == state.size
    listing = subprocess.run(["debugfs", "-R", "ls -p /", where], capture_output=True, text=True, check=True).stdout
    assert {line.split("/")[5] for line in listing.splitlines() if line} == {".", "..", "lost+found"}

"""The CVM's boot disk: GPT with BIOS boot, ESP, root A, root B, state; kept as qcow2 so that holes cost nothing.

Root A holds the very bytes of the CVM's squashfs; root B is empty until the first upgrade. The boot
loader is the same signed shim and GRUB as the ISO's for UEFI, and GRUB's BIOS image beside it.
"""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

from cornerstone.factory import process
from cornerstone.factory.fat import MIB, make_fat
from cornerstone.factory.gpt import (
    BIOS_BOOT,
    EFI_SYSTEM,
    LINUX_DATA,
    LINUX_ROOT_X86_64,
    SECTOR,
    Partition,
    derived_id,
    write_gpt,
)
from cornerstone.factory.render import CVM_ARGUMENTS, render
from cornerstone.model.error import CornerstoneError

ESP_SIZE = 256 * MIB


def layout(name: str, size: int, slot: int) -> tuple[Partition, ...]:
    """The five partitions of a disk of size bytes with root slots of slot bytes, each at a whole MiB."""
    sizes = [("bios-boot", BIOS_BOOT, MIB), ("esp", EFI_SYSTEM, ESP_SIZE), ("root-a", LINUX_ROOT_X86_64, slot),
             ("root-b", LINUX_ROOT_X86_64, slot)]
    partitions, start = [], MIB
    for label, kind, length in sizes:
        partitions.append(Partition(kind, derived_id(name, label), label, start // SECTOR, length // SECTOR))
        start += length
    state = size - start - MIB
    if state < 512 * MIB:
        raise CornerstoneError(f"a disk of {size // MIB} MiB leaves {state // MIB} MiB for state beside two root slots "
                               f"of {slot // MIB} MiB", "raise .controller.disk or lower .controller.root_slot")
    partitions.append(Partition(LINUX_DATA, derived_id(name, "state"), "state", start // SECTOR, state // SECTOR))
    return tuple(partitions)


def build_disk(target: Path, *, squashfs: Path, boot: Path, size: int, slot: int, epoch: int, log: Path) -> None:
    """Write the CVM's disk to target (qcow2). size, slot: bytes; boot: a folder of boot files of the CVM's root."""
    bios, esp, root_a, root_b, state = partitions = layout("cvm", size, slot)
    if squashfs.stat().st_size > slot:
        raise CornerstoneError(f"the CVM's root has {squashfs.stat().st_size // MIB} MiB and doesn't fit a root slot "
                               f"of {slot // MIB} MiB", "raise .controller.root_slot in the profile")
    raw, fat = (target.with_name(f"{target.name}.{part}") for part in ("raw", "esp"))
    try:
        _make_esp(fat, boot, root_a, root_b, state, epoch, log)
        with raw.open("wb") as disk:
            disk.truncate(size)
            write_gpt(disk, size, derived_id("cvm", "disk"), partitions, bootable_mbr=True)
            install_bios_grub(disk, bios, (boot / "boot.img").read_bytes(), (boot / "disk.img").read_bytes())
            for partition, content in ((esp, fat), (root_a, squashfs)):
                disk.seek(partition.offset)
                with content.open("rb") as source:
                    shutil.copyfileobj(source, disk, MIB)
        _make_state(raw, state, epoch, log)
        process.run(["qemu-img", "convert", "-m", "1", "-f", "raw", "-O", "qcow2", raw, target], log=log)
    finally:
        for scratch in (raw, fat):
            scratch.unlink(missing_ok=True)


def install_bios_grub(disk, partition: Partition, boot_img: bytes, core_img: bytes) -> None:
    """Put GRUB's boot sector and core image on an open disk, patched as grub-bios-setup does.

    boot.img: offset 0x5c holds the core image's first sector; two NOPs at 0x66 switch off the check
    for a floppy. core.img: the last entry of its first sector's block list (0x1f4: start, 0x1fc:
    sectors) names the rest of the image. Source: GRUB 2 manual, "Images", and include/grub/i386/pc/boot.h.
    """
    if len(core_img) > partition.size:
        raise ValueError("GRUB's core image is larger than the BIOS boot partition")
    boot = bytearray(boot_img[:440])
    boot[0x5c:0x64] = struct.pack("<Q", partition.start)
    boot[0x66:0x68] = b"\x90\x90"
    core = bytearray(core_img)
    core[0x1f4:0x1fe] = struct.pack("<QH", partition.start + 1, (len(core_img) + SECTOR - 1) // SECTOR - 1)
    disk.seek(0)
    disk.write(boot)
    disk.seek(partition.offset)
    disk.write(core)


def _make_esp(fat: Path, boot: Path, root_a: Partition, root_b: Partition, state: Partition, epoch: int,
              log: Path) -> None:
    config = fat.with_name(f"{fat.name}.grub.cfg")
    config.write_text(render("slot-grub.cfg", state=state.identity, arguments=CVM_ARGUMENTS,
                             slots=[{"name": "a", "root": root_a.identity}, {"name": "b", "root": root_b.identity}]))
    try:
        make_fat(fat, ESP_SIZE, "ESP", {
            "EFI/BOOT/BOOTX64.EFI": boot / "shimx64.efi",
            "EFI/BOOT/grubx64.efi": boot / "grubx64.efi",
            "EFI/BOOT/mmx64.efi": boot / "mmx64.efi",
            # the signed GRUB looks for its configuration in the distribution's folder, ours in /boot/grub
            "EFI/debian/grub.cfg": config,
            "boot/grub/grub.cfg": config,
            "boot/a/vmlinuz": boot / "vmlinuz",
            "boot/a/initrd.img": boot / "initrd.img",
        }, epoch=epoch, log=log)
    finally:
        config.unlink(missing_ok=True)


def _make_state(disk: Path, state: Partition, epoch: int, log: Path) -> None:
    process.run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "state", "-U", state.identity, "-m", "1",
                 "-E", f"offset={state.offset},hash_seed={state.identity},lazy_itable_init=1,root_owner=0:0",
                 disk, f"{state.size // 1024}k"],
                # the tool's built-in defaults, not this machine's /etc/mke2fs.conf
                log=log, env={"E2FSPROGS_FAKE_TIME": str(epoch), "MKE2FS_CONFIG": str(disk.parent / "none")})

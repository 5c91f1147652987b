"""The disk that hypervisor and CVM both boot from: BIOS boot, ESP, root A, root B, state (GPT).

A root slot holds the very bytes of a root's squashfs; kernel and initramfs of a slot lie on the ESP below /boot/<slot>;
everything that a machine writes goes to the state partition. The factory makes the CVM's disk of this shape,
Foundation a node's boot disk.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.gpt import (
    BIOS_BOOT,
    BOOT_CODE_SIZE,
    EFI_SYSTEM,
    FIRST_USABLE,
    LINUX_DATA,
    LINUX_ROOT_X86_64,
    SECTOR,
    TABLE_SECTORS,
    Partition,
    Read,
    derived_id,
    table_guid,
)

MIB = 1 << 20
ESP_SIZE = 256 * MIB
# of the partition, in the table
ESP_NUMBER = 2
STATE_MINIMUM = 512 * MIB

# Serial last: it becomes /dev/console, where the initramfs and the watcher of a machine room meet.
SERIAL = "ttyS0,115200"
CONSOLES = f"console=tty0 console={SERIAL}"
# What is mounted is ours to say. Booted by a BIOS, systemd would mount the ESP below a root that can't be written to.
COMMON_ARGUMENTS = f"{CONSOLES} systemd.gpt_auto=0"
# A screen is for people. The kernel has one loglevel for all consoles: at 1 it writes emergencies alone, and all that
# follows on an oops or a panic. The rest its initramfs brings to the serial port (elements/hypervisor, kernel-log).
# quiet is for what speaks before there is a loglevel, the kernel's EFI stub.
CALM = "quiet loglevel=1"
# after CALM: the kernel itself writes to all consoles
VERBOSE = "loglevel=7"
VERBOSE_TITLE = "kernel messages on the screen"
# Where interrupts are remapped, as on every machine that is taken, the kernel's check of its timer ends in success or
# in a panic, and nothing between: a virtual machine on a busy computer is late, and panics.
HYPERVISOR_ARGUMENTS = f"{COMMON_ARGUMENTS} {CALM} intel_iommu=on iommu=pt no_timer_check"
# Its console is a serial port that its host emulates byte by byte: what is only informative is in the journal alone,
# and so is which units have started.
CVM_ARGUMENTS = f"{COMMON_ARGUMENTS} loglevel=6 systemd.show_status=error"

# Where the boot files lie in a root, and what they are called there.
BOOT_FOLDER = "usr/share/cornerstone/boot"
ESP_FILES = {
    "EFI/BOOT/BOOTX64.EFI": "shimx64.efi",
    "EFI/BOOT/grubx64.efi": "grubx64.efi",
    "EFI/BOOT/mmx64.efi": "mmx64.efi",
    "boot/a/vmlinuz": "vmlinuz",
    "boot/a/initrd.img": "initrd.img",
}
# on the ESP: GRUB on a Foundation ISO looks for it, and starts the disk that has it
INSTALLED_MARK = "cornerstone/installed"
# the signed GRUB looks for its configuration in the distribution's folder, ours in /boot/grub
GRUB_CONFIGS = ("EFI/debian/grub.cfg", "boot/grub/grub.cfg")


@dataclass(frozen=True)
class Layout:
    """The five partitions of one disk, each at a whole MiB."""

    bios: Partition
    esp: Partition
    root_a: Partition
    root_b: Partition
    state: Partition

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """In the order of the disk, which is that of their numbers from 1."""
        return (self.bios, self.esp, self.root_a, self.root_b, self.state)


def layout(name: str, size: int, slot: int) -> Layout:
    """Lay out a disk of size bytes with root slots of slot bytes; name makes the partitions' ids.

    State gets what is left. CornerstoneError when that is less than STATE_MINIMUM.
    """
    sizes = [("bios-boot", BIOS_BOOT, MIB), ("esp", EFI_SYSTEM, ESP_SIZE), ("root-a", LINUX_ROOT_X86_64, slot),
             ("root-b", LINUX_ROOT_X86_64, slot)]
    partitions, start = [], MIB
    for label, kind, length in sizes:
        partitions.append(Partition(kind, derived_id(name, label), label, start // SECTOR, length // SECTOR))
        start += length
    state = (size - MIB) // MIB * MIB - start
    if state < STATE_MINIMUM:
        raise CornerstoneError(f"a disk of {size // MIB} MiB leaves {state // MIB} MiB for state beside two root slots "
                               f"of {slot // MIB} MiB", "take a larger disk, or a smaller root_slot in the profile")
    partitions.append(Partition(LINUX_DATA, derived_id(name, "state"), "state", start // SECTOR, state // SECTOR))
    return Layout(*partitions)


def disk_identity(serial: str, finished: bool) -> str:
    """The GUID of a boot disk's partition table: another one while it isn't finished. Bound to the disk's serial."""
    return str(derived_id(serial, "node" if finished else "unfinished"))


def is_unfinished(read: Read, size: int, serial: str) -> bool:
    """Return whether imaging began on the disk of this serial, was cut off, and nobody has used the disk since.

    read(offset, count) gives bytes of the disk. The primary table has to say so, beside an MBR that is blank or names
    no partition of its own. Where no primary table is whole, its copy at the end counts as long as the disk's begin is
    blank, or holds what imaging writes first, the entries of that same table: a copy outlives what others do to a disk.
    """
    mark = uuid.UUID(disk_identity(serial, finished=False))
    mbr = read(0, SECTOR)
    # type 0: no partition; 0xEE: a GPT's protective one
    if any(mbr[at] not in (0, 0xEE) for at in range(450, min(len(mbr), 510), 16)):
        return False
    if primary := table_guid(read, size, SECTOR):
        return primary == mark
    if table_guid(read, size, size - SECTOR) != mark:
        return False
    head = read(0, FIRST_USABLE * SECTOR)
    copied = read(size - (TABLE_SECTORS + 1) * SECTOR, TABLE_SECTORS * SECTOR)
    return not any(head) or head[2 * SECTOR:] == copied


def grub_config(disk: Layout, arguments: str) -> str:
    """GRUB's menu for both slots. slot.cfg beside it names the one to boot: an upgrade rewrites that small file."""
    entries = "".join(
        f"""
menuentry "{title}" --unrestricted --id {name} {{
    echo "Starting this machine from root slot {slot.upper()}: loading its kernel"
    linux /boot/{slot}/vmlinuz boot=cornerstone cornerstone.root={root.identity} \
cornerstone.state={disk.state.identity} {words}
    initrd /boot/{slot}/initrd.img
}}
""" for title, name, slot, root, words in _starts(disk, arguments))
    return f"""\
# GRUB on a disk with two root slots. slot.cfg names the slot to boot; an upgrade rewrites that one small file.
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
# Nobody is a superuser: the entries start, but nobody changes one or gets a command line (GRUB manual, "Security").
set superusers=""
set timeout=1
set slot=a
if [ -e /boot/grub/slot.cfg ]; then source /boot/grub/slot.cfg; fi
set default=slot-$slot
{entries}"""


def _starts(disk: Layout, arguments: str) -> Iterator[tuple[str, str, str, Partition, str]]:
    """Yield the menu's entries: title, id, slot, its partition, and the kernel's arguments."""
    for title, name, more in (("", "", ""), (f", {VERBOSE_TITLE}", "-messages", f" {VERBOSE}")):
        for slot, root in (("a", disk.root_a), ("b", disk.root_b)):
            yield f"Slot {slot.upper()}{title}", f"slot-{slot}{name}", slot, root, f"{arguments}{more}"


def bios_grub(partition: Partition, boot_img: bytes, core_img: bytes) -> tuple[bytes, bytes]:
    """GRUB for a BIOS, patched as grub-bios-setup does: boot code for the first sector, and the partition's content.

    boot.img: offset 0x5c holds the core image's first sector; two NOPs at 0x66 switch off the check
    for a floppy. core.img: the last entry of its first sector's block list (0x1f4: start, 0x1fc:
    sectors) names the rest of the image. Source: GRUB 2 manual, "Images", and include/grub/i386/pc/boot.h.
    """
    if len(core_img) > partition.size:
        raise ValueError("GRUB's core image is larger than the BIOS boot partition")
    boot = bytearray(boot_img[:BOOT_CODE_SIZE])
    boot[0x5c:0x64] = struct.pack("<Q", partition.start)
    boot[0x66:0x68] = b"\x90\x90"
    core = bytearray(core_img)
    core[0x1f4:0x1fe] = struct.pack("<QH", partition.start + 1, (len(core_img) + SECTOR - 1) // SECTOR - 1)
    return bytes(boot), bytes(core)


def install_bios_grub(disk: BinaryIO, partition: Partition, boot_img: bytes, core_img: bytes) -> None:
    """Put `bios_grub` on an open disk."""
    boot, core = bios_grub(partition, boot_img, core_img)
    disk.seek(0)
    disk.write(boot)
    disk.seek(partition.offset)
    disk.write(core)


def esp_sources(boot: Path, kernel: Path, config: Path) -> Mapping[str, Path]:
    """What belongs on the ESP, path on it → source; boot, kernel: folders of the loaders, of kernel and initramfs."""
    files = {path: (kernel if name in ("vmlinuz", "initrd.img") else boot) / name for path, name in ESP_FILES.items()}
    return files | dict.fromkeys(GRUB_CONFIGS, config)

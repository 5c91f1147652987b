"""The node's entry in the UEFI boot menu: so that firmware starts the disk, whatever medium is left in the drive.

A BIOS has none: GRUB on the ISO sees all its disks. UEFI firmware may leave a disk that isn't in its boot order alone,
and then GRUB can't find it.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import re
import struct
import time
from pathlib import Path

from cornerstone.foundation.installer.block import run
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.disk.slot_disk import ESP_NUMBER

LABEL = "Cornerstone node"
LOADER = r"\EFI\BOOT\BOOTX64.EFI"
EFI = Path("/sys/firmware/efi")

# How often firmware is asked to start the disk before somebody is asked to take the medium out, within what time.
TRIES = 2
WITHIN_SECONDS = 3600
# A variable of ours, of fixed length, under a GUID of ours: UEFI's attributes (kept, for boot services and for the
# system), then the tries and the time of the last one.
COUNT = "CornerstoneStarts-7d9b6a2e-3c1f-4f0e-9a57-5d0c6e1b8f42"
RECORD = struct.Struct("<IIQ")
ATTRIBUTES = 0x7
# linux/fs.h; the kernel protects variables that it doesn't know from rm
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IMMUTABLE_FL = 0x80086601, 0x40086602, 0x10
BY_HAND = "take the medium out and switch the machine off and on, or choose the disk in the firmware's boot menu"


def register(disk: Path) -> str:
    """Put the disk first in the boot order, with one entry and no older ones of ours; returns the entry's number.

    "" on a BIOS. CornerstoneError (STEP) when the firmware doesn't take it; its older entries are there then as before.
    """
    if not EFI.is_dir():
        return ""
    older = _entries(run(["efibootmgr", "--verbose"]).decode("utf-8", "replace"))
    said = run(["efibootmgr", "--create", "--disk", disk, "--part", ESP_NUMBER, "--label", LABEL, "--loader", LOADER])
    for number in older:
        run(["efibootmgr", "--bootnum", number, "--delete-bootnum"])
    return first_in_order(said.decode("utf-8", "replace"))


def start_next(disk: Path, esp: str = "") -> bool:
    """Have the firmware start the disk at the next boot, whatever its order is; false on a BIOS.

    esp: the UUID of its EFI system partition; an entry for it that comes first in the order is left as it is, for
    NVRAM bears only so many writes. Raises CornerstoneError when the firmware doesn't take it, or was asked TRIES times
    and has started the medium again.
    """
    if not EFI.is_dir():
        return False
    if (tries := _tries(now := time.time())) >= TRIES:
        raise CornerstoneError(f"the firmware was asked {tries} times to start {disk}, and starts this medium again",
                               BY_HAND, Code.REFUSED)
    try:
        number = _first_entry(esp) or register(disk)
        run(["efibootmgr", "--bootnext", number])
        _keep_tries(tries + 1, now)
    except (CornerstoneError, OSError) as error:
        raise CornerstoneError(f"the firmware doesn't take it that {disk} is to start: {error}", BY_HAND,
                               Code.STEP) from error
    return True


def _first_entry(esp: str) -> str:
    """The number of our own entry for a partition, if it comes first in the order; else ""."""
    said = run(["efibootmgr", "--verbose"]).decode("utf-8", "replace")
    mine = re.findall(rf"^Boot([0-9A-F]{{4}})\* {re.escape(LABEL)}\tHD\({ESP_NUMBER},GPT,{re.escape(esp)},", said,
                      re.MULTILINE | re.IGNORECASE)
    order = re.search(r"^BootOrder: ([0-9A-F]{4})", said, re.MULTILINE)
    return order[1] if esp and order and order[1] in mine else ""


def _tries(now: float) -> int:
    """How often the firmware was asked of late."""
    try:
        _, tries, then = RECORD.unpack((EFI / "efivars" / COUNT).read_bytes())
    except (OSError, struct.error):
        return 0
    return tries if abs(now - then) < WITHIN_SECONDS else 0


def _keep_tries(tries: int, now: float) -> None:
    path = EFI / "efivars" / COUNT
    with contextlib.suppress(FileNotFoundError):
        _unprotect(path)
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        # in one write, as efivarfs wants it
        os.write(file, RECORD.pack(ATTRIBUTES, tries, int(now)))
    finally:
        os.close(file)


def _unprotect(path: Path) -> None:
    """Take the flag from a variable by which the kernel keeps it from being written or removed."""
    flags = array.array("i", [0])
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(file, FS_IOC_GETFLAGS, flags)
        flags[0] &= ~FS_IMMUTABLE_FL
        fcntl.ioctl(file, FS_IOC_SETFLAGS, flags)
    finally:
        os.close(file)


def first_in_order(said: str) -> str:
    """The first number of efibootmgr's line BootOrder. CornerstoneError when there is none."""
    found = re.search(r"^BootOrder: ([0-9A-F]{4})", said, re.M)
    if found is None:
        raise CornerstoneError("efibootmgr shows no boot order", "look at the firmware's boot menu")
    return found[1]


def _entries(said: str) -> list[str]:
    """The numbers of our own entries."""
    return re.findall(rf"^Boot([0-9A-F]{{4}})[* ] {re.escape(LABEL)}(?:\t|$)", said, re.M)

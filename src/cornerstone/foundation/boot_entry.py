"""The node's entry in the UEFI boot menu: so that firmware starts the disk, whatever medium is left in the drive.

A BIOS has none: GRUB on the ISO sees all its disks. UEFI firmware may leave a disk that isn't in its boot order alone,
and then GRUB can't find it.
"""

from __future__ import annotations

import re
from pathlib import Path

from cornerstone.foundation.block import run
from cornerstone.model.error import CornerstoneError
from cornerstone.model.slot_disk import ESP_NUMBER

LABEL = "Cornerstone node"
LOADER = r"\EFI\BOOT\BOOTX64.EFI"
EFI = Path("/sys/firmware/efi")


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


def start_next(disk: Path) -> bool:
    """Have the firmware start the disk at the next boot, whatever its order is; false on a BIOS."""
    if not (number := register(disk)):
        return False
    run(["efibootmgr", "--bootnext", number])
    return True


def first_in_order(said: str) -> str:
    """The first number of efibootmgr's line BootOrder. CornerstoneError when there is none."""
    found = re.search(r"^BootOrder: ([0-9A-F]{4})", said, re.M)
    if found is None:
        raise CornerstoneError("efibootmgr shows no boot order", "look at the firmware's boot menu")
    return found[1]


def _entries(said: str) -> list[str]:
    """The numbers of our own entries."""
    return re.findall(rf"^Boot([0-9A-F]{{4}})[* ] {re.escape(LABEL)}(?:\t|$)", said, re.M)

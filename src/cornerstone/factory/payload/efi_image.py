"""The FAT image that UEFI firmware starts from a CD: the signed loaders of the hypervisor's root."""

from __future__ import annotations

from pathlib import Path

from cornerstone.lib.fat import MIB, make_fat

SIZE = 8 * MIB
LOADERS = {"EFI/BOOT/BOOTX64.EFI": "shimx64.efi", "EFI/BOOT/grubx64.efi": "gcdx64.efi",
           "EFI/BOOT/mmx64.efi": "mmx64.efi"}


def make_efi_image(target: Path, boot: Path, epoch: int, log: Path) -> None:
    """Write the image to target; boot: a folder of boot files, epoch: the time of all in it."""
    make_fat(target, SIZE, "ESP", {path: boot / name for path, name in LOADERS.items()}, epoch=epoch, log=log)

"""What starts a machine, taken out of a packed root: kernel, initramfs, shim, GRUB. All of one release."""

from __future__ import annotations

import shutil
from pathlib import Path

from cornerstone.lib import process

FOLDERS = ("boot", "usr/share/cornerstone/boot")
FILES = ("vmlinuz", "initrd.img", "boot.img", "boot_hybrid.img", "cd.img", "disk.img",
         "shimx64.efi", "mmx64.efi", "gcdx64.efi", "grubx64.efi")


def extract(squashfs: Path, target: Path, log: Path) -> None:
    """Fill the folder target with FILES from a root's squashfs."""
    unpacked = target.with_name(f"{target.name}.unpacked")
    try:
        process.run(["unsquashfs", "-no-progress", "-dest", unpacked, squashfs, *FOLDERS], log=log)
        target.mkdir(exist_ok=True)
        for name in FILES:
            source = next(path for folder in FOLDERS if (path := unpacked / folder / name).exists())
            shutil.copyfile(source, target / name)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)

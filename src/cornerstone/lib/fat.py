"""FAT images for EFI system partitions: dosfstools makes the file system, mtools fills it, both with fixed ids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cornerstone.lib import process

MIB = 1 << 20


def make_fat(image: Path, size: int, label: str, files: Mapping[str, Path], *, epoch: int, log: Path) -> None:
    """Make image (size bytes, a multiple of 1 MiB) a FAT file system with files: path inside → source."""
    env = {"SOURCE_DATE_EPOCH": str(epoch), "MTOOLS_SKIP_CHECK": "1", "TZ": "UTC", "LC_ALL": "C"}
    with image.open("wb") as out:
        out.truncate(size)
    process.run(["mkfs.vfat", "--invariant", "-i", "C0DE5704", "-n", label, image], log=log, env=env)
    folders = sorted({str(parent) for path in files for parent in Path(path).parents} - {"."})
    if folders:
        process.run(["mmd", "-i", image, *(f"::/{folder}" for folder in folders)], log=log, env=env)
    for path, source in sorted(files.items()):
        process.run(["mcopy", "-i", image, source, f"::/{path}"], log=log, env=env)

"""The EFI system partition, made and filled without mounting it: dosfstools and mtools, on the partition's device."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from cornerstone.foundation.installer.block import run

# mtools asks on a terminal when it is in doubt; it must not
ENVIRONMENT = {"MTOOLS_SKIP_CHECK": "1", "MTOOLSRC": os.devnull}


def make(device: Path, label: str, serial: str, files: Iterable[tuple[str, bytes]]) -> None:
    """Format a partition as FAT32 and write files: path → content. serial: eight hex digits."""
    run(["mkfs.vfat", "-F", "32", "-n", label, "-i", serial, device])
    made: set[str] = set()
    for path, content in files:
        for folder in [*map(str, Path(path).parents)][-2::-1]:
            if folder not in made:
                run(["mmd", "-i", device, f"::/{folder}"], extra=ENVIRONMENT)
                made.add(folder)
        put(device, path, content)
    flush(device)


def put(device: Path, path: str, content: bytes) -> None:
    """Write a file, over one of the same name."""
    run(["mcopy", "-o", "-i", device, "-", f"::/{path}"], content=content, extra=ENVIRONMENT)


def read(device: Path, path: str) -> bytes:
    """A file's content. CornerstoneError (STEP) when it isn't there."""
    return run(["mcopy", "-i", device, f"::/{path}", "-"], extra=ENVIRONMENT)


def files(device: Path) -> set[str]:
    """The paths of all files."""
    listing = run(["mdir", "-b", "-s", "-i", device, "::/"], extra=ENVIRONMENT).decode("utf-8", "replace")
    return {line.removeprefix("::/") for line in listing.splitlines() if not line.endswith("/")}


def rename(device: Path, path: str, name: str) -> None:
    """Give a file another name in its folder."""
    run(["mren", "-i", device, f"::/{path}", name], extra=ENVIRONMENT)


def flush(device: Path) -> None:
    """Have all that was written on the medium."""
    descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

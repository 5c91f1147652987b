"""Small files of the kernel or of a daemon: one that can't be read is no error, and neither is any byte in it."""

from __future__ import annotations

import re
from pathlib import Path

from cornerstone.lib.printable import escaped

# bytes of one file: far above what the kernel has in any
MOST = 1 << 20
PCI_ADDRESS = re.compile(r"[0-9a-f]{4,5}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


def read(path: Path) -> str:
    """Return a file's one value without spaces around it, "" when there is none; what can't be printed as \\x0a."""
    return escaped(read_text(path))


def read_text(path: Path) -> str:
    """Return a file's text without spaces around it, with its lines and tabs; "" when there is none."""
    return read_bytes(path).decode("utf-8", "replace").strip(" \t\r\n\0")


def read_bytes(path: Path) -> bytes:
    """Return what a file holds, up to MOST bytes; nothing when it can't be read."""
    try:
        with path.open("rb") as file:
            return file.read(MOST)
    except OSError:
        return b""


def number(path: Path) -> int | None:
    """Return a file's whole number; None when there is none, or it is -1, the kernel's word for unknown."""
    return whole(read(path))


def whole(text: str) -> int | None:
    """Return a number of at most 64 bits that is written in digits; None for any other text."""
    return int(text) if re.fullmatch(r"[0-9]{1,20}", text) else None


def children(folder: Path) -> list[Path]:
    """Return what is in a folder, by name; nothing when it isn't there."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


def link_name(path: Path) -> str:
    """Return the last part of what a link points to, as a driver's name; "" when there is no link."""
    return path.resolve().name if path.exists() else ""


def pci_function(path: Path) -> str:
    """Return the PCI function that a device hangs off: the last address in its real path; "" for none."""
    found = [part for part in path.resolve().parts if PCI_ADDRESS.fullmatch(part)]
    return found[-1] if found else ""

"""Write a file whole or not at all: beside its place, under a name that nobody can foresee, and renamed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def put(target: Path, content: bytes | str, mode: int = 0o644, *, durable: bool = True, exclusive: bool = False,
        folder: Path | None = None) -> None:
    """Write a file whole or not at all. Raises OSError, and leaves what was there.

    durable: content and name are on the disk at the end, so that a power cut leaves the old file or the new one.
    exclusive: raises FileExistsError where there is a file already. folder: as for beside.
    """
    with beside(target, mode, folder) as path:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        settle(path, target, durable=durable, exclusive=exclusive)


@contextlib.contextmanager
def beside(target: Path, mode: int = 0o644, folder: Path | None = None) -> Iterator[Path]:
    """Make a new, empty file in the folder of target, to be settled in its place; gone at the end if it wasn't.

    Its name comes from chance and it is made by O_EXCL, so nobody can have put a link in its way. folder: another one
    of the same file system, for a target in whose own folder every file means something.
    """
    file, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=folder or target.parent)
    path = Path(name)
    try:
        os.fchmod(file, mode)
        os.close(file)
        yield path
    finally:
        path.unlink(missing_ok=True)


def settle(path: Path, target: Path, *, durable: bool = True, exclusive: bool = False) -> None:
    """Put a file that is written into its place; durable and exclusive as for put."""
    if durable:
        flush(path)
    if exclusive:
        os.link(path, target)
    else:
        path.replace(target)
    if durable:
        flush(target.parent)


def flush(path: Path) -> None:
    """Have a file's content, or the names in a folder, on the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(target: Path, folder: Path | None = None) -> None:
    """Remove what interrupted writes of target have left; only for the one who writes it. folder: as for beside."""
    for left in (folder or target.parent).glob(f".{target.name}.{'[a-z0-9_]' * 8}"):
        left.unlink(missing_ok=True)

"""A disk and its partitions for writing: opened alone, flushed, read back from the medium and not from memory."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cornerstone.model.error import Code, CornerstoneError
from cornerstone.model.gpt import Partition

# linux/fs.h
BLKFLSBUF = 0x1261
BLKGETSIZE64 = 0x80081272


@contextmanager
def opened(device: Path) -> Iterator[int]:
    """A descriptor for reading and writing a whole disk that nobody else uses: not mounted, no other holder.

    It is locked as udev understands it, so that nobody probes it meanwhile. CornerstoneError (REFUSED) when it is used.
    """
    exclusive = os.O_EXCL if stat.S_ISBLK(device.stat().st_mode) else 0
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC | exclusive)
    except OSError as error:
        raise CornerstoneError(f"disk.in-use: {device} can't be opened for writing: {error.strerror}",
                               "something on this machine uses the disk; see that it isn't mounted or part of an array",
                               Code.REFUSED) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def size_of(descriptor: int) -> int:
    """Bytes of an open disk, or of the file that stands for one."""
    if stat.S_ISBLK(os.fstat(descriptor).st_mode):
        return struct.unpack("Q", fcntl.ioctl(descriptor, BLKGETSIZE64, bytes(8)))[0]
    return os.fstat(descriptor).st_size


def write_all(descriptor: int, content: bytes, offset: int) -> None:
    """Write all of content at an offset."""
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def forget_cached(descriptor: int) -> None:
    """Write out what is pending and drop what memory keeps, so that the next read comes from the medium."""
    os.fsync(descriptor)
    if stat.S_ISBLK(os.fstat(descriptor).st_mode):
        fcntl.ioctl(descriptor, BLKFLSBUF)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def part(disk: Path, partition: Partition, *, read_only: bool = False) -> Iterator[Path]:
    """A loop device over one partition of a disk.

    By its place, so that it doesn't depend on what the kernel and udev have seen of a table that is being rewritten.
    """
    words = ["losetup", "--find", "--show", "--nooverlap", "--offset", str(partition.offset),
             "--sizelimit", str(partition.size), *["--read-only"] * read_only, str(disk)]
    device = run(words).decode().strip()
    try:
        yield Path(device)
    finally:
        run(["losetup", "--detach", device])


@contextmanager
def mounted(disk: Path, partition: Partition, kind: str, *, read_only: bool = False) -> Iterator[Path]:
    """A partition's file system, mounted on a folder of its own; what was written is on the medium at the end."""
    with part(disk, partition, read_only=read_only) as device, tempfile.TemporaryDirectory(prefix="imaging-") as name:
        run(["mount", "-t", kind, "-o", "ro" if read_only else "rw,nosuid,nodev,noexec", device, name])
        try:
            yield Path(name)
        finally:
            run(["umount", name])


def run(argv: Sequence[object], *, content: bytes = b"", extra: Mapping[str, str] | None = None) -> bytes:
    """Run a tool with content on its standard input and return what it wrote; extra: more environment.

    CornerstoneError (STEP) with its complaint when it fails.
    """
    words = [str(word) for word in argv]
    done = subprocess.run(words, input=content, capture_output=True, check=False,
                          env={**os.environ, "LC_ALL": "C", **(extra or {})})
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()[-500:]
        raise CornerstoneError(f"{words[0]} failed with exit status {done.returncode}: {said}",
                               "see the journal; image the node again", Code.STEP)
    return done.stdout

"""A disk and its partitions for writing: opened alone, flushed, read back from the medium and not from memory."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cornerstone.model.error import Code, CornerstoneError

# linux/fs.h
BLKRRPART = 0x125F
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


def reread_partitions(descriptor: int) -> None:
    """Have the kernel read the partition table that was just written; the partitions' devices are there afterwards."""
    os.fsync(descriptor)
    fcntl.ioctl(descriptor, BLKRRPART)


def forget_cached(descriptor: int) -> None:
    """Write out what is pending and drop what memory keeps, so that the next read comes from the medium."""
    os.fsync(descriptor)
    if stat.S_ISBLK(os.fstat(descriptor).st_mode):
        fcntl.ioctl(descriptor, BLKFLSBUF)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def partition_device(disk: str, number: int, sys: Path = Path("/sys"), dev: Path = Path("/dev")) -> Path:
    """The device of a disk's partition: sda and 3 → /dev/sda3, nvme0n1 and 3 → /dev/nvme0n1p3."""
    for path in (sys / "class/block" / disk).resolve().iterdir():
        if (path / "partition").is_file() and int((path / "partition").read_text()) == number:
            return dev / path.name
    raise CornerstoneError(f"partition {number} of {disk} didn't appear", "image the node again", Code.STEP)

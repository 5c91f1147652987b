"""A disk and its partitions for writing: opened alone, known again, flushed, read back from the medium.

All goes through the descriptor of the disk that was opened and compared: while it is open, the kernel gives neither its
name nor its number to another disk.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from cornerstone.lib import command
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.gpt import SECTOR, Partition, table_guid
from cornerstone.model.disk.identity import DiskIdentity, fingerprint, read_identity
from cornerstone.model.disk.slot_disk import disk_identity, is_unfinished

SYSFS = Path("/sys")
DEVICES = Path("/dev")
# linux/fs.h
BLKFLSBUF = 0x1261
BLKGETSIZE64 = 0x80081272
BLKGETDISKSEQ = 0x80081280
# linux/loop.h
LOOP_CONFIGURE, LOOP_CTL_GET_FREE = 0x4C0A, 0x4C82
LO_FLAGS_READ_ONLY, LO_FLAGS_AUTOCLEAR = 1, 4
# struct loop_config: fd and block size; of its loop_info64 offset, size limit and flags; the rest is zeros
LOOP_CONFIG = struct.Struct("<II24xQQ12xI176x64x")


# what opening a device says whose disk was pulled
GONE = (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM)


@contextmanager
def open_disk(device: Path) -> Iterator[int]:
    """A descriptor for reading and writing a whole disk that nobody else uses: not mounted, no other holder.

    It is locked as udev understands it, so that nobody probes it meanwhile. CornerstoneError (REFUSED) when it is used,
    or isn't there any more.
    """
    try:
        exclusive = os.O_EXCL if stat.S_ISBLK(device.stat().st_mode) else 0
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC | exclusive)
    except OSError as error:
        if error.errno in GONE:
            raise CornerstoneError(f"disk.changed: {device} isn't there any more: {error.strerror}",
                                   "put the disk back in, and have the machine looked at again",
                                   Code.REFUSED) from error
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


def require_disk(descriptor: int, device: Path, chosen: DiskIdentity, contents: str) -> None:
    """Raise CornerstoneError (REFUSED) unless an open disk is the chosen one, and holds what it held then.

    contents: the fingerprint of what was on it. What our own imaging has written since passes too: it was cut off, or
    is done again. A file that stands for a disk, or a loop device, tells nothing of itself but its size.
    """
    def read(offset: int, count: int) -> bytes:
        return os.pread(descriptor, count, offset)
    with step(device, "compare"):
        difference = chosen.difference(_identity_of(descriptor, chosen))
        if not difference:
            forget_cached(descriptor)
            held = fingerprint(read, chosen.size)
            ours = is_unfinished(read, chosen.size, chosen.serial) or (
                str(table_guid(read, chosen.size, SECTOR)) == disk_identity(chosen.serial, finished=True))
            if held != contents and not ours:
                difference = f"contents {held or 'none'} instead of {contents or 'none'}"
    if difference:
        raise CornerstoneError(f"disk.changed: {device} isn't the disk that was chosen, or was written since: "
                               f"{difference}", "nothing was written: have the machine looked at again", Code.REFUSED)


def _identity_of(descriptor: int, chosen: DiskIdentity) -> DiskIdentity:
    found = os.fstat(descriptor)
    if not stat.S_ISBLK(found.st_mode):
        return replace(chosen, size=found.st_size, sequence=None)
    sequence = None
    # before Linux 5.15 there is no such number
    with suppress(OSError):
        sequence = struct.unpack("Q", fcntl.ioctl(descriptor, BLKGETDISKSEQ, bytes(8)))[0]
    block = SYSFS / "dev/block" / f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    if not (block / "device").exists():
        return replace(chosen, size=size_of(descriptor), sequence=sequence)
    told = read_identity(block)
    # another number in sysfs: what it tells is another disk's
    return replace(told, size=size_of(descriptor), sequence=sequence if told.sequence == sequence else told.sequence)


@contextmanager
def step(device: Path, name: str) -> Iterator[None]:
    """Name disk and step in what fails while a disk is written. Raises CornerstoneError (STEP) for it."""
    try:
        yield
    except OSError as error:
        raise CornerstoneError(f"{device} failed at the step {name}: {error.strerror or error}",
                               "the disk, its cable or its controller is bad: see the journal, and replace it",
                               Code.STEP) from error
    except CornerstoneError as error:
        if error.code is not Code.STEP:
            raise
        raise CornerstoneError(f"{device}, at the step {name}: {error.message}", error.hint, Code.STEP) from error


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
def part(disk: Path | int, partition: Partition, *, read_only: bool = False) -> Iterator[Path]:
    """A loop device over one partition of a disk, by its path or an open descriptor.

    By its place, so that it doesn't depend on what the kernel and udev have seen of a table that is being rewritten.
    What was written is on the disk at the end.
    """
    mode = (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC
    # of a descriptor another one: the loop device may outlive ours, which has the disk alone
    backing = os.open(f"/proc/self/fd/{disk}" if isinstance(disk, int) else disk, mode)
    try:
        loop, device = _attach(backing, partition, mode)
    finally:
        os.close(backing)
    try:
        yield device
        if not read_only:
            os.fsync(loop)
    finally:
        os.close(loop)


def _attach(backing: int, partition: Partition, mode: int) -> tuple[int, Path]:
    """Return descriptor and path of a free loop device over a part of an open disk; closed, it is free again."""
    flags = LO_FLAGS_AUTOCLEAR | (LO_FLAGS_READ_ONLY if mode & os.O_ACCMODE == os.O_RDONLY else 0)
    config = LOOP_CONFIG.pack(backing, 0, partition.offset, partition.size, flags)
    with (DEVICES / "loop-control").open("rb") as control:
        while True:
            device = DEVICES / f"loop{fcntl.ioctl(control, LOOP_CTL_GET_FREE)}"
            loop = os.open(device, mode)
            try:
                fcntl.ioctl(loop, LOOP_CONFIGURE, config)
                return loop, device
            except OSError as error:
                os.close(loop)
                # somebody else was faster
                if error.errno != errno.EBUSY:
                    raise


@contextmanager
def mount(disk: Path | int, partition: Partition, kind: str, *, read_only: bool = False) -> Iterator[Path]:
    """Mount a partition's file system on a folder of its own; what was written is on the medium at the end."""
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
    done = command.run(argv, stdin=content, env={**os.environ, "LC_ALL": "C", **(extra or {})})
    return done.check(hint="see the journal; image the node again", code=Code.STEP).out

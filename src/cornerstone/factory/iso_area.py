"""The reserved area of an ISO, in a file or on a device, which takes a site file: where it is, and what is in it.

Without the site's own modules, so that a build with nothing to do knows in an instant.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from cornerstone.factory.iso_image import Extent, Image
from cornerstone.model.error import Code, CornerstoneError
from cornerstone.model.manifest import LABEL, SITE_AREA, Manifest
from cornerstone.model.site_area import pack

TAKE_OUT = "./invoke customize {iso} --reset takes it out"


@contextlib.contextmanager
def area_of(iso: Path, *, write: bool = False) -> Iterator[tuple[int, Extent, Manifest]]:
    """An open ISO (file descriptor), the place of its area, and its manifest; another process that customises it waits.

    Nobody can mount a device meanwhile. Raises CornerstoneError when it isn't a Foundation ISO, or can't be written
    when it is to be.
    """
    file = _open_to_write(iso) if write else _open_to_read(iso)
    try:
        fcntl.flock(file, fcntl.LOCK_EX if write else fcntl.LOCK_SH)
        image = Image(iso)
        try:
            place = image.rock_ridge.files.get(SITE_AREA)
            if image.rock_ridge.label != LABEL or place is None:
                raise CornerstoneError(f"{iso} isn't a Foundation ISO: it has no {SITE_AREA}", "give one that invoke "
                                       "build made", Code.VERIFY)
            manifest = image.manifest
            if place.size != manifest.site_area or place.start + place.size > image.size:
                raise CornerstoneError(f"{iso} is damaged: its {SITE_AREA} isn't what the manifest says",
                                       "build or download it again", Code.VERIFY)
        finally:
            image.close()
        yield file, place, manifest
    finally:
        os.close(file)


def _folder_of(device: Path) -> Path:
    """What sysfs says of a device."""
    number = device.stat().st_rdev
    return Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()


def _open_to_read(iso: Path) -> int:
    try:
        if iso.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        return os.open(iso, os.O_RDONLY)
    except OSError as error:
        raise CornerstoneError(f"{iso} can't be read: {error.strerror}", "check the path and its rights") from None


def _open_to_write(iso: Path) -> int:
    device = False
    try:
        if iso.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        device = iso.is_block_device()
        # root can write what nobody may; a file without any right to write is meant to stay as it is
        if not iso.stat().st_mode & 0o222 or device and (_folder_of(iso) / "ro").read_text().strip() != "0":
            raise PermissionError(0, "it is read-only")
        # of a device the kernel then refuses what is mounted or held, also by way of a partition
        return os.open(iso, os.O_RDWR | (os.O_EXCL if device else 0))
    except OSError as error:
        if device and error.errno == errno.EBUSY:
            used = "; ".join(_users(iso)) or "another program holds it"
            raise CornerstoneError(f"{iso} is in use: {used}", "unmount it, for instance with umount, and look whether "
                                   "it is the stick that you mean") from None
        raise CornerstoneError(f"{iso} can't be changed: {error.strerror}",
                               "do it as root; a stick may have a switch that protects it" if device else
                               "give it the rights, or make a customised copy with --output NEW") from None


def _users(device: Path) -> Iterator[str]:
    """Who has a device or a partition of it: its mounts, swap, and what the kernel has built on it."""
    folder = _folder_of(device)
    parts = [folder, *(each.parent for each in folder.glob("*/partition"))]
    names = {(part / "dev").read_text().strip(): f"/dev/{part.name}" for part in parts}
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        words = line.split()
        if words[2] in names:
            yield f"{names[words[2]]} is mounted on {words[4]}"
    for line in Path("/proc/swaps").read_text(errors="replace").splitlines()[1:]:
        if line.split()[0] in names.values():
            yield f"{line.split()[0]} is swap"
    for part in parts:
        for holder in sorted((part / "holders").glob("*")):
            yield f"/dev/{part.name} is part of {holder.name}"


def is_customised(iso: Path) -> bool:
    """Whether an ISO's area holds anything, a whole site or the rest of a torn write; no when it is no such ISO."""
    try:
        with area_of(iso) as (file, place, _):
            return os.pread(file, place.size, place.start) != pack(None, place.size)
    except CornerstoneError:
        return False

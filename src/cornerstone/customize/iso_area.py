"""The reserved areas of an ISO, in a file or on a device, for a site file and for boot settings: where they are.

Without the site's own modules, so that a build with nothing to do knows in an instant.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cornerstone.customize.iso_image import Extent, Image
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.contracts import boot_area, site_area
from cornerstone.model.contracts.boot_area import BootSettings
from cornerstone.model.contracts.manifest import BOOT_AREA, LABEL, SITE_AREA, Manifest

TAKE_OUT = "./invoke customize {iso} --reset takes it out"


@dataclass(frozen=True)
class Areas:
    """An open ISO: its file descriptor, its manifest, and the places of its areas by path."""

    file: int
    manifest: Manifest
    places: Mapping[str, Extent]

    def read(self, path: str) -> bytes:
        """The content of an area."""
        place = self.places[path]
        return os.pread(self.file, place.size, place.start)


def area_sizes(manifest: Manifest) -> dict[str, int]:
    """The areas outside the signed content by path, with the bytes that are reserved for them."""
    return {SITE_AREA: manifest.site_area} | ({BOOT_AREA: manifest.boot_area} if manifest.boot_area else {})


def empty_areas(manifest: Manifest) -> dict[str, bytes]:
    """The same as they are on an ISO that nobody has customised."""
    areas = {SITE_AREA: site_area.pack(None, manifest.site_area)}
    if manifest.boot_area:
        areas[BOOT_AREA] = boot_area.pack(BootSettings(), manifest.boot_area)
    return areas


@contextlib.contextmanager
def areas_of(iso: Path, *, write: bool = False) -> Iterator[Areas]:
    """An open ISO and its areas; another process that customises it waits.

    Nobody can mount a device meanwhile. Raises CornerstoneError when it isn't a Foundation ISO, or can't be written
    when it is to be.
    """
    file = _open_to_write(iso) if write else _open_to_read(iso)
    try:
        fcntl.flock(file, fcntl.LOCK_EX if write else fcntl.LOCK_SH)
        image = Image(iso)
        try:
            if image.rock_ridge.label != LABEL or SITE_AREA not in image.rock_ridge.files:
                raise CornerstoneError(f"{iso} isn't a Foundation ISO: it has no {SITE_AREA}", "give one that invoke "
                                       "build made", Code.VERIFY)
            manifest = image.manifest
            places = {}
            for path, size in area_sizes(manifest).items():
                place = image.rock_ridge.files.get(path)
                if place is None or place.size != size or place.start + place.size > image.size:
                    raise CornerstoneError(f"{iso} is damaged: its {path} isn't what the manifest says",
                                           "build or download it again", Code.VERIFY)
                places[path] = place
        finally:
            image.close()
        yield Areas(file, manifest, places)
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
    """Whether an ISO's areas hold anything, also the rest of a torn write; no when it is no such ISO."""
    try:
        with areas_of(iso) as areas:
            return any(areas.read(path) != content for path, content in empty_areas(areas.manifest).items())
    except CornerstoneError:
        return False

"""The reserved area of an ISO, which takes a site file: where it is, and whether anything is in it.

Without the site's own modules, so that a build with nothing to do knows in an instant.
"""

from __future__ import annotations

import contextlib
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

    Raises CornerstoneError when it isn't a Foundation ISO, or can't be written when it is to be.
    """
    try:
        if iso.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        # root can write what nobody may; a file without any right to write is meant to stay as it is
        if write and not iso.stat().st_mode & 0o222:
            raise PermissionError(0, "it is read-only")
        file = os.open(iso, os.O_RDWR if write else os.O_RDONLY)
    except OSError as error:
        raise CornerstoneError(f"{iso} can't be {'changed' if write else 'read'}: {error.strerror}",
                               "give it the rights, or make a customised copy with --output NEW" if write else
                               "check the path and its rights") from None
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


def is_customised(iso: Path) -> bool:
    """Whether an ISO's area holds anything, a whole site or the rest of a torn write; no when it is no such ISO."""
    try:
        with area_of(iso) as (file, place, _):
            return os.pread(file, place.size, place.start) != pack(None, place.size)
    except CornerstoneError:
        return False

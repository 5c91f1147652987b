"""What volumes there are: one small RADOS object in the container, read whole and written whole.

Pure: the words and what they may be; store.py keeps it. A volume group is what an operator names; its disks are RBD
images. A disk's LUN is the same on every CVM and in every group: the cluster has one target.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from cornerstone.model.error import Code, CornerstoneError
from cornerstone.model.record import from_record, to_record

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
SIZE = re.compile(r"([1-9]\d{0,8})([MGT])")
UNITS = {"M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# of an image, and so of a volume: two objects of 4 MiB hold nothing that a file system would take
SMALLEST, LARGEST = 64 << 20, 64 << 40
# LUNs of one target; 14 bits is what all initiators understand, fewer is what we have tried
MOST_LUNS = 1024


@dataclass(frozen=True)
class Disk:
    """One volume: its place in the group, its LUN, the RBD image, the unit serial (a UUID), and its size in bytes."""

    index: int
    lun: int
    image: str
    serial: str
    size: int


@dataclass(frozen=True)
class VolumeGroup:
    name: str
    disks: tuple[Disk, ...] = ()


@dataclass(frozen=True)
class Catalogue:
    """All groups by name, in the order of their making."""

    groups: tuple[VolumeGroup, ...] = ()

    def disks(self) -> Iterator[Disk]:
        """Of all groups."""
        return (disk for group in self.groups for disk in group.disks)

    def group(self, name: str) -> VolumeGroup:
        """CornerstoneError when there is none of this name."""
        found = next((group for group in self.groups if group.name == name), None)
        if found is None:
            names = ", ".join(group.name for group in self.groups) or "none"
            raise CornerstoneError(f"there is no volume group {name!r:.80}; there are {names}", "see: acli vg.list")
        return found

    def with_group(self, name: str) -> Catalogue:
        """With a new, empty group."""
        if not NAME.fullmatch(name):
            raise CornerstoneError(f"{name!r:.80} can't be a volume group's name",
                                   "use up to 64 letters, digits, dots, dashes and underscores, a letter or digit "
                                   "first")
        if any(group.name == name for group in self.groups):
            raise CornerstoneError(f"there is a volume group {name} already", "choose another name")
        return Catalogue((*self.groups, VolumeGroup(name)))

    def without_group(self, name: str) -> Catalogue:
        """Without a group and its disks."""
        gone = self.group(name)
        return Catalogue(tuple(group for group in self.groups if group != gone))

    def next_disk(self, name: str) -> tuple[int, int]:
        """Index and LUN that the next disk of a group gets: the lowest free ones."""
        indexes = {disk.index for disk in self.group(name).disks}
        luns = {disk.lun for disk in self.disks()}
        lun = next((number for number in range(MOST_LUNS) if number not in luns), None)
        if lun is None:
            raise CornerstoneError(f"the cluster has {MOST_LUNS} volumes, the most that its target takes",
                                   "delete a volume group that isn't needed", Code.REFUSED)
        return next(number for number in range(len(indexes) + 1) if number not in indexes), lun

    def with_disk(self, name: str, disk: Disk) -> Catalogue:
        """With one disk more in a group."""
        group = self.group(name)
        grown = replace(group, disks=tuple(sorted((*group.disks, disk), key=lambda each: each.index)))
        return Catalogue(tuple(grown if each == group else each for each in self.groups))

    def to_json(self) -> bytes:
        """As it is kept."""
        return json.dumps(to_record(self), separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Catalogue:
        """CornerstoneError when it isn't one; nothing at all is an empty one."""
        try:
            return from_record(cls, json.loads(text), "catalogue of volumes") if text else cls()
        except ValueError as error:
            raise CornerstoneError(f"the catalogue of volumes isn't JSON: {error}", "", Code.FAILED) from error


def size_of(text: str) -> int:
    """10G, 500M, 2T → bytes, as acli takes them."""
    found = SIZE.fullmatch(text)
    size = int(found[1]) * UNITS[found[2]] if found else 0
    if not SMALLEST <= size <= LARGEST:
        raise CornerstoneError(f"create_size={text!r:.40} isn't a size", "say it as 500M, 10G or 2T: 64M to 64T")
    return size

"""What volumes there are: one small RADOS object in the container, read whole and written whole.

Pure: the words and what they may be; store.py keeps it. A volume group is what an operator names; its disks are RBD
images. A disk's LUN is the same on every CVM and in every group: the cluster has one target.

LUN numbers only grow. A host may have missed that a volume was deleted, and another one at its number would look to it
like the old one, with the old one's writes still queued. After the last number they begin anew; then a number is given
again only when every host has answered an offer without it (see Released).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.json_text import read_json
from cornerstone.lib.serde import Format

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
SIZE = re.compile(r"([1-9]\d{0,8})([MGT])")
UNITS = {"M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# of an image, and so of a volume: two objects of 4 MiB hold nothing that a file system would take
SMALLEST, LARGEST = 64 << 20, 64 << 40
# LUNs of one target at a time; more haven't been tried
MOST_LUNS = 1024
# numbers that they can have: 14 bits, which is what all initiators understand
LUN_NUMBERS = 1 << 14
# Of the form in which the catalogue is kept. A reader ignores fields that it doesn't know, and its next change drops
# them; what must not be dropped takes another version, which older readers refuse. 1 had no version and no counter.
VERSION = 2
# of one read, in bytes; with MOST_LUNS volumes and every other LUN in quarantine it takes less than a tenth
LONGEST = 8 << 20


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
class Released:
    """A LUN that a deleted volume had, and the catalogue's generation from which on it isn't offered any more."""

    lun: int
    generation: int


@dataclass(frozen=True)
class Catalogue:
    """All groups by name, in the order of their making.

    Catalogues with the same groups are equal. next_lun: where the search for the next LUN begins; None in what an older
    release wrote. released: LUNs that some host may still know. generation: how many times the catalogue was changed.
    """

    groups: tuple[VolumeGroup, ...] = ()
    next_lun: int | None = field(default=None, compare=False)
    released: tuple[Released, ...] = field(default=(), compare=False)
    generation: int = field(default=0, compare=False)
    version: int = field(default=VERSION, compare=False)

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
        return self._changed((*self.groups, VolumeGroup(name)))

    def without_group(self, name: str) -> Catalogue:
        """Without a group and its disks. Their LUNs are in quarantine from this change on."""
        gone = self.group(name)
        changed = self._changed(tuple(group for group in self.groups if group != gone))
        return replace(changed, released=(*self.released, *(Released(disk.lun, changed.generation)
                                                            for disk in gone.disks)))

    def next_disk(self, name: str) -> tuple[int, int]:
        """Index and LUN that the next disk of a group gets: the lowest free index, and a LUN that no host knows."""
        indexes = {disk.index for disk in self.group(name).disks}
        luns = {disk.lun for disk in self.disks()}
        if len(luns) >= MOST_LUNS:
            raise CornerstoneError(f"the cluster has {MOST_LUNS} volumes, the most that its target takes",
                                   "delete a volume group that isn't needed", Code.REFUSED)
        taken, first = luns | {each.lun for each in self.released}, self._first_lun()
        lun = next((number for number in (*range(first, LUN_NUMBERS), *range(first)) if number not in taken), None)
        if lun is None:
            raise CornerstoneError("every free LUN may still be that of a deleted volume to some host",
                                   "bring all hosts and CVMs of the cluster up: each has to say that it has let go "
                                   "of them", Code.REFUSED)
        return next(number for number in range(len(indexes) + 1) if number not in indexes), lun

    def with_disk(self, name: str, disk: Disk) -> Catalogue:
        """With one disk more in a group."""
        group = self.group(name)
        grown = replace(group, disks=tuple(sorted((*group.disks, disk), key=lambda each: each.index)))
        changed = self._changed(tuple(grown if each == group else each for each in self.groups))
        return replace(changed, next_lun=(disk.lun + 1) % LUN_NUMBERS)

    def confirmed(self, answered: int) -> Catalogue:
        """Without the quarantine of LUNs that every host has let go of.

        answered: the least of the generations whose offer each host has answered.
        """
        return replace(self, released=tuple(each for each in self.released if each.generation > answered))

    def _changed(self, groups: tuple[VolumeGroup, ...]) -> Catalogue:
        return replace(self, groups=groups, next_lun=self._first_lun(), generation=self.generation + 1,
                       version=VERSION)

    def _first_lun(self) -> int:
        """Where the search for a LUN begins; in an older release's catalogue behind its highest LUN."""
        highest = max((disk.lun for disk in self.disks()), default=-1)
        return (highest + 1 if self.next_lun is None else self.next_lun) % LUN_NUMBERS

    def to_json(self) -> bytes:
        """As it is kept."""
        return json.dumps(CATALOGUE_FORMAT.write(self), separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Catalogue:
        """Read what to_json wrote, in this release or an older one. CornerstoneError when it is no catalogue."""
        source = "the catalogue of volumes"
        data = read_json(text, source, "", Code.FAILED, LONGEST)
        # fields that aren't known are ignored, but nothing else may look like a catalogue of no volumes
        if isinstance(data, dict) and "groups" not in data:
            raise CornerstoneError(f"{source}: .groups is missing", "", Code.FAILED)
        return CATALOGUE_FORMAT.parse(data, source)


CATALOGUE_FORMAT = Format("catalogue of volumes", Catalogue, "any CVM, in Ceph", "the iSCSI target, acli", VERSION,
                          code=Code.FAILED, newer="update this CVM to the release of the others", most=LONGEST)


@dataclass(frozen=True)
class Notice:
    """A notice from one CVM to all others of a cluster: that the catalogue is another, or to let go of a volume.

    release: the volume's serial; by: the tag of the CVM that wants it, "" for an operator.
    """

    release: str = ""
    by: str = ""


NOTICE = Format("notice", Notice, "any CVM, through Ceph", "the iSCSI target of the other CVMs", message=True,
                code=Code.FAILED)


def size_of(text: str) -> int:
    """10G, 500M, 2T → bytes, as acli takes them."""
    found = SIZE.fullmatch(text)
    size = int(found[1]) * UNITS[found[2]] if found else 0
    if not SMALLEST <= size <= LARGEST:
        raise CornerstoneError(f"create_size={text!r:.40} isn't a size", "say it as 500M, 10G or 2T: 64M to 64T")
    return size

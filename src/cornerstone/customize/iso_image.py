"""An ISO opened for reading: its trees of names with the place of each file, and bytes by place or by path.

A reader of its own, because a check has to see what is on the ISO: pycdlib, which writes it, takes a file's size from
another tree, computes the boot info table instead of reading it, and reads only the end of a file over 4 GiB.
Sources: ECMA-119 (ISO 9660), Joliet 1, IEEE P1281 and P1282 (SUSP, Rock Ridge).
"""

from __future__ import annotations

import io
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.gpt import SECTOR
from cornerstone.lib.printable import quoted
from cornerstone.model.contracts.manifest import MOST, NAME, Manifest

# what a BIOS and a UEFI start from CD
BIOS_IMAGE = "boot/bios.img"
EFI_IMAGE = "boot/efi.img"
BOOT_CATALOG = "boot/boot.cat"
# boot info table (mkisofs -boot-info-table) and GRUB 2's own pointer to the image's second block
BIOS_IMAGE_MASK = ((8, 56), (2548, 8))

BLOCK = 2048
SYSTEM_AREA = 16 * BLOCK
BOOT_RECORD, PRIMARY, SUPPLEMENTARY, TERMINATOR = 0, 1, 2, 255
JOLIET_ESCAPES = (b"%/@", b"%/C", b"%/E")
FOLDER, CONTINUED = 0x02, 0x80
DEEPEST = 32
# far beyond a Foundation ISO, which has three descriptors, some twenty files, and folders of one block
MOST_DESCRIPTORS, MOST_NAMES = 16, 20_000
LARGEST_FOLDER, LARGEST_ENTRY = 4 << 20, 64 << 10
GPT_SIGNATURE = b"EFI PART"
CUT_SHORT = "it was cut off while it was copied: copy or download it again"


@dataclass(frozen=True)
class Extent:
    """A place on the ISO, in bytes."""

    start: int
    size: int


@dataclass
class Tree:
    """One tree of names: files and folders by path, without a leading slash; the topmost folder is "".

    label: of its volume; named: whether it has Rock Ridge names; twice: paths that occur again; strange: what is
    neither file nor folder; beside: places of Rock Ridge entries outside their folder; places: of the folders.
    """

    label: str
    named: bool = False
    files: dict[str, Extent] = field(default_factory=dict)
    folders: dict[str, Extent] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    beside: list[Extent] = field(default_factory=list)
    places: set[Extent] = field(default_factory=set)


@dataclass(frozen=True)
class _Record:
    """A directory record: plain name, place, flags, and the bytes that Rock Ridge uses."""

    name: bytes
    extent: Extent
    flags: int
    system: bytes


class Image:
    """An ISO: a file, or what was written onto a device. Raises CornerstoneError (VERIFY) when it can't be read as one.

    size: how many bytes of it are there; behind: how many follow it, because a stick or its image is larger than what
    was written; volume_size: what the file system says; structure: the places of the file system's own blocks. whole:
    refuse an ISO that is cut short; only a check that tells of it opens one. Close it after use.
    """

    def __init__(self, path: Path, *, whole: bool = True) -> None:
        self.path = path
        self._file = path.open("rb")
        _forget_cached(self._file.fileno())
        # a device's stat says nothing of its size
        length = self.size = self._file.seek(0, 2)
        self._descriptors: list[bytes] = []
        try:
            self._read_descriptors()
            primary = [d for d in self._descriptors if d[0] == PRIMARY]
            joliet = [d for d in self._descriptors if d[0] == SUPPLEMENTARY]
            if len(primary) != 1 or len(joliet) > 1 or any(d[88:91] not in JOLIET_ESCAPES for d in joliet):
                raise ValueError("it has other volume descriptors than one for ISO 9660 and one for Joliet")
            self.volume_size = _both("I", primary[0], 80) * BLOCK
            self.size = min(length, self.full_size)
            self.behind = length - self.size
            if whole and (problem := self.cut_short()):
                raise CornerstoneError(f"{path.name} is damaged: it {problem}", CUT_SHORT, Code.VERIFY)
            self.rock_ridge = self._tree(primary[0], wide=False)
            self.joliet = self._tree(joliet[0], wide=True) if joliet else None
            self.structure = tuple(self._structure())
        except CornerstoneError:
            self._file.close()
            raise
        except (ValueError, LookupError, struct.error) as error:
            self._file.close()
            raise CornerstoneError(f"{path.name} can't be read as an ISO: {error}",
                                   "give a Foundation ISO; if it is one, it is damaged: build or download it again",
                                   Code.VERIFY) from error

    @cached_property
    def full_size(self) -> int:
        """How many bytes the ISO has by its GPT, if it has one, and by its file system."""
        header = self.at(SECTOR, SECTOR)
        # the header names the place of its backup, which is the last sector
        last = int.from_bytes(header[32:40], "little") if header[:8] == GPT_SIGNATURE else -1
        return max((last + 1) * SECTOR, self.volume_size)

    def cut_short(self) -> str:
        """Return, as a clause, how much is there when the end of the file is missing; else ""."""
        if self.size < self.full_size:
            return f"is cut short: {self.size} of {self.full_size} bytes are there"
        return ""

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def at(self, start: int, size: int) -> bytes:
        """Bytes by their place; fewer than asked for at the end of the ISO."""
        self._file.seek(start)
        return self._file.read(max(min(size, self.size - start), 0))

    def content(self, path: str) -> bytes:
        """A whole file by its path, as Rock Ridge names it. Raises CornerstoneError (VERIFY) when it isn't there."""
        extent = self.place(path)
        return self.at(extent.start, extent.size)

    def open(self, path: str) -> BinaryIO:
        """The same for a large file: to read a piece at a time, from its start."""
        place = self.place(path)
        there = max(min(place.size, self.size - place.start), 0)
        return io.BufferedReader(_Part(self._file, Extent(place.start, there)))

    def place(self, path: str) -> Extent:
        """Where a file is. Raises CornerstoneError (VERIFY) when it isn't there."""
        extent = self.rock_ridge.files.get(path)
        if extent is None:
            raise CornerstoneError(f"{path} isn't on the ISO", "build or download the ISO again", Code.VERIFY)
        return extent

    @cached_property
    def manifest(self) -> Manifest:
        """The ISO's manifest. Raises CornerstoneError (VERIFY) when it is missing or malformed."""
        place = self.place(NAME)
        return Manifest.from_bytes(self.at(place.start, min(place.size, MOST + 1)))

    def _structure(self) -> Iterator[Extent]:
        yield Extent(SYSTEM_AREA, len(self._descriptors) * BLOCK)
        for volume in self._descriptors:
            if volume[0] in (PRIMARY, SUPPLEMENTARY):
                size = _both("I", volume, 132)
                for form, at in (("<I", 140), ("<I", 144), (">I", 148), (">I", 152)):
                    if table := struct.unpack_from(form, volume, at)[0]:
                        yield Extent(table * BLOCK, size)
        for tree in (self.rock_ridge, self.joliet):
            if tree is not None:
                yield from tree.folders.values()
                yield from tree.beside

    def _read_descriptors(self) -> None:
        while not self._descriptors or self._descriptors[-1][0] != TERMINATOR:
            if len(self._descriptors) >= MOST_DESCRIPTORS:
                raise ValueError(f"it has more than {MOST_DESCRIPTORS} volume descriptors")
            descriptor = self.at(SYSTEM_AREA + len(self._descriptors) * BLOCK, BLOCK)
            if len(descriptor) < BLOCK or descriptor[1:6] != b"CD001":
                raise ValueError("it has no volume descriptors")
            self._descriptors.append(descriptor)

    def _tree(self, volume: bytes, *, wide: bool) -> Tree:
        encoding, padding = ("utf-16-be", " \0") if wide else ("ascii", " ")
        tree = Tree(volume[40:72].decode(encoding, "replace").rstrip(padding))
        self._walk(tree, _record(volume, 156).extent, "", 0, wide)
        return tree

    def _walk(self, tree: Tree, folder: Extent, path: str, depth: int, wide: bool) -> None:
        if depth > DEEPEST or folder in tree.places:
            raise ValueError(f"its folder {quoted(path)} lies in itself")
        tree.places.add(folder)
        tree.folders[path] = folder
        unfinished: _Record | None = None
        for record in self._records(folder):
            entries = {} if wide else self._system_use(tree, record)
            if record.name in (b"\0", b"\1"):
                tree.named |= "SP" in entries
                continue
            name = record.name.decode("utf-16-be" if wide else "utf-8", "backslashreplace").removesuffix(";1")
            name = entries.get("NM", b"").decode("utf-8", "backslashreplace") or name
            own = f"{path}/{name}".lstrip("/")
            extent = record.extent
            if unfinished is not None:
                if unfinished.name != record.name or extent.start != unfinished.extent.start + unfinished.extent.size:
                    raise ValueError(f"the parts of {quoted(own)} don't follow one another")
                extent = Extent(unfinished.extent.start, unfinished.extent.size + extent.size)
            # a file over 4 GiB has several records; all but the last say that they go on
            unfinished = _Record(record.name, extent, record.flags, b"") if record.flags & CONTINUED else None
            if unfinished is not None:
                continue
            if len(tree.files) + len(tree.folders) + len(tree.twice) > MOST_NAMES:
                raise ValueError(f"it has more than {MOST_NAMES} names")
            if own in tree.files or own in tree.folders:
                tree.twice.append(own)
            if record.flags & FOLDER:
                self._walk(tree, extent, own, depth + 1, wide)
            elif entries.keys() & {"SL", "CL", "PN"}:
                tree.strange.append(own)
            else:
                tree.files[own] = extent
        if unfinished is not None:
            raise ValueError(f"the last part of a file in {quoted(path)} is missing")

    def _records(self, folder: Extent) -> Iterator[_Record]:
        if folder.size > LARGEST_FOLDER:
            raise ValueError("a folder is too large")
        content = self.at(folder.start, folder.size)
        if not folder.size or folder.size % BLOCK or len(content) != folder.size:
            raise ValueError("a folder lies outside of it")
        at = 0
        while at < len(content):
            length = content[at]
            if not length:  # no record crosses blocks; the rest of this one is empty
                at = (at // BLOCK + 1) * BLOCK
                continue
            yield _record(content, at)
            at += length

    def _system_use(self, tree: Tree, record: _Record) -> dict[str, bytes]:
        """The Rock Ridge entries of a record by their signature; NM as the whole name."""
        found: dict[str, bytes] = {}
        waiting, rounds = [record.system], 0
        while waiting:
            area, rounds = waiting.pop(0), rounds + 1
            if rounds > DEEPEST:
                raise ValueError("its Rock Ridge entries go in a circle")
            while len(area) >= 4 and area[2] >= 4:
                signature, data, area = area[:2].decode("ascii", "replace"), area[4:area[2]], area[area[2]:]
                if signature == "CE":
                    block, offset, length = (_both("I", data, at) for at in (0, 8, 16))
                    if length > LARGEST_ENTRY:
                        raise ValueError("a Rock Ridge entry is too large")
                    tree.beside.append(Extent(block * BLOCK + offset, length))
                    waiting.append(self.at(block * BLOCK + offset, length))
                found[signature] = found.get(signature, b"") + data[1:] if signature == "NM" else data
        return found


class _Part(io.RawIOBase):
    """One extent of an open file."""

    def __init__(self, file: BinaryIO, extent: Extent) -> None:
        super().__init__()
        self._file, self._at, self._left = file, extent.start, extent.size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._at)
        chunk = self._file.read(min(len(buffer), self._left))
        buffer[:len(chunk)] = chunk
        self._at, self._left = self._at + len(chunk), self._left - len(chunk)
        return len(chunk)


def _forget_cached(file: int) -> None:
    """Have what a device holds read from it, not from the memory in which it was when it was written."""
    if stat.S_ISBLK(os.fstat(file).st_mode):
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


def _record(content: bytes, at: int) -> _Record:
    length, name_length = content[at], content[at + 32]
    record = content[at:at + length]
    if length < 34 or len(record) < length or 33 + name_length > length:
        raise ValueError("a directory record is damaged")
    extent = Extent(_both("I", record, 2) * BLOCK, _both("I", record, 10))
    system = 33 + name_length + (name_length + 1) % 2
    return _Record(record[33:33 + name_length], extent, record[25], record[system:])


def _both(form: str, content: bytes, at: int) -> int:
    """A number that stands there twice, in both byte orders; readers use either, so both must say the same."""
    size = struct.calcsize(form)
    little, big = (struct.unpack_from(order + form, content, at + shift)[0] for order, shift in (("<", 0), (">", size)))
    if little != big:
        raise ValueError(f"a number in its file system says {little} in one byte order and {big} in the other")
    return int(little)

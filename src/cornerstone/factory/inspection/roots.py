"""What is inside an ISO's roots and on its CVM disk, read with user's rights, without mounting or unpacking a root."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cornerstone.customize.iso_image import Extent
from cornerstone.lib import process
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.gpt import SECTOR
from cornerstone.lib.json_text import read_json
from cornerstone.model.contracts.manifest import CHUNK

AGAIN = "it is damaged: build or download it again, and see what ./invoke verify says"

# how much unsquashfs reads ahead; its own default of 256 costs memory and wins nothing
QUEUE_MIB = "16"

# qcow2: how much of it is looked at for header extensions, and which of them and of its features name a file
QCOW2_HEADERS = 64 << 10
NAMES_A_FILE = (0xE2792ACA, 0x44415441)
DATA_FILE = 1 << 2
MOST_DISK = 1 << 40

# What a root may have, several times of what ours do: a few KiB of squashfs can say that they hold terabytes.
MOST_NAMES, MOST_LINE = 1_000_000, 1 << 20
MOST_CONTENT, MOST_KEPT = 16 << 30, 64 << 20

# "-pf" of unsquashfs: one line for each name, then the content of all files one after another.
# Blanks, quotes and backslashes in names are escaped; what follows the letter for the kind depends on it.
_LINE = re.compile(rb"((?:[^ \\]|\\.)+) ([DRSLCBIFx]) ?(.*)\n")
_DATA = b"# START OF DATA - DO NOT MODIFY\n"
_KINDS = {b"D": "folder", b"R": "file", b"S": "link", b"C": "device", b"B": "device", b"I": "pipe", b"F": "pipe"}


class File(NamedTuple):
    """One name in a root: kind, permissions, owner, size in bytes (0 for all but files), and content.

    kind: file, folder, link, device or pipe; content: a file's sha256 in hex, a link's target, a device's numbers;
    attributes: extended ones, such as capabilities, as unsquashfs writes them; releases before 4.6 leave them out.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    content: str
    attributes: str = ""


@dataclass(frozen=True)
class Disk:
    """The CVM's disk, raw and sparse; qcow2: qemu's name for the place on the ISO that it came from."""

    path: Path
    qcow2: str

    @cached_property
    def table(self) -> dict:
        """The partition table as sfdisk reads it."""
        return json.loads(process.read(["sfdisk", "--json", self.path]))["partitiontable"]

    def partition(self, name: str) -> Extent:
        """Where a partition is. Raises CornerstoneError (VERIFY) when there is none, or more than one, of this name."""
        found = [p for p in self.table.get("partitions", []) if p.get("name") == name]
        if len(found) != 1:
            raise CornerstoneError(f"the CVM's disk has {len(found)} partitions {name}, not one", AGAIN, Code.VERIFY)
        return Extent(found[0]["start"] * SECTOR, found[0]["size"] * SECTOR)

    def read(self, start: int, size: int) -> bytes:
        """Bytes by their place."""
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(size)

    def sha256(self, place: Extent) -> str:
        """The sha256 of what is at a place, in hex."""
        hasher = hashlib.sha256()
        with self.path.open("rb") as file:
            file.seek(place.start)
            for piece in _pieces(file, place.size):
                hasher.update(piece)
        return hasher.hexdigest()

    def squashfs(self, name: str = "root-a") -> Extent:
        """The squashfs in a root slot, as long as its superblock says, without the zeros after it."""
        slot = self.partition(name)
        superblock = self.read(slot.start, 96)
        if superblock[:4] != b"hsqs" or (size := struct.unpack_from("<Q", superblock, 40)[0]) > slot.size:
            raise CornerstoneError(f"{name} of the CVM's disk holds no squashfs that fits it", AGAIN, Code.VERIFY)
        return Extent(slot.start, size)


def copy_disk(iso: Path, place: Extent, target: Path) -> Disk:
    """Write the CVM's disk, a qcow2 at a place on an ISO, to target: raw and sparse, so only its content takes room.

    Raises CornerstoneError (VERIFY) for a qcow2 that leads out of itself, or that has more in it than is there.
    """
    check_qcow2(iso, place)
    on_iso = {"driver": "raw", "offset": place.start, "size": place.size, "read-only": True,
              "file": {"driver": "file", "filename": str(iso.absolute())}}
    qcow2 = "json:" + json.dumps({"driver": "qcow2", "file": on_iso, "backing": None})
    # clusters may be used twice, and then a small file fills a large disk
    if (held := _content_of(qcow2)) > place.size:
        raise CornerstoneError(f"the CVM's disk says that it holds {held} bytes, and has {place.size}", AGAIN,
                               Code.VERIFY)
    try:
        process.read(["qemu-img", "convert", "-O", "raw", qcow2, target])
    except CornerstoneError as error:
        if "No space left" not in error.message:
            raise
        raise CornerstoneError(f"{target.parent} has no room for the CVM's disk of {iso.name}",
                               "make room, or set CORNERSTONE_CACHE to a larger disk", Code.MACHINE) from error
    return Disk(target, qcow2)


def _content_of(qcow2: str) -> int:
    """How many bytes of a disk aren't holes, by its own tables."""
    measured = process.read(["qemu-img", "measure", "--output=json", "-O", "qcow2", qcow2])
    size = read_json(process.read(["qemu-img", "info", "--output=json", qcow2]), "qemu-img info")["virtual-size"]
    # both of what it measures count the tables of a disk without holes
    needed = read_json(measured, "qemu-img measure")
    return needed["required"] - (needed["fully-allocated"] - size)


def check_qcow2(iso: Path, place: Extent) -> None:
    """Raise CornerstoneError (VERIFY) unless the qcow2 at a place on an ISO is one whole disk that names no other file.

    Before QEMU's tools see it, for they follow what its header names. Source: QEMU, docs/interop/qcow2.txt.
    """
    with iso.open("rb") as file:
        file.seek(place.start)
        header = file.read(min(place.size, QCOW2_HEADERS))
    if problem := _qcow2_problem(header):
        raise CornerstoneError(f"the CVM's disk {problem}", AGAIN, Code.VERIFY)


def _qcow2_problem(header: bytes) -> str:
    """What is wrong with the first cluster of a qcow2, as a clause; empty when nothing is."""
    if header[:4] != b"QFI\xfb" or len(header) < 112:
        return "is no qcow2"
    (version, backing, _, _, size, encrypted, _, _, _, _, snapshots, _, incompatible, _, _, _, length) = \
        struct.unpack_from(">IQIIQIIQQIIQQQQII", header, 4)
    if version != 3:
        return f"is a qcow2 of version {version}, not 3"
    if backing:
        return "names another file as its backing file"
    if incompatible & DATA_FILE:
        return "names another file for its data"
    if encrypted or snapshots or incompatible:
        return "is a qcow2 that is encrypted, has snapshots, wasn't closed or has features that a build doesn't use"
    if size > MOST_DISK:
        return f"says that it has {size} bytes"
    at = length
    while True:
        kind, count = struct.unpack_from(">II", header.ljust(at + 8, b"\0"), at)
        if not kind:
            return ""
        if kind in NAMES_A_FILE:
            return "names another file in its header"
        at += 8 + (count + 7) // 8 * 8
        if at > len(header):
            return "has a header without an end"


def read_files(image: Path, offset: int, wanted: Callable[[str], bool]) -> tuple[dict[str, File], dict[str, bytes]]:
    """Everything in the squashfs that starts at a byte of a file, by path without leading slash; "" is the root itself.

    Also the content of the files whose path is wanted. It comes as one stream from unsquashfs, so memory holds the
    names and one piece of one file.
    Raises CornerstoneError (VERIFY) for a squashfs that can't be read to its end, or has more in it than any root.
    """
    kept: dict[str, bytes] = {}

    def take(path: str, piece: bytes) -> None:
        if wanted(path):
            kept[path] = kept.get(path, b"") + piece
            if len(kept[path]) > MOST_KEPT:
                raise ValueError(f"{path} has more than {MOST_KEPT} bytes")

    files, _ = _unsquash(image, offset, take)
    return files, kept


def read_into(image: Path, offset: int, target: BinaryIO) -> tuple[dict[str, File], dict[str, int]]:
    """The same, with the content of all files in target, one after another, and where each one's starts.

    Raises what writing to target raises, too.
    """
    return _unsquash(image, offset, lambda path, piece: target.write(piece))


def _unsquash(image: Path, offset: int, take: Callable[[str, bytes], object]) -> tuple[dict[str, File], dict[str, int]]:
    argv = ["unsquashfs", "-quiet", "-no-progress", "-data-queue", QUEUE_MIB, "-frag-queue", QUEUE_MIB,
            "-offset", str(offset), "-pf", "/dev/stdout", str(image)]
    process.find(argv[0])
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, bufsize=CHUNK,
                              env=process.environment()) as child:
            if child.stdout is None:
                raise AssertionError("a pipe was asked for")
            try:
                found = _read_stream(child.stdout, take)
            except ValueError as error:
                child.kill()
                child.wait()
                raise _damaged(said, str(error)) from error
            except BaseException:
                child.kill()
                raise
        if child.returncode:
            raise _damaged(said, f"unsquashfs ended with {child.returncode}")
    return found


def _damaged(said: BinaryIO, reason: str) -> CornerstoneError:
    said.seek(0)
    words = " ".join(said.read(4000).decode("utf-8", "backslashreplace").split())[:300]
    return CornerstoneError(f"the squashfs can't be read: {words or reason}", AGAIN, Code.VERIFY)


def _read_stream(stream: BinaryIO, take: Callable[[str, bytes], object]) -> tuple[dict[str, File], dict[str, int]]:
    files: dict[str, File] = {}
    hard_links: dict[str, str] = {}
    sizes: list[tuple[str, int]] = []
    starts: dict[str, int] = {}
    at = 0
    for line in iter(lambda: stream.readline(MOST_LINE), b""):
        if line == _DATA:
            break
        if line == b"#\n":
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"its names can't be read: {line[:80]!r}")
        path, kind = _text(re.sub(rb"\\(.)", rb"\1", match[1])).strip("/"), match[2]
        if kind == b"x":
            if path not in files:
                raise ValueError(f"it has attributes of {path}, which isn't there")
            files[path] = files[path]._replace(attributes=f"{files[path].attributes} {_text(match[3])}".lstrip())
            continue
        if path in files or path in hard_links:
            raise ValueError(f"it has {path} twice")
        if len(files) + len(hard_links) >= MOST_NAMES:
            raise ValueError(f"it has more than {MOST_NAMES} names")
        if kind == b"L":
            hard_links[path] = _text(match[3])
            continue
        _, mode, uid, gid, rest = (match[3] + b" ").split(b" ", 4)
        size = 0
        if kind == b"R":
            size, start = map(int, rest.split()[:2])
            if start != at:
                raise ValueError(f"{path} doesn't follow the file before it")
            starts[path] = at
            at += size
            if at > MOST_CONTENT:
                raise ValueError(f"its files have more than {MOST_CONTENT >> 30} GiB")
            sizes.append((path, size))
        content = _text(rest[:-1]) if kind in b"SCB" else ""
        files[path] = File(_KINDS[kind], int(mode, 8), int(uid), int(gid), size, content)
    stream.readline(MOST_LINE)  # the rest of the heading over the content
    for path, size in sizes:
        hasher = hashlib.sha256()
        for piece in _pieces(stream, size):
            hasher.update(piece)
            take(path, piece)
        files[path] = files[path]._replace(content=hasher.hexdigest())
    if not files or stream.read(1):
        raise ValueError("it ends elsewhere than its names say")
    for path, target in hard_links.items():
        if target not in files:
            raise ValueError(f"{path} is a hard link to {target}, which isn't there")
        files[path] = files[target]
        if target in starts:
            starts[path] = starts[target]
    return files, starts


def _pieces(stream: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        piece = stream.read(min(size, CHUNK))
        if not piece:
            raise ValueError("it ends before its last file")
        yield piece
        size -= len(piece)


def _text(name: bytes) -> str:
    """A name for people; what can't be printed as an escape, so that no name can play with a terminal."""
    text = name.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode()

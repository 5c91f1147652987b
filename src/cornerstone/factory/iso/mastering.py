"""Mastering: pycdlib writes the ISO, then it is made hybrid (MBR and GPT), then it is read back.

Boots from CD (El Torito, BIOS and UEFI) and as a USB disk (MBR boot code; GPT with an ESP entry
that points at the El Torito EFI image, so that both ways start the same bytes).
"""

from __future__ import annotations

import contextlib
import os
import random
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import BinaryIO

import pycdlib
import pycdlib.dates
import pycdlib.headervd
import pycdlib.inode
import pycdlib.pycdlib
import pycdlib.udf
import pycdlib.utils

from cornerstone.customize.iso_image import BIOS_IMAGE, BOOT_CATALOG, EFI_IMAGE, SYSTEM_AREA, Image
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.gpt import EFI_SYSTEM, LINUX_DATA, SECTOR, Partition, derived_id, write_gpt
from cornerstone.model.contracts.manifest import BOOT_CODE, LABEL, Manifest, difference, digest

BLOCK = 2048

# how much the kernel is asked to copy in one go, in bytes; a file of so much is a large one
PIECE = 8 << 20
PAGE = 4096

# GRUB reads ahead past the last file when it boots from CD; mkisofs and xorriso pad as much
TAIL_PADDING = 300 << 10


def master(target: Path, files: Mapping[str, Path], *, boot_hybrid: bytes, identity: str, epoch: int,
           progress: Callable[[int, int], None]) -> None:
    """Write files (path on the ISO → source) to target as a bootable hybrid ISO; progress(done, total) in bytes.

    BIOS_IMAGE and EFI_IMAGE must be among the files; boot_hybrid is GRUB's MBR boot code (512
    bytes); epoch becomes every date on it. Equal inputs give equal bytes.
    """
    for path, source in files.items():
        if not source.is_file():
            raise CornerstoneError(f"{source} (for {path} on the ISO) is missing", "build again", Code.STEP)
    with _fixed_clock(epoch), contextlib.ExitStack() as opened:
        iso = _PageAligned()
        iso.new(interchange_level=3, vol_ident=LABEL, rock_ridge="1.09", joliet=3, app_ident_str="CORNERSTONE",
                sys_ident="LINUX")
        names = _Names(iso)
        for path, source in sorted(files.items()):
            names.add(path, source, opened)
        iso.add_eltorito(names.iso_path(BIOS_IMAGE), names.reserve(BOOT_CATALOG), rr_bootcatname="boot.cat",
                         joliet_bootcatfile=f"/{BOOT_CATALOG}", boot_load_size=4)
        # 0 sectors: firmware takes the FAT file system's own size; the field is too small for it anyway
        iso.add_eltorito(names.iso_path(EFI_IMAGE), efi=True, boot_load_size=0)
        iso.make_room()
        with target.open("w+b", buffering=0) as out:
            # room for all of it at once: a full disk says so before, and the copying needn't ask for each page
            os.posix_fallocate(out.fileno(), 0, iso.pvd.space_size * BLOCK)
            iso.write_fp(_Output(out), blocksize=PIECE, progress_cb=lambda done, total: progress(done, total))
            bios, efi = (iso.get_record(iso_path=names.iso_path(path)).extent_location()
                         for path in (BIOS_IMAGE, EFI_IMAGE))
        iso.close()
    with target.open("r+b") as out:
        _make_hybrid(out, boot_hybrid, bios, files[BIOS_IMAGE].stat().st_size, efi,
                     files[EFI_IMAGE].stat().st_size, identity)


class _PageAligned(pycdlib.PyCdlib):
    """Large files begin at whole pages: where source and target are out of step, the kernel copies half as fast."""

    def _set_inode(self, ino: pycdlib.inode.Inode, current_extent: int, part_start: int) -> int:
        if ino.get_data_length() >= PIECE:
            current_extent += -current_extent % (PAGE // BLOCK)
        return super()._set_inode(ino, current_extent, part_start)

    def make_room(self) -> None:
        """Count what the gaps may take; to be called before the ISO is written."""
        large = sum(ino.get_data_length() >= PIECE for ino in self.inodes)
        for volume in (self.pvd, self.joliet_vd):
            volume.space_size += large * (PAGE // BLOCK - 1)


@dataclass(frozen=True)
class _Piece:
    """A piece of an open file in place of its bytes."""

    descriptor: int
    offset: int
    size: int

    def __len__(self) -> int:
        return self.size


class _Source:
    """A layer as pycdlib reads it: what it gets are pieces, which it hands to _Output unread."""

    mode = "rb"

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._offset = 0

    def seek(self, offset: int) -> None:
        self._offset = offset

    def read(self, size: int) -> _Piece:
        self._offset += size
        return _Piece(self._descriptor, self._offset - size, size)


class _Output:
    """The ISO as pycdlib writes it: the kernel copies pieces from file to file, past this process's memory."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def write(self, content: bytes | _Piece) -> None:
        if not isinstance(content, _Piece):
            self._file.write(content)
            return
        done = 0
        while done < content.size:
            copied = os.sendfile(self._file.fileno(), content.descriptor, content.offset + done, content.size - done)
            if not copied:
                raise CornerstoneError("a layer became shorter while the ISO was written", "build again", Code.STEP)
            done += copied


class _Names:
    """ISO 9660 names: unique and short by construction, because pycdlib joins files of equal name silently.

    People and machines see the Rock Ridge and Joliet names, which are the real ones.
    """

    def __init__(self, iso: pycdlib.PyCdlib) -> None:
        self._iso = iso
        self._paths: dict[str, str] = {}

    def add(self, path: str, source: Path, opened: contextlib.ExitStack) -> None:
        """Put a file on the ISO; opened keeps what has to be open until the ISO is written."""
        size = source.stat().st_size
        # pycdlib itself looks into what a BIOS starts, so small files are read the usual way
        content = opened.enter_context(source.open("rb"))
        self._iso.add_fp(content if size < PIECE else _Source(content.fileno()), size, iso_path=self.reserve(path),
                         rr_name=PurePosixPath(path).name, joliet_path=f"/{path}", file_mode=0o100444)

    def reserve(self, path: str) -> str:
        """The ISO 9660 path of a new file; makes its folders."""
        parent = self._folder(PurePosixPath(path).parent)
        self._paths[path] = f"{parent.rstrip('/')}/F{len(self._paths):07d}.;1"
        return self._paths[path]

    def iso_path(self, path: str) -> str:
        return self._paths[path]

    def _folder(self, folder: PurePosixPath) -> str:
        key = str(folder)
        if key == ".":
            return "/"
        if key not in self._paths:
            parent = self._folder(folder.parent)
            self._paths[key] = f"{parent.rstrip('/')}/D{len(self._paths):07d}"
            self._iso.add_directory(self._paths[key], rr_name=folder.name, joliet_path=f"/{key}", file_mode=0o040555)
        return self._paths[key]


@contextlib.contextmanager
def _fixed_clock(epoch: int) -> Iterator[None]:
    """Give pycdlib the epoch as its only time, UTC as its zone and fixed 'random' ids.

    It has no setting for it; the names it reads time through are replaced while it works.
    """
    modules = (pycdlib.dates, pycdlib.headervd, pycdlib.pycdlib, pycdlib.udf, pycdlib.utils)
    if any(module.time is not time for module in modules) or pycdlib.udf.random is not random:
        raise CornerstoneError("this pycdlib release reads the clock in another way, so its ISOs wouldn't be "
                               "reproducible", "use the release in requirements.lock", Code.MACHINE)
    clock = SimpleNamespace(**{name: getattr(time, name) for name in dir(time) if not name.startswith("_")})
    clock.time, clock.localtime = (lambda: float(epoch)), time.gmtime
    try:
        for module in modules:
            module.time = clock
        pycdlib.udf.random = random.Random(epoch)  # noqa: S311 (an id that must repeat)
        yield
    finally:
        for module in modules:
            module.time = time
        pycdlib.udf.random = random


def _make_hybrid(iso: BinaryIO, boot_hybrid: bytes, bios: int, bios_size: int, efi: int, efi_size: int,
                 identity: str) -> None:
    """Add what a BIOS and a UEFI want to see on a disk. bios, efi: first 2048-byte blocks of the boot images."""
    size = iso.seek(0, 2)
    # whole MiB: USB sticks and QEMU's disks are told in sectors, and the backup GPT has to be in the last ones
    size = (size + TAIL_PADDING + (1 << 20) - 1) >> 20 << 20
    iso.truncate(size)

    # GRUB's MBR code finds the BIOS image by its second 512-byte sector, the image itself by its fifth
    iso.seek(0)
    iso.write(boot_hybrid[:BOOT_CODE] + struct.pack("<Q", bios * 4 + 4))
    iso.seek(bios * BLOCK)
    image = bytearray(iso.read(bios_size))
    struct.pack_into("<Q", image, 2548, bios * 4 + 5)
    # the boot info table: where the volume descriptor and the image are, its size, and a sum over all after the table
    words = image.ljust((len(image) + 3) // 4 * 4, b"\0")
    struct.pack_into("<IIII40x", image, 8, SYSTEM_AREA // BLOCK, bios, bios_size,
                     sum(struct.unpack_from(f"<{len(words) // 4 - 16}I", words, 64)) & 0xFFFFFFFF)
    iso.seek(bios * BLOCK)
    iso.write(image)

    ratio = BLOCK // SECTOR
    esp = Partition(EFI_SYSTEM, derived_id(identity, "esp"), "ESP", efi * ratio, efi_size // SECTOR)
    first, last = 64, size // SECTOR - 34
    after = esp.start + esp.sectors
    partitions = [
        Partition(LINUX_DATA, derived_id(identity, "before"), "Foundation 1", first, esp.start - first), esp,
        Partition(LINUX_DATA, derived_id(identity, "after"), "Foundation 2", after, last - after + 1),
    ]
    write_gpt(iso, size, derived_id(identity, "iso"), partitions, bootable_mbr=True)


def read_back(target: Path, manifest: Manifest, progress: Callable[[str], None] = lambda path: None) -> list[str]:
    """Read every file of an ISO, not with the library that wrote it, and compare it with the manifest.

    Returns what is wrong, in words.
    """
    try:
        image = Image(target)
    except CornerstoneError as error:
        return [error.message]
    wrong = []
    with contextlib.closing(image):
        for entry in manifest.entries:
            progress(entry.path)
            try:
                with image.open(entry.path) as file:
                    problem = difference(entry, *digest(file, entry.masked))
            except CornerstoneError:
                problem = f"layer {entry.layer} isn't on the ISO"
            wrong += [problem] * bool(problem)
    return wrong

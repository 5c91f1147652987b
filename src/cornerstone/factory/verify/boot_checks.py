"""Checks of how an ISO boots: El Torito, MBR, GPT, and the signed EFI programs. See iso_checks for what a check is."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cornerstone.customize import iso_image
from cornerstone.customize.iso_image import BLOCK, Image
from cornerstone.factory.iso.iso_checks import GRUB, KERNEL, MOK_MANAGER, SHIM, Absent, Subject, check, xorriso
from cornerstone.factory.verify.authenticode import signatures
from cornerstone.lib import process
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.gpt import EFI_SYSTEM, SECTOR, TABLE_SECTORS
from cornerstone.model.contracts.manifest import BOOT_CODE

BUILD_AGAIN = "build the ISO again; if it stays, mastering (factory/iso/mastering.py) has a fault"

# seconds of CPU and bytes of output: an initramfs has some 40 MiB
BOUNDS, MOST = ("prlimit", "--cpu=60", "--fsize=0", "--core=0"), 256 << 20

DESCRIPTOR = 17 * BLOCK  # the boot record's place is fixed: El Torito 1.0, section 2
EL_TORITO = b"EL TORITO SPECIFICATION".ljust(32, b"\0")
BIOS_PLATFORM, EFI_PLATFORM = 0x00, 0xEF

# GRUB's El Torito image has the number of its second sector, 2 of 512 bytes… here until mastering writes the real one
GRUB_POINTER, GRUB_POINTER_UNSET = 2548, 2
MBR_POINTER = BOOT_CODE


@dataclass(frozen=True)
class BootEntry:
    """One El Torito entry: platform, whether it boots and how it is emulated, 512-byte sectors to load, first block."""

    platform: int
    bootable: bool
    emulation: int
    sectors: int
    block: int


def boot_catalog(image: Image) -> list[BootEntry]:
    """The entries of an ISO's boot catalog, read here by the specification. ValueError says what is wrong with it."""
    record = image.at(DESCRIPTOR, BLOCK)
    if record[:7] != b"\x00CD001\x01" or record[7:39] != EL_TORITO:
        raise ValueError("there is no El Torito boot record in block 17")
    catalog = image.at(struct.unpack_from("<I", record, 0x47)[0] * BLOCK, BLOCK)
    if len(catalog) != BLOCK or catalog[0] != 1 or catalog[30:32] != b"\x55\xaa" \
            or sum(struct.unpack_from("<16H", catalog)) & 0xFFFF:
        raise ValueError("the boot catalog's validation entry is damaged")
    entries, platform, left, at = [], catalog[1], 1, 32
    while at < BLOCK:
        raw, at = catalog[at:at + 32], at + 32
        if left:
            bootable, emulation, _, _, _, sectors, block = struct.unpack_from("<BBHBBHI", raw)
            entries.append(BootEntry(platform, bootable == 0x88, emulation & 0x0F, sectors, block))
            left -= 1
        elif raw[0] in (0x90, 0x91):
            platform, left = raw[1], struct.unpack_from("<H", raw, 2)[0]
        else:
            break
    return entries


@check("el-torito", needs=("names",), hint=BUILD_AGAIN)
def el_torito(subject: Subject) -> Iterator[str]:
    """A BIOS starts boot/bios.img from CD, and UEFI starts boot/efi.img."""
    try:
        entries = boot_catalog(subject.image)
    except ValueError as error:
        yield f"no firmware can boot the CD: {error}"
        return
    ways = ((BIOS_PLATFORM, "BIOS", iso_image.BIOS_IMAGE), (EFI_PLATFORM, "UEFI", iso_image.EFI_IMAGE))
    if [entry.platform for entry in entries] != [platform for platform, _, _ in ways]:
        yield f"the boot catalog has entries for platforms {[hex(e.platform) for e in entries]}, not for BIOS and UEFI"
        return
    for entry, (_, firmware, path) in zip(entries, ways, strict=True):
        if not entry.bootable or entry.emulation:
            yield f"the boot catalog's {firmware} entry isn't marked as bootable without emulation"
        if entry.block * BLOCK != subject.place(path).start:
            yield f"the boot catalog's {firmware} entry points at block {entry.block}, {path} is elsewhere"
    if entries[0].sectors != 4:
        yield f"a BIOS would load {entries[0].sectors} sectors of {iso_image.BIOS_IMAGE}, GRUB wants 4"


@check("boot-pointers", needs=("layers",), hint=BUILD_AGAIN)
def boot_pointers(subject: Subject) -> Iterator[str]:
    """boot/bios.img and the MBR hold the right places: boot info table and GRUB's own pointers."""
    place = subject.place(iso_image.BIOS_IMAGE)
    content, block = subject.image.at(place.start, place.size), place.start // BLOCK
    if len(content) < GRUB_POINTER + 8:
        yield f"{iso_image.BIOS_IMAGE} has {len(content)} bytes: it is no boot image"
        return
    descriptor, own, length, checksum = struct.unpack_from("<4I", content, 8)
    if (descriptor, own, length) != (16, block, place.size) or any(content[24:64]):
        yield f"the boot info table in {iso_image.BIOS_IMAGE} doesn't say where the image is"
    if checksum not in {_words(content), _words(_with_pointer(content, GRUB_POINTER_UNSET))}:
        yield f"the boot info table in {iso_image.BIOS_IMAGE} has a wrong checksum"
    pointer = struct.unpack_from("<Q", content, GRUB_POINTER)[0]
    if pointer != block * 4 + 5:
        yield f"GRUB's pointer in {iso_image.BIOS_IMAGE} says sector {pointer}, its rest is at {block * 4 + 5}"
    pointer = struct.unpack_from("<Q", subject.image.at(MBR_POINTER, 8))[0]
    if pointer != block * 4 + 4:
        yield f"GRUB's pointer in the MBR says sector {pointer}, {iso_image.BIOS_IMAGE} goes on at {block * 4 + 4}"


def _with_pointer(content: bytes, pointer: int) -> bytes:
    return content[:GRUB_POINTER] + struct.pack("<Q", pointer) + content[GRUB_POINTER + 8:]


def _words(content: bytes) -> int:
    """The boot info table's checksum: 32-bit words from byte 64 on."""
    words = content[64:] + bytes(-len(content) % 4)
    return sum(struct.unpack(f"<{len(words) // 4}I", words)) & 0xFFFFFFFF


@check("mbr", hint=BUILD_AGAIN)
def mbr(subject: Subject) -> Iterator[str]:
    """The first sector has GRUB's boot code and a protective partition table."""
    sector, sectors = subject.image.at(0, SECTOR), subject.image.size // SECTOR
    if b"GRUB" not in sector[:MBR_POINTER + 8]:
        yield "the MBR has no boot code of GRUB, so a BIOS couldn't start the ISO as a USB disk"
    if sector[510:] != b"\x55\xaa":
        yield "the MBR has no signature, so a BIOS wouldn't start the ISO as a USB disk"
    status, kind, start, count = struct.unpack_from("<B3xB3xII", sector, 446)
    if (status, kind, start, count) != (0, 0xEE, 1, min(sectors - 1, 0xFFFFFFFF)):
        yield "the MBR's first entry doesn't protect the GPT"
    status, kind = sector[462], sector[466]
    if (status, kind) != (0x80, 0) or any(sector[478:510]):
        yield "the MBR lacks the active, empty entry that some BIOSes want, or has others"


@contextlib.contextmanager
def partition_tables(image: Image) -> Iterator[Path]:
    """A sparse file with both partition tables of an ISO at their places and nothing else, as long as the ISO.

    For tools that look for the second table at the end of what they are given: a stick is longer than the ISO on it.
    """
    size = (1 + TABLE_SECTORS) * SECTOR
    with tempfile.TemporaryDirectory(prefix="cornerstone-gpt-") as folder:
        path = Path(folder) / "tables"
        with path.open("wb") as out:
            out.truncate(image.size)
            out.write(image.at(0, SECTOR + size))
            out.seek(image.size - size)
            out.write(image.at(image.size - size, size))
        yield path


@check("boot-code", needs=("signature",))
def boot_code(subject: Subject) -> Iterator[str]:
    """The MBR's boot code, which a BIOS starts from a USB disk, is the one that the manifest names."""
    if not (wanted := subject.manifest.boot_code):
        raise Absent("the manifest is of a release that named no boot code")
    if hashlib.sha256(subject.image.at(0, BOOT_CODE)).hexdigest() != wanted:
        yield "the MBR's boot code does not match the manifest"


def gpt_problems(path: Path) -> str:
    """What sgdisk finds wrong with the GPT of a disk image, in its words; empty when both copies are good.

    "No problems found" isn't enough: it comes also after a damaged header was mended from the other one, in memory.
    """
    done = tool("sgdisk", "--verify", str(path))
    said = (done.out + done.error).decode("utf-8", "replace")
    wrong = [line.strip() for line in said.splitlines() if re.search(r"corrupt|invalid|mismatch|problem:|: ERROR", line,
                                                                     re.IGNORECASE)]
    if not wrong and (done.code or "No problems found" not in said):
        wrong = said.split("\n\n")
    return "; ".join(" ".join(words.split()) for words in wrong)


def tool(*words: str) -> process.Done:
    """Run a tool that only reads, within bounds: what it reads may go round for ever.

    Raises CornerstoneError (MACHINE) when it isn't installed. A tool that is ended has a negative exit status.
    """
    return process.call([*BOUNDS, "--", process.find(words[0]), *words[1:]], most=MOST,
                        env={"LC_ALL": "C", "MTOOLSRC": "/dev/null", "MTOOLS_SKIP_CHECK": "1"})


@check("gpt", needs=("names",), hint=BUILD_AGAIN)
def gpt(subject: Subject) -> Iterator[str]:
    """sgdisk finds no problems in the GPT, and its one EFI system partition is boot/efi.img."""
    with partition_tables(subject.image) as tables:
        if problems := gpt_problems(tables):
            yield f"sgdisk finds problems in the GPT: {problems}"
            return
        table = json.loads(process.read(["sfdisk", "--json", tables]))["partitiontable"]
    systems = [p for p in table["partitions"] if p["type"].lower() == str(EFI_SYSTEM)]
    place = subject.place(iso_image.EFI_IMAGE)
    if [(p["start"] * SECTOR, p["size"] * SECTOR) for p in systems] != [(place.start, place.size)]:
        yield (f"the GPT's EFI system partition isn't {iso_image.EFI_IMAGE}, so UEFI couldn't start the ISO as a USB "
               "disk")


@check("boot-again", needs=("el-torito", "gpt", "mbr"), hint=BUILD_AGAIN)
def boot_again(subject: Subject) -> Iterator[str]:
    """xorriso sees the same boot entries: El Torito for both firmwares, GRUB's MBR, the GPT."""
    report = process.read([*xorriso(subject.path), "-report_el_torito", "plain", "-report_system_area", "plain"])
    images = dict(re.findall(r"^El Torito boot img :\s+(\d+)\s+(\w+)", report, re.MULTILINE))
    paths = dict(re.findall(r"^El Torito img path :\s+(\d+)\s+(\S.*)", report, re.MULTILINE))
    seen = {(firmware, paths.get(number)) for number, firmware in images.items()}
    if seen != {("BIOS", f"/{iso_image.BIOS_IMAGE}"), ("UEFI", f"/{iso_image.EFI_IMAGE}")}:
        yield f"xorriso sees other El Torito entries: {sorted(seen)}"
    area = re.search(r"^System area summary: (.*)", report, re.MULTILINE)
    for word in ("protective-msdos-label", "grub2-mbr", "GPT"):
        if area is None or word not in area[1].split():
            yield f"xorriso sees no {word} in the system area"


def fat(image: Path, start: int, *words: str) -> bytes:
    """What a command of mtools says of the FAT file system that starts at byte `start` of a file.

    Raises CornerstoneError (VERIFY) when there is none.
    """
    done = tool(words[0], "-i", f"{image.absolute()}@@{start}", *words[1:])
    if done.code:
        raise CornerstoneError(f"the FAT file system can't be read: {done.said}", BUILD_AGAIN, Code.VERIFY)
    return done.out


@check("efi-files", needs=("layers",), hint=BUILD_AGAIN)
def efi_files(subject: Subject) -> Iterator[str]:
    """boot/efi.img holds the same EFI programs as the ISO's own EFI/BOOT, and nothing else."""
    start = subject.place(iso_image.EFI_IMAGE).start
    found = {line.removeprefix("::/") for line in fat(subject.path, start, "mdir", "-b", "-/", "::/").decode().split()}
    wanted = {SHIM, GRUB, MOK_MANAGER}
    for path in sorted(found ^ (wanted | {"EFI/", "EFI/BOOT/"})):
        yield f"{path} is {'in' if path in found else 'missing from'} {iso_image.EFI_IMAGE}"
    for path in sorted(found & wanted):
        if fat(subject.path, start, "mtype", f"::/{path}") != subject.image.content(path):
            yield f"{path} in {iso_image.EFI_IMAGE} is another than the ISO's own"


# The least generation in its SBAT that firmware with today's revocations starts, by what must have it. Source: shim's
# SbatLevel_Variable.txt, entry of 2025-02-18 (that of 2025-05-10 raises neither); to be raised with each that does.
SBAT_LEVELS = {SHIM: ("shim", 4), GRUB: ("grub", 5)}
# Machines know one of the two authorities, new ones only the later
MICROSOFT = ("Microsoft Corporation UEFI CA 2011", "Microsoft UEFI CA 2023")


def sbat_generation(program: bytes, component: str) -> int | None:
    """The generation of a component in an EFI program's SBAT section, the lowest of several; None without any.

    Source: SBAT.md of shim; a line has component, generation, vendor, package, version, URL.
    """
    found = re.findall(rb"^%s,(\d{1,9})," % component.encode(), program, re.MULTILINE)
    return min(map(int, found), default=None)


@check("secure-boot", needs=("layers",), hint="build it again from the distribution's signed packages: ./invoke lock "
       "--update takes the present ones")
def secure_boot(subject: Subject) -> Iterator[str]:
    """Shim is signed by both of Microsoft's authorities, GRUB and the kernel by Debian, and none is revoked."""
    for path, signer in ((SHIM, "Microsoft"), (MOK_MANAGER, "Debian"), (GRUB, "Debian"), (KERNEL, "Debian")):
        content = subject.image.content(path)
        try:
            found = signatures(content)
        except ValueError as error:
            yield f"{path} can't be started by UEFI: {error}"
            continue
        if not found:
            yield f"{path} isn't signed, so a machine with Secure Boot on wouldn't start it"
        for one in found:
            if not one.over_these_bytes:
                yield f"{path} was changed after it was signed"
            if not any(signer in subject_name for subject_name in one.subjects):
                yield f"{path} isn't signed by {signer} but by {'; '.join(one.subjects) or 'nobody named'}"
        if path == SHIM and found:
            subjects = " ".join(name for one in found for name in one.subjects)
            for authority in MICROSOFT:
                if authority not in subjects:
                    yield f"{path} isn't signed under {authority}, so machines that know only this one don't start it"
        if path in SBAT_LEVELS:
            component, least = SBAT_LEVELS[path]
            level = sbat_generation(content, component)
            if level is None or level < least:
                yield (f"{path} has {'no SBAT entry' if level is None else f'SBAT level {level}'} of {component}, and "
                       f"below {least} it is revoked")

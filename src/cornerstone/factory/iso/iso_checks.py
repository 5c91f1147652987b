"""Checks of an ISO: the registry, and the checks of its content. Those of how it boots are in boot_checks.

A check is one function. Its docstring's first line is the sentence that holds when it passes; it yields a sentence for
each thing that is wrong. It runs only when the checks that it needs have passed, so that one fault gives one message.
"""

from __future__ import annotations

import hashlib
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cornerstone.customize import iso_image
from cornerstone.customize.iso_area import area_sizes, empty_areas
from cornerstone.customize.iso_image import CUT_SHORT, GPT_SIGNATURE, SYSTEM_AREA, Extent, Image
from cornerstone.factory.signing.signing import check_signature
from cornerstone.lib import process
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.gpt import SECTOR, TABLE_SECTORS
from cornerstone.model.contracts import boot_area, site_area
from cornerstone.model.contracts.boot_area import BootSettings
from cornerstone.model.contracts.manifest import (
    BOOT_AREA,
    CHUNK,
    CVM,
    FIRST_BOOT,
    HYPERVISOR,
    LABEL,
    NAME,
    SIGNATURE_NAME,
    SITE_AREA,
    Manifest,
    difference,
    digest,
)

GRUB_CONFIG, LOOPBACK_CONFIG = "boot/grub/grub.cfg", "boot/grub/loopback.cfg"
KERNEL = "boot/vmlinuz"
INITRAMFS = "boot/initrd.img"
SHIM, GRUB, MOK_MANAGER = "EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/grubx64.efi", "EFI/BOOT/mmx64.efi"
DISK_INFO = ".disk/info"
PARTS = (HYPERVISOR, CVM, FIRST_BOOT, KERNEL, INITRAMFS, iso_image.BIOS_IMAGE, iso_image.EFI_IMAGE, SHIM, GRUB,
         MOK_MANAGER, GRUB_CONFIG, LOOPBACK_CONFIG, DISK_INFO)
# what a manifest can't name: itself, what the file system makes, and the areas that customising writes to
UNNAMED = (NAME, SIGNATURE_NAME, iso_image.BOOT_CATALOG, SITE_AREA, BOOT_AREA)

AGAIN = "the medium is damaged or was changed after it was made: build or download it again"


class Absent(Exception):
    """Raised by a check of what may be missing: says what isn't there."""


class Subject:
    """The ISO under check and the public key that must have signed it; opened when first looked at."""

    def __init__(self, path: Path, public_pem: bytes) -> None:
        self.path = path
        self.public_pem = public_pem

    @cached_property
    def image(self) -> Image:
        """The opened ISO."""
        return Image(self.path, whole=False)

    @property
    def behind(self) -> int:
        """How many bytes follow it in its file or on its device; 0 as long as it wasn't opened."""
        return self.image.behind if "image" in self.__dict__ else 0

    @property
    def manifest(self) -> Manifest:
        """Its manifest."""
        return self.image.manifest

    def place(self, path: str) -> Extent:
        """Where a file is on it."""
        return self.image.place(path)

    @cached_property
    def sha256_as_built(self) -> str:
        """sha256 of the whole ISO with empty areas, as it was before somebody customised it."""
        hasher, at = hashlib.sha256(), 0
        empty = {self.place(path).start: content for path, content in empty_areas(self.manifest).items()}
        starts = [*sorted(empty), self.image.size]

        def piece() -> bytes:
            if at in empty:
                return empty[at]
            return self.image.at(at, min(CHUNK, next((start for start in starts if start > at), at) - at))

        while chunk := piece():
            hasher.update(chunk)
            at += len(chunk)
        return hasher.hexdigest()

    @cached_property
    def boot_settings(self) -> BootSettings:
        """What is set in its boot area. Raises CornerstoneError (VERIFY) when that can't be trusted."""
        return boot_area.unpack(self.image.content(BOOT_AREA)) if self.manifest.boot_area else BootSettings()

    def close(self) -> None:
        """Let go of the file."""
        if "image" in self.__dict__:
            self.image.close()


@dataclass(frozen=True)
class Check:
    """id, the sentence that holds when it passes, how to mend it when it doesn't, the checks that must pass before."""

    id: str
    sentence: str
    hint: str
    needs: tuple[str, ...]
    run: Callable[[Subject], Iterator[str]]


@dataclass(frozen=True)
class Finding:
    """One check's result: what is wrong (nothing when it passed), or why it wasn't made.

    kept_by: the check whose failure kept it from running; absent: what it would have looked at, and isn't there.
    """

    check: Check
    wrong: tuple[str, ...] = ()
    kept_by: str = ""
    absent: str = ""

    @property
    def passed(self) -> bool:
        """Whether it ran and found nothing."""
        return not (self.wrong or self.kept_by or self.absent)


CHECKS: dict[str, Check] = {}



def check(check_id: str, *, needs: tuple[str, ...] = ("iso-whole",), hint: str = AGAIN) \
        -> Callable[[Callable[[Subject], Iterator[str]]], Callable[[Subject], Iterator[str]]]:
    """Register a function as a check, after those that it needs."""
    def register(run: Callable[[Subject], Iterator[str]]) -> Callable[[Subject], Iterator[str]]:
        if check_id in CHECKS or not set(needs) <= CHECKS.keys():
            raise ValueError(f"check {check_id} is there twice, or needs one that isn't there")
        CHECKS[check_id] = Check(check_id, (run.__doc__ or "").strip().partition("\n")[0], hint, needs, run)
        return run
    return register


def run_checks(subject: Subject) -> Iterator[Finding]:
    """Run all checks in order, each finding as it is made. CornerstoneError when a tool or the key is missing."""
    failed: dict[str, str] = {}
    for each in CHECKS.values():
        cause = next((failed[needed] for needed in each.needs if needed in failed), "")
        if cause:
            failed[each.id] = cause
            yield Finding(each, kept_by=cause)
            continue
        try:
            wrong = tuple(each.run(subject))
        except Absent as absent:
            yield Finding(each, absent=str(absent))
            continue
        except CornerstoneError as error:
            # a reader that fails on the ISO (STEP) is a finding; a missing tool or a bad key is not
            if error.code not in (Code.VERIFY, Code.STEP):
                raise
            wrong = (" ".join(error.message.split())[:300],)
        if wrong:
            failed[each.id] = each.id
        yield Finding(each, wrong)


@check("iso-readable", needs=(), hint="give a Foundation ISO; if it is one, build or download it again")
def readable(subject: Subject) -> Iterator[str]:
    """It is an ISO with Rock Ridge and Joliet names."""
    image = subject.image
    if not image.rock_ridge.named:
        yield f"{subject.path.name} has no Rock Ridge names, so Linux and GRUB wouldn't find its files"
    if image.joliet is None:
        yield f"{subject.path.name} has no Joliet names, so Windows wouldn't show its files by their names"


@check("iso-whole", needs=("iso-readable",), hint=CUT_SHORT)
def whole(subject: Subject) -> Iterator[str]:
    """It is all there, as far as its partition table and its file system reach."""
    image = subject.image
    if image.at(SECTOR, len(GPT_SIGNATURE)) != GPT_SIGNATURE:
        yield f"{subject.path.name} has no GPT, which says how long it is and lets it boot as a USB disk"
        return
    if problem := image.cut_short():
        yield f"{subject.path.name} {problem}"


@check("label", hint="build it again: boot finds the medium by this label")
def label(subject: Subject) -> Iterator[str]:
    """The volume label is FOUNDATION, in both trees of names."""
    for kind, tree in (("ISO 9660", subject.image.rock_ridge), ("Joliet", subject.image.joliet)):
        if tree is not None and tree.label != LABEL:
            yield f"the {kind} volume label is {tree.label!r}, not {LABEL}"


@check("manifest")
def manifest(subject: Subject) -> Iterator[str]:
    """manifest.json is there, of this schema, and names every part that a Foundation ISO has."""
    named = {entry.path for entry in subject.manifest.entries}
    for part in PARTS:
        if part not in named:
            yield f"the manifest doesn't name {part}"
    for path in named & set(UNNAMED):
        yield f"the manifest names {path}, which can't be part of what it signs"


@check("signature", needs=("manifest",),
       hint="it was changed after signing, or signed with another key than this: don't use it; --key names another")
def signature(subject: Subject) -> Iterator[str]:
    """manifest.json.sig is the given key's signature over manifest.json."""
    image = subject.image
    check_signature(subject.public_pem, image.content(NAME), image.content(SIGNATURE_NAME), NAME)
    yield from ()


@check("names", needs=("signature",), hint="don't use it: nobody signed what is on it; build or download it again")
def names(subject: Subject) -> Iterator[str]:
    """The ISO holds what the manifest names, and nothing else."""
    tree = subject.image.rock_ridge
    named = {entry.path: entry for entry in subject.manifest.entries}
    for path in sorted(named.keys() - tree.files.keys()):
        yield f"layer {named[path].layer} isn't on the ISO"
    unnamed = {*UNNAMED} if subject.manifest.boot_area else {*UNNAMED} - {BOOT_AREA}
    for path in sorted(tree.files.keys() - named.keys() - unnamed) + tree.strange:
        yield f"{path} is on the ISO, but the manifest doesn't name it"
    for path in tree.twice:
        yield f"{path} is on the ISO twice"
    for path in sorted(unnamed - tree.files.keys()):
        yield f"{path} isn't on the ISO"
    for path, size in area_sizes(subject.manifest).items():
        if path in tree.files and tree.files[path].size != size:
            yield f"{path} has {tree.files[path].size} bytes, the manifest reserves {size}"
    folders = {str(parent) for path in tree.files for parent in Path(path).parents} - {"."} | {""}
    for path in sorted(tree.folders.keys() - folders):
        yield f"folder {path} on the ISO is empty, and the manifest names nothing in it"


@check("site-area", needs=("names",), hint="invoke customize writes it anew, or empties it with --reset")
def area(subject: Subject) -> Iterator[str]:
    """The area for the site file is empty, or holds what its own checksum says."""
    site_area.unpack(subject.image.content(SITE_AREA))
    yield from ()


@check("boot-area", needs=("names",), hint="invoke customize writes it anew with --console or --kernel-argument, or "
       "empties it with --reset")
def boot_words(subject: Subject) -> Iterator[str]:
    """The area for serial port and kernel arguments is empty, or holds words that can't start anything else."""
    _ = subject.boot_settings
    yield from ()


@check("trees", needs=("names",))
def trees(subject: Subject) -> Iterator[str]:
    """Joliet shows the same files at the same places as Rock Ridge."""
    joliet = subject.image.joliet
    if joliet is None:
        return
    rock_ridge = subject.image.rock_ridge.files
    for path in sorted(rock_ridge.keys() | joliet.files.keys()):
        if rock_ridge.get(path) != joliet.files.get(path):
            yield f"{path}: a reader of Joliet names (Windows) gets another file than Linux does"


@check("layers", needs=("names",))
def layers(subject: Subject) -> Iterator[str]:
    """Every file has the size and sha256 that the manifest says."""
    for entry in subject.manifest.entries:
        with subject.image.open(entry.path) as file:
            problem = difference(entry, *digest(file, entry.masked))
        if problem:
            yield problem


@check("layers-again", needs=("layers",), hint="two readers disagree about the ISO: build it again and report it")
def layers_again(subject: Subject) -> Iterator[str]:
    """xorriso, which had no part in writing the ISO, reads the same files with the same sizes and sha256."""
    listing = process.read([*xorriso(subject.path), "-find", "/", "-not", "-type", "d"])
    found = {shlex.split(line)[0].lstrip("/") for line in listing.splitlines() if line.startswith("'")}
    for path in sorted(found ^ subject.image.rock_ridge.files.keys()):
        yield f"{path} is named by {'xorriso' if path in found else 'our own reader'} alone"
    for entry in subject.manifest.entries:
        with subprocess.Popen([*xorriso(subject.path), "-concat", "overwrite", "-", f"/{entry.path}"],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              env=process.environment()) as reader:
            if reader.stdout is None:
                raise AssertionError("a pipe was asked for")
            problem = difference(entry, *digest(reader.stdout, entry.masked))
        if problem:
            yield f"{problem}, as xorriso reads it"


def xorriso(path: Path) -> list[str]:
    """The start of an xorriso command that reads an ISO: no start-up files, no chatter on standard output."""
    return ["xorriso", "-no_rc", "-osirrox", "on", "-abort_on", "FATAL", "-indev", f"stdio:{path.absolute()}"]


@check("gaps", needs=("names", "trees"))
def gaps(subject: Subject) -> Iterator[str]:
    """There is nothing but zeros between the files and after them."""
    image = subject.image
    tables = (1 + TABLE_SECTORS) * SECTOR
    # MBR and GPT header, GPT table; backup of the table, and of the header
    taken = [(0, SECTOR + 92), (2 * SECTOR, SECTOR + tables), (image.size - tables, image.size - SECTOR + 92),
             (image.size, image.size)]
    taken += [(e.start, e.start + e.size) for e in (*image.structure, *image.rock_ridge.files.values())]
    free = 0
    for start, end in sorted(taken):
        if start > free and (at := _first_byte(image, free, start)) is not None:
            where = ("before the file system" if at < SYSTEM_AREA else
                     "between the files" if at < image.volume_size else "after the file system")
            yield f"byte {at} of the ISO, {where}, isn't zero: something is hidden there"
        free = max(free, end)


def _first_byte(image: Image, start: int, end: int) -> int | None:
    """The place of the first byte that isn't zero."""
    while start < end:
        chunk = image.at(start, min(1 << 20, end - start))
        if not chunk:
            return None
        if rest := chunk.lstrip(b"\0"):
            return start + len(chunk) - len(rest)
        start += len(chunk)
    return None


@check("identity", needs=("layers",))
def identity(subject: Subject) -> Iterator[str]:
    """/.disk/info, /.disk/IDENTITY and GRUB's menu name this ISO, its profile and its payload."""
    image, profile = subject.image, subject.manifest.profile
    wanted = subject.manifest.identity
    info, menu = (image.content(path).decode("utf-8", "replace") for path in (DISK_INFO, GRUB_CONFIG))
    if ("development-signed" in menu) != (subject.manifest.key == "development"):
        yield f"{GRUB_CONFIG} and the manifest ({subject.manifest.signed}) disagree about the key"
    if f".disk/{wanted}" not in image.rock_ridge.files:
        yield f".disk/{wanted} isn't on the ISO, so the initramfs wouldn't know the medium that it came from"
    for word in (profile["name"], f"{profile['payload']} payload"):
        for path, text in ((DISK_INFO, info), (GRUB_CONFIG, menu)):
            if word not in text:
                yield f"{path} doesn't say {word!r}"
    if f"search --no-floppy --file --set=root /.disk/{wanted}" not in menu:
        yield f"{GRUB_CONFIG} doesn't look for /.disk/{wanted}, so it could start another medium's kernel"
    for path in (GRUB_CONFIG, LOOPBACK_CONFIG):
        if f"cornerstone.medium={wanted}" not in image.content(path).decode("utf-8", "replace"):
            yield f"{path} doesn't hand {wanted} to the initramfs, so it could mount another medium"
    for path, text in ((DISK_INFO, info), (GRUB_CONFIG, menu)):
        if profile["payload"] == "reference" and "nutanix" in text.lower():
            yield f"{path} names Nutanix on an ISO that holds none of its software"

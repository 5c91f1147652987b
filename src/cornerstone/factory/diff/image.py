"""The facts about an ISO that a difference is made of, read from the ISO itself."""

from __future__ import annotations

import contextlib
import json
import re
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from cornerstone.customize.iso_image import Image
from cornerstone.factory.diff import packages
from cornerstone.factory.inspection.roots import AGAIN, Disk, File, copy_disk, read_files
from cornerstone.factory.iso.iso_checks import GRUB, GRUB_CONFIG, INITRAMFS, KERNEL, MOK_MANAGER, SHIM
from cornerstone.factory.verify.boot_checks import fat
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.json_text import read_json
from cornerstone.model.contracts.manifest import BOOT_AREA, CVM, FIRST_BOOT, HYPERVISOR, NAME, SITE_AREA, Entry, digest

SLOT_A = "content of root-a"
SLOT_MENU = "boot/grub/grub.cfg of the CVM's disk"
NEEDED = (HYPERVISOR, CVM, FIRST_BOOT, KERNEL, INITRAMFS, SHIM, GRUB, MOK_MANAGER, GRUB_CONFIG)


@dataclass(frozen=True)
class Root:
    """What is in one root: versions by package, all names by path, and the package of a path where one owns it."""

    packages: Mapping[str, str]
    files: Mapping[str, File]
    owners: Mapping[str, str]


@dataclass(frozen=True)
class Facts:
    """One ISO; size in bytes.

    manifest: its fields but the list of files, by dotted name; entries: that list, by path; site_area: sha256 of its
    content, which the manifest leaves out; boot: versions of what starts the machine; texts: first-boot script and
    menus, by name; disk: layout of the CVM's disk; roots by name. The last two only when the other ISO has others.
    """

    name: str
    size: int
    manifest: Mapping[str, str]
    entries: Mapping[str, Entry]
    site_area: str
    boot: Mapping[str, str]
    texts: Mapping[str, str]
    disk: Mapping[str, str] = field(default_factory=dict)
    roots: Mapping[str, Root] = field(default_factory=dict)


def read_both(paths: tuple[Path, Path], scratch: Path) -> tuple[Facts, Facts]:
    """The facts about two ISOs. Inside of what their manifests say is equal it doesn't look.

    scratch: a folder that takes both CVM disks for a while, about 1 GiB.
    Raises CornerstoneError, naming the ISO, when one isn't a Foundation ISO or can't be read.
    """
    with ThreadPoolExecutor(2) as pool:
        a, b = pool.map(read_outside, paths)
        if a.entries[HYPERVISOR].sha256 != b.entries[HYPERVISOR].sha256:
            a, b = pool.map(_with_hypervisor, paths, (a, b))
        if a.entries[CVM].sha256 != b.entries[CVM].sha256:
            disks = list(pool.map(_cvm_disk, paths, (scratch / "a.raw", scratch / "b.raw")))
            a, b = pool.map(_with_disk, paths, (a, b), disks)
            if a.disk[SLOT_A] != b.disk[SLOT_A]:
                a, b = pool.map(_with_cvm, paths, (a, b), disks)
    return a, b


def read_outside(path: Path) -> Facts:
    """The facts about one ISO without its roots and the CVM's disk: what takes no time to read."""
    with _opened(path) as image:
        if NAME not in image.rock_ridge.files:
            raise CornerstoneError(f"it has no {NAME}, so it isn't a Foundation ISO",
                                   "give what ./invoke build made, or the name of its profile", Code.VERIFY)
        entries = {entry.path: entry for entry in image.manifest.entries}
        for needed in NEEDED:
            if needed not in entries:
                raise CornerstoneError(f"its manifest doesn't name {needed}", AGAIN, Code.VERIFY)
        record = read_json(image.content(NAME), NAME, AGAIN, Code.VERIFY)
        record.pop("files")
        with image.open(SITE_AREA) as file:
            _, site_area = digest(file)
        releases = {KERNEL: _kernel_release(image.content(KERNEL)), GRUB: _sbat_version(image.content(GRUB), "grub"),
                    SHIM: _sbat_version(image.content(MOK_MANAGER), "shim")}
        return Facts(
            name=path.name, size=image.size, manifest=dict(_flat(record)), entries=entries, site_area=site_area,
            boot={name: f"{releases.get(name, '')}{entry.size} bytes, sha256 {entry.sha256[:12]}"
                  for name, entry in sorted(entries.items())
                  if name.startswith(("boot/", "EFI/")) and name != GRUB_CONFIG},
            texts={name: _lines(image.content(name)) for name in (FIRST_BOOT, GRUB_CONFIG, BOOT_AREA)
                   if name in image.rock_ridge.files})


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """An ISO for a while, its name in front of what is found wrong with it."""
    try:
        with contextlib.closing(Image(path)) as image:
            yield image
    except CornerstoneError as error:
        message = error.message if error.message.startswith(path.name) else f"{path.name}: {error.message}"
        # a tool that fails on it (STEP) says that the ISO is damaged, not that a build step failed
        raise CornerstoneError(message, error.hint, Code.VERIFY if error.code == Code.STEP else error.code) from error


def _with_hypervisor(path: Path, facts: Facts) -> Facts:
    with _opened(path) as image:
        return replace(facts, roots={**facts.roots, "hypervisor": _root(path, image.place(HYPERVISOR).start)})


def _cvm_disk(path: Path, target: Path) -> Disk:
    with _opened(path) as image:
        return copy_disk(path, image.place(CVM), target)


def _with_disk(path: Path, facts: Facts, disk: Disk) -> Facts:
    with _opened(path):
        squashfs = disk.squashfs()
        layout = {"size": f"{disk.path.stat().st_size} bytes"} | {
            f"partition {number} {p.get('name', '')}": f"sectors {p['start']} to {p['start'] + p['size'] - 1}, "
            f"type {p['type'].lower()}, id {p.get('uuid', 'none').lower()}"
            for number, p in enumerate(disk.table.get("partitions", []), 1)}
        layout[SLOT_A] = f"{squashfs.size} bytes, sha256 {disk.sha256(squashfs)[:12]}"
        menu = _lines(fat(disk.path, disk.partition("esp").start, "mtype", "::/boot/grub/grub.cfg"))
        return replace(facts, disk=layout, texts={**facts.texts, SLOT_MENU: menu})


def _with_cvm(path: Path, facts: Facts, disk: Disk) -> Facts:
    with _opened(path):
        return replace(facts, roots={**facts.roots, "cvm": _root(disk.path, disk.squashfs().start)})


def _root(image: Path, start: int) -> Root:
    files, kept = read_files(image, start, packages.wanted)
    return Root(packages.versions(kept), files, packages.owners(kept, files))


def _flat(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested JSON as dotted names, with values as JSON writes them, strings without quotes."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}".lstrip("."))
    else:
        yield name, value if isinstance(value, str) else json.dumps(value)


def _kernel_release(kernel: bytes) -> str:
    """The start of a kernel's line: the release that it says it is.

    Source: Linux, Documentation/arch/x86/boot.rst, kernel_version.
    """
    if kernel[0x202:0x206] != b"HdrS" or len(kernel) < 0x210:
        return "Linux, "
    at = 0x200 + struct.unpack_from("<H", kernel, 0x20E)[0]
    return f"Linux {kernel[at:at + 256].partition(b' ')[0].decode('ascii', 'backslashreplace')}, "


def _sbat_version(program: bytes, component: str) -> str:
    """The same for shim and GRUB: the distribution's version in an EFI program's SBAT section.

    Its lines are component, generation, vendor, package, version, URL. Shim's own says less than that of its
    MokManager, which is built together with it. Source: SBAT.md of shim.
    """
    found = re.search(rb"^%s\.[a-z]+,\d+,[^,\n]*,[^,\n]*,([^,\n]{1,80})," % component.encode(), program, re.MULTILINE)
    return f"{component} {found[1].decode('ascii', 'backslashreplace')}, " if found else f"{component}, "


def _lines(content: bytes) -> str:
    return content.decode("utf-8", "backslashreplace")

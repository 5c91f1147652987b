"""The initramfs of a network boot: the ISO's own, and behind it an archive with the drivers of network cards.

The ISO's stays small, and both start the same code. Sources of the form: Linux,
Documentation/driver-api/early-userspace/buffer-format.rst (archives one after another); cpio(5), "newc".
"""

from __future__ import annotations

import posixpath
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cornerstone.lib import process
from cornerstone.lib.error import Code, CornerstoneError

MODULES, FIRMWARE = "usr/lib/modules", "usr/lib/firmware"
# below kernel/drivers/net: folders and single modules by which a machine or a virtual one may have been started over
# the network; PHYs and the like because cards ask for them by name, not as dependencies
DRIVERS = ("ethernet", "hyperv", "mdio", "pcs", "phy", "usb", "vmxnet3", "virtio_net", "xen-netfront")
# depmod's files: the whole root's, for they may name more than there is, but not less
INDEX = "modules.*"
LEVEL = 15
FILE, FOLDER, LINK = 0o100644, 0o040755, 0o120777
ALIGNMENT = 4
PACKED = "drivers.cpio.zst"


def pack_drivers(squashfs: Path, target: Path, log: Path) -> None:
    """Write target: the archive of the drivers of network cards of a squashfs, packed.

    Equal inputs give equal bytes. Raises CornerstoneError (STEP) when it has none.
    """
    unpacked, archive = target.with_name(f"{target.name}.unpacked"), target.with_name("network.cpio")
    try:
        process.run(["unsquashfs", "-no-progress", "-dest", unpacked, squashfs, MODULES, FIRMWARE], log=log)
        archive.write_bytes(b"".join(cpio(drivers(unpacked))))
        process.run(["zstd", "--quiet", "--force", f"-{LEVEL}", "--single-thread", archive, "-o", target], log=log)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
        archive.unlink(missing_ok=True)


def join(initrd: Path, packed: Path, target: Path) -> None:
    """Write target: the initramfs initrd, followed by the packed archive of drivers."""
    with target.open("wb") as out:
        for part in (initrd, packed):
            with part.open("rb") as file:
                shutil.copyfileobj(file, out)
            # the kernel looks for the next archive there
            out.write(bytes(-out.tell() % ALIGNMENT))


def drivers(root: Path) -> dict[str, Path]:
    """Path → file of the drivers of network cards of a root, what they need, their firmware, and depmod's index."""
    releases = sorted((root / MODULES).iterdir())
    if len(releases) != 1:
        raise CornerstoneError(f"the root has the modules of {len(releases)} kernels, and one is needed",
                               "see its package-installs.yaml and its lock", Code.STEP)
    release = releases[0]
    modules = needed(release)
    if not modules:
        raise CornerstoneError("the root has no drivers of network cards", "see the package of its kernel", Code.STEP)
    found = {f"{MODULES}/{release.name}/{name}": release / name for name in modules}
    found |= {f"{MODULES}/{release.name}/{path.name}": path for path in release.glob(INDEX)}
    asked = process.read(["modinfo", "--field", "firmware", *(release / name for name in modules)]).split()
    for pattern in sorted(set(asked)):
        for path in (root / FIRMWARE).glob(pattern):
            found |= followed(root, path.relative_to(root).as_posix())
    return found


def needed(release: Path) -> list[str]:
    """The modules of a kernel below DRIVERS, and all that they need, by their paths below its folder."""
    found = set()
    for line in (release / "modules.dep").read_text().splitlines():
        name, _, others = line.partition(":")
        above, _, below = name.partition("kernel/drivers/net/")
        if not above and below.partition("/")[0].partition(".")[0] in DRIVERS:
            found |= {name, *others.split()}
    return sorted(found)


def followed(root: Path, path: str) -> dict[str, Path]:
    """A file of a root, and the links that lead to it, each by its path. A link out of the root leads nowhere."""
    found: dict[str, Path] = {}
    while path not in found:
        at = root / path
        if at.parent.resolve() != root.resolve() / posixpath.dirname(path):
            return {}
        found[path] = at
        if not at.is_symlink():
            return found if at.is_file() else {}
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), at.readlink())).lstrip("/")
    return {}


def cpio(files: Mapping[str, Path]) -> Iterator[bytes]:
    """The pieces of an archive of files and links by their paths, and of the folders above them."""
    folders = {parent for path in files for parent in _parents(path)}
    for number, path in enumerate(sorted({*files, *folders}), 1):
        if path in folders:
            yield from _entry(number, path, FOLDER, b"")
        elif files[path].is_symlink():
            yield from _entry(number, path, LINK, str(files[path].readlink()).encode())
        else:
            yield from _entry(number, path, FILE, files[path].read_bytes())
    yield from _entry(0, "TRAILER!!!", 0, b"")


def _parents(path: str) -> Iterable[str]:
    while path := posixpath.dirname(path):
        yield path


def _entry(number: int, path: str, mode: int, content: bytes) -> Iterator[bytes]:
    name = path.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device and its own (two numbers each), length of the name, checksum
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    yield head + bytes(-len(head) % ALIGNMENT)
    yield content + bytes(-len(content) % ALIGNMENT)

"""The folder for starting over the network: the ISO's files as any HTTP server serves them, and an iPXE script.

The script pins the manifest, the manifest all that is fetched after kernel and initramfs; docs/media.md says who is
trusted for what. Large files are the layers' own, by hard link where that can be had.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cornerstone.customize.iso_image import Image
from cornerstone.factory.payload.render import ipxe_script
from cornerstone.factory.signing.signing import check_signature
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.files import is_stamp
from cornerstone.model.contracts.manifest import (
    CVM,
    HYPERVISOR,
    NAME,
    SIGNATURE_NAME,
    Entry,
    Manifest,
    difference,
    digest,
)

if TYPE_CHECKING:
    from cornerstone.factory.build.plan import Plan

FOLDER = "netboot"
SCRIPT, INITRD = "boot.ipxe", "initrd.img"
SUMS, SUMS_SIGNATURE = "SHA256SUMS", "SHA256SUMS.sig"
# the layer with INITRD, which alone isn't on the ISO
LAYER = "netboot-initrd"


def folder_of(target: Path) -> Path:
    """Where the folder of an ISO is."""
    return target.with_name(FOLDER)


def write(plan: Plan, layers: Mapping[str, Path], target: Path, contents: Mapping[Path, tuple[int, str]]) -> dict:
    """Write the folder beside an ISO, target, which may be customised.

    layers: their folders by name; contents: size and sha256 by path of their files, as the store has read them. The
    folder is made beside its place, and renamed into it. Returns the record of it for is_current. Raises
    CornerstoneError (VERIFY) when the ISO isn't signed by the build's key, or a layer isn't what the manifest says.
    """
    place = folder_of(target)
    for left in place.parent.glob(f".{FOLDER}.*"):
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=f".{FOLDER}.", dir=place.parent) as scratch:
        fresh = Path(scratch) / "new"
        fresh.mkdir()
        sums = _fill(fresh, plan, layers, target, contents)
        listing = "".join(f"{sums[path]}  {path}\n" for path in sorted(sums)).encode()
        _put(fresh, SUMS, listing)
        _put(fresh, SUMS_SIGNATURE, plan.key.sign(listing))
        for folder in (fresh, *(path for path in fresh.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
        if place.exists():
            place.rename(Path(scratch) / "old")
        fresh.rename(place)
    return _stamps(place)


def is_current(target: Path, record: Mapping | None) -> bool:
    """Whether the folder of an ISO holds the files that write() made, and nothing else."""
    with contextlib.suppress(OSError):
        return record is not None and _stamps(folder_of(target)) == record
    return False


def is_record(value: Any) -> bool:
    """Whether a value read from a file has the shape of what write returns; None is that of an ISO without a folder."""
    return value is None or (isinstance(value, dict) and all(map(is_stamp, value.values())))


def _fill(folder: Path, plan: Plan, layers: Mapping[str, Path], image: Path,
          contents: Mapping[Path, tuple[int, str]]) -> dict[str, str]:
    """Write all files but the checksums; returns the sha256 of each by its path."""
    large = {HYPERVISOR: layers["hypervisor"] / "hypervisor.squashfs", CVM: layers["cvm-disk"] / "cvm.qcow2"}
    sums = {}
    with contextlib.closing(Image(image)) as opened:
        signed = {name: opened.content(name) for name in (NAME, SIGNATURE_NAME)}
        check_signature(plan.key.public_pem(), signed[NAME], signed[SIGNATURE_NAME], NAME)
        manifest = Manifest.from_bytes(signed[NAME])
        for entry in manifest.entries:
            if entry.path in large:
                sums[entry.path] = _link(large[entry.path], folder / entry.path, entry, contents)
                continue
            with opened.open(entry.path) as file:
                _require(entry, *digest(file, entry.masked))
            sums[entry.path] = _put(folder, entry.path, opened.content(entry.path))
    initrd = layers[LAYER] / INITRD
    sums[INITRD] = _link(initrd, folder / INITRD, None, contents)
    script = ipxe_script(manifest.identity, plan.profile, plan.key.kind,
                         hashlib.sha256(signed[NAME]).hexdigest(),
                         plan.profile.hypervisor.extra.kernel_arguments).encode()
    return sums | {name: _put(folder, name, content) for name, content in {**signed, SCRIPT: script}.items()}


def _put(folder: Path, path: str, content: bytes) -> str:
    at = folder / path
    at.parent.mkdir(parents=True, exist_ok=True)
    at.write_bytes(content)
    at.chmod(0o644)
    return hashlib.sha256(content).hexdigest()


def _link(source: Path, at: Path, entry: Entry | None, contents: Mapping[Path, tuple[int, str]]) -> str:
    """Give a layer's file a second name, or copy it where its file system gives none; returns its sha256."""
    at.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, at)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            raise
        shutil.copyfile(source, at)
        at.chmod(0o644)
    with at.open("rb") as file:
        size, sha256 = digest(file)
    if contents.get(source, (size, sha256)) != (size, sha256):
        raise CornerstoneError(f"{source} was changed while the build ran",
                               "see who else writes to the cache, and build again", Code.VERIFY)
    if entry is not None:
        _require(entry, size, sha256)
    return sha256


def _require(entry: Entry, size: int, sha256: str) -> None:
    if problem := difference(entry, size, sha256):
        raise CornerstoneError(problem, "build again; if it stays, remove the ISO and build again", Code.VERIFY)


def _stamps(place: Path) -> dict[str, list[int]]:
    """Size and time of change of each file of the folder, by its path in it."""
    found = {}
    for path in sorted(place.rglob("*")):
        stat = path.lstat()
        if not path.is_dir() or path.is_symlink():
            found[path.relative_to(place).as_posix()] = [stat.st_size, stat.st_mtime_ns]
    return found

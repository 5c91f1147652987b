"""The check of the folder netboot beside an ISO: what a network boot fetches is what is on that ISO, and nothing else.

An ISO may travel without the folder, and is none the worse for it: then this is said and not refused.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from cornerstone.factory.build.netboot import FOLDER, INITRD, SCRIPT, SUMS, SUMS_SIGNATURE, folder_of
from cornerstone.factory.iso.iso_checks import INITRAMFS, Absent, Subject, check
from cornerstone.factory.signing.signing import check_signature
from cornerstone.factory.verify.evidence_checks import ISO_CHECKS
from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.files import open_regular, read_regular
from cornerstone.model.contracts.manifest import CHUNK, NAME, SIGNATURE_NAME, Entry, digest

HINT = "serve none of it: run ./invoke build, or copy the folder again, whole, from where the ISO was built"
# sums, script and signatures: some 2 KiB each
MOST = 1 << 20
# the ISO's initramfs and drivers of network cards: some 100 MiB
MOST_INITRD = 1 << 30
# files too many that are named
MOST_TOLD = 20


@check("netboot", needs=ISO_CHECKS, hint=HINT)
def netboot(subject: Subject) -> Iterator[str]:
    """The folder netboot holds the ISO's files as its manifest says, and a script and an initramfs that go with them.
    """
    folder = folder_of(subject.path.absolute())
    if not os.path.lexists(folder):
        raise Absent(f"the folder {FOLDER} isn't beside the ISO")
    if folder.is_symlink() or not folder.is_dir():
        yield f"{FOLDER} beside the ISO isn't a folder"
        return
    entries = {entry.path: entry for entry in subject.manifest.entries}
    wanted = {*entries, NAME, SIGNATURE_NAME, SCRIPT, INITRD, SUMS, SUMS_SIGNATURE}
    try:
        found = _files(folder)
        if NAME in found and read_regular(folder / NAME, MOST) != subject.image.content(NAME):
            yield f"{FOLDER}/{NAME} is another than on the ISO: the folder is another ISO's, or was changed"
            return
        for path in sorted(wanted - found):
            yield f"{FOLDER}/{path} isn't there"
        yield from _too_many(sorted(found - wanted))
        sums = _sums(folder, subject.public_pem) if {SUMS, SUMS_SIGNATURE} <= found else None
    except OSError as error:
        yield f"{FOLDER}/{Path(error.filename).relative_to(folder)} can't be read: {error.strerror}"
        return
    except CornerstoneError as error:
        yield error.message
        return
    if sums is not None and sums.keys() != wanted - {SUMS, SUMS_SIGNATURE}:
        yield f"{FOLDER}/{SUMS} doesn't list the files that belong there"
        return
    for path in sorted((wanted & found) - {SUMS, SUMS_SIGNATURE}):
        try:
            problem = _problem(folder, path, entries.get(path), subject, sums or {})
        except OSError as error:
            problem = f"can't be read: {error.strerror}"
        if problem:
            yield f"{FOLDER}/{path} {problem}"


def _files(folder: Path) -> set[str]:
    """The paths of all that isn't a folder, links to folders too. Raises OSError for a folder that can't be read."""
    def fail(error: OSError) -> None:
        raise error

    found = set()
    for at, folders, names in os.walk(folder, onerror=fail):
        links = [name for name in folders if Path(at, name).is_symlink()]
        found |= {Path(at, name).relative_to(folder).as_posix() for name in (*names, *links)}
    return found


def _too_many(paths: list[str]) -> Iterator[str]:
    for path in paths[:MOST_TOLD]:
        yield f"{FOLDER}/{path} belongs to no network boot of this ISO"
    if len(paths) > MOST_TOLD:
        yield f"and so do {len(paths) - MOST_TOLD} more"


def _sums(folder: Path, public_pem: bytes) -> dict[str, str]:
    """The sha256 of each file that the folder's checksums list. CornerstoneError when the key didn't sign them."""
    content = read_regular(folder / SUMS, MOST)
    check_signature(public_pem, content, read_regular(folder / SUMS_SIGNATURE, MOST), f"{FOLDER}/{SUMS}")
    lines = (line.partition("  ") for line in content.decode("utf-8", "replace").splitlines())
    return {path: sha256 for sha256, _, path in lines}


def _problem(folder: Path, path: str, entry: Entry | None, subject: Subject, sums: Mapping[str, str]) -> str:
    """What is wrong with a file of the folder, as the end of a sentence; "" when nothing is. Raises OSError.

    entry: the manifest's for a file that is on the ISO. The size is compared first, so that what is read is bounded.
    """
    with open_regular(folder / path) as file:
        size = os.fstat(file.fileno()).st_size
        if entry is not None and size != entry.size:
            return f"has {size} bytes, the manifest says {entry.size}"
        if entry is None and size > (most := MOST_INITRD if path == INITRD else MOST):
            return f"has {size} bytes, and at most {most} are read"
        sha256 = digest(file)[1]
        file.seek(0)
        if entry is not None and (digest(file, entry.masked)[1] if entry.masked else sha256) != entry.sha256:
            return "does not match the manifest"
        if sums.get(path, sha256) != sha256:
            return f"does not match {FOLDER}/{SUMS}"
        file.seek(0)
        if path == INITRD and not _goes_on(file, subject.manifest.entry(INITRAMFS)):
            return f"doesn't begin with the ISO's {INITRAMFS}"
        return _unpinned(file.read(MOST), subject) if path == SCRIPT else ""


def _goes_on(file: BinaryIO, initramfs: Entry) -> bool:
    """Whether a file begins with the ISO's initramfs."""
    hasher, left = hashlib.sha256(), initramfs.size
    while left and (chunk := file.read(min(CHUNK, left))):
        hasher.update(chunk)
        left -= len(chunk)
    return not left and hasher.hexdigest() == initramfs.sha256


def _unpinned(script: bytes, subject: Subject) -> str:
    """Why a script would start with another medium than this ISO's files; "" when it wouldn't."""
    words = script.decode("utf-8", "replace").split()
    pin = hashlib.sha256(subject.image.content(NAME)).hexdigest()
    if f"cornerstone.manifest.sha256={pin}" not in words:
        return f"doesn't pin the ISO's {NAME}"
    if f"cornerstone.medium={subject.manifest.identity}" not in words:
        return f"doesn't name the ISO's identity {subject.manifest.identity}"
    return ""

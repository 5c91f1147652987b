"""The ISO's manifest: every file on it with size and sha256, signed as a whole (ed25519, manifest.json.sig).

The file has one entry a line, so that the initramfs can read it without a JSON parser.
Standard library only: the live environment reads it too.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.json_text import read_json
from cornerstone.lib.printable import quoted
from cornerstone.lib.serde import Format, Within
from cornerstone.model.contracts.requirements import ResolvedProfile

SCHEMA_VERSION = 2
NAME = "manifest.json"
SIGNATURE_NAME = "manifest.json.sig"
LABEL = "FOUNDATION"

HYPERVISOR = "layers/hypervisor.squashfs"
CVM = "layers/cvm.qcow2"
FIRST_BOOT = "layers/first-boot.sh"
# outside the signed content
SITE_AREA, BOOT_AREA = "site.area", "boot/grub/grubenv"

# the MBR's bytes before what mastering writes into it: GRUB's pointer, the disk's id, the partitions
BOOT_CODE = 0x1B0

CHUNK = 1 << 20
# of the manifest itself: some 2 KiB as it is made here
MOST = 1 << 20
_AGAIN = "the medium is damaged or of another release; write it anew"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """One file of the ISO: path on it, size in bytes, sha256 in hex.

    masked: byte ranges (offset, length) that count as zeros in the sha256, because mastering writes
    the file's own place on the ISO into them (El Torito boot info).
    """

    path: str
    size: int
    sha256: str
    masked: tuple[tuple[int, int], ...] = ()

    @property
    def layer(self) -> str:
        """The name that people know it by."""
        return self.path.removeprefix("layers/")


@dataclass(frozen=True)
class Manifest:
    """What an ISO holds and what it was made from.

    identity: UUID of this content, also the name of a file in /.disk; key: 'development' or 'release';
    epoch: SOURCE_DATE_EPOCH in seconds; site_area, boot_area: reserved bytes outside the signed content; boot_code:
    sha256 of the first BOOT_CODE bytes, which a BIOS starts from a disk. Manifests of releases that knew neither boot
    area nor boot code have 0 and "".
    """

    identity: str
    profile: dict
    key: str
    epoch: int
    entries: tuple[Entry, ...]
    site_area: int
    boot_area: int = 0
    boot_code: str = ""

    @property
    def signed(self) -> str:
        """'development-signed' or 'release-signed': the word that is said wherever the ISO is named."""
        return f"{self.key}-signed"

    @property
    def kernel_arguments(self) -> tuple[str, ...]:
        """Return the kernel arguments that the profile adds for the hypervisor."""
        return tuple(self.profile.get("hypervisor", {}).get("extra", {}).get("kernel_arguments", ()))

    def to_bytes(self) -> bytes:
        """The manifest file, byte for byte what gets signed."""
        head = {"schema": SCHEMA_VERSION, "product": "Cornerstone Foundation", "identity": self.identity,
                "signed_with": f"{self.key} key", "epoch": self.epoch,
                "site_area": {"path": SITE_AREA, "size": self.site_area}}
        if self.boot_area:
            head["boot_area"] = {"path": BOOT_AREA, "size": self.boot_area}
        if self.boot_code:
            head["boot_code"] = self.boot_code
        head["profile"] = self.profile
        lines = [json.dumps(head)[:-1] + ',', '"files": [']
        files = []
        for entry in self.entries:
            record = {"path": entry.path, "size": entry.size, "sha256": entry.sha256}
            if entry.masked:
                record["masked"] = [list(span) for span in entry.masked]
            files.append(json.dumps(record))
        return ("\n".join([*lines, ",\n".join(files), "]}"]) + "\n").encode()

    @classmethod
    def from_bytes(cls, content: bytes, where: str = NAME) -> Manifest:
        """Parse a manifest file. Raises CornerstoneError (VERIFY), with the value's path, when it isn't one.

        Keys that this release doesn't know are passed over, as they are in the profile, which is kept whole. What an
        older version calls otherwise is renamed.
        """
        what = f"{where}: not a Foundation manifest"
        data = read_json(content, f"{what}: it", _AGAIN, Code.VERIFY, MOST)
        if not isinstance(data, dict) or "schema" not in data:
            raise CornerstoneError(f"{what}: it has no schema", _AGAIN, Code.VERIFY)
        # of a newer release it is a manifest all the same
        data = MANIFEST.upgrade(data, where)
        file = MANIFEST.parse(data, what)
        for wrong in _wrong(file):
            raise CornerstoneError(f"{what}: {wrong}", _AGAIN, Code.VERIFY)
        entries = tuple(Entry(each.path, each.size, each.sha256, tuple((span[0], span[1]) for span in each.masked))
                        for each in file.files)
        return cls(file.identity, data["profile"], file.signed_with.removesuffix(" key"), file.epoch, entries,
                   file.site_area.size, file.boot_area.size, file.boot_code)

    def entry(self, path: str) -> Entry:
        """Return the entry of a path. Raises CornerstoneError (VERIFY) when the manifest has no such file."""
        for entry in self.entries:
            if entry.path == path:
                return entry
        raise CornerstoneError(f"{NAME} names no {path}", _AGAIN, Code.VERIFY)


@dataclass(frozen=True)
class _Place:
    path: str
    size: Annotated[int, Within(0, 16 << 20)]


@dataclass(frozen=True)
class _Listed:
    path: str
    size: int
    sha256: str
    masked: tuple[Annotated[tuple[int, ...], Within(0, 2)], ...] = ()


@dataclass(frozen=True)
class _File:
    identity: str
    signed_with: str
    epoch: Annotated[int, Within(0, 253_370_764_799)]
    site_area: _Place
    profile: ResolvedProfile
    files: tuple[_Listed, ...]
    boot_area: _Place = _Place(BOOT_AREA, 0)
    boot_code: str = ""


def _rename_cvm(record: dict[str, Any]) -> dict[str, Any]:
    """Rename in the profile what version 1 calls controller."""
    profile = record.get("profile")
    if isinstance(profile, dict):
        record = record | {"profile": {"cvm" if key == "controller" and "cvm" not in profile else key: value
                                       for key, value in profile.items()}}
    return record


MANIFEST = Format(NAME, _File, "the factory, signed", "Foundation; verify, diff, customize, lab", SCHEMA_VERSION,
                  key="schema", hint=_AGAIN, code=Code.VERIFY, newer_code=Code.VERIFY, most=MOST,
                  newer="use the release that made the ISO, or a newer one", steps={1: _rename_cvm})


def _wrong(file: _File) -> Iterator[str]:
    """What else than its types is wrong with a manifest, a clause with its path for each."""
    if not _UUID.fullmatch(file.identity):
        yield f".identity has to be a UUID, not {quoted(file.identity)}"
    if file.signed_with not in ("development key", "release key"):
        yield f".signed_with has to be development key or release key, not {quoted(file.signed_with)}"
    if file.boot_code and not _SHA256.fullmatch(file.boot_code):
        yield f".boot_code has to be 64 hexadecimal digits, not {quoted(file.boot_code)}"
    seen: set[str] = set()
    for number, listed in enumerate(file.files):
        at, parts = f".files[{number}]", listed.path.split("/")
        if not listed.path.isprintable() or "\\" in listed.path or {"", ".", ".."} & set(parts):
            yield f"{at}.path has to be a path on the ISO, not {quoted(listed.path)}"
        if listed.path in seen:
            yield f"{at}.path is {quoted(listed.path)} a second time"
        seen.add(listed.path)
        if not _SHA256.fullmatch(listed.sha256):
            yield f"{at}.sha256 has to be 64 hexadecimal digits, not {quoted(listed.sha256)}"
        for index, span in enumerate(listed.masked):
            if len(span) != 2:
                yield f"{at}.masked[{index}] has to be an offset and a length"


def digest(file: BinaryIO, masked: tuple[tuple[int, int], ...] = (),
           progress: Callable[[int], None] = lambda done: None) -> tuple[int, str]:
    """Size and sha256 of an open file, with the masked ranges read as zeros; progress(bytes so far)."""
    hasher, size = hashlib.sha256(), 0
    while chunk := file.read(CHUNK):
        if masked:
            changeable = bytearray(chunk)
            for offset, length in masked:
                start, end = max(offset - size, 0), min(offset + length - size, len(chunk))
                if start < end:
                    changeable[start:end] = bytes(end - start)
            chunk = bytes(changeable)
        hasher.update(chunk)
        size += len(chunk)
        progress(size)
    return size, hasher.hexdigest()


def entry_of(path: str, source: Path, masked: tuple[tuple[int, int], ...] = ()) -> Entry:
    """The entry for a file that is to go onto the ISO as path."""
    with source.open("rb") as file:
        size, sha256 = digest(file, masked)
    return Entry(path, size, sha256, masked)


def difference(entry: Entry, size: int, sha256: str) -> str:
    """Empty when a file is what its entry says, else what is wrong with it, in words."""
    if size != entry.size:
        return f"layer {entry.layer} has {size} bytes, the manifest says {entry.size}"
    if sha256 != entry.sha256:
        return f"layer {entry.layer} does not match the manifest"
    return ""

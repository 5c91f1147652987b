"""The ISO's manifest: every file on it with size and sha256, signed as a whole (ed25519, manifest.json.sig).

The file has one entry a line, so that the initramfs can read it without a JSON parser.
Standard library only: the live environment reads it too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cornerstone.model.error import Code, CornerstoneError

SCHEMA_VERSION = 1
NAME = "manifest.json"
SIGNATURE_NAME = "manifest.json.sig"
LABEL = "FOUNDATION"

HYPERVISOR = "layers/hypervisor.squashfs"
CVM = "layers/cvm.qcow2"
FIRST_BOOT = "layers/first-boot.sh"
SITE_AREA = "site.area"

CHUNK = 1 << 20


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
    epoch: SOURCE_DATE_EPOCH in seconds; site_area: reserved bytes outside the signed content.
    """

    identity: str
    profile: dict
    key: str
    epoch: int
    entries: tuple[Entry, ...]
    site_area: int

    @property
    def signed(self) -> str:
        """'development-signed' or 'release-signed': the word that is said wherever the ISO is named."""
        return f"{self.key}-signed"

    def to_bytes(self) -> bytes:
        """The manifest file, byte for byte what gets signed."""
        head = {"schema": SCHEMA_VERSION, "product": "Cornerstone Foundation", "identity": self.identity,
                "signed_with": f"{self.key} key", "epoch": self.epoch,
                "site_area": {"path": SITE_AREA, "size": self.site_area}, "profile": self.profile}
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
        """Parse a manifest file. Raises CornerstoneError (VERIFY) when it isn't one of this schema."""
        try:
            record = json.loads(content)
            if record["schema"] != SCHEMA_VERSION:
                raise ValueError(f"schema {record['schema']}, this release reads {SCHEMA_VERSION}")
            entries = tuple(Entry(f["path"], f["size"], f["sha256"], tuple(tuple(m) for m in f.get("masked", ())))
                            for f in record["files"])
            return cls(record["identity"], record["profile"], record["signed_with"].removesuffix(" key"),
                       record["epoch"], entries, record["site_area"]["size"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CornerstoneError(f"{where}: not a Foundation manifest: {error}",
                                   "the medium is damaged or of another release; write it anew", Code.VERIFY) from error

    def entry(self, path: str) -> Entry:
        """The entry of a path; KeyError when the ISO has no such file."""
        return {entry.path: entry for entry in self.entries}[path]


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

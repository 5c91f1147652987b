"""Copy with a running hash: the bytes that are written are the bytes that are hashed, and reading, hashing and
writing go on side by side.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from cornerstone.foundation.block import forget_cached, write_all
from cornerstone.model.error import Code, CornerstoneError
from cornerstone.model.manifest import Entry

CHUNK = 4 << 20
# bytes that may be written and not yet on the medium: enough to keep it busy, little enough to tell true progress
PENDING = 64 << 20

Progress = Callable[[int], None]


def copy(source: Path, entry: Entry, target: int, offset: int, progress: Progress) -> None:
    """Copy the file of a manifest entry to an open target at an offset; progress(bytes so far).

    CornerstoneError (VERIFY) unless the bytes are those that the manifest names.
    """
    digest, done, unsynced = hashlib.sha256(), 0, 0
    writing: Future[None] | None = None

    def write(chunk: bytes, at: int) -> None:
        nonlocal unsynced
        write_all(target, chunk, at)
        unsynced += len(chunk)
        if unsynced >= PENDING:
            os.fdatasync(target)
            unsynced = 0

    with source.open("rb", buffering=0) as file, ThreadPoolExecutor(1) as writer:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while chunk := file.read(CHUNK):
            if writing is not None:
                writing.result()
            writing = writer.submit(write, chunk, offset + done)
            digest.update(chunk)
            done += len(chunk)
            progress(done)
        if writing is not None:
            writing.result()
    os.fdatasync(target)
    if (done, digest.hexdigest()) != (entry.size, entry.sha256):
        raise CornerstoneError(f"layer {entry.layer} changed while it was copied: it does not match the manifest",
                               "the medium is damaged: write it anew", Code.VERIFY)


def read_back(target: int, offset: int, entry: Entry, what: str, progress: Progress) -> None:
    """Compare what the medium holds with a manifest entry. CornerstoneError (VERIFY) that names what."""
    forget_cached(target)
    digest, done = hashlib.sha256(), 0
    while done < entry.size and (chunk := os.pread(target, min(CHUNK, entry.size - done), offset + done)):
        digest.update(chunk)
        done += len(chunk)
        progress(done)
    if digest.hexdigest() != entry.sha256:
        raise CornerstoneError(f"{what} reads back other bytes than layer {entry.layer} has",
                               "the disk is bad, or its cable or controller: replace it", Code.VERIFY)

"""Copy with a running hash: the bytes that are written are the bytes that are hashed, and reading, hashing and
writing go on side by side.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO
from pathlib import Path

from cornerstone.foundation.installer.block import forget_cached, write_all
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.contracts.manifest import Entry, difference, digest

CHUNK = 4 << 20
# bytes after which the medium is made to take them: twice that may be on their way, enough to keep it busy, little
# enough to tell true progress
PENDING = 64 << 20

UNREADABLE = "the medium is damaged, or was pulled out: write it anew"

Progress = Callable[[int], None]


def copy(source: Path, entry: Entry, target: int, offset: int, progress: Progress) -> None:
    """Copy the file of a manifest entry to an open target at an offset; progress(bytes so far).

    CornerstoneError (VERIFY) unless the bytes can be read, and are those that the manifest names. OSError when the
    target can't be written.
    """
    digest, done, unsynced = hashlib.sha256(), 0, 0
    # one is written while the other is read into; new memory for each chunk would cost more than the copy
    chunk, other = bytearray(CHUNK), bytearray(CHUNK)
    with _opened(source, entry) as file, ThreadPoolExecutor(1) as writer, ThreadPoolExecutor(1) as syncer:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        writing, syncing = _nothing(writer), _nothing(syncer)
        while size := _read(file, chunk, entry):
            writing.result()
            part = memoryview(chunk)[:size]
            writing = writer.submit(write_all, target, part, offset + done)
            digest.update(part)
            done, unsynced = done + size, unsynced + size
            # beside the next writes, so that the medium is never without work
            if unsynced >= PENDING:
                syncing.result()
                syncing, unsynced = syncer.submit(os.fdatasync, target), 0
            progress(done)
            chunk, other = other, chunk
        writing.result()
        syncing.result()
    os.fdatasync(target)
    if (done, digest.hexdigest()) != (entry.size, entry.sha256):
        raise CornerstoneError(f"layer {entry.layer} changed while it was copied: it does not match the manifest",
                               "the medium is damaged: write it anew", Code.VERIFY)


def read_whole(source: Path, entry: Entry) -> bytes:
    """Return the content of a manifest entry's file, a small one.

    CornerstoneError (VERIFY) unless it can be read, and is what the manifest says.
    """
    # a byte more than it may have, so that one that has grown is told
    content = bytearray(entry.size + 1)
    with _opened(source, entry) as file, memoryview(content) as view:
        done = 0
        while done < len(content) and (size := _read(file, view[done:], entry)):
            done += size
    if problem := difference(entry, *digest(io.BytesIO(content[:done]), entry.masked)):
        raise CornerstoneError(problem, UNREADABLE, Code.VERIFY)
    return bytes(content[:done])


def _opened(source: Path, entry: Entry) -> FileIO:
    try:
        return FileIO(source)
    except OSError as error:
        raise _unreadable(entry, error) from error


def _read(file: FileIO, chunk: bytearray | memoryview, entry: Entry) -> int:
    try:
        return file.readinto(chunk) or 0
    except OSError as error:
        raise _unreadable(entry, error) from error


def _unreadable(entry: Entry, error: OSError) -> CornerstoneError:
    return CornerstoneError(f"layer {entry.layer} can't be read from the medium: {error.strerror}", UNREADABLE,
                            Code.VERIFY)


def _nothing(pool: ThreadPoolExecutor) -> Future[None]:
    return pool.submit(lambda: None)


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

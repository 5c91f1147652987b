"""Reader of an initramfs: cpio archives one after another, some plain and some compressed.

Sources: Linux, Documentation/driver-api/early-userspace/buffer-format.rst; RFC 8878 (zstd).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from cornerstone.lib import process
from cornerstone.lib.error import Code, CornerstoneError

MAGICS = (b"070701", b"070702")
HEADER = 110
END = "TRAILER!!!"
ZSTD, GZIP = b"\x28\xb5\x2f\xfd", b"\x1f\x8b"
# ours have some 100 MiB unpacked, in four archives at the most
MOST, MOST_ARCHIVES = 1 << 30, 64


def files(content: bytes) -> dict[str, bytes]:
    """Path → content of each regular file, and of each link its target; a later archive's counts.

    Raises CornerstoneError (VERIFY) for what can't be read or has more in it than MOST bytes, (MACHINE) without zstd.
    """
    found: dict[str, bytes] = {}
    left, archives = MOST, 0
    try:
        while content := content.lstrip(b"\0"):
            archives += 1
            if archives > MOST_ARCHIVES or left <= 0:
                raise ValueError("it is too large")
            if content[:6] in MAGICS:
                at = 0
                for path, each, after in _entries(content):
                    found[path], at = each, after
                content = content[at:]
            elif content[:4] == ZSTD:
                end = _frame_end(content)
                unpacked, content = _unzstd(content[:end], left), content[end:]
                left -= len(unpacked)
                content = unpacked + content
            elif content[:2] == GZIP:
                unpack = zlib.decompressobj(31)
                unpacked = unpack.decompress(content, left)
                if unpack.unconsumed_tail:
                    raise ValueError("it is too large")
                left -= len(unpacked)
                content = unpacked + unpack.unused_data
            else:
                raise ValueError(f"nothing known begins with {content[:6]!r}")
    except (ValueError, IndexError, zlib.error) as error:
        raise CornerstoneError(f"the initramfs can't be read: {error}", "build it again", Code.VERIFY) from error
    found.pop(END, None)
    return found


def _entries(content: bytes) -> Iterator[tuple[str, bytes, int]]:
    """Path, content and the place after it, of each file and link of an archive; the end of the archive is last."""
    at = 0
    while content[at:at + 6] in MAGICS:
        fields = [int(content[at + 6 + 8 * number:at + 14 + 8 * number], 16) for number in range(13)]
        mode, size, length = fields[1], fields[6], fields[11]
        name = content[at + HEADER:at + HEADER + length - 1].decode("utf-8", "backslashreplace")
        start = (at + HEADER + length + 3) // 4 * 4
        if start + size > len(content):
            raise ValueError("it is cut short")
        at = (start + size + 3) // 4 * 4
        if name == END:
            yield name, b"", at
            return
        # regular files and symbolic links
        if mode & 0o170000 in (0o100000, 0o120000):
            yield name.removeprefix("./"), content[start:start + size], at
    raise ValueError("an archive in it has no end")


def _frame_end(content: bytes) -> int:
    """How many bytes the zstd frame has that content begins with."""
    flags = content[4]
    single = flags >> 5 & 1
    # the window, unless the size is the window; a dictionary's id; the size of what is packed
    at = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[flags >> 6]
    last = 0
    while not last:
        head = content[at] | content[at + 1] << 8 | content[at + 2] << 16
        last, kind, size = head & 1, head >> 1 & 3, head >> 3
        # of a byte that repeats there is one
        at += 3 + (1 if kind == 1 else size)
    return at + 4 * (flags >> 2 & 1)


def _unzstd(content: bytes, most: int) -> bytes:
    found = process.call(["zstd", "--decompress", "--stdout", "--quiet"], stdin=content, most=most + 1).out
    if len(found) > most:
        raise ValueError("it is too large")
    if not found:
        raise ValueError("its zstd stream is damaged")
    return found

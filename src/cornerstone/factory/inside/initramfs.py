"""Reader of an initramfs: cpio archives one after another, some plain and one compressed.

Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import subprocess
import tempfile
import zlib
from collections.abc import Iterator

from cornerstone.factory import process
from cornerstone.model.error import Code, CornerstoneError

MAGICS = (b"070701", b"070702")
HEADER = 110
END = "TRAILER!!!"
ZSTD, GZIP = b"\x28\xb5\x2f\xfd", b"\x1f\x8b"
# ours have some 100 MiB unpacked
MOST = 1 << 30


def files(content: bytes) -> dict[str, bytes]:
    """Path → content of each regular file, and of each link its target; a later archive's counts.

    Raises CornerstoneError (VERIFY) for what can't be read or has more in it than MOST bytes, (MACHINE) without zstd.
    """
    found: dict[str, bytes] = {}
    try:
        while content := content.lstrip(b"\0"):
            if content[:6] in MAGICS:
                at = 0
                for path, each, after in _entries(content):
                    found[path], at = each, after
                content = content[at:]
            elif content[:4] == ZSTD:
                content = _unzstd(content)
            elif content[:2] == GZIP:
                unpack = zlib.decompressobj(31)
                content = unpack.decompress(content, MOST)
                if unpack.unconsumed_tail:
                    raise ValueError("it is too large")
            else:
                raise ValueError(f"nothing known begins with {content[:6]!r}")
    except (ValueError, zlib.error) as error:
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


def _unzstd(content: bytes) -> bytes:
    with tempfile.TemporaryFile() as packed:
        packed.write(content)
        packed.seek(0)
        try:
            child = subprocess.Popen(["zstd", "--decompress", "--stdout", "--quiet"], stdin=packed,
                                     stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=process.environment())
        except FileNotFoundError as error:
            raise CornerstoneError("zstd is not installed", "run ./invoke, which installs what is missing",
                                   Code.MACHINE) from error
        with child:
            if child.stdout is None:
                raise AssertionError("a pipe was asked for")
            found = child.stdout.read(MOST + 1)
            child.kill()
    if len(found) > MOST:
        raise ValueError("it is too large")
    if not found:
        raise ValueError("its zstd stream is damaged")
    return found

"""Which libraries the programs of a root need, and whether the root has them all. Source: ELF-64, generic ABI."""

from __future__ import annotations

import posixpath
import struct
from collections.abc import Iterator

from cornerstone.factory.inspection.tree import Tree

LOAD, DYNAMIC = 1, 2
NEEDED, STRINGS, RPATH, RUNPATH = 1, 5, 15, 29
# where ld.so looks without being told
ALWAYS = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64", "lib", "usr/lib")


def needed(content: bytes) -> tuple[list[str], list[str]]:
    """The names of the libraries that an ELF file needs, and the folders where it looks itself.

    Raises ValueError for what isn't a 64-bit little-endian ELF file, or is damaged.
    """
    if content[:6] != b"\x7fELF\x02\x01":
        raise ValueError("it is no ELF file of 64 bits")
    try:
        return _needed(content)
    except (struct.error, IndexError, OverflowError, StopIteration) as error:
        raise ValueError(f"its ELF headers are damaged: {error}") from None


def _needed(content: bytes) -> tuple[list[str], list[str]]:
    start, = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    segments = [struct.unpack_from("<IIQQQQQQ", content, start + size * number) for number in range(count)]
    tags: list[tuple[int, int]] = []
    for kind, _, offset, _, _, length, _, _ in segments:
        if kind == DYNAMIC:
            tags += struct.iter_unpack("<QQ", content[offset:offset + length // 16 * 16])
    tables = [value for tag, value in tags if tag == STRINGS]
    if not tables:
        return [], []
    at = next(offset + tables[0] - address for kind, _, offset, address, _, length, _, _ in segments
              if kind == LOAD and address <= tables[0] < address + length)

    def text(value: int) -> str:
        return content[at + value:content.index(b"\0", at + value)].decode("utf-8", "backslashreplace")
    return ([text(value) for tag, value in tags if tag == NEEDED],
            [folder for tag, value in tags if tag in (RPATH, RUNPATH) for folder in text(value).split(":")])


def missing(tree: Tree, program: str) -> list[str]:
    """Return what a program of a root and its libraries need, and the root lacks: names of shared libraries.

    Of a script: its interpreter. Raises OSError when there is no such program.
    """
    lacking, seen, waiting = [], set(), [tree.real(program)]
    folders = [*_configured(tree), *ALWAYS]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        content = tree.read(path)
        if content.startswith(b"#!"):
            interpreter = content[2:].split(maxsplit=1)[0].decode("utf-8", "backslashreplace")
            if tree.is_file(interpreter):
                waiting.append(tree.real(interpreter))
            else:
                lacking.append(f"{interpreter}, the interpreter of {path}")
            continue
        names, own = needed(content)
        own = [folder.replace("$ORIGIN", f"/{posixpath.dirname(path)}").replace(
            "${ORIGIN}", f"/{posixpath.dirname(path)}") for folder in own]
        for name in names:
            at = next((f"{folder}/{name}" for folder in (*own, *folders) if tree.is_file(f"{folder}/{name}")), None)
            if at is None:
                lacking.append(f"{name}, which {path} needs")
            else:
                waiting.append(tree.real(at))
    return lacking


def _configured(tree: Tree) -> Iterator[str]:
    for name in tree.names("etc/ld.so.conf.d"):
        if name.endswith(".conf"):
            for line in tree.text(f"etc/ld.so.conf.d/{name}").splitlines():
                if line.startswith("/"):
                    yield line.strip()

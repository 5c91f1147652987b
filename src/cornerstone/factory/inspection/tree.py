"""A root as data: its names from the squashfs and its content in one file without a name, never unpacked.

So nothing of an ISO becomes a program, a device or a link of the machine that looks at it, and it takes no root's
rights. A link of the root leads to another place of that root, or nowhere.
"""

from __future__ import annotations

import errno
import os
import posixpath
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from cornerstone.factory.inspection.roots import File, read_into
from cornerstone.lib.error import Code, CornerstoneError

# as many as Linux follows
MOST_LINKS = 40
PROGRAMS = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin")


class Tree:
    """Everything in a root: files by path without leading slash, and content, where each regular file's bytes start."""

    def __init__(self, files: Mapping[str, File], content: BinaryIO, starts: Mapping[str, int]) -> None:
        self.files = files
        self._content = content
        self._starts = starts

    def close(self) -> None:
        """Let go of the content."""
        self._content.close()

    def real(self, path: str, *, follow: bool = True) -> str:
        """A path of this root without links on the way; follow: nor at its end.

        Raises FileNotFoundError, or OSError (ELOOP) for links that come to no end.
        """
        parts, at, links = deque(path.split("/")), "", 0
        while parts:
            part = parts.popleft()
            if part in ("", "."):
                continue
            if part == "..":
                at = posixpath.dirname(at)
                continue
            here = f"{at}/{part}".lstrip("/")
            if here not in self.files:
                raise FileNotFoundError(errno.ENOENT, "there is no such name in the root", path)
            if self.files[here].kind == "link" and (follow or parts):
                links += 1
                if links > MOST_LINKS:
                    raise OSError(errno.ELOOP, "its links come to no end", path)
                target = self.files[here].content
                at = "" if target.startswith("/") else at
                parts.extendleft(reversed(target.split("/")))
                continue
            at = here
        return at

    def get(self, path: str, *, follow: bool = True) -> File | None:
        """What a path of this root leads to, None when that is nothing."""
        try:
            return self.files.get(self.real(path, follow=follow))
        except OSError:
            return None

    def is_file(self, path: str) -> bool:
        """Whether a path leads to a regular file."""
        found = self.get(path)
        return found is not None and found.kind == "file"

    def is_folder(self, path: str) -> bool:
        """Whether a path leads to a folder."""
        found = self.get(path)
        return found is not None and found.kind == "folder"

    def program(self, name: str) -> str | None:
        """The path of a program that may be run, by its name; None when no folder of programs has it."""
        for folder in PROGRAMS:
            found = self.get(f"{folder}/{name}")
            if found is not None and found.kind == "file" and found.mode & 0o111:
                return f"{folder}/{name}"
        return None

    def link(self, path: str) -> str | None:
        """Where the link at a path points, None when there is no link."""
        found = self.get(path, follow=False)
        return found.content if found is not None and found.kind == "link" else None

    def read(self, path: str) -> bytes:
        """The content of the regular file that a path leads to. Raises OSError when there is none."""
        real = self.real(path)
        if self.files[real].kind != "file":
            raise OSError(errno.EINVAL, "it isn't a regular file", path)
        size, start = self.files[real].size, self._starts[real]
        content = os.pread(self._content.fileno(), size, start)
        while len(content) < size:
            piece = os.pread(self._content.fileno(), size - len(content), start + len(content))
            if not piece:
                raise OSError(errno.EIO, "its content isn't there", path)
            content += piece
        return content

    def text(self, path: str) -> str:
        """The content of a file as UTF-8 text."""
        return self.read(path).decode()

    @cached_property
    def _folders(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path in self.files:
            if path:
                folder, _, name = path.rpartition("/")
                found.setdefault(folder, []).append(name)
        return found

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted; none when there is no such folder."""
        try:
            return sorted(self._folders.get(self.real(folder), ()))
        except OSError:
            return []

    def below(self, *folders: str) -> Iterator[str]:
        """The paths of all regular files, of the whole root or below some folders; never through a link on the way."""
        for folder in folders or ("",):
            if not self.is_folder(folder):
                continue
            waiting = [self.real(folder)]
            while waiting:
                at = waiting.pop()
                for name in self._folders.get(at, ()):
                    path = f"{at}/{name}".lstrip("/")
                    kind = self.files[path].kind
                    if kind == "folder":
                        waiting.append(path)
                    elif kind == "file":
                        yield path


def read_tree(image: Path, offset: int, scratch: Path) -> Tree:
    """The root in the squashfs that starts at a byte of a file; scratch: a folder with room for its content.

    Raises CornerstoneError (VERIFY) for a squashfs that can't be read to its end, (MACHINE) without room.
    """
    content = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115
    try:
        files, starts = read_into(image, offset, content)
        content.flush()
    except OSError as error:
        content.close()
        if error.errno != errno.ENOSPC:
            raise
        raise CornerstoneError(f"{scratch} has no room for the content of a root, about 2 GiB",
                               "make room, or set CORNERSTONE_CACHE to a larger disk", Code.MACHINE) from error
    except BaseException:
        content.close()
        raise
    return Tree(files, content, starts)

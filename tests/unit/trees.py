"""Roots as data for tests, from a dict: path → content of a file, or a Link."""

from __future__ import annotations

import hashlib
import tempfile

from cornerstone.factory.inspection.roots import File
from cornerstone.factory.inspection.tree import Tree


class Link(str):
    """Where a symbolic link points."""


def make_tree(names: dict[str, bytes | str], mode: int = 0o644) -> Tree:
    """A root with these files and links, all folders on the way, and nothing else."""
    content = tempfile.TemporaryFile()  # noqa: SIM115
    files = {"": File("folder", 0o755, 0, 0, 0, "")}
    starts = {}
    for path, each in names.items():
        parts = path.split("/")
        for count in range(1, len(parts)):
            files.setdefault("/".join(parts[:count]), File("folder", 0o755, 0, 0, 0, ""))
        if isinstance(each, Link):
            files[path] = File("link", 0o777, 0, 0, 0, str(each))
            continue
        each = each.encode() if isinstance(each, str) else each
        starts[path] = content.tell()
        content.write(each)
        files[path] = File("file", mode, 0, 0, len(each), hashlib.sha256(each).hexdigest())
    content.flush()
    return Tree(files, content, starts)

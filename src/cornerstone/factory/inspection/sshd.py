"""sshd's settings in a root, as sshd would read them."""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Iterator

from cornerstone.factory.inspection.tree import Tree

CONFIG = "etc/ssh/sshd_config"
# sshd's own, where no file says anything
DEFAULTS = {"passwordauthentication": "yes", "kbdinteractiveauthentication": "yes", "permitemptypasswords": "no",
            "permitrootlogin": "prohibit-password"}
# other names that sshd takes
SAME = {"challengeresponseauthentication": "kbdinteractiveauthentication",
        "skeyauthentication": "kbdinteractiveauthentication", "without-password": "prohibit-password"}
DEEPEST = 16


def settings(tree: Tree) -> dict[str, str]:
    """Return sshd's settings for every connection by lower-case name: the first value in its files, else its default.

    Raises ValueError for a Match block, which would give some connections other settings.
    Source: sshd_config(5).
    """
    found: dict[str, str] = {}
    for name, value in _lines(tree, CONFIG, 0):
        if name == "match":
            raise ValueError(f"sshd has other settings for some: Match {value}")
        value = SAME.get(value.lower(), value)
        found.setdefault(SAME.get(name, name), value.lower() if SAME.get(name, name) in DEFAULTS else value)
    return DEFAULTS | found


def _lines(tree: Tree, path: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > DEEPEST:
        raise ValueError(f"{path} includes itself")
    for line in tree.text(path).splitlines():
        words = line.strip().replace("=", " ", 1).split(maxsplit=1)
        if not words or words[0].startswith("#"):
            continue
        name, value = words[0].lower(), words[1].strip().strip('"') if len(words) > 1 else ""
        if name != "include":
            yield name, value
            continue
        for pattern in value.split():
            folder, _, part = posixpath.join("/etc/ssh", pattern).rpartition("/")
            for each in tree.names(folder):
                if fnmatch.fnmatchcase(each, part):
                    yield from _lines(tree, f"{folder}/{each}", depth + 1)

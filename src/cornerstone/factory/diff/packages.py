"""Debian's packages in a root: their versions, which of them owns a path, and which of two versions is newer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import zip_longest

from cornerstone.factory.roots import File

STATUS = "var/lib/dpkg/status"
INFO = "var/lib/dpkg/info/"


def wanted(path: str) -> bool:
    """Whether a file of the root is one that the functions below need."""
    return path == STATUS or (path.startswith(INFO) and path.endswith(".list"))


def versions(kept: Mapping[str, bytes]) -> dict[str, str]:
    """Version by name of each installed package, from dpkg's status file; of a foreign architecture as name:arch."""
    found: dict[str, str] = {}
    for stanza in kept.get(STATUS, b"").decode("utf-8", "backslashreplace").split("\n\n"):
        fields = dict(re.findall(r"^(Package|Status|Architecture|Version): *(.*)$", stanza, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed") and "Package" in fields:
            name = fields["Package"]
            key = f"{name}:{fields.get('Architecture')}" if name in found else name
            found[key] = fields.get("Version", "")
    return found


def owners(kept: Mapping[str, bytes], files: Mapping[str, File]) -> dict[str, str]:
    """The package of each path that one package alone has, of dpkg's files about it, and of its compiled Python."""
    links = {path: file.content.strip("/") for path, file in files.items() if file.kind == "link" and "/" not in path}
    found: dict[str, str] = {}
    for list_path, content in kept.items():
        if not list_path.startswith(INFO):
            continue
        package = list_path.removeprefix(INFO).removesuffix(".list").partition(":")[0]
        for line in content.decode("utf-8", "backslashreplace").splitlines():
            top, slash, rest = line.strip("/").partition("/")
            # a package may say /lib/x where the root has lib → usr/lib
            path = f"{links.get(top, top) if slash else top}{slash}{rest}"
            found[path] = package if found.get(path, package) == package else ""
    for path in files:
        if path.startswith(INFO):
            found[path] = path.removeprefix(INFO).rpartition(".")[0].partition(":")[0]
        elif "/__pycache__" in path:
            # made when the package was installed, from NAME.py in the folder above
            folder, _, name = path.partition("/__pycache__")
            found[path] = found.get(f"{folder}/{name[1:].partition('.')[0]}.py" if name else folder, "")
    return {path: package for path, package in found.items() if package}


def compare(a: str, b: str) -> int:
    """Below 0 when version a is older than b, 0 when they are equal, else above. Source: Debian Policy, 5.6.12."""
    for left, right in zip(_split(a), _split(b), strict=True):
        parts = zip_longest(_parts(left), _parts(right), fillvalue=([0], 0))
        if order := next((-1 if x < y else 1 for x, y in parts if x != y), 0):
            return order
    return 0


def _split(version: str) -> tuple[str, str, str]:
    """Epoch, upstream version and revision."""
    epoch, colon, rest = version.rpartition(":") if ":" not in version else version.partition(":")
    upstream, dash, revision = rest.rpartition("-")
    return (epoch if colon else "0", upstream if dash else rest, revision if dash else "0")


def _parts(text: str) -> list[tuple[list[int], int]]:
    """Pairs of what isn't a digit, as its place in the order (~, end, letters, others), and of the number after it."""
    def place(character: str) -> int:
        return -1 if character == "~" else ord(character) + (0 if character.isalpha() else 256)
    return [([*map(place, word), 0], int(number or 0)) for word, number in re.findall(r"([^0-9]*)([0-9]*)", text)
            if word or number]

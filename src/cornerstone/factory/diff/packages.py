"""Debian's packages in a root: their versions, and which of them owns a path."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cornerstone.factory.inspection.roots import File

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

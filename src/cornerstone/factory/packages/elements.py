"""diskimage-builder elements as data: which elements make a root, and which packages they ask for."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import yaml

from cornerstone.lib.error import CornerstoneError

# What each root is made of; element-deps files add the rest.
ROOTS = {
    "hypervisor": ("hypervisor", "foundation", "first-boot"),
    "cvm": ("cvm",),
}


def packages_layer(root: str) -> str:
    """Return the name of the layer with the installed packages of a root."""
    return f"{root}-packages"


@cache
def closure(elements: Path, root: str) -> tuple[str, ...]:
    """The names of all elements of a root with their dependencies, sorted.

    Only elements of ours count: what diskimage-builder ships (no-final-image) is its version's affair.
    """
    found: set[str] = set()
    waiting = list(ROOTS[root])
    while waiting:
        name = waiting.pop()
        folder = elements / name
        if name in found or not folder.is_dir():
            continue
        found.add(name)
        deps = folder / "element-deps"
        if deps.is_file():
            waiting += deps.read_text().split()
    return tuple(sorted(found))


def packages(elements: Path, root: str, suite: str) -> tuple[str, ...]:
    """The Debian packages that a root's elements ask for in their package-installs.yaml, sorted.

    A package may be limited to suites: `name: {when: "DIB_RELEASE=bookworm"}`, as diskimage-builder
    has it. Raises CornerstoneError when a file isn't a mapping.
    """
    asked: set[str] = set()
    for name in closure(elements, root):
        path = elements / name / "package-installs.yaml"
        if not path.is_file():
            continue
        try:
            content = yaml.safe_load(path.read_text()) or {}
        except yaml.YAMLError as error:
            raise CornerstoneError(f"{path}: {error}", "see the other elements") from error
        if not isinstance(content, dict):
            raise CornerstoneError(f"{path}: must map package names to their conditions", "see the other elements")
        for package, conditions in content.items():
            if not isinstance(conditions, dict | None):
                raise CornerstoneError(f"{path}: {package}: its conditions must be a mapping", "see the other elements")
            when = (conditions or {}).get("when", f"DIB_RELEASE={suite}")
            variable, _, value = when.partition("=")
            if variable != "DIB_RELEASE":
                raise CornerstoneError(f"{path}: {package}: `when` knows only DIB_RELEASE here", "name a suite")
            if value == suite:
                asked.add(package)
    return tuple(sorted(asked))


def fingerprint(elements: Path, root: str) -> str:
    """sha256 over every file of a root's elements: path, executable or not, content."""
    return tree_digest([elements / name for name in closure(elements, root)], elements)


def tree_digest(folders: list[Path], base: Path) -> str:
    """sha256 over the files below some folders (or single files), independent of umask and time."""
    digest = hashlib.sha256()
    for folder in folders:
        files = [folder] if folder.is_file() else sorted(folder.rglob("*"))
        for path in files:
            if "__pycache__" in path.parts or path.is_dir():
                continue
            kind = "l" if path.is_symlink() else "x" if path.stat().st_mode & 0o100 else "f"
            content = str(path.readlink()).encode() if kind == "l" else path.read_bytes()
            digest.update(f"{kind} {path.relative_to(base)} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()

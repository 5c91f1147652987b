"""What differs between two ISOs: a pure function of their facts."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from cornerstone.factory.diff.image import Facts, Root
from cornerstone.factory.inspection.roots import File
from cornerstone.factory.packages.debian_version import compare as compare_versions
from cornerstone.model.contracts.manifest import CVM, HYPERVISOR

TOTAL = "the whole ISO"


@dataclass(frozen=True)
class Side:
    """One of the two ISOs."""

    name: str
    identity: str
    profile: str
    signed_with: str


@dataclass(frozen=True)
class Size:
    """Bytes of one file of the ISO, or of all of it; 0 where it isn't there. limited: a gate looks at it."""

    name: str
    a: int
    b: int
    limited: bool


@dataclass(frozen=True)
class Change:
    """A value that isn't the same; None where it isn't there."""

    name: str
    a: str | None
    b: str | None


@dataclass(frozen=True)
class TextChange:
    """A text that isn't the same, as unified diff."""

    name: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class FileChange:
    """A name in a root: its state (added, removed or changed), and the bytes that it grew by.

    what: of a changed one, some of content, mode, owner, attributes, target (of a link), kind.
    """

    path: str
    state: str
    what: tuple[str, ...]
    growth: int


@dataclass(frozen=True)
class PackageChange:
    """A package of a root with the names that it owns; growth in bytes, unpacked.

    state: added, removed, upgraded, downgraded; same for one with changed files; none for what no package owns.
    """

    name: str
    state: str
    a: str
    b: str
    growth: int
    files: tuple[FileChange, ...]

    def count(self, state: str) -> int:
        """How many of its names are added, removed or changed."""
        return sum(file.state == state for file in self.files)


@dataclass(frozen=True)
class RootDifference:
    """What differs in one root, by package."""

    name: str
    packages: tuple[PackageChange, ...]

    def count(self, state: str) -> int:
        """How many packages are added, removed, upgraded or downgraded."""
        return sum(package.state == state for package in self.packages)

    @property
    def growth(self) -> int:
        """Bytes that the unpacked root grew by."""
        return sum(package.growth for package in self.packages)


@dataclass(frozen=True)
class Difference:
    """Two ISOs side by side; sizes has every file, the rest only what isn't the same."""

    a: Side
    b: Side
    sizes: tuple[Size, ...]
    manifest: tuple[Change, ...]
    boot: tuple[Change, ...]
    disk: tuple[Change, ...]
    site_area: bool
    texts: tuple[TextChange, ...]
    roots: tuple[RootDifference, ...]
    entries: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not (self.manifest or self.entries or self.site_area or self.texts
                    or self.sizes[-1].a != self.sizes[-1].b)


def compare(a: Facts, b: Facts) -> Difference:
    """The difference from a to b."""
    paths = sorted(a.entries.keys() | b.entries.keys())
    sizes = [Size(path.removeprefix("layers/"), _size(a, path), _size(b, path), path in (HYPERVISOR, CVM))
             for path in paths if not path.startswith(".disk/")]
    return Difference(
        a=_side(a), b=_side(b),
        sizes=(*sorted(sizes, key=lambda size: not size.limited), Size(TOTAL, a.size, b.size, True)),
        manifest=_changes(a.manifest, b.manifest), boot=_changes(a.boot, b.boot), disk=_changes(a.disk, b.disk),
        site_area=a.site_area != b.site_area,
        texts=tuple(TextChange(name, tuple(_unified(name, a.texts[name], b.texts[name])))
                    for name in sorted(a.texts.keys() & b.texts.keys()) if a.texts[name] != b.texts[name]),
        roots=tuple(RootDifference(name, _packages(root, b.roots[name]))
                    for name, root in a.roots.items() if name in b.roots),
        entries=tuple(path for path in paths if a.entries.get(path) != b.entries.get(path)))


def _side(facts: Facts) -> Side:
    said = {name: facts.manifest.get(name, "unknown")
            for name in ("identity", "profile.name", "profile.aos", "profile.ahv", "signed_with")}
    profile = f"{said['profile.name']}: AOS {said['profile.aos']} with AHV {said['profile.ahv']}"
    return Side(facts.name, said["identity"], profile, said["signed_with"])


def _size(facts: Facts, path: str) -> int:
    return facts.entries[path].size if path in facts.entries else 0


def _changes(a: Mapping[str, str], b: Mapping[str, str]) -> tuple[Change, ...]:
    names = [*a, *(name for name in b if name not in a)]
    return tuple(Change(name, a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name))


def _unified(name: str, a: str, b: str) -> list[str]:
    return list(difflib.unified_diff(a.splitlines(), b.splitlines(), f"a/{name}", f"b/{name}", lineterm=""))


def _packages(a: Root, b: Root) -> tuple[PackageChange, ...]:
    owned: dict[str, list[FileChange]] = defaultdict(list)
    for path in sorted(a.files.keys() | b.files.keys()):
        if change := _file(path, a.files.get(path), b.files.get(path)):
            owner = b.owners.get(path, "") if path in b.files else a.owners.get(path, "")
            owned[owner].append(change)
    changes = []
    for name in sorted((a.packages.keys() | b.packages.keys() | owned.keys()) - {""}):
        before, after = a.packages.get(name, ""), b.packages.get(name, "")
        if before != after or name in owned:
            changes.append(_package(name, before, after, owned[name]))
    if "" in owned:
        changes.append(_package("", "", "", owned[""]))
    return tuple(changes)


def _package(name: str, before: str, after: str, files: list[FileChange]) -> PackageChange:
    if before == after:
        state = "same" if before else "none"
    elif not (before and after):
        state = "added" if after else "removed"
    else:
        state = "upgraded" if compare_versions(before, after) <= 0 else "downgraded"
    return PackageChange(name, state, before, after, sum(file.growth for file in files), tuple(files))


def _file(path: str, a: File | None, b: File | None) -> FileChange | None:
    if a == b:
        return None
    if a is None or b is None:
        return FileChange(path, "added" if b else "removed", (), (b.size if b else 0) - (a.size if a else 0))
    what = {"kind": a.kind != b.kind, "content": a.content != b.content, "mode": a.mode != b.mode,
            "owner": (a.uid, a.gid) != (b.uid, b.gid), "attributes": a.attributes != b.attributes}
    if what["kind"]:
        what["content"] = False
    words = tuple("target" if word == "content" and a.kind == "link" else word for word, true in what.items() if true)
    return FileChange(path, "changed", words, b.size - a.size)

"""A profile's additions to a root: Debian packages, a tree of files, and arguments for its kernel.

They stand below `extra` of .hypervisor and .cvm. The tree is read as data: names, the executable bit, content.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.json_text import DEEPEST
from cornerstone.lib.printable import quoted
from cornerstone.model.contracts.boot_area import reason_against

# As Debian's policy has names (5.6.1), but none that ends in what apt-get takes for "remove it".
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*[a-z0-9+]")
KERNEL = re.compile(r"linux-image-.*")
# The kernel takes 2047 bytes; the ISO's own arguments, its boot area and the path of findiso= need the others.
LONGEST_ARGUMENTS = 512
MOST_FILES = 10_000
# of all files together: a root slot has 2 GiB by default, and most of it is taken
MOST_BYTES = 1 << 30
CHUNK = 1 << 20

# Where files may go: what isn't made anew at each start, and isn't a machine's own.
TOPS = ("etc", "opt", "srv", "usr")
MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
# Ours, and what names one machine, lets somebody in, or is emptied when a root is packed.
OURS = ("usr/lib/cornerstone", "usr/lib/cornerstone-mgr", "usr/share/cornerstone", "etc/passwd", "etc/passwd-",
        "etc/shadow", "etc/shadow-", "etc/group", "etc/group-", "etc/gshadow", "etc/gshadow-", "etc/machine-id",
        "etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/.updated", "etc/iscsi/initiatorname.iscsi",
        "etc/nvme/hostid", "etc/nvme/hostnqn")
HOST_KEY = re.compile(r"etc/ssh/ssh_host_[^/]*")
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----")
LONGEST_MARK = 80


@dataclass(frozen=True)
class Entry:
    """One name of a tree: kind is file, program or link; content is a file's sha256 in hex, or where a link leads."""

    path: str
    kind: str
    content: str


@dataclass(frozen=True)
class Tree:
    """Files to lay over a root, sorted by path; folder is where they are on this machine."""

    folder: Path = field(compare=False)
    entries: tuple[Entry, ...]

    @property
    def sha256(self) -> str:
        """The sha256 over all names, kinds and contents, in hex; the place, times and other modes don't count."""
        rows = [[entry.path, entry.kind, entry.content] for entry in self.entries]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


@dataclass(frozen=True)
class Additions:
    """What a profile adds to one root. replace: paths of files that take the place of a Debian package's."""

    packages: tuple[str, ...] = ()
    files: Tree | None = None
    replace: tuple[str, ...] = ()
    kernel_arguments: tuple[str, ...] = ()

    def resolved(self) -> dict[str, Any]:
        """The additions for the manifest, JSON-able; of the files their sha256. Keys without a value are left out."""
        values = {"packages": list(self.packages), "files": self.files.sha256 if self.files else "",
                  "replace": list(self.replace), "kernel_arguments": list(self.kernel_arguments)}
        return {key: value for key, value in values.items() if value}


def _check_package(value: str) -> str:
    if not PACKAGE.fullmatch(value):
        raise PydanticCustomError("package", "{shown} isn't the name of a Debian package", {
            "shown": quoted(value), "hint": "write the name alone, without version, architecture or options"})
    if KERNEL.fullmatch(value):
        raise PydanticCustomError("package", "{shown} would be a second kernel", {
            "shown": quoted(value), "hint": "leave it out: what starts is the kernel that the manifest names"})
    return value


def _check_argument(value: str) -> str:
    problem = reason_against(value)
    if not problem and value.startswith("foundation."):
        problem = f"{quoted(value)} isn't taken: it is for one start, not for a profile"
    if problem:
        raise PydanticCustomError("kernel_argument", "{problem}", {
            "problem": problem, "hint": "write NAME or NAME=VALUE, in letters, digits and _.,:/@%+=!~-; docs/site.md "
                                        "has what isn't taken"})
    return value


def _check_path(value: str) -> str:
    parts = PurePosixPath(value).parts
    if not value.isprintable() or not parts or value != str(PurePosixPath(*parts)) or {"/", "."} & set(parts[:1]) \
            or ".." in parts:
        raise PydanticCustomError("path", "{shown} isn't a relative path", {
            "shown": quoted(value), "hint": "write folders and a name, without / in front and without .. between them"})
    return value


def _check_once(values: list[str]) -> list[str]:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise PydanticCustomError("twice", "{shown} is written twice", {
                "shown": quoted(value), "hint": "keep one of the two"})
        seen.add(value)
    return values


def _check_length(values: list[str]) -> list[str]:
    if (length := len(" ".join(values))) > LONGEST_ARGUMENTS:
        raise PydanticCustomError("kernel_arguments", "these have {length} characters", {
            "length": length, "hint": f"the kernel takes {LONGEST_ARGUMENTS} beside those that are there already"})
    return values


_Text = {"type": "string"}
Package = Annotated[str, AfterValidator(_check_package), WithJsonSchema(_Text | {"pattern": f"^{PACKAGE.pattern}$"})]
Argument = Annotated[str, AfterValidator(_check_argument), WithJsonSchema(_Text)]
RelativePath = Annotated[str, AfterValidator(_check_path), WithJsonSchema(_Text)]


class ExtraFile(BaseModel):
    """What is added to a root, beside what its elements bring."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    packages: Annotated[list[Package], AfterValidator(_check_once)] | None = Field(
        None, description="Debian packages, firmware too; the profile then has a lock of its own")
    files: RelativePath | None = Field(
        None, description="a folder beside this file whose content is laid over the root: etc, opt, srv, usr")
    replace: Annotated[list[RelativePath], AfterValidator(_check_once)] | None = Field(
        None, description="paths of those files that take the place of a Debian package's file")
    kernel_arguments: Annotated[list[Argument], AfterValidator(_check_once), AfterValidator(_check_length)] | None = \
        Field(None, description="words for the kernel command line, after ours")


def read_tree(folder: Path, below: Path) -> Tree:
    """Read the files of a folder, without following a link. Raises CornerstoneError for the first that can't be taken.

    below: the folder that it has to lie in, the profile's. Folders without files don't count, as they don't to git.
    """
    if not folder.is_dir():
        raise CornerstoneError("there is no such folder", "make it, beside the profile's file")
    if not folder.resolve().is_relative_to(below.resolve()):
        raise CornerstoneError("the folder lies elsewhere: a link leads out of the profile's folder", "copy it there")
    entries, left = [], MOST_BYTES
    try:
        for path in _names(folder):
            left -= path.lstat().st_size
            if left < 0:
                raise CornerstoneError(f"the folder's files have more than {MOST_BYTES >> 20} MiB together",
                                       "leave large files to a package, or to what is done at first boot")
            entries.append(_entry(folder, path))
            if len(entries) > MOST_FILES:
                raise CornerstoneError(f"the folder holds more than {MOST_FILES} files", "name the one that is meant")
    except OSError as error:
        raise CornerstoneError(f"{quoted(os.fspath(error.filename or folder))} can't be read: {error.strerror}",
                               "check its rights") from error
    if not entries:
        raise CornerstoneError("the folder holds no files", "leave the key out")
    return Tree(folder, tuple(sorted(entries, key=lambda entry: entry.path)))


def _names(folder: Path, depth: int = 0) -> Iterator[Path]:
    """All that isn't a folder below a folder, in a fixed order."""
    if depth > DEEPEST:
        raise CornerstoneError("its folders lie too deep in one another", f"at most {DEEPEST} do")
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from _names(path, depth + 1)
        else:
            yield path


def _entry(folder: Path, path: Path) -> Entry:
    name, status = str(path.relative_to(folder)), path.lstat()
    if not name.isprintable():
        raise CornerstoneError(f"{quoted(name)} isn't printable UTF-8", "rename the file")
    _check_place(name)
    if stat.S_ISLNK(status.st_mode):
        return Entry(name, "link", _target(name, str(path.readlink())))
    if not stat.S_ISREG(status.st_mode):
        raise CornerstoneError(f"{quoted(name)} is neither a file nor a link", "take it out")
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise CornerstoneError(f"{quoted(name)} would run with another's rights (setuid or setgid)",
                               f"take the bit away: chmod ug-s {name}")
    hasher, before = hashlib.sha256(), b""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            hasher.update(chunk)
            # a key's first line may begin in the chunk before
            if PRIVATE_KEY.search(before + chunk):
                raise CornerstoneError(f"{quoted(name)} holds a private key, which every copy of the ISO would hand "
                                       "out", "let each machine make its own at first boot")
            before = chunk[-LONGEST_MARK:]
    return Entry(name, "program" if status.st_mode & 0o100 else "file", hasher.hexdigest())


def _check_place(name: str) -> None:
    top, _, rest = name.partition("/")
    if top in MERGED:
        raise CornerstoneError(f"{quoted(name)}: /{top} is a link to /usr/{top} in a root", f"put it below usr/{top}")
    if top not in TOPS or not rest:
        raise CornerstoneError(f"{quoted(name)} can't be laid over a root", f"put it below {', '.join(TOPS)}")
    ours = next((path for path in OURS if name == path or name.startswith(f"{path}/")), None)
    if ours or HOST_KEY.fullmatch(name):
        raise CornerstoneError(f"{quoted(name)} is Cornerstone's own or a machine's own", "take it out")


def _target(name: str, target: str) -> str:
    """Where a link leads, if that is a place in the root by a relative path."""
    at = list(PurePosixPath(name).parent.parts)
    if not target.isprintable() or target.startswith("/"):
        raise CornerstoneError(f"the link {quoted(name)} leads to {quoted(target)}, which isn't relative",
                               "lead it to a place in the root by a relative path: " + "../" * len(at) + "usr/…")
    for part in target.split("/"):
        if part == ".." and not at:
            raise CornerstoneError(f"the link {quoted(name)} leads out of the root: {quoted(target)}", "correct it")
        if part == "..":
            at.pop()
        elif part not in ("", "."):
            at.append(part)
    return target


def unknown_replacements(replace: Sequence[str], tree: Tree | None) -> list[str]:
    """The paths of `replace` that aren't files of the tree."""
    there = {entry.path for entry in tree.entries} if tree else set()
    return [path for path in replace if path not in there]

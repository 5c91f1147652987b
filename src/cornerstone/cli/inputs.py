"""Find the profiles and ISOs that tasks are given: the same words name them in every task.

Paths are the caller's: tasks run in the folder in which they were called.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cornerstone.factory.settings import Workspace
from cornerstone.lib.error import Code, CornerstoneError

if TYPE_CHECKING:
    from cornerstone.model.profile.profile import Profile

# Reading YAML takes a third of a second of imports, which a command about a named ISO doesn't need.

DEFAULT_PROFILE = "aos-6.8"
YAML = (".yaml", ".yml")


def find_profile(workspace: Workspace, name: str) -> Profile:
    """The profile of a name in profiles/ or of a path; "" is the default one. Raises CornerstoneError."""
    from cornerstone.model.profile.profile import load_profile
    return load_profile(name or DEFAULT_PROFILE, workspace.root)


def find_profiles(workspace: Workspace, names: str) -> list[Profile]:
    """The profiles of several names or paths with commas between them; `all` is everything in profiles/."""
    from cornerstone.model.profile.profile import profile_names
    words = profile_names(workspace.root) if names == "all" else (names or DEFAULT_PROFILE).split(",")
    if not all(word.strip() for word in words):
        raise CornerstoneError(f"{names!r} has an empty name between its commas", "such as aos-6.8,aos-6.10")
    found: dict[str, Profile] = {}
    for word in dict.fromkeys(word.strip() for word in words):
        profile = find_profile(workspace, word)
        other = found.setdefault(profile.name, profile)
        if other.argument != profile.argument and not _same_file(workspace, other, profile):
            raise CornerstoneError(f"{other.argument} and {profile.argument} are both named {profile.name}, and one's "
                                   "ISO would take the other's place", "rename one of the files, or build them apart")
    return list(found.values())


def _same_file(workspace: Workspace, one: Profile, other: Profile) -> bool:
    """Whether two profiles of one name are one file, named in two ways."""
    paths = [Path(each.argument) if _is_path(each.argument) else workspace.root / "profiles" / f"{each.name}.yaml"
             for each in (one, other)]
    return paths[0].samefile(paths[1])


def find_iso(workspace: Workspace, word: str = "", profile: str = "", *, device: bool = False) -> Path:
    """The ISO that a task is about: word is its path, or the name or path of the profile that it was built from.

    Without a word it is the ISO of the profile, "" being the default one. A bare word is a file only when no profile
    has its name. device: it may be a block device onto which an ISO was written. Raises CornerstoneError when the ISO
    isn't there, or is neither.
    """
    if word and profile:
        raise CornerstoneError(f"the ISO is named twice: {word}, and by --profile {profile}", "give one of the two")
    if _is_path(word) and not word.endswith(YAML):
        return require_iso(Path(word), device=device)
    from cornerstone.factory.build.build import iso_path
    from cornerstone.model.profile.profile import load_profile, profile_names
    if word and not _is_path(word) and word not in profile_names(workspace.root) and Path(word).exists():
        return require_iso(Path(word), device=device)
    named = word or profile or DEFAULT_PROFILE
    return require_iso(iso_path(workspace, load_profile(named, workspace.root)), named)


def require_iso(path: Path, profile: str = DEFAULT_PROFILE, *, device: bool = False) -> Path:
    """The path, if it is a file, or a block device where one may be.

    Raises CornerstoneError if it isn't, with the command that builds profile's ISO.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise CornerstoneError(f"{path} isn't there", "give the path of an ISO or the name of a profile, or build it: "
                               f"./invoke build --profile {profile}") from None
    if stat.S_ISREG(mode) or device and stat.S_ISBLK(mode):
        return path
    kind = "folder" if stat.S_ISDIR(mode) else "FIFO" if stat.S_ISFIFO(mode) else "device, not a file"
    raise CornerstoneError(f"{path} is a {kind}", "give the path of an ISO")


def check_format(format: str, known: Sequence[str] = ("text", "json")) -> None:
    """Raise CornerstoneError unless format is known."""
    if format not in known:
        raise CornerstoneError(f"--format {format!r} isn't one of {', '.join(known)}", f"write --format {known[0]}")


def check_folder(flag: str, folder: Path | None) -> None:
    """Raise CornerstoneError unless the folder that a flag names can be written into, or be made.

    Before the work whose results shall go there, not after it.
    """
    if folder is None:
        return
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        raise CornerstoneError(f"{flag} {folder}: {there} isn't a folder", "name a folder, or a place for a new one")
    if not os.access(there, os.W_OK | os.X_OK):
        raise CornerstoneError(f"{flag} {folder}: nothing can be written into {there}",
                               "name a folder of your own, or call as the user who may", Code.MACHINE)


def _is_path(word: str) -> bool:
    return os.sep in word or word.endswith((".iso", *YAML))

"""Is a build the same everywhere? Build again elsewhere, from nothing but the pool, and compare byte for byte."""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import re
import shutil
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from cornerstone.customize.iso_area import TAKE_OUT, is_customised
from cornerstone.factory.build import netboot
from cornerstone.factory.build.build import build, iso_path, recall, step
from cornerstone.factory.build.plan import make_plan
from cornerstone.factory.scratch import own_folder
from cornerstone.factory.settings import Workspace
from cornerstone.factory.signing.signing import for_a_build, signing_key
from cornerstone.factory.store.layers import RECORD, Layer, Store, changed_inputs
from cornerstone.lib import process
from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.event import Listener
from cornerstone.lib.fat import MIB
from cornerstone.model.profile.profile import Profile

NAMED = 20

# what diffoscope may cost: it can take hours, and more memory than there is
DIFFOSCOPE_SECONDS = 120
DIFFOSCOPE_MIB = 64
DIFFOSCOPE_LINES = 60

# A default ACL as the kernel has it: version 2, then tag, permissions and id of each entry. Owner, nobody, group and
# mask may do all, others read.
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, 5 if tag == 0x20 else 7, 65534 if tag == 2 else 0xFFFFFFFF)
    for tag in (0x01, 0x02, 0x04, 0x10, 0x20))

# other names for the machine and its user, no network at all, and one CPU of several
ELSEWHERE = """hostname elsewhere
umask 077
sed -n 's/^ *\\(.*\\):.*/interface: \\1/p' /proc/net/dev
exec "$@\""""


def reproduce(workspace: Workspace, profile: Profile, listener: Listener) -> list[str]:
    """Build a profile here, then from a copy of the checkout in other surroundings, and compare the ISOs.

    The second build has another folder, host name, user, umask, locale, time zone, home and number of
    CPUs, an empty store and no network interface, in a folder that passes on another group and an ACL and whose name
    isn't ASCII; the pool and the key are the same. Returns nothing when the ISOs and their folders netboot are the same
    bytes, else lines that name the first layer that differs and what in it.
    """
    here = build(workspace, profile, listener)
    if is_customised(here):
        raise CornerstoneError(f"{here} is customised, so it isn't the ISO that was built",
                               TAKE_OUT.format(iso=here))
    with own_folder(workspace) as mine:
        folder = mine.temporary
        elsewhere = folder / "elsewhere-ä"
        elsewhere.mkdir()
        pass_on(elsewhere)
        other, cache = Workspace(elsewhere / "checkout"), elsewhere / "cache"
        copy_checkout(workspace.root, other.root)
        (cache / "keys").mkdir(parents=True)
        (cache / "pool").symlink_to(workspace.pool)
        for key in (workspace.cache / "keys").glob("*.pem"):
            shutil.copy2(key, cache / "keys")
        log = workspace.output / profile.name / "logs" / "reproduce.log"
        log.unlink(missing_ok=True)
        with step(listener, "elsewhere"):
            process.run(["unshare", "--uts", "--net", "--", "sh", "-c", ELSEWHERE, "-",
                         "taskset", "--cpu-list", str(min(os.sched_getaffinity(0))),
                         sys.executable, "tasks.py", "build", "--profile", profile.name],
                        log=log, cwd=other.root, private={**for_a_build(), "CORNERSTONE_CACHE": str(cache)}, env={
                            "CORNERSTONE_CACHE": str(cache), "HOME": str(folder), "LC_ALL": "POSIX", "LANG": "POSIX",
                            "LOGNAME": "somebody", "PYTHONHASHSEED": "7", "TZ": "Asia/Kathmandu", "USER": "somebody"})
        there = iso_path(other, profile)
        # the sums of the folder for starting over the network stand for all that is in it
        if all(filecmp.cmp(ours, theirs, shallow=False) for ours, theirs in (
                (here, there), (netboot.folder_of(here) / netboot.SUMS, netboot.folder_of(there) / netboot.SUMS))):
            return []
        plan = make_plan(workspace, profile, signing_key(workspace.cache))
        return _explain(plan.layers.values(), Store(workspace.layers), Store(cache / "layers"), folder) \
            or [_explain_mastering(recall(here), recall(there))]


def pass_on(folder: Path) -> None:
    """Make a folder pass on what a shared one does: its group (setgid), and an ACL where the file system has them."""
    os.chown(folder, -1, 1)
    folder.chmod(0o2775)
    with contextlib.suppress(OSError):
        os.setxattr(folder, "system.posix_acl_default", ACL)


def copy_checkout(root: Path, target: Path) -> None:
    """Copy what git knows or would know; modes are left to the copier's umask but for the executable bit."""
    listing = process.read(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root)
    for name in filter(None, listing.split("\0")):
        source, copy = root / name, target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            copy.symlink_to(source.readlink())
        elif source.is_file():
            shutil.copyfile(source, copy)
            copy.chmod(0o700 if source.stat().st_mode & 0o100 else 0o600)


def _explain(layers: Iterable[Layer], here: Store, there: Store, scratch: Path) -> list[str]:
    # what isn't kept shows in what is made from it
    for layer in (layer for layer in layers if layer.kept):
        ours, theirs = here.path(layer), there.path(layer)
        if not theirs.is_dir():
            return [f"layer {layer.name}: its key differs by {', '.join(_other_inputs(layer, theirs.parent))}"]
        for file in sorted(path.name for path in ours.iterdir() if path.name != RECORD):
            if not filecmp.cmp(ours / file, theirs / file, shallow=False):
                inside = list(_inside(ours / file, theirs / file, scratch)) if file.endswith(".squashfs") else \
                    _diffoscope(ours / file, theirs / file)
                return [f"layer {layer.name}: {file} differs", *(f"    {line}" for line in inside)]
    return []


def _explain_mastering(ours: dict, theirs: dict) -> str:
    """Why two ISOs of the same layers differ, from what their builds wrote down."""
    before, after = ours.get("iso", {}), theirs.get("iso", {})
    if changed := sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)):
        return f"all layers are the same; the ISOs were made from other inputs: {', '.join(changed)}"
    return "all layers are the same, what was made from them differs: the fault is in mastering or in netboot"


def _other_inputs(layer: Layer, store: Path) -> list[str]:
    for record in store.glob(f"{layer.name}-*/{RECORD}"):
        content = json.loads(record.read_text())
        if content["name"] == layer.name:
            return changed_inputs(layer, content["inputs"])
    return ["its absence"]


def _inside(ours: Path, theirs: Path, scratch: Path) -> Iterator[str]:
    """The files that differ between two squashfs, in content first and then in what the listing shows; and how."""
    for name, source in (("ours", ours), ("theirs", theirs)):
        process.read(["unsquashfs", "-no-progress", "-quiet", "-dest", scratch / name, source])
    difference = process.call(["diff", "--recursive", "--brief", "--no-dereference", "ours", "theirs"],
                              cwd=scratch).text.splitlines()
    listings = [set(process.read(["unsquashfs", "-lln", "-no-progress", source]).splitlines())
                for source in (ours, theirs)]
    yield from (difference + sorted(listings[0] ^ listings[1]))[:NAMED]
    for line in difference:
        if match := re.fullmatch("Files ours/(.*) and theirs/(.*) differ", line):
            yield from _diffoscope(scratch / "ours" / match[1], scratch / "theirs" / match[2])
            break


def _diffoscope(ours: Path, theirs: Path) -> list[str]:
    """How two files differ, by diffoscope, if it is installed; within bounds."""
    if shutil.which("diffoscope") is None:
        return ["how they differ inside, diffoscope tells when it is installed"]
    if max(ours.stat().st_size, theirs.stat().st_size) > DIFFOSCOPE_MIB * MIB:
        return [f"larger than {DIFFOSCOPE_MIB} MiB: not given to diffoscope"]
    done = process.call(["timeout", "--kill-after=5", str(DIFFOSCOPE_SECONDS), "diffoscope", "--no-progress",
                         "--max-text-report-size", "100000", "--text", "-", ours, theirs])
    lines = done.text.splitlines()
    cut = [f"… and {len(lines) - DIFFOSCOPE_LINES} more lines"] if len(lines) > DIFFOSCOPE_LINES else []
    late = [f"diffoscope didn't come to an end within {DIFFOSCOPE_SECONDS} s"] if done.code == 124 else []
    return lines[:DIFFOSCOPE_LINES] + cut + late

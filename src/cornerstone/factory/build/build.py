"""The build: profile in, one verified Foundation ISO and its report out."""

from __future__ import annotations

import contextlib
import datetime
import graphlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cornerstone.customize.iso_area import TAKE_OUT, is_customised
from cornerstone.factory.build import netboot
from cornerstone.factory.build.plan import Plan, make_plan, read_locks
from cornerstone.factory.build.preflight import preflight
from cornerstone.factory.evidence import evidence
from cornerstone.factory.iso import foundation_iso
from cornerstone.factory.packages import pool, provide
from cornerstone.factory.packages.elements import packages_layer
from cornerstone.factory.scratch import own_folder
from cornerstone.factory.settings import Workspace
from cornerstone.factory.signing.signing import is_sealed, public_key, sealed, signing_key
from cornerstone.factory.store.layers import Layer, Store, changed_inputs
from cornerstone.lib import process
from cornerstone.lib.atomic import beside as new_beside
from cornerstone.lib.atomic import put
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.event import Event, Listener
from cornerstone.lib.fat import MIB
from cornerstone.lib.filelock import hold
from cornerstone.lib.files import is_stamp, require_own
from cornerstone.lib.json_text import read_bounded, read_json
from cornerstone.lib.progress import tell_bytes
from cornerstone.lib.serde import Format
from cornerstone.model.catalogue.catalogue import load_catalogue
from cornerstone.model.profile.profile import Profile

STAGE = "build"
# what a build remembers of its ISO, beside it, and what its seal calls it
RECORD, SEALED = "build.json", "build"
# one thread at a time makes what a damaged layer is made from
_MENDING = threading.RLock()


def build(workspace: Workspace, profile: Profile, listener: Listener, keep: bool = False,
          carried: Path | None = None) -> Path:
    """Build a profile's ISO into output/<profile>/ and return its path.

    Only what changed is made; when nothing did, nothing is. Raises CornerstoneError, and then leaves
    the last good ISO as it was. keep leaves unpacked root trees below the cache for a look. carried is a
    folder of packages, filled by `carry`, to take instead of asking a mirror. Several builds may run at
    once: what one is making the others wait for.
    """
    check_privilege()
    if carried:
        provide.check_carried(carried)
    with own_folder(workspace) as mine:
        plan = make_plan(mine, profile, signing_key(mine.cache), keep)
        target = iso_path(mine, profile)
        if plan.key.kind == "release":
            require_own((mine.cache, mine.layers, mine.pool, mine.cache / "tmp", mine.output, target.parent), mine.root)
        if is_current(plan, target) and mend_evidence(plan, target, listener) and has_netboot(target):
            carries = f"; it is customised: {TAKE_OUT.format(iso=target)}" if is_customised(target) else ""
            listener(Event(STAGE, "iso", "cached", f"{target} is up to date: nothing to do{carries}"))
            return target
        # not at the top: a build that has nothing to do shall be over soon
        from cornerstone.model.rules.release import require_profile
        require_profile(profile, load_catalogue(mine.root), today=datetime.date.today())
        store = Store(mine.layers, mine.temporary, plan.key)
        to_make = [layer for layer in layers_to_have(plan, store.has) if not store.has(layer)]
        if {layer.name for layer in to_make} & {*plan.locks, *map(packages_layer, plan.locks)}:
            preflight(mine)
        check_space(mine, plan, to_make)
        fetch_packages(mine, plan, to_make, listener, carried)
        try:
            make_layers(plan, store, listener)
            put_iso(plan, store, target, mine.temporary, listener)
            store.used(layer for layer in plan.layers.values() if store.has(layer))
            store.prune(mine.layers_limit)
        finally:
            store.release()
        return target


def put_iso(plan: Plan, store: Store, target: Path, work: Path, listener: Listener) -> None:
    """Put the ISO and its folder netboot in their places from the layers, unless another build has done so by now."""
    def waiting(who: str) -> None:
        listener(Event(STAGE, "iso", "waiting", f"{who} is writing it"))

    target.parent.mkdir(parents=True, exist_ok=True)
    with hold(target.parent, waiting):
        for left in (*target.parent.glob(f".{target.name}.*"), *target.parent.glob(f".{RECORD}.*")):
            left.unlink()
        files = {name: store.path(layer) for name, layer in plan.layers.items()}
        contents = {path: each for layer in plan.layers.values() for path, each in store.contents(layer).items()}
        if is_current(plan, target):
            listener(Event(STAGE, "iso", "cached", f"{target} is up to date"))
            if has_netboot(target):
                return
            papers = recall(target)["evidence"]
        else:
            with step(listener, "iso"):
                papers = write_iso(plan, files, target, work, listener, contents)
        with step(listener, netboot.FOLDER):
            stamps = netboot.write(plan, files, target, contents)
        remember(plan, target, papers, stamps)


def has_netboot(target: Path) -> bool:
    """Whether the folder for starting over the network lies beside an ISO, as the build of that made it."""
    return netboot.is_current(target, recall(target).get(netboot.FOLDER))


def mend_evidence(plan: Plan, target: Path, listener: Listener) -> bool:
    """Write the files beside an ISO that is current anew, where one is missing or isn't what was written.

    Before anything is signed again the whole ISO is read and compared with what a build with this key has sealed. When
    it is another, or there is no such record, nothing is signed: the record goes, so that the ISO is made again, and
    the answer is False. Raises CornerstoneError (VERIFY) when that would take a site with it.
    """
    if evidence.is_current(target, recall(target).get("evidence")):
        return True

    def waiting(who: str) -> None:
        listener(Event(STAGE, "evidence", "waiting", f"{who} is writing it"))

    with hold(target.parent, waiting), step(listener, "evidence"):
        if not is_current(plan, target):
            return False
        record = recall(target)
        if not (problem := unvouched(plan, target, record)):
            remember(plan, target, evidence.write(target, plan, target, record["evidence"]),
                     record.get(netboot.FOLDER))
            return True
        if is_customised(target):
            raise CornerstoneError(f"{target} {problem}, so its evidence can't be signed, and it carries a site",
                                   f"keep a copy if you need it, remove it and build again; "
                                   f"{TAKE_OUT.format(iso=target)}", Code.VERIFY)
        listener(Event(STAGE, "iso", "warning", f"{target} {problem}: it is made again"))
        target.with_name(RECORD).unlink()
        return False


def unvouched(plan: Plan, target: Path, record: Mapping) -> str:
    """Why an ISO isn't known to be the one that a build with this key made, as a clause; empty when it is.

    The whole ISO is read, with its site area counted as empty.
    """
    # not at the top: a build that has nothing to do shall be over soon
    from cornerstone.factory.iso.iso_checks import Subject
    if not is_sealed(record, SEALED, plan.key.public_pem()) or not (record.get("evidence") or {}).get("source"):
        return "has no record that is sealed with this build's key"
    subject = Subject(target, plan.key.public_pem())
    try:
        same = subject.sha256_as_built == record["evidence"].get("sha256")
    except CornerstoneError:
        same = False
    finally:
        subject.close()
    return "" if same else "isn't the ISO that was built"


def iso_path(workspace: Workspace, profile: Profile) -> Path:
    """Where a profile's ISO is."""
    return workspace.output / profile.name / f"foundation-{profile.name}.iso"


@contextlib.contextmanager
def step(listener: Listener, name: str) -> Iterator[None]:
    """Tell that a step has started, and that it is done and after how many seconds, or has failed."""
    listener(Event(STAGE, name, "started"))
    begun = time.monotonic()
    try:
        yield
    except BaseException as error:
        listener(Event(STAGE, name, "failed", str(error).partition("\n")[0]))
        raise
    listener(Event(STAGE, name, "done", data={"seconds": round(time.monotonic() - begun, 1)}))


def check_privilege() -> None:
    """Raise CornerstoneError (MACHINE) unless we are root: trees with other owners can't be made otherwise."""
    if os.geteuid() != 0:
        raise CornerstoneError("a build needs root: it makes root trees, with their owners and device nodes",
                               "run it with sudo", Code.MACHINE)


def check_space(workspace: Workspace, plan: Plan, to_make: list[Layer]) -> None:
    """Raise CornerstoneError (MACHINE) when the cache's disk can't hold what this build will write."""
    needed = 1 << 30  # boot files, disk image scratch, the ISO's tail
    for lock in plan.locks.values():
        debs = sum(package.size for package in lock.packages)
        needed += 2 * debs  # the layer, and its copy on the ISO
        needed += sum(package.size for package in pool.missing(workspace.pool, lock.packages))
        names = {layer.name for layer in to_make}
        if names & {lock.root, packages_layer(lock.root)}:
            needed += 6 * debs  # the tree while it is assembled
        if packages_layer(lock.root) in names:
            needed += 2 * debs  # what is kept of it
    workspace.output.mkdir(parents=True, exist_ok=True)
    iso = (1 << 30) + sum(package.size for lock in plan.locks.values() for package in lock.packages)
    if workspace.output.stat().st_dev != workspace.cache.stat().st_dev:
        iso *= 2  # the folder netboot can't be links
    if (there := shutil.disk_usage(workspace.output).free) < iso:
        raise CornerstoneError(f"{workspace.output} has {there // MIB} MiB free, the ISO needs about {iso // MIB} MiB",
                               "make room", Code.MACHINE)
    free = shutil.disk_usage(workspace.cache).free
    if free < needed:
        raise CornerstoneError(
            f"{workspace.cache} has {free // MIB} MiB free, this build needs about {needed // MIB} MiB",
            "make room, or set CORNERSTONE_CACHE to a larger disk", Code.MACHINE)


def fetch_packages(workspace: Workspace, plan: Plan, to_make: list[Layer], listener: Listener,
                   carried: Path | None = None) -> None:
    """Bring the pool up to what the packages that will be installed need."""
    names = {layer.name for layer in to_make}
    if locks := [lock for root, lock in plan.locks.items() if packages_layer(root) in names]:
        with step(listener, "packages"):
            provide.provide(workspace, locks, listener, carried)


def fetch_all(workspace: Workspace, profile: Profile, listener: Listener, to: Path | None = None) -> None:
    """Bring the pool up to all that a profile's locks name; to is a folder that gets a copy, for `build`'s carried."""
    locks = list(read_locks(workspace, profile).values())
    with step(listener, "packages"):
        provide.provide(workspace, locks, listener)
    if to:
        with step(listener, "copy"):
            provide.carry(workspace.pool, {p.sha256: p for lock in locks for p in lock.packages}.values(), to)


def layers_to_have(plan: Plan, has: Callable[[Layer], bool]) -> list[Layer]:
    """Return the layers that a build needs in the store, in the plan's order.

    Those are the ones on the ISO or beside it, and of what such are made from only what a missing one needs: has tells
    whether the store has a layer.
    """
    found, waiting = set(), [layer for layer in plan.layers.values() if layer.kept]
    while waiting:
        layer = waiting.pop()
        if layer.name not in found:
            found.add(layer.name)
            waiting += () if has(layer) else layer.needs
    return [layer for layer in plan.layers.values() if layer.name in found]


def make_layers(plan: Plan, store: Store, listener: Listener) -> None:
    """Make the missing layers, two at a time: assembling a tree keeps one core busy, packing uses what is left."""
    layers = {layer.name: layer for layer in layers_to_have(plan, store.has)}
    graph = graphlib.TopologicalSorter({name: {n.name for n in layer.needs} & layers.keys()
                                        for name, layer in layers.items()})
    graph.prepare()
    running: dict[Future[None], str] = {}
    with process.ending_together(), ThreadPoolExecutor(2) as workers:
        try:
            while graph.is_active():
                for name in sorted(graph.get_ready(), reverse=True):
                    running[workers.submit(make_layer, layers[name], store, listener)] = name
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    future.result()
                    graph.done(running.pop(future))
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            process.end_all()
            raise


def make_layer(layer: Layer, store: Store, listener: Listener) -> None:
    """Make one layer, unless the store has it whole, or another build makes it just now; then wait for that."""
    def waiting(who: str) -> None:
        listener(Event(STAGE, layer.name, "waiting", f"{who} has it in hand"))

    made = False
    while not store.hold(layer, waiting) or (damage := store.damage(layer)):
        if store.has(layer):
            listener(Event(STAGE, layer.name, "warning", f"damaged in the store: {damage}; it is made again"))
            store.discard(layer, waiting)
            continue
        with _MENDING:
            # only where a layer turns out to be damaged have those that it is made from not been looked at before
            for needed in (needed for needed in layer.needs if not store.holds(needed)):
                make_layer(needed, store, listener)
        with step(listener, layer.name):
            store.make(layer)
        made = True
    if not made:
        listener(Event(STAGE, layer.name, "cached"))


def write_iso(plan: Plan, layers: Mapping[str, Path], target: Path, work: Path, listener: Listener,
              contents: Mapping[Path, tuple[int, str]] | None = None) -> dict:
    """Master the ISO beside its place, read it back, write its evidence, and only then put it there.

    contents: size and sha256 by path of the layers' files, as the store has read them; what goes onto the ISO is
    compared with that. Raises CornerstoneError (VERIFY) when it has changed meanwhile.
    Returns the record of the evidence, for remember.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with new_beside(target) as beside:
        foundation_iso.master_iso(plan, layers, beside, work / "iso", tell_bytes(listener, STAGE, "iso"),
                                  contents or {})
        papers = evidence.write(target, plan, beside)
        beside.replace(target)
        return papers




def _record(plan: Plan) -> dict:
    return {"iso": dict(plan.iso_inputs), "layers": {name: layer.all_inputs() for name, layer in plan.layers.items()}}


@dataclass(frozen=True)
class Record:
    """The record of a build: the inputs of its ISO, and the files beside that.

    file: its size and time; netboot: null without one.
    """

    iso: dict[str, Any]
    layers: dict[str, Any]
    file: list[int]
    evidence: dict[str, Any] | None
    netboot: dict[str, Any] | None
    seal: str


# whatever isn't of this version is as good as none: the ISO is made again
BUILD = Format(RECORD, Record, "a build, sealed", "the next build, why, verify of evidence",
               newer="build again")


def remember(plan: Plan, target: Path, papers: Mapping, netboot_files: Mapping | None) -> None:
    """Write down what the ISO was made from and what lies beside it, for the next build and for `why`."""
    stat = target.stat()
    record = {BUILD.key: BUILD.version, **_record(plan), "file": [stat.st_size, stat.st_mtime_ns], "evidence": papers,
              netboot.FOLDER: netboot_files}
    path = target.with_name(RECORD)
    put(path, json.dumps(sealed(record, SEALED, plan.key), indent=1))


def recall(target: Path) -> dict:
    """Read what the last build wrote down; an empty record when there is none or it isn't of that shape."""
    path = target.with_name(RECORD)
    try:
        record = BUILD.upgrade(read_json(read_bounded(path), str(path)), str(path))
    except (OSError, CornerstoneError):
        return {}
    return record if _is_record(record) else {}


def _is_record(value: Any) -> bool:
    """Whether a value is what remember writes, evidence aside, which may be missing."""
    def texts(each: Any) -> bool:
        return isinstance(each, dict) and all(isinstance(text, str) for text in each.values())

    return (isinstance(value, dict) and texts(value.get("iso")) and isinstance(value.get("layers"), dict)
            and all(map(texts, value["layers"].values())) and is_stamp(value.get("file"))
            and evidence.is_record(value.get("evidence")) and netboot.is_record(value.get(netboot.FOLDER)))


def is_current(plan: Plan, target: Path) -> bool:
    """Whether the ISO in its place was made from exactly this plan, and is the file that was made."""
    record = recall(target)
    if not target.is_file() or record.get("iso") != dict(plan.iso_inputs):
        return False
    stat = target.stat()
    return record.get("file") == [stat.st_size, stat.st_mtime_ns]


def why(workspace: Workspace, profile: Profile) -> list[tuple[str, bool, list[str]]]:
    """For each layer and the ISO: name, whether it is there already, and which inputs changed since the last build.

    Nothing is written, and reading rights are enough.
    """
    plan = make_plan(workspace, profile, public_key(workspace.cache))
    store, target = Store(workspace.layers), iso_path(workspace, profile)
    earlier = recall(target)
    rows = [(name, store.has(layer), changed_inputs(layer, earlier.get("layers", {}).get(name)))
            for name, layer in plan.layers.items()]
    before, now = earlier.get("iso", {}), dict(plan.iso_inputs)
    changed = sorted(n for n in before.keys() | now.keys() if before.get(n) != now.get(n))
    changed = changed if before else ["never built"]
    return [*rows, ("iso", is_current(plan, target), changed)]

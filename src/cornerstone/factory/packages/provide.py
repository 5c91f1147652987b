"""A plan's packages: what of them the pool needs, from where, and taking them along to a site without a network."""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cornerstone.factory.packages import pool
from cornerstone.factory.packages.lock import Lock, LockedPackage
from cornerstone.factory.settings import Mirror, Workspace, find_mirror, find_snapshot
from cornerstone.lib.atomic import put
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.event import Event, Listener
from cornerstone.lib.filelock import hold
from cornerstone.lib.progress import tell_bytes

STAGE, STEP = "build", "packages"
INDEX = "SHA256SUMS"


def provide(workspace: Workspace, locks: Iterable[Lock], listener: Listener, carried: Path | None = None) -> None:
    """Bring the pool up to all that some locks name: what is missing or damaged is fetched, or taken from carried.

    carried: a folder that `carry` has filled; then no network is asked. Raises one CornerstoneError that
    names what can't be had.
    """
    locks = list(locks)
    packages = sorted({p.sha256: p for lock in locks for p in lock.packages}.values(), key=lambda p: p.name)
    workspace.pool.mkdir(parents=True, exist_ok=True)

    def waiting(who: str) -> None:
        listener(Event(STAGE, STEP, "waiting", f"{who} is fetching packages"))

    with hold(workspace.pool, waiting):
        for left in workspace.pool.glob("*/*.part*"):
            left.unlink()
        for package in pool.damaged(workspace.pool, packages):
            pool.pooled(workspace.pool, package).unlink()
            listener(Event(STAGE, STEP, "warning", f"the pool's copy of {package.name} {package.version} was damaged: "
                                                   "it is fetched again"))
        absent = pool.missing(workspace.pool, packages)
        if not absent:
            return
        if carried:
            take_in(carried, workspace.pool, absent, tell_bytes(listener, STAGE, STEP))
            return
        whose = "profile PROFILE" if any(lock.profile for lock in locks) else f"suite {locks[0].suite}"
        pool.fetch(workspace.pool, absent, lambda: sources(locks), tell_bytes(listener, STAGE, STEP),
                   "check the network and the mirror (CORNERSTONE_MIRROR). If the mirror has moved on, set "
                   "CORNERSTONE_SNAPSHOT_MIRROR to an archive by date, or resolve anew: "
                   f"./invoke lock --{whose} --update. A lock that was edited: restore it from git")


def sources(locks: Iterable[Lock]) -> list[pool.Source]:
    """Where packages are asked for, in this order: the mirrors that apt would ask; a snapshot mirror, if set."""
    snapshot = find_snapshot()
    mirror = find_mirror()
    return [*map(from_mirror, (mirror, *mirror.others)), *([from_snapshot(snapshot, locks)] if snapshot else [])]


def from_mirror(mirror: Mirror) -> pool.Source:
    return lambda package: f"{mirror.base(package.archive)}/{urllib.parse.quote(package.path)}"


def from_snapshot(form: str, locks: Iterable[Lock]) -> pool.Source:
    """An archive by date: form has {archive} and {date}, each package is asked for on its lock's date."""
    dates = {package: lock.epoch for lock in locks for package in lock.packages}

    def address(package: LockedPackage) -> str:
        date = datetime.datetime.fromtimestamp(dates[package], datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        archive = {"main": "debian", "security": "debian-security"}[package.archive]
        return f"{form.replace('{archive}', archive).replace('{date}', date)}/{urllib.parse.quote(package.path)}"

    return address


def carry(source: Path, packages: Iterable[LockedPackage], target: Path) -> None:
    """Copy packages from the pool into a folder for a site without a network, with an index (`sha256sum --check`).

    The folder may have been filled before: what is whole stays, and what else is missing comes in.
    Raises CornerstoneError when it holds something else.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir()) and not (target / INDEX).is_file()):
        raise CornerstoneError(f"{target} holds something else than packages", "name an empty folder, a new one, or "
                               "one that was filled by ./invoke fetch --to")
    target.mkdir(parents=True, exist_ok=True)
    # an index from the beginning, so that a copy that was broken off can go on
    (target / INDEX).touch()
    for left in target.glob("pool/*/*.part"):
        left.unlink()
    packages = list(packages)
    for package in {*pool.missing(target / "pool", packages), *pool.damaged(target / "pool", packages)}:
        with _named(package, source), pool.pooled(source, package).open("rb") as stream:
            pool.receive(stream, pool.pooled(target / "pool", package), package)
    files = sorted((target / "pool").glob("*/*.deb"))
    os.sync()
    put(target / INDEX, "".join(f"{file.stem}  {file.relative_to(target)}\n" for file in files))
    os.sync()


def check_carried(carried: Path) -> None:
    """Raise CornerstoneError unless a folder is one that `carry` has filled."""
    if not (carried / INDEX).is_file():
        raise CornerstoneError(f"{carried} isn't a folder of packages: it has no {INDEX}",
                               "fill one where there is a network: ./invoke fetch --profile PROFILE --to FOLDER")


def take_in(carried: Path, target: Path, packages: list[LockedPackage], progress: Callable[[int, int], None]) -> None:
    """Copy packages into the pool from a folder that `carry` has filled, checking each; the folder is only read."""
    if absent := pool.missing(carried / "pool", packages):
        raise CornerstoneError(
            f"{carried} lacks {len(absent)} of {len(packages)} packages, or has them in part:\n"
            + pool.listed(f"{package.name} {package.version}" for package in absent),
            "fill it again from the same commit: ./invoke fetch --profile PROFILE --to FOLDER")
    total, done = sum(package.size for package in packages), 0
    for package in packages:
        with _named(package, carried), pool.pooled(carried / "pool", package).open("rb") as stream:
            pool.receive(stream, pool.pooled(target, package), package)
        done += package.size
        progress(done, total)


@contextlib.contextmanager
def _named(package: LockedPackage, where: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise CornerstoneError(f"{where}: {package.name} {package.version} is damaged: {error}",
                               "fetch it again: ./invoke fetch --profile PROFILE, with --to FOLDER for another site",
                               Code.MACHINE) from error

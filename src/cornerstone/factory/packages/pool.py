"""The pool: every .deb by its sha256, fetched once and checked."""

from __future__ import annotations

import concurrent.futures
import errno
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from cornerstone.factory.packages.lock import LockedPackage
from cornerstone.factory.packages.pool_files import listed, pooled
from cornerstone.factory.settings import TIMEOUT_SECONDS
from cornerstone.lib import apt, process
from cornerstone.lib.apt import Failure
from cornerstone.lib.error import Code, CornerstoneError

CONNECTIONS = 8
CHUNK = 1 << 18
# before another try when the one before brought nothing
PAUSES_SECONDS = (1, 5, 15)
# a mirror that asks to be left alone for longer is out of order
LONGEST_PAUSE_SECONDS = 120
# what one call of apt is asked for
BATCH, BATCH_BYTES = 32, 32 << 20

NETWORK_HINT = ("check the network, apt's proxy and credentials, and the mirror (CORNERSTONE_MIRROR), then run it "
                "again: what has been fetched stays")

# where a package can be had: its address there
Source = Callable[[LockedPackage], str]


def missing(pool: Path, packages: Iterable[LockedPackage]) -> list[LockedPackage]:
    """The packages whose file isn't in the pool with its full size."""
    return [p for p in packages if not (at := pooled(pool, p)).is_file() or at.stat().st_size != p.size]


def damaged(pool: Path, packages: Iterable[LockedPackage]) -> list[LockedPackage]:
    """The packages whose file in the pool isn't what the lock says: each one's sha256 is taken."""
    def is_damaged(package: LockedPackage) -> bool:
        try:
            with pooled(pool, package).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() != package.sha256
        except FileNotFoundError:
            return False
        except OSError:
            return True

    packages = list(packages)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as workers:
        return [package for package, bad in zip(packages, workers.map(is_damaged, packages), strict=True) if bad]


def fetch(pool: Path, packages: Iterable[LockedPackage], sources: Callable[[], Sequence[Source]],
          progress: Callable[[int, int], None], hint: str) -> None:
    """Fetch what is missing, checking each sha256; progress(done, total) counts bytes.

    sources are only asked for when something is missing, so that a warm pool needs none; each is tried
    for what those before it didn't give. Each file is written beside and renamed: a broken connection
    leaves nothing half-written. Raises one CornerstoneError (NETWORK) with hint that names every file
    that no source gave.
    """
    wanted = missing(pool, packages)
    if not wanted:
        return
    total, done = sum(p.size for p in wanted), 0

    def tell(size: int) -> None:
        nonlocal done
        done += size
        progress(done, total)

    left, said, gone = wanted, {}, False
    asked = sources()
    for source in asked:
        failures = _fetch_patiently(pool, left, source, tell, TIMEOUT_SECONDS / len(asked))
        left = list(failures)
        gone = gone or any(failure.gone for failure in failures.values())
        said = {package: "; ".join(filter(None, (said.get(package), str(failures[package])))) for package in left}
    if left:
        raise CornerstoneError(f"{len(left)} of {len(wanted)} locked packages can't be fetched:\n"
                               + listed(f"{p.name} {p.version}: {why}" for p, why in said.items()),
                               hint if gone else NETWORK_HINT, Code.NETWORK)


def _fetch_patiently(pool: Path, packages: list[LockedPackage], source: Source, tell: Callable[[int], None],
                     timeout: float) -> dict[LockedPackage, Failure]:
    """Fetch from one source, again and again as long as that brings something, and then as often as there are pauses.

    What the source says that it doesn't have is asked for once. When it asks for time it gets that, and fewer
    connections; when nobody answers at all for two timeouts, that is the end.
    """
    failures: dict[LockedPackage, Failure] = {}
    left, tries, connections = packages, 0, CONNECTIONS
    while left:
        begun = time.monotonic()
        # first what hasn't failed yet: a file that the mirror stumbles over mustn't speak for all
        left = sorted(left, key=lambda p: (p in failures and not failures[p].untried, p.size, p.name))
        new = _fetch_round(pool, left, source, tell, timeout, connections)
        tries = 1 if len(new) < len(left) else tries + 1
        failures = {p: e for p, e in failures.items() if p not in left} | new
        left = [package for package, failure in new.items() if failure.passing]
        told = [failure for failure in new.values() if not failure.untried]
        dead = tries > 1 or len(new) == len(packages)
        dead = dead and all(failure.silent for failure in told) and time.monotonic() - begun > 1.8 * timeout
        wait = max([0, *PAUSES_SECONDS[tries - 1:tries], *(failure.retry_after for failure in told)])
        if tries > len(PAUSES_SECONDS) or wait > LONGEST_PAUSE_SECONDS or dead:
            break
        if any(failure.busy for failure in told):
            connections = max(1, connections // 4)
        if left:
            process.pause(wait)
    reason = next((failure for failure in failures.values() if not failure.untried), None)
    return {package: reason if failure.untried and reason else failure for package, failure in failures.items()}


def _fetch_round(pool: Path, packages: list[LockedPackage], source: Source, tell: Callable[[int], None],
                 timeout: float, connections: int) -> dict[LockedPackage, Failure]:
    """Try each package once, the first alone: it shows whether anybody answers. Returns why some weren't fetched.

    timeout is for that first one: seconds without a byte, of which apt waits for two. After it the machine's own holds.
    Once the mirror says that it is busy, or nobody answers any more, the rest isn't tried.
    """
    first, *others = packages
    failures = _fetch_batch(pool, [first], source, timeout)
    stop = any(failure.silent or failure.busy for failure in failures.values())
    if not failures:
        tell(first.size)
    batches = _batches(others)
    untried = Failure("not tried", untried=True)
    with concurrent.futures.ThreadPoolExecutor(connections) as workers, process.ending_together():
        jobs = {} if stop else {workers.submit(_fetch_batch, pool, batch, source): batch for batch in batches}
        try:
            for job in concurrent.futures.as_completed(jobs):
                if job.cancelled():
                    continue
                new = job.result()
                failures |= new
                for package in jobs[job]:
                    if package not in new:
                        tell(package.size)
                if any(failure.silent or failure.busy for failure in new.values()):
                    for other in jobs:
                        other.cancel()
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            process.end_all()
            raise
    tried = {package for job, batch in jobs.items() if not job.cancelled() for package in batch}
    return failures | {package: untried for batch in batches for package in batch if package not in tried}


def _batches(packages: Iterable[LockedPackage]) -> list[list[LockedPackage]]:
    """Packages in portions for one call of apt each, the large ones first."""
    batches: list[list[LockedPackage]] = []
    room = 0
    for package in sorted(packages, key=lambda package: (-package.size, package.name)):
        if not batches or len(batches[-1]) == BATCH or package.size > room:
            batches.append([])
            room = BATCH_BYTES
        batches[-1].append(package)
        room -= package.size
    return batches


def _fetch_batch(pool: Path, packages: list[LockedPackage], source: Source, timeout: float | None = None
                 ) -> dict[LockedPackage, Failure]:
    """Fetch packages by one call of apt. Returns why some weren't fetched.

    Raises OSError (ENOSPC) when the disk is full.
    """
    parts = {package: part_of(pooled(pool, package)) for package in packages}
    try:
        for part in parts.values():
            part.parent.mkdir(parents=True, exist_ok=True)
        said = apt.download([apt.Item(source(package), part, package.sha256) for package, part in parts.items()],
                            timeout)
        if any(os.strerror(errno.ENOSPC) in failure.reason for failure in said.values()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(pool))
        return {package: failure for package, part in parts.items()
                if (failure := _accept(part, pooled(pool, package), package, said.get(part)))}
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
            _rejected(part).unlink(missing_ok=True)


def part_of(target: Path) -> Path:
    """Where a package's file grows, by a name that nobody can foresee."""
    return target.with_suffix(f".{secrets.token_hex(8)}.part")


def _rejected(part: Path) -> Path:
    """Where apt leaves what isn't what it was to be."""
    return part.with_name(f"{part.name}.FAILED")


def _accept(part: Path, target: Path, package: LockedPackage, failure: Failure | None) -> Failure | None:
    """Put a downloaded file into its place, if it is what the lock says; else say what it is."""
    if failure and (failure.status or failure.silent or failure.untried):
        return failure
    came = next((file for file in (part, _rejected(part)) if file.is_file()), None)
    if came is None:
        return failure or Failure("apt left nothing")
    with came.open("rb") as file:
        beginning = file.read(512).lower()
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest == package.sha256 and came.stat().st_size == package.size:
        came.replace(target)
        return None
    kind = "text/html" if b"<html" in beginning or b"<!doctype html" in beginning else failure.kind if failure else ""
    if kind.startswith("text/") and not beginning.startswith(b"!<arch>"):
        return Failure(f"the mirror sent something else ({kind}) for {package.path}: perhaps the page of a network "
                       "that wants a login first")
    try:
        _check(package, came.stat().st_size, digest)
    except ValueError as error:
        return Failure(f"{error} ({failure})" if failure and came == part else str(error))
    return None


def receive(stream: BinaryIO, target: Path, package: LockedPackage) -> None:
    """Write a package's file from a stream, beside and renamed. Raises ValueError unless it's what the lock says."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = part_of(target)
    digest, size = hashlib.sha256(), 0
    try:
        with beside.open("xb") as out:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
                out.write(chunk)
        _check(package, size, digest.hexdigest())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _check(package: LockedPackage, size: int, digest: str) -> None:
    if size != package.size:
        raise ValueError(f"the connection broke off after {size} of {package.size} bytes")
    if digest != package.sha256:
        raise ValueError(f"its sha256 is {digest}, the lock says {package.sha256}")

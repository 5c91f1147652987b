"""The pool: every .deb by its sha256, fetched once and checked."""

from __future__ import annotations

import concurrent.futures
import errno
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from cornerstone.factory.lock import LockedPackage
from cornerstone.model.error import Code, CornerstoneError

CONNECTIONS = 8
TIMEOUT_SECONDS = 60
CHUNK = 1 << 18
# before the second and the third try of what failed for a moment
PAUSES_SECONDS = (1, 5)
NAMED = 10

# where a package can be had: its address there
Source = Callable[[LockedPackage], str]


def pooled(pool: Path, package: LockedPackage) -> Path:
    """Where a package's file is, or will be, in the pool."""
    return pool / package.sha256[:2] / f"{package.sha256}.deb"


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

    left, said = wanted, {}
    for source in sources():
        failures = _fetch_patiently(pool, left, source, tell)
        left = list(failures)
        said = {package: "; ".join(filter(None, (said.get(package), str(failures[package])))) for package in left}
    if left:
        raise CornerstoneError(f"{len(left)} of {len(wanted)} locked packages can't be fetched:\n"
                               + listed(f"{p.name} {p.version}: {why}" for p, why in said.items()), hint, Code.NETWORK)


def listed(lines: Iterable[str]) -> str:
    """The first of some lines in order, indented for an error message, and how many more there are."""
    lines = sorted(lines)
    more = [f"… and {len(lines) - NAMED} more"] if len(lines) > NAMED else []
    return "\n".join(f"    {line}" for line in lines[:NAMED] + more)


def _fetch_patiently(pool: Path, packages: list[LockedPackage], source: Source,
                     tell: Callable[[int], None]) -> dict[LockedPackage, Exception]:
    """Fetch from one source, trying again what another try can mend: a connection that gave up for a moment."""
    failures = _fetch_round(pool, packages, source, tell)
    for pause in PAUSES_SECONDS:
        left = [package for package, error in failures.items() if not isinstance(error, urllib.error.HTTPError)]
        if not left:
            break
        time.sleep(pause)
        failures = {p: e for p, e in failures.items() if p not in left} | _fetch_round(pool, left, source, tell)
    return failures


def _fetch_round(pool: Path, packages: Iterable[LockedPackage], source: Source,
                 tell: Callable[[int], None]) -> dict[LockedPackage, Exception]:
    """Try each package once; returns those that failed and why."""
    failures: dict[LockedPackage, Exception] = {}
    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as workers:
        jobs = {workers.submit(_fetch_one, pool, package, source): package for package in packages}
        try:
            for job in concurrent.futures.as_completed(jobs):
                error = job.exception()
                if error is None:
                    tell(jobs[job].size)
                elif isinstance(error, OSError) and error.errno == errno.ENOSPC or \
                        not isinstance(error, (OSError, ValueError)):
                    raise error
                else:
                    failures[jobs[job]] = error
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            raise
    return failures


def _fetch_one(pool: Path, package: LockedPackage, source: Source) -> None:
    try:
        with urllib.request.urlopen(source(package), timeout=TIMEOUT_SECONDS) as reply:  # noqa: S310
            receive(reply, pooled(pool, package), package)
    except http.client.HTTPException as error:
        raise ValueError(f"the mirror's answer can't be read: {error!r}") from error


def receive(stream: BinaryIO, target: Path, package: LockedPackage) -> None:
    """Write a package's file from a stream, beside and renamed. Raises ValueError unless it's what the lock says."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_suffix(f".{os.getpid()}.part")
    digest, size = hashlib.sha256(), 0
    try:
        with beside.open("wb") as out:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
                out.write(chunk)
        if size != package.size:
            raise ValueError(f"the connection broke off after {size} of {package.size} bytes")
        if digest.hexdigest() != package.sha256:
            raise ValueError(f"its sha256 is {digest.hexdigest()}, the lock says {package.sha256}")
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)

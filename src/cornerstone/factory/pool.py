"""The pool: every .deb by its sha256, fetched once; and the local apt repository that feeds a root's build."""

from __future__ import annotations

import concurrent.futures
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

from cornerstone.factory import process
from cornerstone.factory.lock import Lock, LockedPackage
from cornerstone.factory.settings import Mirror
from cornerstone.model.error import Code, CornerstoneError

CONNECTIONS = 8
TIMEOUT_SECONDS = 60
CHUNK = 1 << 18
# before the second and the third try of what failed for a moment
PAUSES_SECONDS = (1, 5)


def pooled(pool: Path, package: LockedPackage) -> Path:
    """Where a package's file is, or will be, in the pool."""
    return pool / package.sha256[:2] / f"{package.sha256}.deb"


def missing(pool: Path, packages: Iterable[LockedPackage]) -> list[LockedPackage]:
    """The packages whose file isn't in the pool with its full size."""
    return [p for p in packages if not (at := pooled(pool, p)).is_file() or at.stat().st_size != p.size]


def fetch(pool: Path, packages: Iterable[LockedPackage], mirror: Callable[[], Mirror],
          progress: Callable[[int, int], None]) -> None:
    """Fetch what is missing, checking each sha256; progress(done, total) counts bytes.

    mirror is only asked when something is missing, so that a warm pool needs none. Each file is
    written beside and renamed: a broken connection leaves nothing half-written. Raises one
    CornerstoneError (NETWORK) that names every file that the mirror didn't give.
    """
    wanted = missing(pool, packages)
    if not wanted:
        return
    source = mirror()
    total, left = sum(p.size for p in wanted), wanted

    def tell(size: int) -> None:
        nonlocal done
        done += size
        progress(done, total)

    done = 0
    failures = _fetch_round(pool, left, source, tell)
    for pause in PAUSES_SECONDS:
        # only what another try can mend: a name server or a connection that gave up for a moment
        left = [package for package, error in failures.items() if not isinstance(error, urllib.error.HTTPError)]
        if not left:
            break
        time.sleep(pause)
        failures = {p: e for p, e in failures.items() if p not in left} | _fetch_round(pool, left, source, tell)
    if failures:
        lines = sorted(f"    {package.name} {package.version}: {error}" for package, error in failures.items())
        listed = "\n".join(lines[:10])
        more = f"\n    … and {len(failures) - 10} more" if len(failures) > 10 else ""
        raise CornerstoneError(
            f"{len(failures)} of {len(wanted)} locked packages can't be fetched:\n{listed}{more}",
            "check the network and the mirror (CORNERSTONE_MIRROR); a mirror that has moved on wants "
            "./invoke lock --suite SUITE --update, or a snapshot mirror of the lock's date", Code.NETWORK)


def _fetch_round(pool: Path, packages: Iterable[LockedPackage], mirror: Mirror,
                 tell: Callable[[int], None]) -> dict[LockedPackage, Exception]:
    """Try each package once; returns those that failed and why."""
    failures: dict[LockedPackage, Exception] = {}
    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as workers:
        jobs = {workers.submit(_fetch_one, pool, package, mirror): package for package in packages}
        try:
            for job in concurrent.futures.as_completed(jobs):
                error = job.exception()
                if error is None:
                    tell(jobs[job].size)
                elif isinstance(error, (OSError, ValueError)):
                    failures[jobs[job]] = error
                else:
                    raise error
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            raise
    return failures


def _fetch_one(pool: Path, package: LockedPackage, mirror: Mirror) -> None:
    target = pooled(pool, package)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_suffix(f".{os.getpid()}.part")
    address = f"{mirror.base(package.archive)}/{urllib.request.quote(package.path)}"
    digest, size = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as reply, beside.open("wb") as out:  # noqa: S310
            while chunk := reply.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
                out.write(chunk)
        if size != package.size:
            raise ValueError(f"the connection broke off after {size} of {package.size} bytes")
        if digest.hexdigest() != package.sha256:
            raise ValueError(f"its sha256 is {digest.hexdigest()}, the lock says {package.sha256}")
        beside.replace(target)
    except http.client.HTTPException as error:
        raise ValueError(f"the mirror's answer can't be read: {error!r}") from error
    finally:
        beside.unlink(missing_ok=True)


def make_repository(pool: Path, lock: Lock, folder: Path, log: Path) -> None:
    """Make folder a flat apt repository of exactly the lock's files: hard links into the pool, and an index.

    Every file's sha256 is checked first. A damaged one is taken out of the pool and named.
    """
    folder.mkdir(parents=True)
    for package in lock.packages:
        source = pooled(pool, package)
        with source.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != package.sha256:
                source.unlink()
                raise CornerstoneError(f"the pool's copy of {package.name} {package.version} was damaged; "
                                       "it has been taken out", "build again to fetch it anew", Code.MACHINE)
        link = folder / f"{package.name}_{package.version.replace(':', '%3a')}_{package.architecture}.deb"
        try:
            os.link(source, link)
        except OSError:
            link.symlink_to(source)
    index = ("cd \"$1\" && apt-ftparchive --md5=no --sha1=no --sha512=no packages . >Packages && "
             "apt-ftparchive -o APT::FTPArchive::Release::Codename=\"$2\" release . >Release")
    process.run(["sh", "-c", index, "-", folder, lock.suite], log=log)

"""The local apt repository that feeds a root's build: exactly the lock's files, by hard links into the pool."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from cornerstone.factory.packages.pool_files import listed, pooled
from cornerstone.lib import process
from cornerstone.lib.error import Code, CornerstoneError

if TYPE_CHECKING:
    from cornerstone.factory.packages.lock import Lock

INDEX = """cd "$1" && apt-ftparchive --md5=no --sha1=no --sha512=no packages . >Packages &&
apt-ftparchive -o APT::FTPArchive::Release::Codename="$2" release . >Release"""


def make_repository(pool: Path, lock: Lock, folder: Path, log: Path) -> None:
    """Make folder a flat apt repository of exactly the lock's files.

    The index has the sha256 of what is really there. Raises CornerstoneError (MACHINE) when that isn't
    what the lock says: the damaged files are taken out of the pool and named.
    """
    folder.mkdir(parents=True)
    for package in lock.packages:
        _link(pooled(pool, package),
              folder / f"{package.name}_{package.version.replace(':', '%3a')}_{package.architecture}.deb")
    process.run(["sh", "-c", INDEX, "-", folder, lock.suite], log=log)
    there = set(re.findall("^SHA256: (.*)$", (folder / "Packages").read_text(), re.MULTILINE))
    if bad := [package for package in lock.packages if package.sha256 not in there]:
        for package in bad:
            pooled(pool, package).unlink(missing_ok=True)
        raise CornerstoneError("files in the pool were damaged, and have been taken out:\n"
                               + listed(f"{package.name} {package.version}" for package in bad),
                               "build again to fetch them anew", Code.MACHINE)


def _link(source: Path, link: Path) -> None:
    """Link by number, else by name (another file system), else copy (one that has neither)."""
    for make in (os.link, os.symlink, shutil.copyfile):
        try:
            return make(source, link)
        except OSError as error:
            last = error
    raise last

"""The local repository: the lock's files and no others, linked as the file system can; what isn't whole is named."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from cornerstone.factory.packages import pool, repository
from cornerstone.factory.packages.lock import Lock, LockedPackage
from cornerstone.factory.packages.repository import make_repository
from cornerstone.lib.error import CornerstoneError


def locked(name: str, content: bytes, version: str) -> LockedPackage:
    return LockedPackage("main", name, version, "all", len(content), hashlib.sha256(content).hexdigest(), f"{name}.deb")


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def debs(tmp_path_factory) -> dict[str, Path]:
    """Two real, tiny packages."""
    folder, made = tmp_path_factory.mktemp("debs"), {}
    for name, version in (("tiny", "1:2.0-1~deb13u1"), ("small", "3")):
        control = folder / name / "DEBIAN" / "control"
        control.parent.mkdir(parents=True)
        control.write_text(f"Package: {name}\nVersion: {version}\nArchitecture: all\nDescription: a test\n"
                           "Maintainer: Test <test@example.org>\n")
        made[name] = folder / f"{name}.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "--build", folder / name, made[name]], check=True,
                       capture_output=True)
    return made


def pool_of(folder: Path, debs: dict[str, Path]) -> Lock:
    packages = []
    for name, version in (("small", "3"), ("tiny", "1:2.0-1~deb13u1")):
        content = debs[name].read_bytes()
        packages.append(locked(name, content, version))
        at = pool.pooled(folder, packages[-1])
        at.parent.mkdir(parents=True)
        at.write_bytes(content)
    return Lock("cvm", "trixie", 1_800_000_000, ("tiny",), tuple(packages))


def test_repository_lists_exactly_the_lock(tmp_path, debs):
    lock = pool_of(tmp_path / "pool", debs)
    make_repository(tmp_path / "pool", lock, tmp_path / "repository", tmp_path / "log")
    files = files_below(tmp_path / "repository")
    assert files == ["Packages", "Release", "small_3_all.deb", "tiny_1%3a2.0-1~deb13u1_all.deb"]
    index = (tmp_path / "repository" / "Packages").read_text()
    assert re.findall("^Package: (.*)$", index, re.M) == ["small", "tiny"]
    assert set(re.findall("^SHA256: (.*)$", index, re.M)) == {p.sha256 for p in lock.packages}
    assert re.findall("^Version: (.*)$", index, re.M) == ["3", "1:2.0-1~deb13u1"]
    release = (tmp_path / "repository" / "Release").read_text()
    assert "Codename: trixie" in release
    assert hashlib.sha256(index.encode()).hexdigest() in release


def test_damaged_pool_file_is_named_and_taken_out(tmp_path, debs):
    lock = pool_of(tmp_path / "pool", debs)
    # whole as a package, another than the lock names
    pool.pooled(tmp_path / "pool", lock.packages[1]).write_bytes(debs["small"].read_bytes())
    with pytest.raises(CornerstoneError) as caught:
        make_repository(tmp_path / "pool", lock, tmp_path / "repository", tmp_path / "log")
    assert caught.value.message == \
        "files in the pool were damaged, and have been taken out:\n    tiny 1:2.0-1~deb13u1"
    assert pool.missing(tmp_path / "pool", lock.packages) == [lock.packages[1]]


def test_pool_on_another_mount_is_linked_by_name(tmp_path, debs):
    lock = pool_of(tmp_path / "pool", debs)
    # the same file system mounted twice: no hard links from one to the other
    (tmp_path / "mount").mkdir()
    subprocess.run(["mount", "--bind", tmp_path / "pool", tmp_path / "mount"], check=True)
    try:
        make_repository(tmp_path / "mount", lock, tmp_path / "repository", tmp_path / "log")
        link = tmp_path / "repository" / "small_3_all.deb"
        assert link.is_symlink()
        assert link.read_bytes() == debs["small"].read_bytes()
        assert "Package: small" in (tmp_path / "repository" / "Packages").read_text()
    finally:
        subprocess.run(["umount", tmp_path / "mount"], check=True)


def test_without_links_of_any_kind_files_are_copied(tmp_path, debs, monkeypatch):
    def never(*_):
        raise PermissionError(1, "Operation not permitted")
    monkeypatch.setattr(repository.os, "link", never)
    monkeypatch.setattr(repository.os, "symlink", never)
    lock = pool_of(tmp_path / "pool", debs)
    make_repository(tmp_path / "pool", lock, tmp_path / "repository", tmp_path / "log")
    assert (tmp_path / "repository" / "small_3_all.deb").read_bytes() == debs["small"].read_bytes()

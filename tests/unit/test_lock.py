"""Locks: what is written is read back, each damage is named with its line, and ours fit their elements."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.factory.packages import elements
from cornerstone.factory.packages import lock as lock_module
from cornerstone.factory.packages.lock import (
    Lock,
    LockedPackage,
    check_covers,
    lock_path,
    parse,
    read_lock,
    update_locks,
)
from cornerstone.factory.settings import Mirror, Workspace
from cornerstone.lib.error import Code, CornerstoneError

ROOT = Path(__file__).resolve().parents[2]
SUITES = ("bookworm", "trixie")
EVERY = [(root, suite) for root in elements.ROOTS for suite in SUITES]


def package(name: str, **changes) -> LockedPackage:
    values = {"archive": "main", "name": name, "version": "1:2.3-4~deb13u1", "architecture": "amd64", "size": 12345,
              "sha256": hashlib.sha256(name.encode()).hexdigest(), "path": f"pool/main/x/{name}_2.3-4_amd64.deb"}
    return LockedPackage(**values | changes)


LOCK = Lock("cvm", "trixie", 1_800_000_000, ("ceph-mon", "lvm2"),
            (package("ceph-mon"), package("libc6", archive="security"), package("lvm2", architecture="all")))
LINES = LOCK.text().splitlines()


def with_line(number: int, line: str) -> str:
    """The lock's text with one line (from 1) changed."""
    return "\n".join([*LINES[:number - 1], line, *LINES[number:]]) + "\n"


def test_round_trip():
    assert parse(LOCK.text(), "cvm", "trixie") == LOCK
    assert parse(LOCK.text(), "cvm", "trixie").text() == LOCK.text()


def test_text_says_what_it_is():
    assert LINES[:3] == ["# Locked packages of the cvm root, Debian trixie, amd64. Made by `invoke lock`; don't edit.",
                         "# resolved: 2027-01-15T08:00:00Z", "# requests: ceph-mon lvm2"]


@pytest.mark.parametrize(("old", "new"), [
    ("main ", "contrib "),
    (LINES[3].split()[5], "12ab"),
    (LINES[3].split()[5], LINES[3].split()[5].upper()),
    (" 12345 ", " many "),
    (" 12345 ", " -1 "),
    (" 12345 ", " "),
    ("pool/main", "/pool/main"),
    ("pool/main", "pool/../../main"),
    ("ceph-mon 1", "--force 1"),
    ("1:2.3", "1:2.3;reboot"),
    (".deb", ".exe"),
    (LINES[3], "<<<<<<< HEAD"),
    (LINES[3], ""),
    (LINES[3], LINES[3] + " more"),
    pytest.param(" 12345 ", " 12²45 "),
], ids=lambda value: value[:12])
def test_damaged_line(old, new):
    with pytest.raises(CornerstoneError) as caught:
        parse(with_line(4, LINES[3].replace(old, new)), "cvm", "trixie", "x/trixie-cvm.lock")
    assert caught.value.message.startswith("x/trixie-cvm.lock:4: not a locked package: ")
    assert caught.value.hint == "restore it from git, or run: ./invoke lock --suite trixie --update"
    assert caught.value.code is Code.INPUT


def test_line_of_another_architecture():
    with pytest.raises(CornerstoneError) as caught:
        parse(with_line(5, LINES[4].replace(" amd64 ", " arm64 ")), "cvm", "trixie", "a.lock")
    assert caught.value.message == "a.lock:5: libc6 is for arm64, this factory builds amd64"


@pytest.mark.parametrize(("number", "line"), [(2, "# made: today"), (2, "# resolved: yesterday"), (3, "# asked: x")])
def test_damaged_head(number, line):
    with pytest.raises(CornerstoneError, match="^a.lock: its first lines don't say when and for what it was resolved"):
        parse(with_line(number, line), "cvm", "trixie", "a.lock")


def test_empty_file():
    with pytest.raises(CornerstoneError, match="^a.lock:1: doesn't say which root, suite and architecture"):
        parse("", "cvm", "trixie", "a.lock")


def test_lock_without_packages():
    with pytest.raises(CornerstoneError, match="^a.lock: names no packages"):
        parse("\n".join(LINES[:3]), "cvm", "trixie", "a.lock")


@pytest.mark.parametrize(("old", "new"), [("cvm root", "hypervisor root"), ("trixie", "bookworm"), ("amd64", "arm64")])
def test_lock_for_something_else(old, new):
    with pytest.raises(CornerstoneError) as caught:
        parse(with_line(1, LINES[0].replace(old, new)), "cvm", "trixie", "a.lock")
    title = "the cvm root, Debian trixie, amd64"
    assert caught.value.message == f"a.lock:1: is for {title.replace(old, new)}; needed is one for {title}"
    assert "restore it from git" in caught.value.hint


def test_package_that_is_there_twice():
    with pytest.raises(CornerstoneError, match="^a.lock:5: ceph-mon is there twice"):
        parse(with_line(5, LINES[3].replace(" 12345 ", " 12346 ")), "cvm", "trixie", "a.lock")


def test_missing_file(tmp_path):
    with pytest.raises(CornerstoneError) as caught:
        read_lock(tmp_path, "cvm", "sid")
    path = tmp_path / "sid-cvm.lock"
    assert caught.value.message == f"{path} is missing: the cvm root has no locked packages for sid"
    assert caught.value.hint == "run: ./invoke lock --suite sid"


def test_file_that_is_no_text(tmp_path):
    lock_path(tmp_path, "cvm", "trixie").write_bytes(LOCK.text().encode() + b"\xff\xfe\n")
    with pytest.raises(CornerstoneError, match="trixie-cvm.lock"):
        read_lock(tmp_path, "cvm", "trixie")


@pytest.mark.parametrize(("asked", "message"), [
    (("ceph-mon", "jq", "lvm2", "zstd"), "asked for and not locked: jq zstd"),
    (("lvm2",), "locked and no longer asked for: ceph-mon"),
    (("jq", "lvm2"), "asked for and not locked: jq; locked and no longer asked for: ceph-mon"),
])
def test_lock_that_does_not_fit(asked, message):
    with pytest.raises(CornerstoneError) as caught:
        check_covers(LOCK, asked)
    assert caught.value.message == f"the lock of the cvm root (trixie) doesn't fit its elements; {message}"
    assert caught.value.hint == "run: ./invoke lock --suite trixie --update"


def test_lock_that_fits():
    check_covers(LOCK, LOCK.requests)


# ours

@pytest.mark.parametrize(("root", "suite"), EVERY)
def test_our_locks_parse_and_fit_the_elements(root, suite):
    lock = read_lock(ROOT / "versions" / "locks", root, suite)
    asked = elements.packages(ROOT / "elements", root, suite)
    check_covers(lock, asked)
    names = [p.name for p in lock.packages]
    assert set(asked) <= set(names), "every package asked for has its file"
    assert len(names) == len(set(names)), "one version of each"
    assert names == sorted(names)
    assert lock.text() == lock_path(ROOT / "versions" / "locks", root, suite).read_text()


def test_no_other_lock_lies_there():
    there = {path.name for path in (ROOT / "versions" / "locks").iterdir()}
    assert there == {f"{suite}-{root}.lock" for root, suite in EVERY}


# resolving: apt's answer, without apt

MIRROR = Mirror("http://archive.example.org/debian", "http://archive.example.org/debian-security")
ARCHIVES = {f"{MIRROR.main}/": "main", f"{MIRROR.security}/": "security"}
SUM = "SHA256:" + "a" * 64


@pytest.mark.parametrize(("line", "expected"), [
    (f"'{MIRROR.main}/pool/main/j/jq/jq_1.7-1_amd64.deb' jq_1.7-1_amd64.deb 7 {SUM}",
     LockedPackage("main", "jq", "1.7-1", "amd64", 7, "a" * 64, "pool/main/j/jq/jq_1.7-1_amd64.deb")),
    (f"'{MIRROR.security}/pool/x/g%2b%2b_2_all.deb' g++_1%3a2_all.deb 9 {SUM}",
     LockedPackage("security", "g++", "1:2", "all", 9, "a" * 64, "pool/x/g++_2_all.deb")),
])
def test_apt_line(line, expected, tmp_path):
    assert lock_module._locked(line, ARCHIVES, tmp_path / "log") == expected


@pytest.mark.parametrize("line", [
    f"'{MIRROR.main}/pool/jq_1_amd64.deb' jq_1_amd64.deb 7 MD5Sum:{'a' * 32}",
    f"'http://elsewhere.example.org/jq_1_amd64.deb' jq_1_amd64.deb 7 {SUM}",
])
def test_apt_line_that_can_not_be_locked(line, tmp_path):
    with pytest.raises(CornerstoneError, match="without SHA256 or outside the mirror") as caught:
        lock_module._locked(line, ARCHIVES, tmp_path / "log")
    assert caught.value.code is Code.NETWORK


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    """A checkout with one root and a fitting lock, and a resolver that answers with LOCK."""
    monkeypatch.delenv("CORNERSTONE_CACHE", raising=False)
    monkeypatch.setenv("CORNERSTONE_MIRROR", MIRROR.main)
    monkeypatch.setattr(elements, "ROOTS", {"cvm": ("cvm",)})
    monkeypatch.setattr(lock_module, "resolve", lambda *_: replace(LOCK, epoch=LOCK.epoch + 60))
    (tmp_path / "elements" / "cvm").mkdir(parents=True)
    (tmp_path / "elements" / "cvm" / "package-installs.yaml").write_text("ceph-mon:\nlvm2:\n")
    (tmp_path / "versions" / "locks").mkdir(parents=True)
    lock_path(tmp_path / "versions" / "locks", "cvm", "trixie").write_text(LOCK.text())
    return Workspace(tmp_path)


def test_update_leaves_a_fitting_lock(workspace):
    assert update_locks(workspace, "trixie", again=False) == ["trixie-cvm.lock: fits, nothing to do"]


def test_update_of_what_has_not_changed_keeps_the_date(workspace):
    assert update_locks(workspace, "trixie", again=True) == ["trixie-cvm.lock: the archive has nothing newer"]
    assert read_lock(workspace.locks, "cvm", "trixie").epoch == LOCK.epoch


def test_update_says_what_changed(workspace, monkeypatch):
    new = replace(LOCK, packages=(package("ceph-mon", version="1:9"), package("jq"), LOCK.packages[2]))
    monkeypatch.setattr(lock_module, "resolve", lambda *_: new)
    assert update_locks(workspace, "trixie", again=True) == [
        "trixie-cvm.lock: 3 packages; 1 added, 1 gone, 1 of another version"]
    assert read_lock(workspace.locks, "cvm", "trixie") == new
    assert update_locks(workspace, "bookworm", again=False) == [
        "bookworm-cvm.lock: 3 packages; 3 added, 0 gone, 0 of another version"]


def test_update_that_fails_changes_nothing(workspace, monkeypatch):
    def fail(*_):
        raise CornerstoneError("the package lists can't be fetched", "", Code.NETWORK)
    monkeypatch.setattr(lock_module, "resolve", fail)
    with pytest.raises(CornerstoneError):
        update_locks(workspace, "trixie", again=True)
    assert [p.name for p in workspace.locks.iterdir()] == ["trixie-cvm.lock"]
    assert read_lock(workspace.locks, "cvm", "trixie") == LOCK
    assert list(workspace.cache.iterdir()) == []

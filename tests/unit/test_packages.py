"""A plan's packages: from the mirror, a snapshot by date, or a folder that was carried in; healed when damaged."""

from __future__ import annotations

import hashlib
import http.server
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.factory.packages import pool, provide
from cornerstone.factory.packages.lock import Lock, LockedPackage
from cornerstone.factory.settings import Workspace
from cornerstone.lib.error import Code, CornerstoneError

CONTENTS = {"jq": b"jq" * 999, "g++": b"g++" * 7, "libc6": b"libc6"}
PACKAGES = {name: LockedPackage("security" if name == "libc6" else "main", name, "1:2", "amd64", len(content),
                                hashlib.sha256(content).hexdigest(), f"pool/{name}_2_amd64.deb")
            for name, content in CONTENTS.items()}
LOCKS = [Lock("hypervisor", "trixie", 1_800_000_000, (), (PACKAGES["jq"], PACKAGES["g++"])),
         Lock("cvm", "trixie", 1_800_000_060, (), (PACKAGES["jq"], PACKAGES["libc6"]))]
DATE = "20270115T080000Z"


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A real HTTP server on the loopback over a folder; asked: the paths it was asked for."""
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=tmp_path / "archive")

        def log_message(self, form, *arguments) -> None:
            self.server.asked.append(self.path)

        log_error = lambda *_: None  # noqa: E731

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "CORNERSTONE_CACHE",
                 "CORNERSTONE_SECURITY_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "archive").mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.folder = [], tmp_path / "archive"
        base = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("CORNERSTONE_MIRROR", f"{base}/debian")
        monkeypatch.setenv("CORNERSTONE_SNAPSHOT_MIRROR", f"{base}/archive/{{archive}}/{{date}}/")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    monkeypatch.delenv("CORNERSTONE_CACHE", raising=False)
    monkeypatch.setattr(pool, "PAUSES_SECONDS", ())
    return Workspace(tmp_path / "checkout")


def put(archive, base: str, *names: str) -> None:
    for name in names:
        at = archive.folder / base / PACKAGES[name].path
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_bytes(CONTENTS[name])


def content_of(folder: Path) -> dict[str, bytes]:
    files = {name: pool.pooled(folder, package) for name, package in PACKAGES.items()}
    return {name: file.read_bytes() for name, file in files.items() if file.exists()}


class Told(list):
    def __call__(self, event) -> None:
        if event.state != "progress":
            self.append((event.state, event.message))


# mirrors

def test_what_the_mirror_no_longer_has_comes_from_the_snapshot_of_the_locks_date(workspace, archive):
    put(archive, "debian", "jq")
    put(archive, f"archive/debian/{DATE}", "g++")
    put(archive, "archive/debian-security/20270115T080100Z", "libc6")
    provide.provide(workspace, LOCKS, Told())
    assert content_of(workspace.pool) == CONTENTS
    assert not any("archive" in path and "jq" in path for path in archive.asked), "only what the mirror lacks"
    assert any(path.endswith("/g%2B%2B_2_amd64.deb") for path in archive.asked)


@pytest.mark.parametrize("snapshot", [True, False], ids=["snapshot", "no snapshot"])
def test_what_nobody_has_is_one_error_with_the_command(workspace, archive, monkeypatch, snapshot):
    if not snapshot:
        monkeypatch.setenv("CORNERSTONE_SNAPSHOT_MIRROR", "")
    put(archive, "debian", "jq")
    with pytest.raises(CornerstoneError) as caught:
        provide.provide(workspace, LOCKS, Told())
    answers = "HTTP Error 404: File not found" + "; HTTP Error 404: File not found" * snapshot
    assert caught.value.message == ("2 of 3 locked packages can't be fetched:\n"
                                    f"    g++ 1:2: {answers}\n    libc6 1:2: {answers}")
    assert "./invoke lock --suite trixie --update" in caught.value.hint
    assert "CORNERSTONE_SNAPSHOT_MIRROR" in caught.value.hint
    assert caught.value.code is Code.NETWORK


@pytest.mark.parametrize("address", ["archive.example.org", "http://example.org/{date}", "http://example.org/{archive}",
                                     "{archive}/{date}"])
def test_snapshot_mirror_that_is_none(workspace, archive, monkeypatch, address):
    monkeypatch.setenv("CORNERSTONE_SNAPSHOT_MIRROR", address)
    with pytest.raises(CornerstoneError, match="CORNERSTONE_SNAPSHOT_MIRROR is ") as caught:
        provide.provide(workspace, LOCKS, Told())
    assert "http://HOST/archive/{archive}/{date}" in caught.value.hint


# healing

def test_damaged_file_is_fetched_again_and_that_is_told(workspace, archive):
    put(archive, "debian", "jq", "g++")
    put(archive, "debian-security", "libc6")
    provide.provide(workspace, LOCKS, Told())
    pool.pooled(workspace.pool, PACKAGES["jq"]).write_bytes(CONTENTS["jq"][::-1])
    told = Told()
    provide.provide(workspace, LOCKS, told)
    assert told == [("warning", "the pool's copy of jq 1:2 was damaged: it is fetched again")]
    assert content_of(workspace.pool) == CONTENTS


def test_whole_pool_asks_nobody_and_loses_what_a_killed_fetch_left(workspace, monkeypatch):
    monkeypatch.setenv("CORNERSTONE_MIRROR", "nothing://")
    for name, package in PACKAGES.items():
        at = pool.pooled(workspace.pool, package)
        at.parent.mkdir(parents=True)
        at.write_bytes(CONTENTS[name])
    at.with_suffix(".7.part").touch()
    at.with_suffix(".7.part.FAILED").touch()
    provide.provide(workspace, LOCKS, Told())
    assert list(workspace.pool.glob("*/*.part*")) == []


# a site without a network

@pytest.fixture
def carried(workspace, archive, tmp_path, monkeypatch) -> Path:
    """A folder that was filled with all packages, and after that no mirror and an empty pool."""
    put(archive, "debian", "jq", "g++")
    put(archive, "debian-security", "libc6")
    provide.provide(workspace, LOCKS, Told())
    provide.carry(workspace.pool, PACKAGES.values(), tmp_path / "carried")
    monkeypatch.setenv("CORNERSTONE_MIRROR", "nothing://")
    for package in PACKAGES.values():
        pool.pooled(workspace.pool, package).unlink()
    return tmp_path / "carried"


def state_of(folder: Path) -> list:
    return sorted((str(path), path.stat().st_mtime_ns, path.stat().st_ctime_ns, path.stat().st_nlink)
                  for path in [folder, *folder.rglob("*")])


def test_there_and_back(workspace, carried):
    before = state_of(carried)
    provide.provide(workspace, LOCKS, Told(), carried)
    assert content_of(workspace.pool) == content_of(carried / "pool") == CONTENTS
    assert state_of(carried) == before, "it is only read"


def test_its_index_can_be_checked_with_the_usual_tool(carried):
    done = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=carried, capture_output=True,
                          text=True, check=True)
    assert done.stdout.count(": OK") == 3


def test_filling_it_again_mends_it(workspace, carried):
    provide.provide(workspace, LOCKS, Told(), carried)
    pool.pooled(carried / "pool", PACKAGES["jq"]).write_bytes(CONTENTS["jq"][::-1])
    pool.pooled(carried / "pool", PACKAGES["g++"]).unlink()
    whole = pool.pooled(carried / "pool", PACKAGES["libc6"]).stat()
    pool.pooled(carried / "pool", PACKAGES["libc6"]).with_suffix(".7.part").touch()
    provide.carry(workspace.pool, PACKAGES.values(), carried)
    assert content_of(carried / "pool") == CONTENTS
    assert pool.pooled(carried / "pool", PACKAGES["libc6"]).stat() == whole
    assert list(carried.rglob("*.part")) == []


def test_a_second_profile_adds_to_it(workspace, carried):
    provide.provide(workspace, LOCKS, Told(), carried)
    more = b"more"
    extra = replace(PACKAGES["jq"], name="more", size=len(more), sha256=hashlib.sha256(more).hexdigest())
    at = pool.pooled(workspace.pool, extra)
    at.parent.mkdir(parents=True, exist_ok=True)
    at.write_bytes(more)
    provide.carry(workspace.pool, [extra], carried)
    assert len((carried / provide.INDEX).read_text().splitlines()) == 4


def test_what_it_lacks_is_named_before_anything_is_copied(workspace, carried):
    pool.pooled(carried / "pool", PACKAGES["jq"]).unlink()
    at = pool.pooled(carried / "pool", PACKAGES["g++"])
    at.write_bytes(at.read_bytes()[:5])
    with pytest.raises(CornerstoneError) as caught:
        provide.provide(workspace, LOCKS, Told(), carried)
    assert caught.value.message == (f"{carried} lacks 2 of 3 packages, or has them in part:\n"
                                    "    g++ 1:2\n    jq 1:2")
    assert "./invoke fetch --profile" in caught.value.hint
    assert content_of(workspace.pool) == {}


def test_damaged_file_in_it_is_named(workspace, carried):
    pool.pooled(carried / "pool", PACKAGES["jq"]).write_bytes(CONTENTS["jq"][::-1])
    with pytest.raises(CornerstoneError, match="jq 1:2 is damaged: its sha256 is ") as caught:
        provide.provide(workspace, LOCKS, Told(), carried)
    assert str(carried) in caught.value.message
    assert "jq" not in content_of(workspace.pool)
    assert list(workspace.pool.rglob("*.part")) == []


@pytest.mark.parametrize("what", ["nothing", "folder", "file"])
def test_what_is_no_such_folder(tmp_path, what):
    other = tmp_path / "other"
    if what == "folder":
        other.mkdir()
    elif what == "file":
        other.touch()
    with pytest.raises(CornerstoneError, match="isn't a folder of packages") as caught:
        provide.check_carried(other)
    assert "./invoke fetch --profile" in caught.value.hint


def test_file_in_it_that_can_not_be_read_is_named(workspace, carried, monkeypatch):
    """As from a stick with bad blocks."""
    def bad(*_):
        raise OSError(5, "Input/output error")
    monkeypatch.setattr(pool, "receive", bad)
    with pytest.raises(CornerstoneError, match=r"g\+\+ 1:2 is damaged: .*Input/output error"):
        provide.provide(workspace, LOCKS, Told(), carried)


@pytest.mark.parametrize("what", ["folder", "file"])
def test_other_things_are_not_mixed_with_packages(workspace, tmp_path, what):
    other = tmp_path / "other"
    if what == "folder":
        other.mkdir()
        (other / "thesis.tex").touch()
    else:
        other.touch()
    with pytest.raises(CornerstoneError, match="holds something else than packages"):
        provide.carry(workspace.pool, PACKAGES.values(), other)
    assert other.is_file() or [path.name for path in other.iterdir()] == ["thesis.tex"]

"""The pool: fetched from a real server on the loopback, damaged in every way a mirror can."""

from __future__ import annotations

import hashlib
import http.server
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.factory.packages import pool
from cornerstone.factory.packages.lock import LockedPackage
from cornerstone.factory.packages.provide import from_mirror
from cornerstone.factory.settings import Mirror
from cornerstone.lib.error import Code, CornerstoneError

BODY = bytes(range(256)) * 3000  # several chunks


def locked(name: str, content: bytes = BODY, **changes) -> LockedPackage:
    package = LockedPackage("main", name, "1:2+b1", "amd64", len(content), hashlib.sha256(content).hexdigest(),
                            f"pool/main/{name}_2+b1_amd64.deb")
    return replace(package, **changes)


class Handler(http.server.BaseHTTPRequestHandler):
    """Behaves as the package's name says."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        kind = self.path.rpartition("/")[2].partition("_")[0].rstrip("0123456789")
        if kind == "absent":
            self.send_error(404)
        elif kind == "garbage":
            self.wfile.write(b"this is no HTTP\r\n\r\n")
        elif kind == "silent" or (kind == "shy" and len(self.server.asked) < 3):
            pass
        elif kind == "torn":
            self.reply([("Content-Length", len(BODY))], BODY[:len(BODY) // 2])
        elif kind == "tornchunk":
            self.reply([("Transfer-Encoding", "chunked")], b"1000\r\n" + BODY[:100])
        elif kind == "other":
            self.reply([("Content-Length", len(BODY))], BODY[::-1])
        elif kind == "short":
            self.reply([("Content-Length", 9)], BODY[:9])
        elif kind == "longer":
            self.reply([("Content-Length", len(BODY) + 1)], BODY + b"!")
        else:
            self.reply([("Content-Length", len(BODY))], BODY)

    def reply(self, headers: list[tuple[str, object]], body: bytes) -> None:
        self.protocol_version = "HTTP/1.1"
        self.send_response(200)
        for name, value in [*headers, ("Connection", "close")]:
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Handler) as made:
        made.asked = []
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def mirror(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    base = f"http://127.0.0.1:{server.server_port}/debian"
    return lambda: [from_mirror(Mirror(base, f"{base}-security"))]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(pool, "PAUSES_SECONDS", (0, 0))


def test_what_fails_for_a_moment_is_tried_again(tmp_path, server, mirror):
    pool.fetch(tmp_path, [locked("shy")], mirror, quiet, "")
    assert pool.pooled(tmp_path, locked("shy")).read_bytes() == BODY
    assert len(server.asked) > 2


def test_what_the_mirror_does_not_have_is_asked_once(tmp_path, server, mirror):
    refused(tmp_path, [locked("absent")], mirror)
    assert len(server.asked) == 1


def no_mirror() -> list:
    raise AssertionError("a warm pool asks for no mirror")


def quiet(done: int, total: int) -> None:
    pass


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def refused(folder: Path, packages: list[LockedPackage], mirror) -> CornerstoneError:
    with pytest.raises(CornerstoneError) as caught:
        pool.fetch(folder, packages, mirror, quiet, "check CORNERSTONE_MIRROR")
    assert caught.value.code is Code.NETWORK
    assert "CORNERSTONE_MIRROR" in caught.value.hint
    return caught.value


def test_fetch(tmp_path, server, mirror):
    # equal content is one file in the pool, whatever asks for it
    packages = [locked("good"), locked("sec", archive="security", path="pool/updates/sec_2+b1_amd64.deb")]
    seen = []
    pool.fetch(tmp_path, packages[:1], mirror, lambda *now: seen.append(now), "")
    assert pool.pooled(tmp_path, packages[0]).read_bytes() == BODY
    assert pool.missing(tmp_path, packages) == []
    assert seen == [(len(BODY), len(BODY))]
    assert server.asked == ["/debian/pool/main/good_2%2Bb1_amd64.deb"]


def test_security_has_its_own_base(tmp_path, server, mirror):
    pool.fetch(tmp_path, [locked("sec", archive="security")], mirror, quiet, "")
    assert server.asked == ["/debian-security/pool/main/sec_2%2Bb1_amd64.deb"]


def test_warm_pool_asks_nobody(tmp_path, mirror):
    pool.fetch(tmp_path, [locked("good")], mirror, quiet, "")
    pool.fetch(tmp_path, [locked("good")], no_mirror, quiet, "")
    pool.fetch(tmp_path, [], no_mirror, quiet, "")


def test_a_short_file_in_the_pool_is_fetched_again(tmp_path, mirror):
    at = pool.pooled(tmp_path, locked("good"))
    at.parent.mkdir()
    at.write_bytes(BODY[:10])
    pool.fetch(tmp_path, [locked("good")], mirror, quiet, "")
    assert at.read_bytes() == BODY


@pytest.mark.parametrize(("name", "reason"), [
    ("absent", "HTTP Error 404"),
    ("torn", f"the connection broke off after {len(BODY) // 2} of {len(BODY)} bytes"),
    ("other", f"its sha256 is {hashlib.sha256(BODY[::-1]).hexdigest()}, the lock says "),
    ("longer", f"after {len(BODY) + 1} of {len(BODY)} bytes"),
    ("silent", "Connection failed"),
    pytest.param("tornchunk", "connection"),
    pytest.param("garbage", "Bad header line"),
])
def test_what_a_mirror_does_wrong(tmp_path, mirror, name, reason):
    error = refused(tmp_path, [locked(name)], mirror)
    assert error.message.startswith(f"1 of 1 locked packages can't be fetched:\n    {name} 1:2+b1: ")
    assert reason in error.message
    assert files_below(tmp_path) == [], "nothing half-written"


def test_the_others_are_fetched_and_each_failure_is_named(tmp_path, mirror):
    good, absent, torn = locked("good"), locked("absent", sha256="a" * 64), locked("torn", sha256="b" * 64)
    error = refused(tmp_path, [good, absent, torn], mirror)
    assert error.message.startswith("2 of 3 ")
    assert re.findall(r"^    (\w+) ", error.message, re.M) == ["absent", "torn"]
    assert files_below(tmp_path) == [pool.pooled(tmp_path, good).name]


def test_many_failures_are_counted(tmp_path, mirror):
    packages = [locked(f"absent{n:02}", sha256=f"{n:064}") for n in range(13)]
    error = refused(tmp_path, packages, mirror)
    assert len(re.findall("^    absent", error.message, re.M)) == 10
    assert error.message.endswith("… and 3 more")


def test_nobody_listens(tmp_path):
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as other:
        base = f"http://127.0.0.1:{other.server_port}/debian"
    assert "refused" in refused(tmp_path, [locked("good")], lambda: [from_mirror(Mirror(base, base))]).message


@pytest.mark.parametrize("address", [
    "example", "debian/", "nothing://example.org/debian",
    pytest.param("http://127.0.0.1:port/debian"),
])
def test_mirror_that_is_no_address(tmp_path, address):
    refused(tmp_path, [locked("good")], lambda: [from_mirror(Mirror(address, address))])


def test_what_one_source_lacks_the_next_is_asked_for(tmp_path, server):
    good, absent = locked("good"), locked("absent", BODY[:9])
    first = f"http://127.0.0.1:{server.server_port}/first"
    second = f"http://127.0.0.1:{server.server_port}/second"

    def elsewhere(package: LockedPackage) -> str:
        return f"{second}/short_{package.name}"

    pool.fetch(tmp_path, [good, absent], lambda: [from_mirror(Mirror(first, first)), elsewhere], quiet, "")
    assert pool.pooled(tmp_path, absent).read_bytes() == BODY[:9]
    assert sorted(path.split("/")[1] for path in server.asked) == ["first", "first", "second"]


def test_what_no_source_has_says_what_each_answered(tmp_path, mirror, server):
    with pytest.raises(CornerstoneError) as caught:
        pool.fetch(tmp_path, [locked("absent")], lambda: [*mirror(), lambda package: mirror()[0](locked("other"))],
                   quiet, "a hint")
    assert re.search("absent 1:2.b1: HTTP Error 404.*; its sha256 is", caught.value.message)
    assert caught.value.hint == "a hint"
    assert len(server.asked) == 4, "a wrong content is asked for again, what isn't there is not"


def test_damaged_files_are_found(tmp_path, mirror):
    good, bad, absent = locked("good"), locked("short_bad", BODY[:9]), locked("absent", b"x")
    for package in (good, bad):
        at = pool.pooled(tmp_path, package)
        at.parent.mkdir()
        at.write_bytes(BODY)
    assert pool.damaged(tmp_path, [good, bad, absent]) == [bad]

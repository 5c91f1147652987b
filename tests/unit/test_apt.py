"""apt's own settings hold for each download: tried with a real apt, its configuration in a folder of the test's."""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import http.server
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cornerstone.factory.packages import pool
from cornerstone.factory.packages.lock import LockedPackage
from cornerstone.factory.packages.provide import from_mirror
from cornerstone.factory.settings import Mirror
from cornerstone.lib import apt
from cornerstone.lib.error import CornerstoneError

BODY = bytes(range(256)) * 300
LOGIN = "Basic " + base64.b64encode(b"us:s3c@ret").decode()


def locked(name: str, content: bytes = BODY) -> LockedPackage:
    digest = hashlib.sha256(content).hexdigest()
    return LockedPackage("main", name, "1", "all", len(content), digest, f"pool/{name}.deb")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        self.server.answer(self)

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


@pytest.fixture
def serve():
    """Start servers on the loopback; each answers a request by a function of its handler."""
    running = []

    def start(answer=lambda handler: handler.reply(200, BODY), context: ssl.SSLContext | None = None) -> Server:
        server = Server(("127.0.0.1", 0), Handler)
        server.asked, server.answer = [], answer
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def conf(tmp_path, monkeypatch) -> Path:
    """An apt.conf that apt reads as the machine's own; its folder stands for /etc/apt."""
    etc = tmp_path / "etc"
    (etc / "auth.conf.d").mkdir(parents=True)
    file = etc / "apt.conf.machine"
    file.write_text(f'Dir::Etc "{etc}";\n')
    monkeypatch.setenv("APT_CONFIG", str(file))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(pool, "PAUSES_SECONDS", (0.01, 0.01))
    return file


def say(conf: Path, text: str) -> None:
    with conf.open("a") as file:
        file.write(text + "\n")


def fetch(tmp_path: Path, base: str, *packages: LockedPackage, hint: str = "lock") -> None:
    pool.fetch(tmp_path / "pool", packages or [locked("a")], lambda: [from_mirror(Mirror(base, base))],
               lambda *_: None, hint)


# proxies

def test_each_request_goes_through_the_proxy_m26(tmp_path, conf, serve):
    proxy = serve()
    say(conf, f'Acquire::http::Proxy "http://{proxy.address}";')
    fetch(tmp_path, "http://deb.example.org/debian", locked("a"), locked("b"))
    assert [path for path, _ in proxy.asked] == [f"http://deb.example.org/debian/pool/{name}.deb" for name in "ab"]


def test_proxy_of_one_host_and_none_of_another_m26(tmp_path, conf, serve):
    proxy, other, mirror = serve(), serve(lambda handler: handler.reply(200, BODY[1:])), serve()
    say(conf, f'Acquire::http::Proxy "http://{proxy.address}"; Acquire::http::Proxy::127.0.0.1 "DIRECT";'
              f'Acquire::http::Proxy::deb.example.org "http://{other.address}";')
    fetch(tmp_path, f"http://{mirror.address}/debian")
    assert [len(server.asked) for server in (mirror, proxy, other)] == [1, 0, 0]
    fetch(tmp_path, "http://deb.example.org/debian", locked("b", BODY[1:]))
    assert [len(server.asked) for server in (mirror, proxy, other)] == [1, 0, 1]


def test_proxy_that_is_detected_m26(tmp_path, conf, serve):
    proxy = serve()
    script = tmp_path / "detect"
    script.write_text(f"#!/bin/sh\necho http://{proxy.address}\n")
    script.chmod(0o755)
    say(conf, f'Acquire::http::Proxy-Auto-Detect "{script}";')
    fetch(tmp_path, "http://deb.example.org/debian")
    assert len(proxy.asked) == 1


def test_password_of_a_proxy_is_never_shown_m28(tmp_path, conf, serve):
    proxy = serve(lambda handler: handler.reply(407))
    say(conf, f'Acquire::http::Proxy "http://us:s3c%40ret@{proxy.address}";')
    with pytest.raises(CornerstoneError) as caught:
        fetch(tmp_path, "http://deb.example.org/debian")
    assert proxy.asked[0][1]["Proxy-Authorization"] == LOGIN
    assert "s3c" not in str(caught.value)


# credentials

def guarded(handler: Handler) -> None:
    handler.reply(200, BODY) if handler.headers.get("Authorization") == LOGIN else handler.reply(401)


@pytest.mark.parametrize("where", ["address", "auth.conf", "auth.conf.d"])
def test_login_of_a_mirror_m28(tmp_path, conf, serve, where):
    mirror = serve(guarded)
    login = f"us:s3c%40ret@{mirror.address}" if where == "address" else mirror.address
    if where != "address":
        file = conf.parent / where if where == "auth.conf" else conf.parent / where / "mirror.conf"
        file.write_text(f"machine http://{mirror.address}/ login us password s3c@ret\n")
    fetch(tmp_path, f"http://{login}/debian")
    assert pool.missing(tmp_path / "pool", [locked("a")]) == []


def test_wrong_login_is_asked_for_once_and_never_shown_m28(tmp_path, conf, serve):
    mirror = serve(guarded)
    with pytest.raises(CornerstoneError) as caught:
        fetch(tmp_path, f"http://us:wr0ng@{mirror.address}/debian")
    assert "HTTP Error 401" in caught.value.message
    assert "wr0ng" not in str(caught.value)
    assert caught.value.hint == pool.NETWORK_HINT, "another lock wouldn't help"
    assert len(mirror.asked) == 1


def command_lines() -> list[bytes]:
    """The arguments of each process that runs, but for those that end meanwhile."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(file.read_bytes())
    return found


def test_login_is_no_argument_of_a_process_m28(tmp_path, conf, serve):
    seen = []

    def look(handler: Handler) -> None:
        seen.extend(command_lines())
        guarded(handler)

    mirror = serve(look)
    fetch(tmp_path, f"http://us:s3c%40ret@{mirror.address}/debian")
    assert seen
    assert not [words for words in seen if b"s3c" in words and b"apt" in words]


# certificates

@pytest.fixture
def certificate(tmp_path) -> tuple[Path, ssl.SSLContext]:
    file = tmp_path / "server.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-keyout", file.with_suffix(".key"), "-out", file, "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, file.with_suffix(".key"))
    return file, context


@pytest.mark.parametrize("setting", ['Acquire::https::CAInfo "{file}";', 'Acquire::https::127.0.0.1::CAInfo "{file}";',
                                     'Acquire::https::Verify-Peer "false";', ""])
def test_certificates_are_those_that_apt_trusts_m26(tmp_path, conf, serve, certificate, setting):
    file, context = certificate
    mirror = serve(context=context)
    say(conf, setting.format(file=file))
    if setting:
        fetch(tmp_path, f"https://{mirror.address}/debian")
        assert mirror.asked
    else:
        with pytest.raises(CornerstoneError, match="(?i)certificate"):
            fetch(tmp_path, f"https://{mirror.address}/debian")


# silence

def test_mirror_that_never_answers_is_told_after_two_timeouts_m27(tmp_path, conf, monkeypatch):
    monkeypatch.setattr(pool, "TIMEOUT_SECONDS", 1)
    monkeypatch.setattr(pool, "PAUSES_SECONDS", (1, 5))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        begun = time.monotonic()
        with pytest.raises(CornerstoneError) as caught:
            fetch(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}/debian",
                  *[LockedPackage("main", f"p{n}", "1", "all", n + 1, f"{n:064}", f"p{n}.deb") for n in range(64)])
    # one file after the other would take over two minutes
    assert time.monotonic() - begun < 60
    assert caught.value.message.startswith("64 of 64 locked packages can't be fetched:\n    p0 1: ")
    assert "not tried" not in caught.value.message
    assert caught.value.hint == pool.NETWORK_HINT


# passing errors

@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("after", ["1", None])
def test_what_says_later_is_asked_again_later_m31(tmp_path, conf, serve, status, after):
    first: dict[str, float] = {}
    waited: dict[str, float] = {}

    def answer(handler: Handler) -> None:
        now = time.monotonic()
        if handler.path not in first:
            first[handler.path] = now
            handler.reply(status, **({"Retry_After": after} if after else {}))
        else:
            waited.setdefault(handler.path, now - first[handler.path])
            handler.reply(200, BODY)

    fetch(tmp_path, f"http://{serve(answer).address}/debian", locked("a"))
    assert pool.missing(tmp_path / "pool", [locked("a")]) == []
    if after:
        assert min(waited.values()) >= 1


def test_retry_after_may_be_a_date_m31():
    answer = "HTTP/1.1 503 x\nDate: Sun, 22 Nov 2026 08:00:00 GMT\nretry-after: Sun, 22 Nov 2026 08:00:07 GMT\n"
    assert apt._seconds(answer) == 7
    assert apt._seconds("HTTP/1.1 503 x\nRetry-After: soon\n") == 0


def test_mirror_that_bears_two_connections_gets_no_more_m31(tmp_path, conf, serve):
    gate, most = threading.Semaphore(2), []

    def answer(handler: Handler) -> None:
        if not gate.acquire(blocking=False):
            handler.reply(503)
            return
        try:
            time.sleep(0.02)
            handler.reply(200, BODY + handler.path.encode())
            most.append(1)
        finally:
            gate.release()

    base = "/debian/pool/"
    packages = [locked(f"p{n}", BODY + f"{base}p{n}.deb".encode()) for n in range(80)]
    fetch(tmp_path, f"http://{serve(answer).address}/debian", *packages)
    assert pool.missing(tmp_path / "pool", packages) == []


def test_mirror_that_is_away_for_long_is_not_waited_for_m31(tmp_path, conf, serve):
    mirror = serve(lambda handler: handler.reply(503, Retry_After="3600"))
    begun = time.monotonic()
    with pytest.raises(CornerstoneError, match="HTTP Error 503") as caught:
        fetch(tmp_path, f"http://{mirror.address}/debian")
    assert time.monotonic() - begun < 600
    assert caught.value.hint == pool.NETWORK_HINT


def test_one_file_that_the_mirror_stumbles_over_does_not_speak_for_all_m31(tmp_path, conf, serve):
    def answer(handler: Handler) -> None:
        bad = handler.path.endswith("/bad.deb")
        handler.reply(503) if bad else handler.reply(200, BODY + handler.path.encode())

    packages = [locked(f"p{n}", BODY + f"/debian/pool/p{n}.deb".encode()) for n in range(40)]
    with pytest.raises(CornerstoneError, match="^1 of 41 locked packages can't be fetched:\n    bad 1: HTTP Error 503"):
        fetch(tmp_path, f"http://{serve(answer).address}/debian", locked("bad", b"b"), *packages)


@pytest.mark.parametrize("status", [404, 410])
def test_only_not_here_leads_to_other_packages_m31(tmp_path, conf, serve, status):
    mirror = serve(lambda handler: handler.reply(status))
    with pytest.raises(CornerstoneError) as caught:
        fetch(tmp_path, f"http://{mirror.address}/debian", hint="lock --update")
    assert caught.value.hint == "lock --update"
    assert len(mirror.asked) == 1


@pytest.mark.parametrize("page", [b"<html>log in", b"\n<!DOCTYPE HTML><title>x", b"<?xml version='1.0'?><html>x",
                                  b"<a href=/login>log in</a>"])
def test_captive_portal_is_named_m32(tmp_path, conf, serve, page):
    mirror = serve(lambda handler: handler.reply(200, page, Content_Type="text/html"))
    with pytest.raises(CornerstoneError, match=r"the mirror sent something else \(text/html\) for "):
        fetch(tmp_path, f"http://{mirror.address}/debian")


def test_captive_portal_behind_a_redirection_is_named_m32(tmp_path, conf, serve):
    def answer(handler: Handler) -> None:
        if handler.path == "/login":
            handler.reply(200, b"<html>log in", Content_Type="text/html; charset=utf-8")
        else:
            handler.reply(302, Location="/login")

    with pytest.raises(CornerstoneError, match=r"the mirror sent something else \(text/html\) for pool/a.deb"):
        fetch(tmp_path, f"http://{serve(answer).address}/debian")


# the disk

@pytest.mark.parametrize("name", ["a b", "wörk", "日本", "a,b'c"])
def test_pool_below_any_path_m34(tmp_path, conf, serve, name):
    pool_folder = tmp_path / name
    base = f"http://{serve().address}/debian"
    pool.fetch(pool_folder, [locked("a")], lambda: [from_mirror(Mirror(base, base))], lambda *_: None, "")
    assert pool.missing(pool_folder, [locked("a")]) == []


def test_full_disk_is_no_fault_of_the_mirror_m31(tmp_path, conf, serve):
    (tmp_path / "pool").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", tmp_path / "pool"], check=True)
    try:
        with pytest.raises(OSError, match="No space left") as caught:
            fetch(tmp_path, f"http://{serve().address}/debian")
        assert caught.value.errno == errno.ENOSPC
        assert not list((tmp_path / "pool").rglob("*.part*"))
    finally:
        subprocess.run(["umount", tmp_path / "pool"], check=True)


def test_interrupted_download_leaves_no_process_m27(tmp_path, conf, serve):
    """Ctrl-C while apt waits: its processes end at once, and nothing half-written stays."""
    asked = threading.Event()
    mirror = serve(lambda handler: (asked.set(), time.sleep(300)))
    code = ("import sys; from pathlib import Path; sys.path.insert(0, sys.argv[3])\n"
            "from test_apt import fetch\n"
            "fetch(Path(sys.argv[1]), sys.argv[2])")
    with subprocess.Popen([sys.executable, "-c", code, tmp_path, f"http://{mirror.address}/debian",
                           Path(__file__).parent], stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}) as other:
        assert asked.wait(120)
        begun = time.monotonic()
        other.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in other.stderr.read()
    assert time.monotonic() - begun < 120, "it didn't wait for the answer"
    assert not [words for words in command_lines() if str(tmp_path).encode() in words and b"apt-helper" in words]
    assert not list((tmp_path / "pool").rglob("*.part*"))

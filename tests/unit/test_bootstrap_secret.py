"""The host's bootstrap secret: wiped when the CVM's own page says that the node is a member, and not before."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from cluster_nodes import SECRET, addresses
from cornerstone.cvm.membership import server
from cornerstone.cvm.membership.kept import MEMBERSHIP, Membership, keep
from cornerstone.cvm.membership.server import (
    MOST_FROM_ONE_ADDRESS,
    TIMEOUT_SECONDS,
    FreeBind,
    PublicHandler,
    PublicServer,
)
from cornerstone.hypervisor import bootstrap_secret
from cornerstone.hypervisor.bootstrap_secret import BootstrapSecret, is_member, wipe

ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = IPv4Network("127.0.0.0/8")


@pytest.fixture
def address():
    return addresses(1)[0]


@contextlib.contextmanager
def running(server):
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_it_is_wiped_when_the_cvm_says_that_the_node_is_a_member(tmp_path, address):
    path, told = tmp_path / "bootstrap-secret", []
    path.write_text(SECRET)
    secret = BootstrapSecret(path, told.append, lambda: is_member(address, "lo"))
    secret.look()
    with running(PublicServer(tmp_path, address, LOOPBACK)):
        secret.look()
        assert (path.read_text(), told) == (SECRET, [])
        keep(Membership.draw(), tmp_path)
        secret.look()
        secret.look()
    assert path.read_bytes() == b""
    assert [(event.step, event.state) for event in told] == [("bootstrap-secret", "done")]
    assert SECRET not in told[0].to_json()


def test_a_node_without_one_asks_nobody(tmp_path):
    path = tmp_path / "bootstrap-secret"
    secret = BootstrapSecret(path, pytest.fail, lambda: pytest.fail("asked"))
    secret.look()
    path.touch()
    secret.look()


def test_the_page_tells_nothing_secret_and_takes_nothing(tmp_path, address):
    kept = keep(Membership.draw(), tmp_path)
    with running(PublicServer(tmp_path, address, LOOPBACK)):
        asked = subprocess.run(["curl", "-s", f"http://{address}:2100/membership.json"], capture_output=True, text=True,
                               check=True).stdout
        posted = subprocess.run(["curl", "-s", "-d", "{}", "-o", "/dev/null", "-w", "%{http_code}",
                                 f"http://{address}:2100/join"], capture_output=True, text=True, check=True).stdout
    assert asked == '{"version": 1, "member": true}'
    assert kept.monitor_key not in asked
    assert posted == "501"


def test_a_disk_that_does_not_take_it_is_told_once_and_ends_nobody_d30(tmp_path, monkeypatch):
    path, told = tmp_path / "bootstrap-secret", []
    path.write_text(SECRET)

    def fail(_):
        raise OSError(5, "Input/output error")

    secret = BootstrapSecret(path, told.append, lambda: True)
    with monkeypatch.context() as broken:
        broken.setattr(bootstrap_secret, "wipe", fail)
        secret.look()
        secret.look()
    assert [(event.state, event.message) for event in told] == [
        ("warning", f"{path} can't be wiped: Input/output error")]
    secret.look()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n[true]",
                                    b'HTTP/1.0 200 OK\r\n\r\n{"member": "true"}', b"\0" * 70000,
                                    b"HTTP/1.0 200 OK\r\n\r\n" + b"[" * 60000])
def test_any_other_answer_is_no(address, answer):
    class Handler(PublicHandler):
        def handle(self):
            self.connection.recv(4096)
            self.connection.sendall(answer)
    with running(FreeBind((address, bootstrap_secret.PORT), Handler)):
        assert not is_member(address, "lo")


def test_nobody_is_asked_but_on_the_internal_bridge(tmp_path, address):
    keep(Membership.draw(), tmp_path)
    with running(PublicServer(tmp_path, address, LOOPBACK)):
        assert is_member(address, "lo")
        # here there is none
        assert not is_member(address)


def silent(address: str, source: str, count: int) -> list[socket.socket]:
    """Connections that say nothing."""
    return [socket.create_connection((address, bootstrap_secret.PORT), 10, (source, 0)) for _ in range(count)]


def gone(connection: socket.socket) -> bool:
    """Whether the other side closes it, within what its timeout is by far."""
    connection.settimeout(TIMEOUT_SECONDS / 2)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def test_a16_a_stranger_who_says_nothing_keeps_nobody_from_an_answer(tmp_path, address):
    """By whatever addresses he comes, and however often."""
    keep(Membership.draw(), tmp_path)
    strangers, host = [f"127.250.0.{number}" for number in range(1, 9)], "127.251.0.1"
    with running(PublicServer(tmp_path, address, IPv4Network("127.251.0.0/24"))), contextlib.ExitStack() as stack:
        held = [stack.enter_context(each) for source in strangers for each in silent(address, source, 8)]
        assert asked_from(host, address) == b'{"version": 1, "member": true}'
        assert all(map(gone, held)), "whoever isn't on the internal network isn't listened to"
        assert asked_from(strangers[0], address) == b""


def test_a16_connections_of_the_host_itself_that_say_nothing_are_bounded(tmp_path, address, monkeypatch):
    # in number, that is; on a busy machine the first would be ended for its silence meanwhile
    monkeypatch.setattr(server, "TIMEOUT_SECONDS", 600)
    monkeypatch.setattr(server.PublicHandler, "timeout", 600)
    keep(Membership.draw(), tmp_path)
    with running(PublicServer(tmp_path, address, LOOPBACK)), contextlib.ExitStack() as stack:
        held = [stack.enter_context(each) for each in silent(address, "127.250.0.1", MOST_FROM_ONE_ADDRESS - 1)]
        assert asked_from("127.250.0.1", address) == b'{"version": 1, "member": true}'
        held += [stack.enter_context(each) for each in silent(address, "127.250.0.1", 3)]
        # which of them is the one too many isn't told: the last but one may have been the one that was answered
        assert any(map(gone, held[-2:])) and not gone(held[0])
        assert is_member(address, "lo")


def asked_from(source: str, address: str) -> bytes:
    """What the page says to an address, b"" when it doesn't."""
    connection = http.client.HTTPConnection(address, bootstrap_secret.PORT, bootstrap_secret.TIMEOUT_SECONDS,
                                            (source, 0))
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/")
            return connection.getresponse().read()
        except (ConnectionError, http.client.HTTPException):
            return b""


def test_a_damaged_membership_is_no_membership(tmp_path, address):
    (tmp_path / MEMBERSHIP).write_text("{")
    with running(PublicServer(tmp_path, address, LOOPBACK)):
        assert not is_member(address, "lo")


@pytest.mark.parametrize("point", range(4))
def test_a_power_cut_leaves_something_that_is_wiped_next_time(tmp_path, point):
    path = tmp_path / "bootstrap-secret"
    path.write_text(SECRET)
    cut = f"""
import os, signal
from pathlib import Path
from cornerstone.hypervisor import bootstrap_secret
left = [{point}]
real = os.fsync
def fsync(file):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    real(file)
os.fsync = fsync
bootstrap_secret.wipe(Path({str(path)!r}))
"""
    done = subprocess.run([sys.executable, "-c", cut], env={"PYTHONPATH": str(ROOT / "src")}, timeout=60, check=False)
    assert done.returncode == (-signal.SIGKILL if point < 2 else 0)
    assert SECRET.encode() not in path.read_bytes()
    wipe(path)
    assert path.read_bytes() == b""


def test_it_is_overwritten_where_it_lies(tmp_path, monkeypatch):
    path, seen = tmp_path / "bootstrap-secret", []
    path.write_text(SECRET)
    before = path.stat().st_ino
    monkeypatch.setattr(os, "fsync", lambda file: seen.append(path.read_bytes()))
    wipe(path)
    assert seen == [bytes(len(SECRET)), b""]
    assert path.stat().st_ino == before

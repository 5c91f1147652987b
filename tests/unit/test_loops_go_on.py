"""Loops that run for ever: an unexpected error is told once and ends none, and what is read has bounds."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from ipaddress import IPv4Network
from types import SimpleNamespace

import pytest

from cluster_nodes import SECRET, addresses, nodes
from cornerstone.cvm import genesis
from cornerstone.cvm.iscsi_target.addresses import FloatingAddress
from cornerstone.cvm.iscsi_target.offering import Offering
from cornerstone.cvm.membership import client, server
from cornerstone.cvm.membership.client import Absent, Client
from cornerstone.cvm.membership.member import PORT, certify, context
from cornerstone.cvm.membership.server import PublicServer
from cornerstone.hypervisor import bootstrap_secret, data_path, watch
from cornerstone.hypervisor.bootstrap_secret import is_member
from cornerstone.lib import sd_notify
from cornerstone.lib.deadline import within
from cornerstone.lib.failures import MOST, QUIET_SECONDS, Failures
from cornerstone.model.contracts.iscsi import Answer, Offer, Portal, to_line

OFFER = Offer("iqn.x", (Portal("192.168.5.2", 1),), ())
DEFECT = ZeroDivisionError("a defect")


class Dripping:
    """Listens, and gives each that comes a byte now and then, for as long as it takes them."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0, first: bytes = b"") -> None:
        self._listener = socket.create_server((address, port))
        self.where = self._listener.getsockname()
        self._first = first
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        self._listener.settimeout(0.05)
        while not self._stop.is_set():
            with contextlib.suppress(OSError):
                peer, _ = self._listener.accept()
                with peer:
                    peer.sendall(self._first)
                    while not self._stop.wait(0.02):
                        peer.sendall(b" ")

    def __enter__(self) -> Dripping:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._listener.close()


@contextlib.contextmanager
def soon(seconds: float = 5):
    """An AssertionError when the block takes longer."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def test_the_whole_of_a_connection_is_bounded():
    with Dripping() as peer, socket.create_connection(peer.where, 10) as mine, soon(), \
            pytest.raises(TimeoutError, match=r"longer than 0\.2 s"), within(mine, 0.2):
        while mine.recv(10):
            pass


def test_a_bound_that_is_lifted_or_kept_changes_nothing():
    one, other = socket.socketpair()
    with one, other:
        with within(one, 0.01) as lift:
            lift()
            threading.Event().wait(0.1)
        with within(one, 60):
            other.sendall(b"x")
            assert one.recv(1) == b"x"
        with pytest.raises(ZeroDivisionError), within(one, 60):
            raise DEFECT


def test_a_failure_is_told_once_until_it_is_news_again():
    told: list[str] = []
    clock = SimpleNamespace(now=0.0)
    failures = Failures(told.append, lambda: clock.now)

    def fail() -> None:
        raise DEFECT
    for _ in range(3):
        assert not failures.attempt(fail)
        clock.now += QUIET_SECONDS / 2
    assert told == ["ZeroDivisionError: a defect"]
    clock.now += QUIET_SECONDS
    failures.attempt(fail)
    assert len(told) == 2
    for number in range(3 * MOST):
        failures.add(OSError(number))
    assert len(failures._met) == MOST


def test_a_failure_that_cannot_be_told_ends_nothing(capsys):
    def tell(line: str) -> None:
        raise OSError("full")
    assert not Failures(tell).attempt(lambda: 1 // 0)
    assert "can't be told" in capsys.readouterr().err


# floating addresses

class Turns:
    """A stop that is set after so many turns."""

    def __init__(self, turns: int) -> None:
        self._left = turns

    def is_set(self) -> bool:
        return self._left <= 0

    def wait(self, seconds: float) -> None:
        self._left -= 1


@pytest.mark.parametrize("where", ["renew", "run", "changed"])
def test_a_floating_address_is_asked_for_again_after_any_error(where):
    events, ran, renewed = [], [], []

    def fail_at(place: str) -> None:
        if place == where and len(renewed) < 3:
            raise DEFECT

    class Lease:
        seconds = 15

        def renew(self) -> bool:
            renewed.append(1)
            fail_at("renew")
            return True

        def end(self) -> None:
            ran.append("end")

    def run(*words: str) -> None:
        fail_at("run")
        ran.append(words[0])
    address = FloatingAddress("10.20.0.31", "eth0", Lease(), lambda: fail_at("changed"), events.append, run)
    address.run(Turns(5))
    assert len(renewed) == 5
    assert [event.message for event in events if "defect" in event.message] \
        == ["10.20.0.31: ZeroDivisionError: a defect"]
    assert "ip" in ran and ran[-1] == "end"


def test_an_address_whose_lease_fails_is_told_to_be_lost():
    events, clock = [], SimpleNamespace(now=0.0)

    class Lease:
        seconds = 15

        def renew(self) -> bool:
            if clock.now:
                raise DEFECT
            return True
    address = FloatingAddress("10.20.0.31", "eth0", Lease(), lambda: None, events.append, lambda *_: None,
                              lambda: clock.now)
    address.tick()
    clock.now = 20.0
    address.tick()
    assert events[-1].message == "10.20.0.31 is no longer ours"


# offers

def test_an_offer_is_made_again_after_any_error():
    states: list[tuple[str, str]] = []
    done, stop, tries = threading.Event(), threading.Event(), []

    def tell(event) -> None:
        states.append((event.state, event.message))
        if event.state == "done":
            done.set()

    def answered(generation: int) -> None:
        tries.append(generation)
        if len(tries) < 2:
            raise DEFECT
    offering = Offering(tell, answered=answered)
    offering.make = lambda offer: ""
    thread = threading.Thread(target=offering.run, args=(stop,), daemon=True)
    thread.start()
    offering.set(OFFER, 1)
    assert done.wait(30)
    stop.set()
    offering.stop()
    thread.join(30)
    assert states[0] == ("warning", "the host's answer: ZeroDivisionError: a defect")
    assert not thread.is_alive()


def test_a_host_that_never_ends_its_answer_is_given_up(monkeypatch):
    monkeypatch.setattr("cornerstone.cvm.iscsi_target.offering.ANSWER_SECONDS", 0.3)
    with Dripping() as host, soon():
        assert "longer than 0.3 s" in Offering(lambda event: None, host.where).make(OFFER)


def test_a_host_s_answer_is_read_to_a_bound(monkeypatch):
    monkeypatch.setattr("cornerstone.cvm.iscsi_target.offering.LONGEST_ANSWER", 1 << 10)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def answer() -> None:
            with listener.accept()[0] as peer, contextlib.suppress(OSError):
                # no end of the line ever comes
                while True:
                    peer.sendall(b"x" * 4096)
        thread = threading.Thread(target=answer)
        thread.start()
        assert Offering(lambda event: None, listener.getsockname()).make(OFFER).startswith("the host takes no offer: ")
        thread.join(30)


def test_offers_are_taken_after_any_error(monkeypatch, capsys):
    monkeypatch.setattr(data_path, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(data_path, "OFFER_SECONDS", 0.3)
    monkeypatch.setattr(data_path, "CVM_ADDRESS", "127.0.0.1")
    ours, theirs = socket.socketpair()
    dripping, drip = socket.socketpair()
    waiting = [OSError("too many open files"), OSError("too many open files"), (dripping, ("127.0.0.1", 1)),
               (ours, ("127.0.0.1", 1)), SystemExit("the test's end")]

    def accept():
        found = waiting.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found
    theirs.sendall(to_line(OFFER))
    stop = threading.Event()

    def feed() -> None:
        with contextlib.suppress(OSError):
            while not stop.wait(0.02):
                drip.sendall(b" ")
    thread = threading.Thread(target=feed)
    thread.start()
    try:
        with soon(), pytest.raises(SystemExit):
            data_path.serve(SimpleNamespace(accept=accept), SimpleNamespace(take=lambda offer: Answer(("here",))))
    finally:
        stop.set()
        thread.join()
        drip.close()
    with theirs:
        assert b"here" in theirs.recv(4096)
    assert capsys.readouterr().err.splitlines() == ["OSError: too many open files",
                                                    "OSError: 127.0.0.1: it takes longer than 0.3 s"]


# the members' service and its page

@contextlib.contextmanager
def running(service):
    thread = threading.Thread(target=service.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.shutdown()
        service.server_close()
        thread.join()


def test_the_host_s_page_is_there_after_any_error_and_for_the_next(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(server, "TIMEOUT_SECONDS", 0.3)
    address, = addresses(1)
    (tmp_path / "membership.json").mkdir()
    loopback = IPv4Network("127.0.0.0/8")
    with running(PublicServer(tmp_path, address, loopback)), socket.create_connection((address, PORT)) as endless:
        stop = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.02):
                    endless.sendall(b"G")
        thread = threading.Thread(target=drip)
        thread.start()
        try:
            for _ in range(2):
                with soon(), pytest.raises((OSError, http.client.HTTPException)):
                    asked = http.client.HTTPConnection(address, PORT, timeout=10)
                    asked.request("GET", "/")
                    asked.getresponse()
            # until it is cut off
            thread.join(10)
            assert not thread.is_alive()
        finally:
            stop.set()
            thread.join()
        (tmp_path / "membership.json").rmdir()
        asked = http.client.HTTPConnection(address, PORT, timeout=10)
        asked.request("GET", "/")
        assert asked.getresponse().read() == b'{"version": 1, "member": false}'
        asked.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and sorted(line.split(": ")[1] for line in lines) == ["IsADirectoryError", "TimeoutError"]


@pytest.fixture
def served(tmp_path):
    one, other, _ = nodes(tmp_path, 3)
    for node in (one, other):
        node.folder.mkdir()
        certify(node.member, SECRET, node.folder)
    return one, other


def test_who_never_ends_a_handshake_is_cut_off(served, monkeypatch):
    monkeypatch.setattr(server, "TIMEOUT_SECONDS", 0.3)
    one, other = served
    with one.serving(), socket.create_connection((one.member.address, PORT), 10, (other.member.address, 0)) as endless:
        # a record of 16 KiB that comes byte by byte
        endless.sendall(b"\x16\x03\x01\x40\x00")
        with soon(), contextlib.suppress(ConnectionError):
            while True:
                endless.sendall(b"\x01")
                threading.Event().wait(0.02)
        assert Client(other.member, other.folder).ask(one.member.address, "status")


def test_a_connection_for_which_no_thread_starts_is_not_counted_for_ever(served, monkeypatch, capsys):
    one, other = served
    with one.serving() as service:
        def start(self) -> None:
            raise RuntimeError("can't start new thread")
        with monkeypatch.context() as without:
            without.setattr("socketserver.threading.Thread.start", start)
            for _ in range(server.MOST_FROM_ONE_ADDRESS + 2):
                with socket.create_connection((one.member.address, PORT), 10, (other.member.address, 0)) as peer, \
                        contextlib.suppress(ConnectionError):
                    assert peer.recv(1) == b""
        assert not service._open
        assert Client(other.member, other.folder).ask(one.member.address, "status")
    assert capsys.readouterr().err.count("can't start new thread") == 1


def test_a_length_of_thousands_of_digits_is_no_length(served):
    one, other = served
    request = b"POST /join HTTP/1.0\r\nContent-Length: %s\r\n\r\n" % (b"9" * 5000)
    with one.serving():
        tls = context(ssl.PROTOCOL_TLS_CLIENT, other.folder)
        plain = socket.create_connection((one.member.address, PORT), 10, (other.member.address, 0))
        with tls.wrap_socket(plain, server_hostname=one.member.address) as member:
            member.sendall(request)
            assert b"400" in member.recv(4096).split(b"\r\n")[0]


def test_a_member_that_never_ends_its_answer_is_absent(served, monkeypatch):
    monkeypatch.setattr(client, "MOST_TIMEOUTS", 1)
    _, other = served
    nowhere, = addresses(1)
    with Dripping(nowhere, PORT, b"\x16\x03\x03\x40\x00"), soon(), pytest.raises(Absent, match="longer than|timed out"):
        Client(other.member, other.folder).ask(nowhere, "status", 0.3)


def test_a_cvm_that_never_ends_its_page_is_no_member(monkeypatch):
    monkeypatch.setattr(bootstrap_secret, "TIMEOUT_SECONDS", 0.3)
    address, = addresses(1)
    with Dripping(address, PORT, b"HTTP/1.0 200 OK\r\n\r\n"), soon():
        assert is_member(address, "lo") is False


# the watch over the CVM, and genesis

def test_the_watch_goes_on_after_any_error():
    told: list[str] = []
    failures, listened = Failures(told.append), []

    def fail() -> None:
        raise DEFECT
    for _ in range(2):
        watch.look(SimpleNamespace(look=lambda: False, listen=lambda: listened.append(1)),
                   SimpleNamespace(look=fail), failures)
    watch.look(SimpleNamespace(look=fail), SimpleNamespace(look=lambda: None), failures)
    assert (told, len(listened)) == (["ZeroDivisionError: a defect"], 2)


def test_genesis_goes_on_when_its_record_cannot_be_written(capsys):
    waits: list[float] = []

    def run() -> None:
        raise OSError(28, "No space left on device")

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 4:
            raise SystemExit
    with pytest.raises(SystemExit):
        genesis.serve(SimpleNamespace(run=run), wait)
    assert waits == sorted(waits) and capsys.readouterr().err.count("No space left") == 1


def test_a_systemd_that_is_not_there_ends_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    sd_notify.notify("READY=1")

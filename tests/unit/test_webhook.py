"""The webhook, against a real HTTP server on loopback: what arrives, in which order, and what never does."""

from __future__ import annotations

import contextlib
import http.server
import json
import queue
import socketserver
import threading
from pathlib import Path

import pytest

from cornerstone.foundation.installer import webhook as webhook_module
from cornerstone.foundation.installer.webhook import Webhook
from cornerstone.lib.event import Event
from cornerstone.model.contracts.report import Report, schema_text
from cornerstone.model.site.file import read_site, secrets_of

ROOT = Path(__file__).resolve().parents[2]
WHO = {"serial": "SN1", "hostname": "node-1", "profile": "aos-6.8", "identity": "abc"}


class Receiver(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Takes reports; next answers are 500 while failing is set; held: answers only when released."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: queue.Queue[bytes] = queue.Queue()
        self.arrived = threading.Semaphore(0)
        self.released = threading.Event()
        self.released.set()
        self.statuses: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook-s3cret"

    def report(self) -> dict:
        return json.loads(self.bodies.get(timeout=60))


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.arrived.release()
        self.server.released.wait()
        status = self.server.statuses.pop(0) if self.server.statuses else 204
        if status == 204:
            self.server.bodies.put(body)
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def receiver(monkeypatch):
    monkeypatch.setattr(webhook_module, "RETRY_SECONDS", 0.05)
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


def event(state: str, step: str = "image", message: str = "", **data) -> Event:
    return Event("foundation", step, state, message, data, t=1700000000.9)


def close(hook: Webhook, seconds: float = 60) -> list[Event]:
    told: list[Event] = []
    hook.close(told.append, seconds)
    return told


def test_a_run_that_succeeds(receiver):
    hook = Webhook(receiver.url, WHO, ())
    started = receiver.report()
    assert (started["state"], started["sequence"], started["hostname"]) == ("started", 1, "node-1")
    hook(event("progress", "image", "slot a", percent=40, bytes=1))
    assert receiver.report() == {
        "v": 1, "sequence": 2, "t": 1700000000, "state": "progress", **WHO, "step": "image", "percent": 40,
        "message": "slot a", "code": "", "hint": ""}
    hook(event("done", "image", "installed"))
    assert close(hook) == []
    final = receiver.report()
    assert (final["state"], final["message"], final["sequence"]) == ("succeeded", "installed", 3)
    hook(event("progress"))
    assert receiver.bodies.empty()


def test_a_run_that_fails_says_why(receiver):
    hook = Webhook(receiver.url, WHO, ())
    hook(event("failed", "address", "10.0.0.1 is in use", code="input", hint="choose another"))
    hook(event("done", "image"))
    assert close(hook) == []
    assert receiver.report()["state"] == "started"
    final = receiver.report()
    assert [final[name] for name in ("state", "step", "message", "code", "hint")] == [
        "failed", "address", "10.0.0.1 is in use", "input", "choose another"]
    assert receiver.bodies.empty()


def test_progress_that_a_slow_receiver_misses_is_replaced_by_the_latest(receiver):
    receiver.released.clear()
    hook = Webhook(receiver.url, WHO, ())
    receiver.arrived.acquire()
    for percent in range(1000):
        hook(event("progress", percent=percent))
    receiver.released.set()
    assert receiver.report()["state"] == "started"
    assert receiver.report()["percent"] == 999
    assert close(hook) == [] and receiver.bodies.empty()


@pytest.mark.parametrize("statuses", [[500, 503], [404], [302]])
def test_what_is_not_taken_is_sent_again_in_order(receiver, statuses):
    receiver.statuses = list(statuses)
    hook = Webhook(receiver.url, WHO, ())
    hook(event("done", "image"))
    assert close(hook) == []
    assert [receiver.report()["state"] for _ in range(2)] == ["started", "succeeded"]


def test_a_receiver_that_does_not_answer_holds_nobody_up_and_is_given_up_on(receiver):
    receiver.released.clear()
    hook = Webhook(receiver.url, WHO, ())
    receiver.arrived.acquire()
    hook(event("failed", message="no"))
    [warning] = close(hook, 0.2)
    assert (warning.state, warning.step) == ("warning", "webhook")
    assert warning.message.startswith("the webhook didn't get started, failed: ")


def test_a_receiver_that_is_not_there_is_named_without_its_secret_address():
    with Receiver() as gone:
        url = gone.url
    hook = Webhook(url, WHO, ())
    hook(event("failed"))
    [warning] = close(hook, 0.3)
    assert "Connection refused" in warning.message and "s3cret" not in warning.message


def every_secret():
    """A site with every secret that there is."""
    document = json.loads((ROOT / "sites/lab-one-node.json").read_text())
    node, cluster = document["blocks"][0]["nodes"][0], document["clusters"][0]
    document |= {"ipmi_netmask": "255.255.255.0", "ipmi_gateway": "10.20.1.1", "ipmi_user": "ADMIN",
                 "ipmi_password": "top-Pw-1"}
    node |= {"ipmi_ip": "10.20.1.11", "ipmi_user": "ADMIN", "ipmi_password": "node-Pw-2"}
    document["cornerstone"] = {"webhook": "http://127.0.0.1/hook-token-3", "reinstall_token": "reinstall-4"}
    cluster["cornerstone"]["bootstrap_secret"] = "Vbl8keUAdWk7Ky6Qb2RoJv9H4P/ebz8V0X7K88mJ1Es="
    return read_site(json.dumps(document).encode())


def test_no_secret_of_the_site_is_in_any_body(receiver):
    secrets = secrets_of(every_secret())
    assert sorted(secrets) == sorted(["top-Pw-1", "node-Pw-2", "http://127.0.0.1/hook-token-3", "reinstall-4",
                                      "Vbl8keUAdWk7Ky6Qb2RoJv9H4P/ebz8V0X7K88mJ1Es="])
    hook = Webhook(receiver.url, WHO, secrets)
    told = f"careless: {' '.join(secrets)} and {receiver.url}"
    bodies = [receiver.bodies.get(timeout=60)]
    hook(event("progress", message=told))
    bodies.append(receiver.bodies.get(timeout=60))
    hook(event("failed", message=told, hint=told, code="input", passwords=list(secrets)))
    assert close(hook) == []
    bodies.append(receiver.bodies.get(timeout=60))
    for body in bodies:
        assert not [each for each in (*secrets, "s3cret") if each.encode() in body]
    assert bodies[2].count(b"careless") == 2


def test_the_schema_in_the_docs_is_the_reports():
    assert (ROOT / "docs/report.schema.json").read_text() == schema_text()
    assert json.loads(Report(1, 1, 1, "started", step="x", **WHO).to_json()).keys() == (
        json.loads(schema_text())["$defs"]["Report"]["properties"].keys())


@pytest.mark.parametrize("url", ["http://[::1/s3cret", "http://host:99999/s3cret", "http://h\u00f6/s3cret \x7f",
                                 "http://a" + "a" * 70 + "/s3cret", "x-s3cret", "http://\ud800/s3cret"])
def test_whatever_goes_wrong_is_told_t35(url, monkeypatch):
    """An address that no site has by now, or anything else that a request ends in."""
    monkeypatch.setattr(webhook_module, "RETRY_SECONDS", 0.05)
    hook = Webhook(url, WHO, ())
    hook(event("done", "image", "installed"))
    (told,) = close(hook, 0.5)
    assert told.message.startswith("the webhook didn't get started, succeeded: ")
    assert "there was no time" not in told.message
    assert url not in told.message
    assert not hook._thread.is_alive()

"""How an OSD's own process says that it is, by its socket."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from cornerstone.controller.ceph import osd


def framed(text: str) -> bytes:
    """As Ceph's daemons answer: the length in four bytes, then the text."""
    return len(text).to_bytes(4, "big") + text.encode()


@pytest.mark.parametrize(("answer", "state"), [
    (framed(json.dumps({"whoami": 3, "state": "active"})), "active"),
    (framed(json.dumps({"whoami": 3, "state": "booting"})), "booting"),
    # before it knows the command
    (framed("ERROR: (22) Invalid argument"), "starting"),
    (framed("{}"), "starting"),
    (framed(json.dumps({"state": "active"}))[:9], "starting"),
    (b"", "starting"),
])
def test_its_state_is_what_it_answers(tmp_path, monkeypatch, answer, state):
    monkeypatch.setattr(osd, "SOCKETS", tmp_path)

    def serve(listening: socket.socket) -> bytes:
        line, _ = listening.accept()
        with line:
            asked = line.recv(4096)
            line.sendall(answer)
        return asked
    with socket.socket(socket.AF_UNIX) as listening, ThreadPoolExecutor() as pool:
        listening.bind(str(tmp_path / "ceph-osd.3.asok"))
        listening.listen()
        served = pool.submit(serve, listening)
        assert osd.state(3) == state
        assert json.loads(served.result().removesuffix(b"\0"))["prefix"] == "status"


def test_one_that_ended_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(osd, "SOCKETS", tmp_path)
    assert osd.state(3) == ""
    with socket.socket(socket.AF_UNIX) as ended:
        ended.bind(str(tmp_path / "ceph-osd.3.asok"))
    assert osd.state(3) == ""

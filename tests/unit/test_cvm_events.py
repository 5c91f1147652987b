"""The CVM's events are told on by its host, checked, through its restarts."""

from __future__ import annotations

import queue
import socket
import threading
from contextlib import contextmanager

import pytest

from cornerstone.hypervisor.cvm_events import LONGEST_LINE, CvmEvents, relayed
from cornerstone.model.event import Event


def line(stage: str = "genesis", step: str = "pool", state: str = "done") -> bytes:
    return Event(stage, step, state, "so it is", t=5.0).to_json().encode() + b"\n"


def test_an_event_of_the_cvm_is_told_as_it_is():
    assert relayed(line()) == Event("genesis", "pool", "done", "so it is", t=5.0)


@pytest.mark.parametrize(("state", "told"), [("failed", "warning"), ("waiting", "progress")])
def test_what_the_cvm_will_try_again_is_no_end_for_the_host(state, told):
    assert relayed(line(state=state)).state == told


@pytest.mark.parametrize("said", [line("first-boot"), line("hypervisor"), line("foundation"), line("boot"), b"\xff\n",
                                  b"[]\n", b"{}\n", b"\n", b'{"v": 1, "t": 1, "stage": "genesis", "step": "x", '
                                                          b'"state": "nonsense"}\n'])
def test_what_isnt_the_cvms_to_tell_is_dropped(said):
    assert relayed(said) is None


@contextmanager
def relay(path):
    told: queue.Queue[Event] = queue.Queue()
    events = CvmEvents(told.put, path)
    thread = threading.Thread(target=events.run)
    thread.start()
    try:
        yield told
    finally:
        events.stop()
        thread.join(10)
        assert not thread.is_alive()


@contextmanager
def port(path):
    """QEMU's end: a socket that takes one listener."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)
        end, _ = listener.accept()
        with end:
            yield end


def test_it_goes_on_after_the_cvm_was_started_again(tmp_path):
    path = tmp_path / "port.sock"
    with relay(path) as told:
        for step in ("disks", "pool"):
            with port(path) as end:
                end.sendall(b"noise\n" + line(step=step))
                assert told.get(timeout=10).step == step


def test_a_line_without_end_does_no_harm(tmp_path):
    path = tmp_path / "port.sock"
    with relay(path) as told, port(path) as end:
        end.sendall(b"x" * (3 * LONGEST_LINE) + b"\n" + line())
        assert told.get(timeout=10).step == "pool"

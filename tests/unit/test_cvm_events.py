"""The CVM's events are told on by its host, checked, through its restarts."""

from __future__ import annotations

import queue
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from cornerstone.hypervisor.cvm_events import (
    LONGEST_LINE,
    MINUTE,
    MOST_BYTES,
    MOST_LINES,
    TOO_LONG,
    CvmEvents,
    Lines,
    relayed,
)
from cornerstone.lib.event import Event, JsonLines


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


BAD = (b'{"v":1,"t":"x","stage":"genesis","step":"b","state":"done"}\n', b'{"v":1,"t":' + b"[" * 10_000 + b"\n",
       b'{"v":1,"t":1e999,"stage":"genesis","step":"b","state":"done"}\n', b"\xff\n")


@pytest.mark.parametrize("said", BAD)
def test_what_is_no_event_is_dropped_d23(said):
    assert relayed(said) is None


@contextmanager
def relay(path, tell=None, clock=time.monotonic):
    told: queue.Queue[Event] = queue.Queue()
    events = CvmEvents(tell(told) if tell else told.put, path, clock)
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


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_bad_line_costs_itself_and_one_warning_d23(tmp_path, capsys):
    path, clock = tmp_path / "port.sock", Clock()
    with relay(path, clock=clock) as told, port(path) as end:
        end.sendall(b"".join(bad + line(step=str(number)) for number, bad in enumerate(BAD * 20)))
        assert [told.get(timeout=10).step for _ in BAD * 20] == list(map(str, range(len(BAD) * 20)))
        assert capsys.readouterr().err.count("\n") == 1
        clock.now = MINUTE
        end.sendall(line())
        assert [told.get(timeout=10).message for _ in range(2)] == [
            f"lines of the Controller VM that were dropped: {len(BAD) * 20}, no event that a CVM may tell", "so it is"]
    assert told.empty()


def test_a_teller_that_fails_costs_one_line_d23(tmp_path):
    def failing(told):
        def tell(event: Event) -> None:
            if event.step == "bad":
                raise RuntimeError("so it is")
            told.put(event)
        return tell

    path = tmp_path / "port.sock"
    with relay(path, failing) as told, port(path) as end:
        end.sendall(line(step="bad") + line())
        assert told.get(timeout=10).step == "pool"


def test_no_standard_error_is_no_reason_to_end_d23(tmp_path, monkeypatch):
    path = tmp_path / "port.sock"
    monkeypatch.setattr("sys.stderr", None)
    with relay(path) as told, port(path) as end:
        end.sendall(b"{}\n" + line())
        assert told.get(timeout=10).step == "pool"


def test_the_rest_of_a_long_line_is_no_line_d23(tmp_path, capsys):
    """Its end would be an event, wherever it was cut."""
    path = tmp_path / "port.sock"
    with relay(path) as told, port(path) as end:
        for length in (LONGEST_LINE - 1, LONGEST_LINE, LONGEST_LINE + 1, 3 * LONGEST_LINE):
            end.sendall(b"x" * length + line(step="end of a line"))
        end.sendall(line())
        assert told.get(timeout=10).step == "pool"
    assert TOO_LONG in capsys.readouterr().err


@pytest.mark.parametrize("size", [1, 7, 100, 1 << 20])
def test_lines_are_the_same_however_they_arrive_d23(size):
    said = b"a\n\n" + b"x" * LONGEST_LINE + b"\n" + b"y" * (LONGEST_LINE + 1) + b"\nb\n" + b"z" * 50_000 + b"\nc\nd"
    lines = Lines()
    found = [each for at in range(0, len(said), size) for each in lines.feed(said[at:at + size])]
    assert found == [b"a", b"", b"x" * LONGEST_LINE, None, b"b", None, b"c"]


def test_a_cvm_is_told_on_so_many_times_a_minute_d29(tmp_path):
    path, clock = tmp_path / "port.sock", Clock()
    with relay(path, clock=clock) as told:
        with port(path) as end:
            end.sendall(line() * 2000 + b"{}\n" * 5)
        # all of it was heard before this is
        with port(path) as end:
            assert [told.get(timeout=10).step for _ in range(MOST_LINES)] == ["pool"] * MOST_LINES and told.empty()
            clock.now = MINUTE
            end.sendall(line(step="later"))
            notes = [told.get(timeout=10) for _ in range(2)]
            assert told.get(timeout=10).step == "later"
    assert [(note.state, note.data["dropped"]) for note in notes] == [("warning", 2000 - MOST_LINES), ("warning", 5)]


def test_what_was_dropped_is_told_when_the_cvm_is_gone_d29(tmp_path):
    path, clock = tmp_path / "port.sock", Clock()
    with relay(path, clock=clock) as told:
        with port(path) as end:
            end.sendall(line(step="first") + b"{}\n" * 300 + line(step="last"))
            assert [told.get(timeout=10).step for _ in range(2)] == ["first", "last"]
        clock.now = MINUTE
        assert told.get(timeout=10).data == {"dropped": 300}


@pytest.mark.parametrize("size", [60_000, LONGEST_LINE - 200])
def test_long_lines_of_a_cvm_are_bounded_too_d29(tmp_path, size):
    """The fault's own sample, 2,000 lines of 60,000 characters; and of the longest that may be."""
    path, clock, file = tmp_path / "port.sock", Clock(), tmp_path / "events.jsonl"
    long = Event("genesis", "x", "done", "x" * size).to_json().encode() + b"\n"

    def keeping(told):
        keep = JsonLines(file)
        return lambda event: (keep(event), told.put(event))

    with relay(path, keeping, clock) as told:
        with port(path) as end:
            end.sendall(long * 2000)
        with port(path) as end:
            clock.now = MINUTE
            end.sendall(line(step="later"))
            while told.get(timeout=10).step != "later":
                pass
    assert file.stat().st_size < MOST_BYTES + 2000

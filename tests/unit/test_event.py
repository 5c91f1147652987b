"""Events: one line of JSON each, the same for every stage."""

from __future__ import annotations

import json
import os

import pytest

from cornerstone.model.event import SCHEMA_VERSION, STATES, Event, JsonLines, open_listeners


@pytest.mark.parametrize("event", [
    Event("build", "iso", "done", "finished", {"seconds": 1.5}, 1_730_000_000.125),
    Event("build", "iso", "started", t=0.0),
    Event("foundation", "verify", "progress", "größer \" \\ \n \x00 zwei Zeilen", {"a": [1, {"b": None}]}, 1.0),
], ids=["whole", "small", "odd text"])
def test_round_trip(event):
    line = event.to_json()
    assert "\n" not in line
    assert Event.from_json(line) == event
    assert Event.from_json(line + "\n") == event


def test_what_is_empty_is_left_out():
    assert json.loads(Event("a", "b", "done", t=1.2345).to_json()) == {
        "v": SCHEMA_VERSION, "t": 1.234, "stage": "a", "step": "b", "state": "done"}


@pytest.mark.parametrize("state", STATES)
def test_states(state):
    assert Event("a", "b", state).state == state


@pytest.mark.parametrize("state", ["", "Done", "finished"])
def test_state_that_is_none(state):
    with pytest.raises(ValueError, match=f"event state {state!r} is not one of started, "):
        Event("a", "b", state)


GOOD = {"v": 1, "t": 1.0, "stage": "a", "step": "b", "state": "done"}


@pytest.mark.parametrize("line", [
    "", "no json", "[1]", "null", "{}", json.dumps(GOOD | {"v": 2}), json.dumps(GOOD | {"v": "1"}),
    json.dumps(GOOD | {"state": "odd"}), json.dumps(GOOD)[:30],
    pytest.param(json.dumps({"v": 1})),
])
def test_line_that_is_no_event(line):
    with pytest.raises(ValueError):
        Event.from_json(line)


def test_file_gets_each_event_at_once_and_is_continued(tmp_path):
    path = tmp_path / "new" / "events.jsonl"
    events = [Event("build", "iso", state, t=float(n)) for n, state in enumerate(STATES)]
    for part in (events[:3], events[3:]):
        tell = JsonLines(path)
        for event in part:
            tell(event)
            assert Event.from_json(path.read_text().splitlines()[-1]) == event, "flushed"
        tell.close()
    assert [Event.from_json(line) for line in path.read_text().splitlines()] == events


# telling

EVENT = Event("foundation", "verify", "progress", "x" * 1000, {"percent": 40})


def test_events_go_to_the_file(tmp_path):
    tell = open_listeners(tmp_path / "run" / "events.jsonl", tmp_path / "no port")
    for _ in range(3):
        tell(EVENT)
    lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    assert [Event.from_json(line).message for line in lines] == [EVENT.message] * 3


@pytest.fixture
def port(tmp_path):
    """A port with a listener at the other end, who decides when to read."""
    path = tmp_path / "port"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    yield path, reader
    os.close(reader)


def test_events_go_to_the_port(tmp_path, port):
    path, reader = port
    tell = open_listeners(tmp_path / "events.jsonl", path)
    tell(EVENT)
    assert os.read(reader, 10_000) == (tmp_path / "events.jsonl").read_bytes()


def test_a_port_that_nobody_reads_does_not_hold_us_up(tmp_path, port):
    path, reader = port
    tell = open_listeners(tmp_path / "events.jsonl", path)
    for _ in range(500):
        tell(EVENT)
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 500
    heard = os.read(reader, 1 << 20)
    assert 0 < heard.count(b"\n") < 500
    assert all(Event.from_json(line) for line in heard.decode().splitlines()), "whole lines only"


def test_a_port_that_goes_away(tmp_path):
    path = tmp_path / "port"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    tell = open_listeners(tmp_path / "events.jsonl", path)
    os.close(reader)
    tell(EVENT)
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 1


def test_a_port_that_can_not_be_opened(tmp_path):
    os.mkfifo(tmp_path / "port")
    open_listeners(tmp_path / "events.jsonl", tmp_path / "port")(EVENT)
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 1

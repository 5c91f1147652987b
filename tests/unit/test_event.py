"""Events: one line of JSON each, the same for every stage."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import pathlib
import random
import resource
import signal
from collections.abc import Iterator

import pytest

from cornerstone.lib.event import SCHEMA_VERSION, STATES, Event, JsonLines, open_listeners


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
    "", "no json", "[1]", "null", "{}", json.dumps(GOOD | {"v": 0}), json.dumps(GOOD | {"v": "1"}),
    json.dumps(GOOD | {"state": "odd"}), json.dumps(GOOD)[:30],
    pytest.param(json.dumps({"v": 1})),
])
def test_line_that_is_no_event(line):
    with pytest.raises(ValueError):
        Event.from_json(line)


@pytest.mark.parametrize("line", [
    *(json.dumps(GOOD | {key: value}) for key in ("v", "t", "stage", "step", "state", "message", "data")
      for value in (None, True, [], [1], "5" if key in ("v", "t", "data") else 5, {"a": 1} if key != "data" else [2])),
    *(json.dumps(GOOD | {"t": t}) for t in (-1, 10**30, 10**400, 253402300800)),
    *(json.dumps(GOOD)[:-1] + f', "data": {data}}}' for data in (
        "NaN", '{"a": NaN}', '{"a": [-Infinity]}', '{"a": 1e999}', '{"a": 1' + "0" * 4000 + "}", '{"a": 1, "a": 2}')),
    *(json.dumps(GOOD).replace('"t": 1.0', f'"t": {t}') for t in ("NaN", "Infinity", "1e999", "-1e999")),
    '{"v": 1, "t": ' + "[" * 30_000, json.dumps(GOOD)[:-1] + ', "data": ' + '{"a":' * 900 + "1" + "}" * 900 + "}",
    json.dumps(GOOD)[:-1] + ', "v": 1}', json.dumps(GOOD).encode().replace(b'"a"', b'"\xff"'), b"\xff\xfe",
    json.dumps(GOOD).encode("utf-16"),
])
def test_wrong_types_are_value_errors_t26(line):
    with pytest.raises(ValueError):
        Event.from_json(line)


def test_what_a_reader_does_not_know_is_ignored_t26():
    assert Event.from_json(json.dumps(GOOD | {"host": "x"})) == Event("a", "b", "done", t=1.0)


def test_a_text_that_cannot_be_encoded_is_made_one_that_can_t26():
    event = Event.from_json(json.dumps(GOOD | {"message": "disk \udcff", "data": {"\ud800": ["\udfff", 1]}}))
    assert (event.message, event.data) == ("disk ?", {"?": ["?", 1]})


NUMBERS = (0, -1, 1, 2**63, 10**25, 0.5, -0.0, 1e308, float("inf"), float("nan"))
TEXTS = ("", "a", "done", "failed", "\x00", "\ud800", "v", "t", "größer", "x" * 300)


def any_json(chance: random.Random, depth: int = 0) -> object:
    kind = chance.randrange(7 if depth < 4 else 5)
    if kind == 5:
        return [any_json(chance, depth + 1) for _ in range(chance.randrange(4))]
    if kind == 6:
        return {chance.choice(TEXTS): any_json(chance, depth + 1) for _ in range(chance.randrange(4))}
    return (None, True, chance.choice(NUMBERS), chance.choice(TEXTS), chance.choice(STATES))[kind]


def mutated(chance: random.Random) -> Iterator[str | bytes]:
    """Anything as JSON, an event with one value changed, one in bytes of which some are others, one cut and doubled."""
    yield json.dumps(any_json(chance))
    event = GOOD | {"message": "so", "data": {"percent": 40, "disks": ["sda", {"size": 1.5}]}}
    yield json.dumps(event | {chance.choice((*event, "more")): any_json(chance)})
    text = bytearray(json.dumps(event, ensure_ascii=chance.random() < 0.5).encode())
    for _ in range(chance.randrange(1, 4)):
        text[chance.randrange(len(text))] = chance.choice((*b'{}[]",:0129.eE-\\n', chance.randrange(256)))
    yield bytes(text)
    at = sorted(chance.randrange(len(text)) for _ in range(2))
    yield bytes(text[:at[1]] + text[at[0]:])


def test_whatever_is_read_is_an_event_or_a_value_error_t26():
    """20,000 of them; and what is taken can be told on, as the same."""
    chance, taken = random.Random(26), 0
    for _ in range(5000):
        for line in mutated(chance):
            try:
                event = Event.from_json(line)
            except ValueError:
                continue
            taken += 1
            event.message.encode()
            again = Event.from_json(event.to_json())
            assert (again.stage, again.step, again.state, again.message, again.data, again.t) == (
                event.stage, event.step, event.state, event.message, event.data, round(event.t, 3)), line
    assert taken > 1000, "or nothing was tried"


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


def whole(path) -> list[Event]:
    return [Event.from_json(line) for line in path.read_bytes().splitlines()]


def test_the_file_and_the_one_before_it_are_bounded_d29(tmp_path):
    path = tmp_path / "events.jsonl"
    tell = JsonLines(path, largest=10_000)
    for number in range(500):
        tell(Event("a", str(number), "done", "x" * 100))
        assert path.stat().st_size <= 10_000
    before = tmp_path / "events.jsonl.1"
    assert sorted(each.name for each in tmp_path.iterdir()) == [path.name, before.name]
    assert 9_000 < before.stat().st_size <= 10_000
    steps = [int(event.step) for event in whole(before) + whole(path)]
    assert steps == list(range(steps[0], 500)), "the latest, none left out"


def test_what_is_longer_than_the_file_is_lost_with_a_note_d29(tmp_path, capsys):
    tell = JsonLines(tmp_path / "events.jsonl", largest=1000)
    tell(Event("a", "b", "done", "x" * 1000))
    tell(Event("a", "b", "done"))
    assert len(whole(tmp_path / "events.jsonl")) == 1
    assert capsys.readouterr().err.count("\n") == 1


def many(path, name: str, count: int, largest: int) -> None:
    tell = JsonLines(path, largest)
    for number in range(count):
        tell(Event(name, str(number), "progress", "x" * 50))


def test_several_processes_lose_and_mix_nothing_when_the_file_becomes_another_d29(tmp_path):
    path = tmp_path / "events.jsonl"
    # each gets a file full of lines twice, so that the third is begun and none is lost
    line = len(Event("0", "100", "progress", "x" * 50).to_json()) + 1
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=many, args=(path, str(name), 300, 700 * line)) for name in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    told = whole(tmp_path / "events.jsonl.1") + whole(path)
    for name in range(4):
        assert [int(event.step) for event in told if event.stage == str(name)] == list(range(300))


def test_a_file_that_another_has_taken_away_is_begun_anew_d29(tmp_path):
    path = tmp_path / "events.jsonl"
    tell = JsonLines(path)
    tell(Event("a", "1", "done"))
    path.rename(tmp_path / "events.jsonl.1")
    tell(Event("a", "2", "done"))
    assert [event.step for event in whole(path)] == ["2"]


def test_after_half_a_line_there_are_whole_ones_d30(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text(json.dumps(GOOD)[:20])
    JsonLines(path)(Event("a", "1", "done"))
    assert Event.from_json(path.read_text().splitlines()[1]).step == "1"


def test_a_full_disk_ends_nobody_and_is_said_once_d30(capsys):
    tell = JsonLines(pathlib.Path("/dev/full"))
    for _ in range(3):
        tell(Event("a", "b", "done"))
    assert capsys.readouterr().err == "/dev/full: No space left on device: events are lost until it can be written\n"


@pytest.mark.parametrize("name", ["file/events.jsonl", "folder", "x" * 300, "file"])
def test_a_file_that_cannot_be_made_ends_nobody_d30(tmp_path, name, capsys):
    (tmp_path / "file").symlink_to("/proc/self/status")
    (tmp_path / "folder").mkdir()
    for _ in range(2):
        open_listeners(tmp_path / name, tmp_path / "no port")(Event("a", "b", "done"))
    assert capsys.readouterr().err.count("\n") == 2


@pytest.fixture
def limit():
    """Sets how large a file this process may write, as a full disk would: in the middle of a line."""
    former, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, former)
    signal.signal(signal.SIGXFSZ, handler)


def test_when_there_is_space_again_whole_lines_follow_d30(tmp_path, limit, capsys):
    path = tmp_path / "events.jsonl"
    tell = JsonLines(path)
    line = len(Event("a", "0", "done", t=1.0).to_json()) + 1
    for number in range(9):
        # the third to the sixth don't fit
        limit(int(2.5 * line) if number < 6 else 100 * line)
        tell(Event("a", str(number), "done", t=1.0))
    assert [event.step for event in whole(path)] == ["0", "1", "6", "7", "8"]
    assert capsys.readouterr().err.count("\n") == 1


def test_a_closed_standard_error_is_no_reason_to_end_either_d30(monkeypatch):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        monkeypatch.setattr("sys.stderr", full)
        JsonLines(pathlib.Path("/dev/full"))(Event("a", "b", "done"))
        with contextlib.suppress(OSError):
            full.close()


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

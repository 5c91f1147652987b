"""Measuring processes from outside, and setting them side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cornerstone.factory.bench.measure import Usage, measure, ratio, side_by_side, typical
from cornerstone.factory.bench.peers import together
from cornerstone.lib.error import Code, CornerstoneError
from processes import wait_for_end

MIB = 1 << 20


def walls(*seconds: float) -> tuple[Usage, ...]:
    return tuple(Usage(wall, 2 * wall, int(wall) * MIB) for wall in seconds)


def test_a_process_is_measured_with_all_that_it_starts(tmp_path):
    work = f"exec {sys.executable} -c 'bytearray(200 << 20).count(1)'"
    usage = measure(["sh", "-c", f"sh -c {work!r}"], log=tmp_path / "log")
    assert usage.memory > 200 * MIB
    assert usage.cpu > 0
    assert usage.wall > 0


def test_environment_folder_and_output(tmp_path):
    measure(["sh", "-c", 'echo "$NAME in $PWD"; echo oops >&2'], log=tmp_path / "logs" / "log", env={"NAME": "me"},
            cwd=tmp_path)
    said = (tmp_path / "logs" / "log").read_text()
    assert said.endswith(f"me in {tmp_path}\noops\n")
    assert said.startswith("+ env NAME=me sh -c ")


def test_a_failure_names_the_log_and_its_last_lines(tmp_path):
    with pytest.raises(CornerstoneError, match=r"exit status 3; its last lines:\n.*\n    the cause\n") as caught:
        measure(["sh", "-c", "echo the cause; exit 3"], log=tmp_path / "log")
    assert caught.value.code == Code.STEP
    assert str(tmp_path / "log") in caught.value.message


def test_what_a_failed_process_left_running_is_ended(tmp_path):
    pid = tmp_path / "pid"
    with pytest.raises(CornerstoneError):
        measure(["sh", "-c", 'sleep 300 & echo $! >"$1"; exit 1', "-", pid], log=tmp_path / "log")
    assert wait_for_end(int(pid.read_text()))


def test_t60_a_zombie_has_ended():
    # sh becomes a sleep, which reaps no child
    with subprocess.Popen(["sh", "-c", "sleep 300 & echo $!; exec sleep 300"], stdout=subprocess.PIPE,
                          text=True) as parent:
        child = int(parent.stdout.readline())
        assert not wait_for_end(child, 0)
        os.kill(child, signal.SIGKILL)
        assert wait_for_end(child)
        assert Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        parent.kill()


def test_a_tool_that_is_missing_is_named(tmp_path):
    with pytest.raises(CornerstoneError, match="no-such-tool is not installed") as caught:
        measure(["no-such-tool"], log=tmp_path / "log")
    assert caught.value.code == Code.MACHINE


def test_ways_take_turns_each_with_nothing_left_to_write(monkeypatch):
    turns: list[str] = []
    monkeypatch.setattr(os, "sync", lambda: turns.append("s"))

    def way(name: str):
        def run() -> Usage:
            turns.append(name)
            return Usage(len(turns), 0, 0)
        return run

    runs = side_by_side({"a": way("a"), "b": way("b")}, 3)
    assert "".join(turns) == "sasb" * 3
    assert [run.wall for run in runs["b"]] == [4, 8, 12]


def test_ratio_is_the_median_of_the_pairs():
    # a machine that is busy in one round slows both of its pair
    assert ratio(walls(1, 30, 3), walls(2, 40, 4)) == 0.75


def test_ratio_wants_pairs():
    with pytest.raises(ValueError):
        ratio(walls(1, 2), walls(1))


def test_typical_is_the_median_and_the_most_memory():
    assert typical(walls(1, 9, 2)) == Usage(2, 4, 9 * MIB)


def shell(script: str, folder) -> int:
    return subprocess.run(["sh", "-c", script], cwd=folder, check=False, timeout=30).returncode


def test_together_runs_at_once(tmp_path):
    subprocess.run(["mkfifo", tmp_path / "a", tmp_path / "b"], check=True)
    # each waits for the other
    assert shell(together(["sh -c 'echo 1 >a; cat b'", "sh -c 'cat a; echo 2 >b'"]), tmp_path) == 0


@pytest.mark.parametrize("commands", [["false", "true", "true"], ["true", "false", "true"], ["true", "true", "false"]])
def test_together_fails_when_one_does(commands, tmp_path):
    assert shell(together(commands), tmp_path) != 0
    assert shell(together(["true" for _ in commands]), tmp_path) == 0

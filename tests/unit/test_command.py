"""Programs that are run to their end (lib/command.py): what they say, how long they take, and how they fail."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cornerstone.lib import command
from cornerstone.lib.error import Code, CornerstoneError
from processes import wait_for_end

LARGE = bytes(range(256)) * 4096


def test_what_it_takes_and_what_it_says():
    done = command.run(["sh", "-c", "cat; echo wrong >&2; exit 3"], stdin="given")
    assert (done.name, done.code, done.out, done.error, done.ended) == ("sh", 3, b"given", b"wrong\n", True)
    assert command.run(["sh", "-c", "echo one; echo two >&2; echo three"], merged=True).text == "one\ntwo\nthree\n"
    assert command.run(["cat"]).out == b""


def test_more_than_a_pipe_holds_goes_both_ways_at_once():
    assert command.run(["cat"], stdin=LARGE).out == LARGE


def test_it_may_leave_what_it_was_given():
    assert command.run(["sh", "-c", "exec <&-; echo done"], stdin=LARGE).out == b"done\n"


def test_environment_folder_and_mask(tmp_path):
    done = command.run(["sh", "-c", "echo $X $(pwd) $(umask)"], env={"X": "x", "PATH": os.environ["PATH"]},
                       cwd=tmp_path, umask=0o027)
    assert done.text == f"x {tmp_path} 0027\n"


def test_more_than_it_may_say_is_cut_and_ends_it():
    done = command.run(["cat", "/dev/zero"], most=100_000, seconds=60)
    assert (len(done.out), done.code) == (100_000, -9)


def test_what_takes_too_long_ends_with_all_that_it_started(tmp_path):
    begun = time.monotonic()
    done = command.run(["sh", "-c", f"sleep 300 & echo $! >{tmp_path}/pid; echo heard; wait"], seconds=0.5)
    assert time.monotonic() - begun < 60
    assert (done.code, done.ended, done.said) == (command.TIMED_OUT, False, "sh hasn't ended within 0 s")
    assert wait_for_end(int((tmp_path / "pid").read_text()))


def test_what_is_left_running_with_our_pipe_is_waited_for_no_longer_than_said(tmp_path):
    done = command.run(["sh", "-c", f"sleep 300 & echo $! >{tmp_path}/pid"], seconds=0.5)
    assert done.code == command.TIMED_OUT
    assert wait_for_end(int((tmp_path / "pid").read_text()))


def test_an_interrupt_ends_it(tmp_path):
    code = ("import sys; from cornerstone.lib import command\n"
            # what it is given it gets when we wait for it
            "command.run(['sh', '-c', 'echo $$ >\"$1\"; read go; kill -INT $PPID; exec sleep 300', '-', sys.argv[1]], "
            "stdin='go\\n')")
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "pid"], stderr=subprocess.DEVNULL, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}, check=False)
    assert done.returncode
    assert wait_for_end(int((tmp_path / "pid").read_text()))


def test_one_that_is_not_there_is_an_answer(tmp_path):
    done = command.run(["/nowhere/no-such-tool"])
    assert (done.code, done.ended, done.said) == (command.NOT_FOUND, False, "no-such-tool: No such file or directory")
    with pytest.raises(CornerstoneError, match="^no-such-tool: No such file or directory$"):
        done.check()
    assert command.run(["sh", "-c", "exit 127"]).ended


def test_a_failure_has_its_last_words_the_hint_and_the_code():
    with pytest.raises(CornerstoneError) as caught:
        command.read(["sh", "-c", "echo out; printf '\\377 wrong' >&2; exit 7"], hint="look", code=Code.STEP)
    assert caught.value.message == ("sh -c echo out; printf '\\377 wrong' >&2; exit 7 failed with exit status 7: "
                                    "\N{REPLACEMENT CHARACTER} wrong")
    assert (caught.value.hint, caught.value.code) == ("look", Code.STEP)
    with pytest.raises(CornerstoneError, match="^it failed with exit status 1: only printed$"):
        command.run(["sh", "-c", "echo only printed; exit 1"]).check(what="it")
    with pytest.raises(CornerstoneError, match="^sh failed with exit status 124: $"):
        command.run(["sh", "-c", "exit 124"]).check()
    assert command.read(["echo", 5]) == "5\n"

"""Locks between builds: held alone or together, waited for, and gone with the last process that holds them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cornerstone.lib.filelock import hold, holder, try_hold

SRC = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture(params=["file", "folder"])
def place(request, tmp_path) -> Path:
    path = tmp_path / f"it{'.lock' if request.param == 'file' else ''}"
    if request.param == "folder":
        path.mkdir()
    return path


def test_alone_or_together(place):
    with try_hold(place):
        assert try_hold(place) is None
        assert try_hold(place, shared=True) is None
    with try_hold(place, shared=True), try_hold(place, shared=True):
        assert try_hold(place) is None
    try_hold(place).release()


def test_a_folder_that_is_gone(tmp_path):
    with pytest.raises(FileNotFoundError):
        try_hold(tmp_path / "gone")


def test_waiting_is_told_once_with_the_holder(tmp_path, monkeypatch):
    lock, told, pauses = tmp_path / "a.lock", [], []
    held = try_hold(lock)

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            held.release()
    monkeypatch.setattr("cornerstone.lib.process.pause", pause)
    with hold(lock, told.append):
        assert told == [f"another build (process {os.getpid()})"]
    assert len(pauses) == 3


def test_a_folder_does_not_say_who_holds_it(tmp_path):
    assert holder(tmp_path) == holder(tmp_path / "gone.lock") == "another build"


def test_a_lock_whose_file_was_removed_is_nobodys(tmp_path):
    """As when another build prunes a layer between our opening of its lock and locking it."""
    lock = tmp_path / "a.lock"
    with try_hold(lock):
        lock.unlink()
        with try_hold(lock):
            assert try_hold(lock) is None


def test_it_ends_with_the_last_process_that_holds_it(tmp_path):
    lock = tmp_path / "a.lock"
    code = ("import subprocess, sys, time; from pathlib import Path; from cornerstone.lib.filelock import try_hold\n"
            "held = try_hold(Path(sys.argv[1]))\n"
            "child = subprocess.Popen(['sleep', '60'], pass_fds=[held.fd], stdout=subprocess.DEVNULL)\n"
            "print(child.pid, flush=True); time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", code, lock], stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONPATH": str(SRC)}) as other:
        pid = int(other.stdout.readline())
        orphan = os.pidfd_open(pid)
        assert holder(lock) == f"another build (process {other.pid})"
        other.kill()
        other.wait()
        assert try_hold(lock) is None, "its orphan lives"
        os.kill(pid, signal.SIGKILL)
        select.select([orphan], [], [])
        os.close(orphan)
        try_hold(lock).release()

"""Have whoever opens a volume's record wait, as LIO does before it answers an initiator: on this kernel's fanotify."""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys

import pytest

from cornerstone.cvm.iscsi_target import asked
from cornerstone.cvm.iscsi_target.asked import Asked

OPEN = "import sys; open(sys.argv[1], 'w').close(); print('opened', flush=True)"


@pytest.fixture
def watched():
    try:
        watched = Asked()
    except OSError as error:
        pytest.skip(f"no fanotify with permissions here: {error}")
    yield watched
    with contextlib.suppress(OSError):
        watched.close()


@pytest.fixture
def folder(watched, tmp_path):
    folder = tmp_path / "tpgs_e7159402"
    folder.mkdir()
    # nobody answers this process before openings is asked
    (folder / "cvm-1").touch()
    try:
        watched.watch(folder)
    except OSError as error:
        pytest.skip(f"no fanotify with permissions here: {error}")
    watched.watch(folder)
    return folder


def opening(watched, folder):
    """Another process that opens the record, and what was read of it."""
    other = subprocess.Popen([sys.executable, "-c", OPEN, folder / "cvm-1"], stdout=subprocess.PIPE)
    poll = select.poll()
    poll.register(watched.fileno(), select.POLLIN)
    assert poll.poll(30_000)
    return other, list(watched.openings())


def answered(other) -> bool:
    return bool(select.select([other.stdout], [], [], 0)[0])


def test_d15_an_opening_waits_until_it_is_let_go_on(watched, folder, monkeypatch):
    monkeypatch.setattr(asked, "ANSWER_SECONDS", 3600)
    other, ((where, held),) = opening(watched, folder)
    assert where == folder
    assert not answered(other)
    held()
    held()
    assert other.communicate(timeout=30) == (b"opened\n", None)


def test_d15_nobody_waits_for_ever(watched, folder, monkeypatch):
    monkeypatch.setattr(asked, "ANSWER_SECONDS", 0.1)
    other, ((_, held),) = opening(watched, folder)
    assert other.communicate(timeout=30) == (b"opened\n", None)
    held()


def test_d15_a_service_that_ends_lets_everybody_go_on(watched, folder, monkeypatch):
    monkeypatch.setattr(asked, "ANSWER_SECONDS", 3600)
    other, _ = opening(watched, folder)
    watched.close()
    assert other.communicate(timeout=30) == (b"opened\n", None)

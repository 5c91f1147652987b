"""Files written whole or not at all (lib/atomic.py); files of others, and folders in which others may write."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cornerstone.lib.atomic import beside, put, sweep
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.files import read_regular, require_own


@pytest.mark.parametrize("make", [
    lambda path: path.symlink_to("/etc/hostname"), os.mkfifo, lambda path: path.mkdir(),
    lambda path: path.write_bytes(bytes(11)), lambda path: None], ids=["link", "pipe", "folder", "large", "none"])
def test_a1_only_a_regular_file_of_some_size_is_read(tmp_path, make):
    (tmp_path / "good").write_bytes(bytes(10))
    assert read_regular(tmp_path / "good", 10) == bytes(10)
    make(tmp_path / "x")
    with pytest.raises(OSError):
        read_regular(tmp_path / "x", 10)


@pytest.fixture
def checkout():
    # below a folder that others may enter, unlike pytest's
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        checkout = Path(folder, "checkout")
        (checkout / "output/cache").mkdir(parents=True)
        yield checkout


def test_a6_below_a_private_folder_nobody_reaches_anything(checkout):
    (checkout / "output/cache").chmod(0o777)
    (checkout / "output").chmod(0o700)
    require_own([checkout / "output/cache"], checkout)


def test_a6_own_folders_pass_also_those_to_come(checkout):
    require_own([checkout / "output/cache", checkout / "output/cache/layers"], checkout)


@pytest.mark.parametrize("change", [
    lambda folder: folder.chmod(0o757), lambda folder: os.chown(folder, 65534, 65534),
    lambda folder: (os.chown(folder, 0, 65534), folder.chmod(0o775)),
    lambda folder: folder.chmod(0o1777)], ids=["all", "another's", "a group", "all, sticky"])
@pytest.mark.parametrize("place", ["output/cache", "output"])
def test_a6_a_folder_of_others_is_refused(checkout, change, place):
    change(checkout / place)
    sticky_above = place == "output" and (checkout / place).stat().st_mode & 0o1000
    if sticky_above:
        require_own([checkout / "output/cache"], checkout)
        return
    with pytest.raises(CornerstoneError, match="others may write in") as caught:
        require_own([checkout / "output/cache/layers", checkout / "output/cache"], checkout)
    assert caught.value.code is Code.MACHINE
    assert str(checkout / place) in caught.value.message


def test_a6_who_may_change_the_checkout_may_write_its_output(checkout):
    """A developer who calls sudo: the code that is about to sign is theirs."""
    for folder in (checkout, checkout / "output", checkout / "output/cache"):
        os.chown(folder, 1000, 1000)
        folder.chmod(0o775)
    require_own([checkout / "output/cache"], checkout)
    checkout.chmod(0o755)
    with pytest.raises(CornerstoneError, match="others may write in"):
        require_own([checkout / "output/cache"], checkout)


def test_what_is_written_is_whole_or_not_there(tmp_path):
    target = tmp_path / "x"
    put(target, "one", 0o600)
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("one", 0o600)
    put(target, b"two")
    assert (target.read_bytes(), target.stat().st_mode & 0o777) == (b"two", 0o644)
    with pytest.raises(KeyboardInterrupt), beside(target) as path:
        path.write_text("half")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [target]


def test_a10_a_link_in_the_way_is_not_written_through(tmp_path, monkeypatch):
    """Whoever guesses even the random name gets an error, or another name is taken."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    monkeypatch.setattr(tempfile, "_get_candidate_names", lambda: iter(["guessed", "other"]))
    (tmp_path / ".x.guessed").symlink_to(victim)
    put(tmp_path / "x", "content")
    assert (victim.read_text(), (tmp_path / "x").read_text()) == ("untouched", "content")
    monkeypatch.setattr(tempfile, "_get_candidate_names", lambda: iter(["guessed"] * tempfile.TMP_MAX))
    monkeypatch.setattr(tempfile, "TMP_MAX", 1)
    with pytest.raises(FileExistsError):
        put(tmp_path / "x", "more")
    assert victim.read_text() == "untouched"


def test_a_file_that_is_there_is_left_when_a_new_one_is_wanted(tmp_path):
    put(tmp_path / "x", "one", exclusive=True)
    with pytest.raises(FileExistsError):
        put(tmp_path / "x", "two", exclusive=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "one"


def test_content_and_name_are_on_the_disk_unless_said_otherwise(tmp_path, monkeypatch):
    real, flushed = os.fsync, []
    monkeypatch.setattr(os, "fsync",
                        lambda file: (flushed.append(Path(f"/proc/self/fd/{file}").readlink()), real(file)))
    put(tmp_path / "x", "content", durable=False)
    assert flushed == []
    put(tmp_path / "x", "content")
    assert [path.parent for path in flushed] == [tmp_path, tmp_path.parent]
    assert flushed[0].name.startswith(".x.")


def test_what_an_interrupted_write_left_can_be_swept_away(tmp_path):
    code = ("import os, signal, sys; from pathlib import Path; from cornerstone.lib import atomic\n"
            "Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
            "atomic.put(Path(sys.argv[1]), 'half', folder=Path(sys.argv[1]).parent)")
    subprocess.run([sys.executable, "-c", code, tmp_path / "x"], env={"PYTHONPATH": str(SOURCES.parent)}, check=False)
    [left] = tmp_path.iterdir()
    (tmp_path / "x.y").touch()
    (tmp_path / ".x.hidden").touch()
    sweep(tmp_path / "x")
    assert left.name.startswith(".x.")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".x.hidden", "x.y"]


SOURCES = Path(__file__).resolve().parents[2] / "src/cornerstone"


@pytest.mark.parametrize("path", sorted(set(SOURCES.rglob("*.py")) - set(SOURCES.glob("cvm/ceph/*"))),
                         ids=lambda path: path.name)
def test_a10_no_name_of_a_temporary_file_can_be_foreseen(path):
    """From a process's number, or always the same; what lies in a closed folder, as a build's or Ceph's, may."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if "with_name(" in line or "with_suffix(" in line:
            assert not any(word in line for word in ("getpid", '".new"', '.new"', '".tmp"')), f"{path.name}:{number}"

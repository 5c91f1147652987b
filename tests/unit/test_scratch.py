"""A build's own folder: its for as long as a process of its lives, then swept by the next build."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cornerstone.factory.build import reproduce
from cornerstone.factory.contained import detach_loops
from cornerstone.factory.scratch import check_file_system, own_folder
from cornerstone.factory.settings import Workspace
from cornerstone.lib import process
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.filelock import try_hold

SRC = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    monkeypatch.delenv("CORNERSTONE_CACHE", raising=False)
    return Workspace(tmp_path)


def test_each_build_has_its_own(workspace):
    with own_folder(workspace) as one, own_folder(workspace) as other:
        assert one.temporary != other.temporary
        assert {one.temporary, other.temporary} == set(workspace.temporary.iterdir())
        assert (one.root, one.layers) == (workspace.root, workspace.layers)
    assert list(workspace.temporary.iterdir()) == []


@pytest.mark.parametrize("error", [CornerstoneError("x"), KeyboardInterrupt()], ids=lambda error: type(error).__name__)
def test_it_is_removed_on_an_error(workspace, error):
    with pytest.raises(type(error)), own_folder(workspace) as mine:
        (mine.temporary / "half").mkdir()
        raise error
    assert list(workspace.temporary.iterdir()) == []
    assert process.guards == set()


def test_steps_hold_it_too(workspace, tmp_path):
    with own_folder(workspace) as mine:
        process.run(["sh", "-c", "ls -l /proc/$$/fd"], log=tmp_path / "log")
        assert f"-> {mine.temporary}\n" in (tmp_path / "log").read_text()


def test_what_a_killed_build_left_is_swept_with_its_loop_device(workspace):
    code = ("import subprocess, sys, time; from pathlib import Path\n"
            "from cornerstone.factory.scratch import own_folder\n"
            "from cornerstone.factory.settings import Workspace\n"
            "with own_folder(Workspace(Path(sys.argv[1]))) as mine:\n"
            "    image = mine.temporary / 'image'; image.write_bytes(bytes(1 << 20))\n"
            "    subprocess.run(['losetup', '--find', '--show', image], check=True); time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", code, workspace.root], stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONPATH": str(SRC)}) as other:
        device = other.stdout.readline().strip()
        left, = workspace.temporary.iterdir()
        try:
            with own_folder(workspace):
                assert left.exists(), "its build lives"
            other.send_signal(signal.SIGKILL)
            other.wait()
            with own_folder(workspace) as mine:
                assert list(workspace.temporary.iterdir()) == [mine.temporary]
            loops = json.loads(subprocess.run(["losetup", "--json", "--list"], capture_output=True, text=True,
                                              check=True).stdout or "{}")
            assert device not in [loop["name"] for loop in loops.get("loopdevices", [])]
        finally:
            other.kill()


def test_a_swept_folder_is_no_longer_locked(workspace):
    workspace.temporary.mkdir(parents=True)
    left = workspace.temporary / "build-x"
    left.mkdir()
    with try_hold(left), own_folder(workspace):
        assert left.exists()
    with own_folder(workspace):
        assert not left.exists()


def test_file_system_that_takes_all(tmp_path):
    check_file_system(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_file_system_without_device_nodes(tmp_path):
    folder = tmp_path / "cache" / "tmp" / "build-x"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nodev,size=1m", "none", tmp_path], check=True)
    try:
        folder.mkdir(parents=True)
        with pytest.raises(CornerstoneError, match="it takes no device nodes\n") as caught:
            check_file_system(folder)
        assert str(tmp_path / "cache") in caught.value.message
        assert caught.value.code is Code.MACHINE
        assert "CORNERSTONE_CACHE" in caught.value.hint
        assert list(folder.iterdir()) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_root_of_a_container_only(tmp_path):
    code = ("import sys; from pathlib import Path; from cornerstone.factory.scratch import check_file_system\n"
            "check_file_system(Path(sys.argv[1]))")
    done = subprocess.run(["unshare", "--user", "--map-root-user", sys.executable, "-c", code, tmp_path], text=True,
                          capture_output=True, check=False, env={**os.environ, "PYTHONPATH": str(SRC)})
    assert "it takes no owners, device nodes" in done.stderr


@pytest.mark.parametrize("passes_on", ["setgid", "default ACL", "both"])
def test_nothing_that_a_shared_folder_passes_on_gets_in_m33(workspace, passes_on):
    workspace.temporary.mkdir(parents=True)
    if passes_on != "setgid":
        os.setxattr(workspace.temporary, "system.posix_acl_default", reproduce.ACL)
    if passes_on != "default ACL":
        os.chown(workspace.temporary, -1, 1)
        workspace.temporary.chmod(0o2775)
    before = os.umask(0o022)
    try:
        with own_folder(workspace) as mine:
            (mine.temporary / "made").mkdir()
            (mine.temporary / "file").touch()
            modes = [(path.stat().st_mode & 0o7777, path.stat().st_gid, os.listxattr(path))
                     for path in (mine.temporary, mine.temporary / "made", mine.temporary / "file")]
    finally:
        os.umask(before)
    assert modes == [(0o700, 0, []), (0o755, 0, []), (0o644, 0, [])]


@pytest.mark.parametrize("name", ["wörk", "日本", "plain"])
def test_loop_devices_below_any_path_are_detached_m34(tmp_path, monkeypatch, name):
    monkeypatch.setenv("LC_ALL", "C")
    image = tmp_path / name / "image"
    image.parent.mkdir()
    image.write_bytes(bytes(1 << 20))
    device = process.read(["losetup", "--find", "--show", image]).strip()
    detach_loops(image.parent)
    attached = process.read(["losetup", "--noheadings", "--output", "NAME", "--list"]).split()
    if device in attached:
        process.read(["losetup", "--detach", device])
    assert device not in attached

"""A root as data (factory/inspection/tree.py): what it holds, and that nothing in it reaches the machine that looks."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from cornerstone.factory.inspection.tree import read_tree
from test_roots import pack


@pytest.fixture
def tree(tmp_path):
    """A root with links of each kind, a device, and a file that only root may read."""
    root = tmp_path / "root"
    for folder in ("usr/bin", "etc/wants", "deep/er"):
        (root / folder).mkdir(parents=True)
    (root / "usr/bin/tool").write_bytes(b"#!tool\n")
    (root / "usr/bin/tool").chmod(0o4755)
    os.link(root / "usr/bin/tool", root / "usr/bin/same")
    (root / "etc/shadow").write_text("root:*:\n")
    (root / "etc/big").write_bytes(bytes(2 << 20) + b"end")
    for link, target in (("bin", "usr/bin"), ("etc/absolute", "/usr/bin/tool"), ("deep/er/up", "../../etc/shadow"),
                         ("out", "../../../../../../etc/hostname"), ("host", "/etc/hostname"), ("loop", "loop"),
                         ("etc/wants/one", "/usr/bin/gone")):
        (root / link).symlink_to(target)
    image = pack(root, tmp_path / "x", "-p", "null c 666 0 0 1 3", "-p", "etc/shadow m 000 0 0")
    found = read_tree(image, 0, tmp_path)
    yield found
    found.close()


def test_content_of_files_by_any_path_that_leads_there(tree):
    for path in ("usr/bin/tool", "/bin/tool", "bin/../bin/./tool", "etc/absolute", "usr/bin/same"):
        assert tree.read(path) == b"#!tool\n", path
    assert tree.text("deep/er/up") == "root:*:\n"
    assert tree.read("etc/big") == bytes(2 << 20) + b"end"
    assert tree.real("etc/absolute") == "usr/bin/tool"
    assert tree.real("etc/absolute", follow=False) == "etc/absolute"


def test_modes_and_owners_are_the_roots(tree):
    assert tree.get("bin/tool").mode == 0o4755
    assert (tree.get("etc/shadow").mode, tree.get("etc/shadow").uid) == (0, 0)
    assert tree.get("null").kind == "device"


def test_names_and_links(tree):
    assert tree.names("bin") == ["same", "tool"]
    assert tree.names("nowhere") == []
    assert tree.link("etc/wants/one") == "/usr/bin/gone"
    assert tree.link("usr/bin/tool") is None
    assert tree.is_file("bin/tool") and not tree.is_file("bin") and not tree.is_file("etc/wants/one")
    assert tree.is_folder("bin")
    assert sorted(tree.below("bin", "deep", "nowhere")) == ["usr/bin/same", "usr/bin/tool"]
    assert len(list(tree.below())) == 4


@pytest.mark.parametrize("path", ["out", "host", "etc/wants/one", "usr/bin/tool/x", "../etc/hostname"])
def test_a1_no_link_of_a_root_leads_to_this_machine(tree, path):
    with pytest.raises(FileNotFoundError):
        tree.read(path)
    assert tree.get(path) is None


def test_a1_links_in_a_circle_end(tree):
    with pytest.raises(OSError) as caught:
        tree.read("loop")
    assert caught.value.errno == errno.ELOOP
    assert not tree.is_file("loop")


def test_a1_a_device_of_a_root_is_not_opened(tree):
    with pytest.raises(OSError, match="isn't a regular file"):
        tree.read("null")


def test_a1_reading_a_root_runs_one_program_and_makes_no_name(tmp_path):
    """unsquashfs, which is this machine's; with a program of the root that would tell on itself."""
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin/sh").write_text("#!/bin/sh\ntouch /tmp/a1-was-run\n")
    (root / "bin/sh").chmod(0o4755)
    image = pack(root, tmp_path / "x")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    tree = read_tree(image, 0, scratch)
    assert tree.read("bin/sh").startswith(b"#!/bin/sh")
    assert list(scratch.iterdir()) == []
    tree.close()


def test_a_disk_without_room_is_told(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root/file").write_bytes(os.urandom(4 << 20))
    image = pack(tmp_path / "root", tmp_path / "x")
    code = ("import sys; from pathlib import Path; from cornerstone.factory.inspection.tree import read_tree\n"
            "from cornerstone.lib.error import CornerstoneError\n"
            "try:\n    read_tree(Path(sys.argv[1]), 0, Path(sys.argv[2]))\n"
            "except CornerstoneError as error:\n    print(error.code.name, error.message)\n")
    small = tmp_path / "small"
    small.mkdir()
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", 'mount -t tmpfs -o size=1m none "$1"; shift; exec "$@"', "-", small,
         sys.executable, "-c", code, image, small], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.stdout.startswith("MACHINE"), done.stderr


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_m35_a_root_is_read_by_a_path_beyond_ascii(tmp_path, monkeypatch, locale):
    monkeypatch.setenv("LC_ALL", locale)
    folder = tmp_path / "wörk"
    (folder / "root").mkdir(parents=True)
    (folder / "root/file").write_text("content")
    tree = read_tree(pack(folder / "root", folder / "ü.squashfs"), 0, folder)
    assert tree.text("file") == "content"
    tree.close()

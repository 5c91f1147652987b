"""The tree of installed packages: what is packed comes out of the root element's hook as it was."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from cornerstone.factory.payload import package_tree

HOOK = Path(__file__).resolve().parents[2] / "elements/locked-root/root.d/10-locked-packages"
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
EPOCH = 1_800_000_000


def described(tree: Path) -> dict[str, tuple]:
    """Everything of a tree that a root is made of: kind and mode, owner, time, device, links, content, attributes."""
    found, inodes = {}, {}
    for path in sorted([tree, *tree.rglob("*")]):
        status, name = path.lstat(), path.relative_to(tree).as_posix()
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        attributes = {key: os.getxattr(path, key, follow_symlinks=False)
                      for key in os.listxattr(path, follow_symlinks=False)}
        # the first name of the same file
        same = inodes.setdefault(status.st_ino, name)
        found[name] = (status.st_mode, status.st_uid, status.st_gid, int(status.st_mtime), status.st_rdev, same,
                       content, attributes)
    return found


@pytest.fixture
def tree(tmp_path) -> Path:
    """What packages may bring, each with an owner and a time of its own."""
    folder = tmp_path / "tree"
    (folder / "usr/bin").mkdir(parents=True)
    (folder / "usr/bin/ping").write_bytes(os.urandom(50_000))
    (folder / "usr/bin/sudo").write_bytes(b"sudo")
    (folder / "usr/bin/sudoedit").hardlink_to(folder / "usr/bin/sudo")
    (folder / "usr/bin/holes").touch()
    os.truncate(folder / "usr/bin/holes", 3 << 20)
    (folder / "bin").symlink_to("usr/bin")
    (folder / "dangling").symlink_to("/nowhere")
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "dev").mkdir()
    os.mknod(folder / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(folder / "dev/loop0", stat.S_IFBLK | 0o660, os.makedev(7, 0))
    (folder / "var").mkdir()
    (folder / "var/ümlaut \"quoted\"").write_text("x")
    for number, path in enumerate(sorted([folder, *folder.rglob("*")])):
        os.chown(path, number % 3, 100 + number, follow_symlinks=False)
        if not path.is_symlink():
            path.chmod((0o4755, 0o2750, 0o1777, 0o600)[number % 4])
        os.utime(path, (number, EPOCH - 1000 * number), follow_symlinks=False)
    os.setxattr(folder / "usr/bin/ping", "security.capability", CAPABILITY)
    return folder


def unpack(squashfs: Path, target: Path) -> None:
    target.mkdir()
    subprocess.run([HOOK], check=True, capture_output=True, env={
        **os.environ, "TARGET_ROOT": str(target), "CORNERSTONE_PACKAGES": str(squashfs)})


def test_a_tree_comes_out_as_it_was_packed(tree, tmp_path):
    package_tree.pack_tree(tree, tmp_path / "packed", EPOCH, tmp_path / "log")
    unpack(tmp_path / "packed", tmp_path / "out")
    assert described(tmp_path / "out") == described(tree)


def test_only_what_is_younger_than_the_lock_gets_another_time(tree, tmp_path):
    os.utime(tree / "usr/bin/ping", (1, EPOCH + 77))
    before = described(tree)
    package_tree.pack_tree(tree, tmp_path / "packed", EPOCH, tmp_path / "log")
    unpack(tmp_path / "packed", tmp_path / "out")
    after = described(tmp_path / "out")
    assert {name for name in before if before[name] != after[name]} == {"usr/bin/ping"}
    assert after["usr/bin/ping"][3] == EPOCH


def test_a_squashfs_that_is_cut_short_fails_the_root(tree, tmp_path):
    package_tree.pack_tree(tree, tmp_path / "packed", EPOCH, tmp_path / "log")
    shutil.copy(tmp_path / "packed", tmp_path / "short")
    os.truncate(tmp_path / "short", (tmp_path / "packed").stat().st_size // 2)
    with pytest.raises(subprocess.CalledProcessError):
        unpack(tmp_path / "short", tmp_path / "out")

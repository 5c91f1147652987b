"""The element reproducible: which extended attributes of a tree get into the squashfs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cornerstone.factory.build.reproduce import ACL

ELEMENT = Path(__file__).resolve().parents[2] / "elements/reproducible"
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


@pytest.fixture
def tree(tmp_path) -> Path:
    """A tree as a build machine with SELinux and a shared folder would leave it."""
    folder = tmp_path / "build/mnt"
    (folder / "usr/bin").mkdir(parents=True)
    (folder / "usr/bin/ping").touch()
    (folder / "link").symlink_to("usr")
    os.setxattr(folder / "usr/bin/ping", "security.capability", CAPABILITY)
    for path in (folder, folder / "usr/bin", folder / "usr/bin/ping", folder / "link"):
        os.setxattr(path, "security.selinux", b"system_u:object_r:usr_t:s0\0", follow_symlinks=False)
    os.setxattr(folder / "usr/bin/ping", "user.note", b"x")
    os.setxattr(folder / "usr", "system.posix_acl_default", ACL)
    return folder


def pack(tree: Path, tmp_path: Path, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run([ELEMENT / "post-root.d/90-pack"], capture_output=True, text=True, check=False, env={
        **os.environ, "TMP_BUILD_DIR": str(tree.parent), "TMP_HOOKS_PATH": str(ELEMENT),
        "CORNERSTONE_SQUASHFS": str(tmp_path / "out"), "CORNERSTONE_COMPRESSION": "-comp gzip", **env})


def test_only_capabilities_are_packed_m38(tree, tmp_path):
    done = pack(tree, tmp_path)
    assert done.returncode == 0, done.stderr
    subprocess.run(["unsquashfs", "-quiet", "-no-progress", "-dest", tmp_path / "read", tmp_path / "out"], check=True)
    found = {(path.name, name) for path in [tmp_path / "read", *(tmp_path / "read").rglob("*")]
             for name in os.listxattr(path, follow_symlinks=False)}
    assert found == {("ping", "security.capability")}
    assert os.getxattr(tmp_path / "read/usr/bin/ping", "security.capability") == CAPABILITY


@pytest.mark.parametrize("new", [True, False], ids=["squashfs-tools 4.6", "squashfs-tools 4.5"])
def test_labels_that_the_kernel_keeps_are_left_out_or_refused_m38(tree, tmp_path, new):
    """Simulated: a Python that strips nothing, and a mksquashfs that shows what it is asked for."""
    (tmp_path / "bin").mkdir()
    for name, script in (("stays", "echo security.selinux"), ("mksquashfs", 'case $1 in -help*) echo "$HAS";; *) echo '
                                                              '"packs: $*";; esac')):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    done = pack(tree, tmp_path, PATH=f"{tmp_path}/bin:{os.environ['PATH']}", DIB_PYTHON_EXEC=f"{tmp_path}/bin/stays",
                HAS="-xattrs-include <regex>" if new else "-no-xattrs")
    if new:
        assert "-xattrs-include ^security[.]capability$ " in done.stdout
    else:
        assert done.returncode == 1
        assert "security.selinux can't be removed" in done.stderr

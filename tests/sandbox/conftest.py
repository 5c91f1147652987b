"""The roots of ISOs that were built here, unpacked to run their programs: what reading them can't tell.

Never of an ISO that somebody hands over: that one is read (tests/image, `invoke verify`). A program runs without
network, capabilities and secrets, and sees nothing but its root.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cornerstone.customize.iso_image import Image
from cornerstone.factory.inspection.roots import copy_disk
from cornerstone.model.contracts.manifest import CVM, HYPERVISOR

ENTER = """mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
for folder in run tmp; do mount -t tmpfs -o nosuid,nodev none $folder; done
mount -t proc none proc
pivot_root . mnt
umount -l /mnt
mount -o remount,bind,ro /
exec setpriv --no-new-privs --inh-caps=-all --ambient-caps=-all --bounding-set=-all -- sh -c "$2"
"""
NAMESPACES = ("--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child")


@dataclass(frozen=True)
class Root:
    """An unpacked root: name and folder."""

    name: str
    path: Path

    def run(self, command: str) -> str:
        """What a shell command prints in the root; it must succeed."""
        done = subprocess.run(["unshare", *NAMESPACES, "sh", "-ec", ENTER, "-", self.path, command], check=False,
                              capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL,
                              env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="session", params=["iso", "older_iso"])
def product(request) -> Path:
    """An ISO on each Debian suite, built here."""
    if os.geteuid() != 0:
        pytest.fail("unpacking roots to run them needs root", pytrace=False)
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def hypervisor(product, tmp_path_factory) -> Iterator[Root]:
    image = Image(product)
    try:
        start = image.place(HYPERVISOR).start
    finally:
        image.close()
    yield from unpacked("hypervisor", product, start, tmp_path_factory.mktemp("hypervisor"))


@pytest.fixture(scope="session")
def cvm(product, tmp_path_factory) -> Iterator[Root]:
    folder = tmp_path_factory.mktemp("cvm")
    image = Image(product)
    try:
        disk = copy_disk(product, image.place(CVM), folder / "cvm.raw")
    finally:
        image.close()
    yield from unpacked("cvm", disk.path, disk.squashfs().start, folder)


def unpacked(name: str, file: Path, offset: int, folder: Path) -> Iterator[Root]:
    root = folder / "root"
    subprocess.run(["unsquashfs", "-quiet", "-no-progress", "-offset", str(offset), "-dest", root, file], check=True,
                   capture_output=True)
    # programs want it; the squashfs itself carries no devices
    (root / "dev/null").unlink(missing_ok=True)
    os.mknod(root / "dev/null", 0o20666, os.makedev(1, 3))
    yield Root(name, root)
    subprocess.run(["rm", "-rf", "--one-file-system", root], check=True)


@pytest.fixture(params=["hypervisor", "cvm"], scope="session")
def each(request, product) -> Root:
    """Each of the two roots, for what holds in both."""
    return request.getfixturevalue(request.param)

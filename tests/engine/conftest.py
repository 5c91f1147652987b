"""Controller VMs as containers (lab/container.py), from the CVM's root as it is on the ISO."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.customize.iso_image import Image
from cornerstone.factory.inspection.roots import copy_disk
from cornerstone.lab.container import Switch
from cornerstone.model.contracts.manifest import CVM
from cornerstone.model.contracts.node import DataDisk, NodeConfig
from cvm_containers import ADDRESS, NODE, CvmContainer


@pytest.fixture(scope="session")
def root(iso, tmp_path_factory) -> Path:
    """The CVM's root, unpacked from slot A of the disk on the ISO."""
    folder = tmp_path_factory.mktemp("root")
    image = Image(iso)
    try:
        disk = copy_disk(iso, image.place(CVM), folder / "cvm.raw")
    finally:
        image.close()
    subprocess.run(["unsquashfs", "-quiet", "-no-progress", "-offset", str(disk.partition("root-a").start),
                    "-dest", folder / "root", disk.path], check=True)
    disk.path.unlink()
    return folder / "root"


@pytest.fixture(scope="module")
def cvm(root, tmp_path_factory) -> Iterator[Callable[..., CvmContainer]]:
    """Makes nodes with these data disks, each in a network and a cluster of its own; ends them afterwards."""
    with ExitStack() as running:
        def make(*disks: DataDisk, factor: int = 2) -> CvmContainer:
            config = NodeConfig.from_json(NODE.read_text())
            config = replace(
                config, cluster=replace(config.cluster, members=(ADDRESS,), redundancy_factor=factor),
                cvm=replace(config.cvm, memory=3 << 30, disks=disks))
            node = CvmContainer(tmp_path_factory.mktemp("node"), root, config, running.enter_context(Switch()))
            for disk in disks:
                node.add_disk(disk.serial, disk.size, disk.wwn)
            running.callback(node.kill)
            return node
        yield make

"""What the domain has to know of a host, read from a made-up /sys and /dev."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.hypervisor.host import BlockDevice, NumaNode, read_host
from cornerstone.model.error import CornerstoneError
from cornerstone.model.node import NodeConfig

NODES = Path(__file__).resolve().parents[1] / "data/nodes"


def config(**controller: object) -> NodeConfig:
    node = NodeConfig.from_json((NODES / "passthrough.json").read_text())
    return replace(node, controller=replace(node.controller, **controller))


def write(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else f"{text}\n".encode())


@pytest.fixture
def root(tmp_path) -> Path:
    """Two NUMA nodes of two cores with two threads each; a node of memory alone; a SCSI, an NVMe, a virtio disk."""
    system = tmp_path / "sys/devices/system"
    for node, cpus in {"node0": "0-1,4-5", "node1": "2-3,6-7", "node10": ""}.items():
        write(system / "node" / node / "cpulist", cpus)
    for cpu in range(8):
        write(system / f"cpu/cpu{cpu}/topology/thread_siblings_list", f"{cpu % 4},{cpu % 4 + 4}")
    for name, bus, files in (("sda", "scsi", {"device/vpd_pg80": b"\x00\x80\x00\x06 SER-A"}),
                             ("nvme0n1", "nvme", {"device/serial": "SER-N"}), ("vdb", "virtio", {"serial": "SER-V"}),
                             ("sdb", "scsi", {})):
        device = tmp_path / "sys/devices" / name
        (tmp_path / "sys/bus" / bus).mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            write(tmp_path / "sys/block" / name / file, content)
        device = tmp_path / "sys/block" / name / "device"
        device.mkdir(parents=True, exist_ok=True)
        (device / "subsystem").symlink_to(tmp_path / "sys/bus" / bus)
    for link, name in {"scsi-1SER-A": "sda", "scsi-1SER-A-part1": "sda1", "wwn-0x5000": "sda", "virtio-SER-V": "vdb",
                       "nvme-eui.01": "nvme0n1", "nvme-MODEL_SER-N": "nvme0n1", "wwn-0x5001": "sdb"}.items():
        at = tmp_path / "dev/disk/by-id" / link
        at.parent.mkdir(parents=True, exist_ok=True)
        at.symlink_to(f"../../{name}")
    return tmp_path


def test_disks_by_serial_with_a_lasting_name(root):
    host = read_host(config(passthrough=(), scsi=("SER-V", "SER-A", "SER-N")), root / "state", root)
    assert host.disks == {"SER-V": BlockDevice("/dev/disk/by-id/virtio-SER-V", False),
                          "SER-A": BlockDevice("/dev/disk/by-id/wwn-0x5000", True),
                          "SER-N": BlockDevice("/dev/disk/by-id/nvme-MODEL_SER-N", False)}


def test_a_missing_disk_is_named_with_those_that_are_there(root):
    with pytest.raises(CornerstoneError) as caught:
        read_host(config(passthrough=(), scsi=("SER-A", "SER-X")), root / "state", root)
    assert caught.value.message == ("no disk has the serial SER-X, of node.json's controller.scsi; there are "
                                    "SER-A, SER-N, SER-V")


@pytest.mark.parametrize(("homes", "nearest"), [
    (("1",), 1), (("0", "1", "1"), 1), (("1", "0"), 0), (("-1", "1"), 1), (("-1",), None), ((None,), None), ((), None),
    (("7",), None),
])
def test_the_nearest_node_has_most_of_the_controllers(root, homes, nearest):
    addresses = tuple(f"0000:0{number}:00.0" for number in range(len(homes)))
    for address, home in zip(addresses, homes, strict=True):
        if home is not None:
            write(root / "sys/bus/pci/devices" / address / "numa_node", home)
    host = read_host(config(passthrough=addresses), root / "state", root)
    assert host.numa == (NumaNode(0, "0-1,4-5", 4, 2), NumaNode(1, "2-3,6-7", 4, 2))
    assert (host.nearest and host.nearest.id) == nearest


def test_the_secret_s_path(root):
    assert read_host(config(passthrough=()), root / "state", root).secret == ""
    write(root / "state/bootstrap-secret", "x")
    assert read_host(config(passthrough=()), root / "state", root).secret == str(root / "state/bootstrap-secret")

"""What the domain has to know of a host, read from a made-up /sys and /dev."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.hypervisor.host import BlockDevice, NumaNode, read_host
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.contracts.node import DataDisk, NodeConfig

NODES = Path(__file__).resolve().parents[1] / "data/nodes"


def config(**cvm: object) -> NodeConfig:
    node = NodeConfig.from_json((NODES / "passthrough.json").read_text())
    return replace(node, cvm=replace(node.cvm, **cvm))


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
    assert caught.value.message == ("no disk has the serial SER-X, of node.json's cvm.scsi; there are "
                                    "SER-A, SER-N, SER-V")


@pytest.fixture
def twins(root):
    """Beside the others two disks of one serial: sdc and sdd, each with files in sysfs, content and by-id names."""
    def add(name: str, wwn: str, links: tuple[str, ...] = (), content: bytes = b"", serial: str = "0000",
            size: int = 8 << 20) -> None:
        block = root / "sys/block" / name
        write(block / "size", str(size // 512))
        write(block / "device/wwid", wwn)
        write(block / "device/vpd_pg80", b"\x00\x80\x00\x04" + serial.encode())
        (block / "device/subsystem").symlink_to(root / "sys/bus/scsi")
        write(root / "dev" / name, content.ljust(size, b"\0"))
        for link in links:
            (root / "dev/disk/by-id" / link).symlink_to(f"../../{name}")
    return add


def with_disk(wwn: str, serial: str = "0000", size: int = 8 << 20) -> NodeConfig:
    return config(passthrough=(), scsi=(serial,), disks=(DataDisk(serial, wwn, size),))


def test_d2_two_disks_of_one_serial_are_refused_by_name(root, twins):
    twins("sdc", "naa.5000000000000001", ("wwn-0x5000000000000001",))
    twins("sdd", "naa.5000000000000002", ("wwn-0x5000000000000002",))
    named = r"have the serial 0000, .*: sdc \(naa\.\d+1\), sdd \(naa\.\d+2\)"
    with pytest.raises(CornerstoneError, match=named) as caught:
        read_host(with_disk("naa.5000000000000002"), root / "state", root)
    assert caught.value.code is Code.MACHINE


@pytest.mark.parametrize(("wwn", "size", "words"), [
    ("naa.5000000000000002", 8 << 20, "wwn naa.5000000000000001 instead of naa.5000000000000002"),
    ("naa.5000000000000001", 9 << 20, "size 8388608 instead of 9437184"),
])
def test_d2_another_disk_of_that_serial_is_not_handed_over(root, twins, wwn, size, words):
    twins("sdc", "naa.5000000000000001", ("wwn-0x5000000000000001",))
    with pytest.raises(CornerstoneError, match=words) as caught:
        read_host(with_disk(wwn, size=size), root / "state", root)
    assert caught.value.code is Code.MACHINE


@pytest.mark.parametrize(("content", "wwn", "one"), [(b"", "naa.1", True), (b"x", "naa.1", False), (b"", "", False)])
def test_d7_two_paths_to_one_disk_are_handed_over_once(root, twins, content, wwn, one):
    twins("sdc", wwn)
    twins("sdd", wwn, ("wwn-0x1", "scsi-0000"), content)
    if one:
        assert read_host(with_disk(wwn), root / "state", root).disks == {
            "0000": BlockDevice("/dev/disk/by-id/wwn-0x1", True)}
    else:
        with pytest.raises(CornerstoneError, match="can't be told apart"):
            read_host(with_disk(wwn), root / "state", root)


def test_d2_a_name_made_of_a_wwn_that_two_disks_share_is_not_used(root, twins):
    twins("sdc", "naa.5", ("scsi-SMAKER_MODEL_SER_1",), serial="SER 1")
    twins("sdd", "naa.5", ("wwn-0x5", "scsi-35"), serial="SER-2")
    assert read_host(with_disk("naa.5", "SER 1"), root / "state", root).disks["SER 1"] == BlockDevice(
        "/dev/disk/by-id/scsi-SMAKER_MODEL_SER_1", True)
    with pytest.raises(CornerstoneError, match="sdd .* has no name below /dev/disk/by-id that is its own"):
        read_host(with_disk("naa.5", "SER-2"), root / "state", root)


def test_d1_no_byte_of_a_disk_ends_the_host(root, twins):
    twins("sdc", "naa.5", ("wwn-0x5",), serial="S1")
    write(root / "sys/block/sdd/device/vpd_pg80", b"\0\x80\0\4\xff\xfe\n\x81")
    write(root / "sys/block/sdd/size", b"\xff" * 40)
    write(root / "sys/block/sdd/device/model", bytes(range(256)))
    write(root / "sys/devices/system/cpu/cpu0/topology/thread_siblings_list", b"\xff")
    assert read_host(with_disk("naa.5", "S1"), root / "state", root).disks["S1"].scsi


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

"""A guest's domain: volumes as SCSI disks straight on multipath's devices."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from cornerstone.hypervisor.guest import MOST_DISKS, DirectBoot, Guest, guest_xml
from cornerstone.lib.error import CornerstoneError

VOLUMES = ("e7159402-b3b2-567d-864b-1174ab0788cf", "bcabc40a-b08e-517b-986d-d0b3ad3e4550")


def domain(**changes: object) -> ET.Element:
    return ET.fromstring(guest_xml(Guest("vm1", 512 << 20, 1, **{"volumes": VOLUMES, **changes})))


def test_a_volume_is_a_scsi_disk_on_its_multipath_device():
    disks = domain().findall("devices/disk")
    assert [disk.find("source").get("dev") for disk in disks] == [
        "/dev/mapper/36001405e7159402b3b2567d864b1174a", "/dev/mapper/36001405bcabc40ab08e517b986dd0b3a"]
    assert [disk.find("target").attrib for disk in disks] == [
        {"dev": "sda", "bus": "scsi"}, {"dev": "sdb", "bus": "scsi"}]
    assert [disk.findtext("serial") for disk in disks] == list(VOLUMES)
    assert domain().find("devices/controller").get("model") == "virtio-scsi"


def test_nothing_on_the_way_caches_a_write():
    """And no file system or image file is in between."""
    for disk in domain().findall("devices/disk"):
        assert (disk.get("type"), disk.find("driver").get("cache"), disk.find("driver").get("type")) \
            == ("block", "none", "raw")


def test_it_starts_from_its_first_volume_or_from_a_kernel():
    assert [disk.find("boot") is not None for disk in domain().findall("devices/disk")] == [True, False]
    direct = domain(boot=DirectBoot("/boot/vmlinuz", "/boot/initrd.img", "console=ttyS0"))
    assert direct.find("devices/disk/boot") is None
    assert [direct.findtext(f"os/{tag}") for tag in ("kernel", "initrd", "cmdline")] \
        == ["/boot/vmlinuz", "/boot/initrd.img", "console=ttyS0"]


def test_what_it_may_only_read_is_read_only():
    disks = domain(read_only=("/dev/disk/by-partuuid/a", "/dev/sr0")).findall("devices/disk")
    assert [(disk.find("target").get("dev"), disk.find("readonly") is not None) for disk in disks] \
        == [("sda", False), ("sdb", False), ("vda", True), ("vdb", True)]


def test_there_is_a_last_disk():
    with pytest.raises(CornerstoneError, match="256 volumes"):
        domain(volumes=VOLUMES[:1] * (MOST_DISKS + 1))


@pytest.mark.parametrize("volume", ["", "/dev/sda", "../x"])
def test_what_is_no_serial_is_no_path(volume):
    with pytest.raises(ValueError, match="hexadecimal"):
        domain(volumes=(volume,))

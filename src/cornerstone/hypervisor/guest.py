"""A guest of the host, with volumes of the cluster as its disks: its libvirt domain.

Each volume is a SCSI disk of one virtio-scsi controller, straight on the multipath device. Format:
https://libvirt.org/formatdomain.html.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from cornerstone.hypervisor.domain import add, add_clock, names
from cornerstone.lib.error import CornerstoneError
from cornerstone.model.contracts.iscsi import device_name

CONSOLE_FOLDER = "/var/log/libvirt/qemu"
# of one virtio-scsi controller: its targets, without the controller's own
MOST_DISKS = 255


@dataclass(frozen=True)
class DirectBoot:
    """A kernel that is started without a boot loader: paths on the host, and its command line."""

    kernel: str
    initrd: str
    arguments: str


@dataclass(frozen=True)
class Guest:
    """memory in bytes; volumes: unit serials, as acli shows them, in the order of the guest's disks.

    read_only: block devices of the host that the guest may read; boot: None starts what is on the first volume.
    """

    name: str
    memory: int
    vcpus: int
    volumes: Sequence[str]
    read_only: Sequence[str] = ()
    boot: DirectBoot | None = None


def guest_xml(guest: Guest) -> str:
    """The domain as libvirt's XML."""
    if len(guest.volumes) > MOST_DISKS:
        raise CornerstoneError(f"guest {guest.name} has {len(guest.volumes)} volumes",
                               f"give it at most {MOST_DISKS}")
    domain = ET.Element("domain", type="kvm")
    add(domain, "name", guest.name)
    add(domain, "memory", str(guest.memory >> 10), unit="KiB")
    add(domain, "vcpu", str(guest.vcpus))
    system = add(domain, "os")
    add(system, "type", "hvm", arch="x86_64", machine="q35")
    if guest.boot:
        for tag, text in (("kernel", guest.boot.kernel), ("initrd", guest.boot.initrd),
                          ("cmdline", guest.boot.arguments)):
            add(system, tag, text)
    features = add(domain, "features")
    add(features, "acpi")
    add(features, "apic")
    add(domain, "cpu", mode="host-passthrough")
    add_clock(domain)
    devices = add(domain, "devices")
    add(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    for number, (serial, target) in enumerate(zip(guest.volumes, names("sd"), strict=False)):
        disk = _block(devices, f"/dev/mapper/{device_name(serial)}", target, "scsi")
        add(disk, "serial", serial)
        if not number and not guest.boot:
            add(disk, "boot", order="1")
    for path, target in zip(guest.read_only, islice(names("vd"), len(guest.read_only)), strict=True):
        add(_block(devices, path, target, "virtio"), "readonly")
    serial = add(devices, "serial", type="pty")
    add(serial, "log", file=f"{CONSOLE_FOLDER}/{guest.name}.console", append="off")
    add(serial, "target", port="0")
    add(add(devices, "rng", model="virtio"), "backend", "/dev/urandom", model="random")
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode") + "\n"


def _block(devices: ET.Element, path: str, target: str, bus: str) -> ET.Element:
    # `disk` and not `lun`: what QEMU sends by SG_IO, multipath doesn't send again on another path
    disk = add(devices, "disk", type="block", device="disk")
    add(disk, "driver", name="qemu", type="raw", cache="none", io="native", discard="unmap")
    add(disk, "source", dev=path)
    add(disk, "target", dev=target, bus=bus)
    return disk

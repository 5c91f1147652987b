"""Disks: what they are and where they hang; what is on them is contents.py's matter."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from cornerstone.lib.sysfs import children, link_name, number, pci_function, read
from cornerstone.model.contracts.facts import Disk, PciDevice
from cornerstone.model.disk.identity import read_identity
from cornerstone.model.rules.fitness import travels

# Optical and floppy drives, and the boot areas of eMMC, which are no disks.
OPTICAL = re.compile(r"sr\d+")
NOT_DISKS = re.compile(r"sr\d+|fd\d+|mmcblk\d+(boot\d+|rpmb)")
SECTOR = 512
# The SCSI channels on which a driver shows volumes instead of disks, from the kernel's own sources:
# MEGASAS_MAX_PD_CHANNELS in megaraid_sas.h, RAID_CHANNEL in mpt3sas_scsih.c, MPTSAS_RAID_CHANNEL in mptsas.c,
# CONTAINER_CHANNEL in aacraid.h.
VOLUME_CHANNELS = {"aacraid": (0,), "megaraid_sas": (2, 3), "mpt3sas": (1,), "mptsas": (1,)}
# Those whose every disk has a file raid_level.
LEVEL_DRIVERS = ("hpsa", "smartpqi")


def read_disks(sys: Path, pci: Iterable[PciDevice]) -> tuple[Disk, ...]:
    """The disks by name, without their contents."""
    drivers = {device.address: device.driver for device in pci}
    return tuple(_disk(path, drivers) for path in children(sys / "block") if _is_disk(path))


def disk_of(sys: Path, device: str) -> str:
    """The name of the disk or drive that a device is, or is a partition of: /dev/sdb1 → sdb."""
    path = (sys / "class/block" / Path(device).name).resolve()
    return path.parent.name if (path / "partition").exists() else path.name


def is_carried(device: Path, sys: Path = Path("/sys")) -> bool:
    """Return whether a block device is, or is a partition of, what people carry about: a stick, a card, a disc."""
    path = sys / "class/block" / disk_of(sys, str(device))
    if OPTICAL.fullmatch(path.name):
        return True
    transport = _transport(path, "")
    # of the same kind as a card, but soldered in
    if transport == "mmc" and read(path / "device/type") != "SD":
        return False
    return travels(transport, removable=read(path / "removable") == "1")


def _is_disk(path: Path) -> bool:
    # without a device: loop, dm, md and the like; hidden: one path of an NVMe disk; size 0: a reader without a card
    return ((path / "device").exists() and not NOT_DISKS.fullmatch(path.name) and read(path / "hidden") != "1"
            and read(path / "size") not in ("", "0"))


def _disk(path: Path, drivers: dict[str, str]) -> Disk:
    device, queue, identity = path / "device", path / "queue", read_identity(path)
    controller = pci_function(_hardware(device))
    vendor = read(device / "vendor")
    return Disk(
        name=path.name, size=identity.size, serial=identity.serial, wwn=identity.wwn,
        vendor="" if vendor.startswith("0x") else vendor, model=identity.model,
        transport=_transport(path, drivers.get(controller, "")), controller=controller,
        logical_block=number(queue / "logical_block_size") or SECTOR,
        physical_block=number(queue / "physical_block_size") or SECTOR,
        rotational=read(queue / "rotational") == "1", removable=read(path / "removable") == "1",
        read_only=read(path / "ro") == "1", sequence=identity.sequence)


def _hardware(device: Path) -> Path:
    """device, or for an NVMe disk that could have several paths the controller of the first."""
    if link_name(device / "subsystem") == "nvme-subsystem":
        return next((path for path in children(device) if re.fullmatch(r"nvme\d+", path.name)), device)
    return device


def _transport(path: Path, driver: str) -> str:
    real = str(path.resolve())
    if path.name.startswith("nvme"):
        return "nvme"
    if path.name.startswith("vd"):
        return "virtio"
    if path.name.startswith("mmcblk"):
        return "mmc"
    if "/usb" in real:
        return "usb"
    if _is_volume(path, driver):
        return "raid"
    if "/ata" in real or read(path / "device/vendor") == "ATA":
        return "sata"
    if "/end_device-" in real:
        return "sas"
    return "scsi" if (path / "device/scsi_level").exists() else ""


def _is_volume(path: Path, driver: str) -> bool:
    # hpsa and smartpqi say it themselves; N/A is a disk as it is
    level = read(path / "device/raid_level")
    if driver in LEVEL_DRIVERS and not level:
        return True
    address = re.fullmatch(r"\d+:(\d+):\d+:\d+", link_name(path / "device"))
    return (level not in ("", "N/A")) or (address is not None and int(address[1]) in VOLUME_CHANNELS.get(driver, ()))

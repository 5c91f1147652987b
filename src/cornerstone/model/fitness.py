"""What each disk and controller of a machine is fit for, with the reason where it isn't. Judgements of single parts:
the rules on whole machines (rules/hardware.py) and the plan build on them. Standard library only.
"""

from __future__ import annotations

from cornerstone.model.facts import RAID_CLASS, Disk, Facts, PciDevice
from cornerstone.model.requirements import GIB, MIN_DATA_DISK, Requirements

# Class RAID, but the disks behind them are seen as they are: chipset SATA in RAID mode, and VMD.
TRANSPARENT_DRIVERS = ("ahci", "vmd")
# Intel VMD shows what is behind it in PCI domains of its own, from 10000 on; those can't be passed through singly.
DOMAIN_DIGITS = 4


def unfit_for_boot(disk: Disk, facts: Facts, needs: Requirements) -> str:
    """Why a disk can't be the boot disk; "" when it can."""
    return _unfit(disk, facts) or _too_small(disk, needs.boot_disk)


def unfit_for_data(disk: Disk, facts: Facts) -> str:
    """Why a disk can't hold data; "" when it can."""
    if disk.transport == "raid":
        return "is a volume of a RAID controller"
    return _unfit(disk, facts) or _too_small(disk, MIN_DATA_DISK)


def boot_disks(facts: Facts, needs: Requirements) -> tuple[Disk, ...]:
    """The disks that could be the boot disk."""
    return tuple(disk for disk in facts.disks if not unfit_for_boot(disk, facts, needs))


def data_disks(facts: Facts) -> tuple[Disk, ...]:
    """The disks that could hold data."""
    return tuple(disk for disk in facts.disks if not unfit_for_data(disk, facts))


def obstacle(controller: str, facts: Facts) -> str:
    """Why a controller can't be passed through to the Controller VM, whatever hangs off it; "" when it can."""
    device = facts.pci_device(controller)
    if device is None:
        return "isn't a PCI function"
    if len(controller.partition(":")[0]) > DOMAIN_DIGITS:
        return "is behind a VMD controller"
    if device.group is None:
        return "has no IOMMU group"
    others = [other for other in facts.iommu_group(device.group) if other != device and not other.bridge]
    if others:
        return f"shares IOMMU group {device.group} with {', '.join(map(str, others))}"
    return ""


def hiding_controllers(facts: Facts) -> tuple[tuple[PciDevice, str], ...]:
    """RAID controllers behind which disks aren't seen as they are, each with what is seen instead."""
    found = []
    for device in facts.pci:
        if device.kind != RAID_CLASS or device.driver in TRANSPARENT_DRIVERS:
            continue
        disks = facts.disks_of(device.address)
        volumes = [disk.name for disk in disks if disk.transport == "raid"]
        if volumes:
            found.append((device, f"shows volumes instead of disks: {', '.join(volumes)}"))
        elif not disks:
            found.append((device, "shows no disk"))
    return tuple(found)


def _unfit(disk: Disk, facts: Facts) -> str:
    if disk.name == facts.boot_medium:
        return "is the medium that was booted from"
    if disk.removable or disk.transport in ("usb", "mmc"):
        return "is removable"
    if disk.read_only:
        return "is read-only"
    if not disk.contents.readable:
        return "can't be read"
    if not disk.serial:
        return "has no serial"
    return ""


def _too_small(disk: Disk, least: int) -> str:
    return "" if disk.size >= least else f"has {disk.size / GIB:.1f} GiB, below {least / GIB:.1f}"

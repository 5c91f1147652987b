"""What each disk and controller of a machine is fit for, with the reason where it isn't. Judgements of single parts:
the rules on whole machines (rules/hardware.py) and the plan build on them. Standard library only.
"""

from __future__ import annotations

from dataclasses import replace

from cornerstone.model.contracts.facts import BRIDGE_CLASSES, RAID_CLASS, Disk, Facts, PciDevice
from cornerstone.model.contracts.requirements import GIB, MIN_DATA_DISK, Requirements

# Class RAID, but the disks behind them are seen as they are: chipset SATA in RAID mode, and VMD.
TRANSPARENT_DRIVERS = ("ahci", "vmd")
# Drivers whose volumes are told from their disks, by channel or raid_level (foundation/installer/discover/disks.py).
TELLING_DRIVERS = ("aacraid", "hpsa", "megaraid_sas", "mpt3sas", "mptsas", "smartpqi")
# Drivers that serve controllers of the classes SCSI and SAS too, and make volumes which can't be told from disks:
# mpi3mr scans its volumes on the same channel as disks (mpi3mr_report_tgtdev_to_host), ipr is IBM's RAID adapters.
VOLUME_DRIVERS = ("ipr", "mpi3mr")
# Intel VMD shows what is behind it in PCI domains of its own, from 10000 on; those can't be passed through singly.
DOMAIN_DIGITS = 4
# The partition table that imaging writes is of 512-byte sectors, and so is what a BIOS reads.
BOOT_BLOCK = 512


def unfit_for_boot(disk: Disk, facts: Facts, needs: Requirements) -> str:
    """Why a disk can't be the boot disk; "" when it can. The rule hw.boot-disk and the plan both go by this."""
    return (_unfit(disk, facts) or _too_small(disk, needs.boot_disk) or _wrong_blocks(disk)
            or "is seen by more than one path" * (len(facts.paths(disk)) > 1) or ambiguity(disk, facts))


def unfit_for_data(disk: Disk, facts: Facts) -> str:
    """Why a disk can't hold data; "" when it can."""
    if disk.transport == "raid":
        return "is a volume of a RAID controller"
    if _veiled(facts.pci_device(disk.controller)):
        return "may be a volume of a RAID controller"
    return _unfit(disk, facts) or _too_small(disk, MIN_DATA_DISK)


def boot_disks(facts: Facts, needs: Requirements) -> tuple[Disk, ...]:
    """The disks that could be the boot disk."""
    return tuple(disk for disk in facts.disks if not unfit_for_boot(disk, facts, needs))


def data_disks(facts: Facts) -> tuple[Disk, ...]:
    """The disks that could hold data."""
    return tuple(disk for disk in facts.disks if not unfit_for_data(disk, facts))


def is_removable(disk: Disk) -> bool:
    """Return whether a disk is one that people carry about."""
    return travels(disk.transport, removable=disk.removable)


def travels(transport: str, *, removable: bool) -> bool:
    """Return whether people carry about what hangs off a transport, and is removable in the kernel's word.

    That word is also said of the bays of a server, so it counts only where no transport is known.
    """
    return transport in ("usb", "mmc") or (removable and not transport)


def ambiguity(disk: Disk, facts: Facts) -> str:
    """Return what a disk can be taken for, as "has the serial of sdb, …"; "" when there is no other like it."""
    others = facts.lookalikes(disk)
    if not others:
        return ""
    same = [other for other in others if not disk.identity.difference(replace(other.identity, sequence=None))]
    alike = "can't be told from" if same else "has the serial of"
    why = ", and what is on them differs" if any(other.wwn for other in same) else ""
    return f"{alike} " + ", ".join(f"{other.name} ({other.wwn or 'no WWN'})" for other in same or others) + why


def namesakes(facts: Facts) -> tuple[tuple[Disk, ...], ...]:
    """Return the disks of one WWN that don't tell the same serial, for each such WWN all that have it.

    Either the WWN isn't unique, or they are paths to one disk of an array that tells the serial of the controller
    which a path ends at.
    """
    serials: dict[str, set[str]] = {}
    for disk in facts.disks:
        serials.setdefault(disk.wwn, set()).add(disk.serial)
    return tuple(tuple(disk for disk in facts.disks if disk.wwn == wwn)
                 for wwn, told in serials.items() if wwn and len(told) > 1)


def obstacle(controller: str, facts: Facts) -> str:
    """Return why VFIO would refuse to hand a controller to the Controller VM; "" when it wouldn't."""
    device = facts.pci_device(controller)
    if device is None:
        return "isn't a PCI function"
    if len(controller.partition(":")[0]) > DOMAIN_DIGITS:
        return "is behind a VMD controller"
    if device.group is None:
        return "has no IOMMU group"
    group = facts.iommu_group(device.group)
    others = [other for other in group if other != device and not other.bridge]
    if others:
        return f"shares IOMMU group {device.group} with {', '.join(map(_in_use, others))}"
    # "Firmware has requested this device have a 1:1 IOMMU mapping": the kernel's drivers/iommu/iommu.c refuses to claim
    if any(member.direct for member in group):
        return f"has memory of the firmware's mapped into IOMMU group {device.group} (RMRR)"
    return ""


def _in_use(device: PciDevice) -> str:
    bridge = f", in use by {device.driver}" if device.kind in BRIDGE_CLASSES else ""
    return f"{device}{bridge}"


def hiding_controllers(facts: Facts) -> tuple[tuple[PciDevice, str], ...]:
    """Controllers behind which disks aren't seen as they are, each with what is seen instead."""
    found = []
    for device in facts.pci:
        disks = facts.disks_of(device.address)
        names = ", ".join(disk.name for disk in disks)
        volumes = [disk.name for disk in disks if disk.transport == "raid"]
        if volumes:
            found.append((device, f"shows volumes instead of disks: {', '.join(volumes)}"))
        elif device.kind == RAID_CLASS and not disks and device.driver not in TRANSPARENT_DRIVERS:
            found.append((device, "shows no disk"))
        elif disks and _veiled(device):
            found.append((device, f"with driver {device.driver} shows {names}, which can't be told from volumes"))
    return tuple(found)


def _veiled(device: PciDevice | None) -> bool:
    """Return whether what hangs off a controller may be volumes, without a way to tell."""
    # without a driver: a record that doesn't tell it, for no disk is seen without one
    if device is None or device.driver in ("", *TRANSPARENT_DRIVERS, *TELLING_DRIVERS):
        return False
    return device.kind == RAID_CLASS or device.driver in VOLUME_DRIVERS


def _unfit(disk: Disk, facts: Facts) -> str:
    if disk.name == facts.boot_medium:
        return "is the medium that was booted from"
    if is_removable(disk):
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


def _wrong_blocks(disk: Disk) -> str:
    return "" if disk.logical_block == BOOT_BLOCK else (
        f"has blocks of {disk.logical_block} bytes, {BOOT_BLOCK} are needed to boot")

"""The PCI tree, with IOMMU groups and NUMA nodes."""

from __future__ import annotations

from pathlib import Path

from cornerstone.lib.sysfs import PCI_ADDRESS, children, link_name, number, read, read_text, whole
from cornerstone.model.contracts.facts import PciDevice


def read_pci(sys: Path) -> tuple[PciDevice, ...]:
    """Every function, by address."""
    return tuple(_device(path) for path in children(sys / "bus/pci/devices"))


def _device(path: Path) -> PciDevice:
    parent = path.resolve().parent.name
    group = link_name(path / "iommu_group")
    return PciDevice(
        address=path.name, kind=read(path / "class")[2:6], vendor=read(path / "vendor")[2:],
        device=read(path / "device")[2:], driver=link_name(path / "driver"),
        group=whole(group), numa=number(path / "numa_node"),
        parent=parent if PCI_ADDRESS.fullmatch(parent) else "", reset=read(path / "reset_method"),
        direct=_direct(path / "iommu_group/reserved_regions"))


def _direct(regions: Path) -> bool | None:
    """Return whether a group has memory that is mapped one to one for good: begin, end and "direct" in a line.

    direct-relaxable (USB, graphics) doesn't keep VFIO from the group (IOMMU_RESV_DIRECT in the kernel's linux/iommu.h).
    """
    text = read_text(regions)
    return any(line.split()[-1:] == ["direct"] for line in text.split("\n")) if text else None

"""Discover: read a machine's facts from /sys, /proc and /dev. Nothing is written, no state is changed."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cornerstone.foundation.installer.discover.bmc import read_bmc
from cornerstone.foundation.installer.discover.contents import probe
from cornerstone.foundation.installer.discover.cpu import read_cpu
from cornerstone.foundation.installer.discover.disks import disk_of, read_disks
from cornerstone.foundation.installer.discover.dmi import read_dmi
from cornerstone.foundation.installer.discover.firmware import read_firmware
from cornerstone.foundation.installer.discover.network import read_nics
from cornerstone.foundation.installer.discover.pci import read_pci
from cornerstone.lib.sysfs import number, read_text
from cornerstone.model.contracts.facts import Clock, Facts

IOMMU_TABLES = ("DMAR", "IVRS")


def discover(root: Path = Path("/"), medium: str = "", source: str = "") -> Facts:
    """The facts of the machine below root (another folder in tests). medium: the device that was booted from."""
    with ThreadPoolExecutor(1) as beside:
        # The one slow part: a BMC takes seconds to answer.
        bmc = beside.submit(read_bmc, root)
        sys, cpuinfo = root / "sys", read_text(root / "proc/cpuinfo")
        pci = read_pci(sys)
        facts = Facts(
            dmi=read_dmi(sys), firmware=read_firmware(sys), cpu=read_cpu(root, cpuinfo),
            memory=_memory(read_text(root / "proc/meminfo")),
            clock=Clock(int(time.time()), number(sys / "class/rtc/rtc0/since_epoch")),
            nics=read_nics(sys), disks=probe(read_disks(sys, pci), root), pci=pci, bmc=bmc.result(),
            iommu_table=_iommu_table(sys / "firmware/acpi/tables"),
            boot_medium=disk_of(sys, medium) if medium else "", source=source,
            interrupt_remapping=_remapped(read_text(root / "proc/interrupts")))
    return facts


def _memory(meminfo: str) -> int:
    found = re.search(r"^MemTotal:\s+([0-9]{1,15}) kB", meminfo, re.M)
    return int(found[1]) << 10 if found else 0


def _iommu_table(tables: Path) -> str | None:
    """Return the ACPI table by which firmware offers an IOMMU, "" when there is none, None when none are shown."""
    if not tables.is_dir():
        return None
    return next((name for name in IOMMU_TABLES if (tables / name).exists()), "")


def _remapped(interrupts: str) -> bool | None:
    """Return whether interrupts go through an IOMMU; None when /proc/interrupts isn't there.

    The kernel puts IR- before the names of their controllers then (IR-IO-APIC in arch/x86/kernel/apic/io_apic.c).
    """
    return bool(re.search(r"\sIR-(IO-APIC|PCI-MSI)", interrupts)) if interrupts else None

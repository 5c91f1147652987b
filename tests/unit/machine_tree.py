"""A machine as a tree of files: what the kernel shows of it below /sys, /proc and /dev."""

from __future__ import annotations

from pathlib import Path


class Link(str):
    """A symbolic link to a path below the tree's root; its target is made if it isn't there."""


def tree(root: Path, files: dict[str, str | bytes | None]) -> Path:
    """Files below root; None makes a folder, a Link a link."""
    for path, content in files.items():
        at = root / path
        at.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            (root / content).mkdir(parents=True, exist_ok=True)
            at.symlink_to((root / content).resolve())
        elif content is None:
            at.mkdir(parents=True, exist_ok=True)
        else:
            at.write_bytes(content if isinstance(content, bytes) else f"{content}\n".encode())
    return root


def cpuinfo(threads: int, sockets: int, flag: str) -> str:
    """Two threads a core; a socket's threads are neighbours."""
    each = threads // sockets
    return "\n".join(f"processor\t: {n}\nmodel name\t: Example  CPU @ 2.4 GHz\nphysical id\t: {n // each}\n"
                     f"core id\t\t: {n % each // 2}\nflags\t\t: fpu {flag} sse\n" for n in range(threads))


def pci(address: str, kind: str, ids: str, driver: str = "", group: int | None = None, numa: int = -1,
        above: str = "") -> dict[str, str | bytes | None]:
    """A PCI function; above: the path of bridges that it is below."""
    real = f"sys/devices/pci0000:00/{above}{address}"
    vendor, device = ids.split(":")
    files: dict[str, str | bytes | None] = {
        f"{real}/class": f"0x{kind}00", f"{real}/vendor": f"0x{vendor}", f"{real}/device": f"0x{device}",
        f"{real}/numa_node": str(numa), f"sys/bus/pci/devices/{address}": Link(real)}
    if driver:
        files[f"{real}/driver"] = Link(f"sys/bus/pci/drivers/{driver}")
    if group is not None:
        files[f"{real}/iommu_group"] = Link(f"sys/kernel/iommu_groups/{group}")
    return files


HBA = "sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0"
AHCI = "sys/devices/pci0000:00/0000:00:1f.2"
SD = f"{HBA}/host0/port-0:0/end_device-0:0/target0:0:0/0:0:0:0"
DOM = f"{AHCI}/ata1/host1/target1:0:0/1:0:0:0"

SERVER = {
    "proc/cpuinfo": cpuinfo(8, 2, "vmx"), "proc/meminfo": "MemTotal:       33554432 kB\nMemFree:        1 kB",
    "sys/devices/system/node/node0/cpulist": "0-3", "sys/devices/system/node/node1/cpulist": "4-7",
    "sys/devices/system/node/node0/meminfo": "Node 0 MemTotal:       16777216 kB",
    "sys/devices/system/node/node1/meminfo": "Node 1 MemTotal:       16777216 kB",
    "sys/class/dmi/id/sys_vendor": "Example Inc.", "sys/class/dmi/id/product_name": "Node 1",
    "sys/class/dmi/id/product_serial": "SN123", "sys/class/dmi/id/chassis_serial": "To be filled by O.E.M.",
    "sys/class/dmi/id/bios_version": "1.2", "sys/firmware/acpi/tables/DMAR": "", "sys/class/rtc/rtc0/since_epoch": "7",
    **pci("0000:00:00.0", "0600", "8086:2020", group=0),
    **pci("0000:00:01.0", "0604", "8086:2030", "pcieport", 1),
    **pci("0000:01:00.0", "0107", "1000:0097", "mpt3sas", 1, 1, "0000:00:01.0/"),
    **pci("0000:00:1f.2", "0106", "8086:a182", "ahci", 2, 0),
    # an HBA's hard disk
    "sys/block/sda": Link(f"{SD}/block/sda"), f"{SD}/block/sda/size": "7814037168",
    f"{SD}/block/sda/device": Link(SD), f"{SD}/vendor": "SEAGATE ", f"{SD}/model": "ST4000NM0025    ",
    f"{SD}/vpd_pg80": b"\x00\x80\x00\x08  ZC1-77\0", f"{SD}/wwid": "naa.5000c50000000001", f"{SD}/scsi_level": "7",
    f"{SD}/block/sda/queue/rotational": "1", f"{SD}/block/sda/queue/physical_block_size": "4096",
    f"{SD}/block/sda/queue/logical_block_size": "512",
    # a SATADOM on the chipset
    "sys/block/sdb": Link(f"{DOM}/block/sdb"), f"{DOM}/block/sdb/size": "125045424",
    f"{DOM}/block/sdb/device": Link(DOM), f"{DOM}/vendor": "ATA     ", f"{DOM}/model": "SATADOM-SH      ",
    f"{DOM}/wwid": "t10.ATA     SATADOM-SH                              DOM1",
    # no disks: without a device, optical, hidden, a reader without a card
    **{f"sys/block/{name}/size": "1" for name in ("loop0", "ram0", "zram0", "dm-0", "md127", "nbd0")},
    "sys/block/sr0/size": "1", "sys/block/sr0/device/model": "DVD", "sys/block/nvme0c0n1/hidden": "1",
    "sys/block/nvme0c0n1/size": "9", "sys/block/nvme0c0n1/device/x": "", "sys/block/sdc/size": "0",
    "sys/block/sdc/device/x": "",
    "sys/class/net/lo/address": "00:00:00:00:00:00", "sys/class/net/br0/address": "52:54:00:00:00:99",
    **{f"sys/class/net/{name}/type": "1" for name in ("eno1", "eno2", "usb0", "br0")},
    "sys/class/net/eno1/address": "52:54:00:00:00:01", "sys/class/net/eno1/carrier": "1",
    "sys/class/net/eno1/speed": "10000", "sys/class/net/eno1/addr_assign_type": "0",
    "sys/class/net/eno1/device": Link("sys/devices/pci0000:00/0000:00:19.0"),
    "sys/devices/pci0000:00/0000:00:19.0/driver": Link("sys/bus/pci/drivers/e1000e"),
    "sys/devices/pci0000:00/0000:00:19.0/numa_node": "1",
    "sys/class/net/eno2/address": "52:54:00:00:00:02", "sys/class/net/eno2/device": None,
    "sys/class/net/usb0/address": "52:54:00:00:00:03", "sys/class/net/usb0/carrier": "0",
    "sys/class/net/usb0/device/subsystem": Link("sys/bus/usb"),
}

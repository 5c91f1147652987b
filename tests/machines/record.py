"""Record QEMU machines of several shapes: each boots the ISO, which hands its facts out through a virtio port.

    .venv/bin/python tests/machines/record.py [SHAPE …]

writes tests/machines/SHAPE.json; without a shape, all of them. Needs a built ISO of aos-6.8 and two minutes each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

from cornerstone.lab.boot import boot  # noqa: E402
from cornerstone.lib.gpt import derived_id, write_gpt  # noqa: E402
from cornerstone.model.contracts.facts import Facts  # noqa: E402
from cornerstone.model.contracts.node import NODE_FILE  # noqa: E402
from cornerstone.model.disk.slot_disk import layout  # noqa: E402

ISO = ROOT / "output" / "aos-6.8" / "foundation-aos-6.8.iso"
GIB = 1 << 30
PORT = "org.cornerstone.facts"
# of the file systems, so that each recording is the same
UUID = "6d0b5d0c-1111-4222-8333-2f2f6a0d8a11"
# a virtio device that goes through the IOMMU, as a real one does
MODERN = "disable-legacy=on,iommu_platform=on"
# Without interrupt remapping, which groups don't need: with it a kernel that starts while this computer is busy
# misses the timer's interrupts and panics.
IOMMU = ("-device", "intel-iommu,intremap=off,caching-mode=on")


@dataclass(frozen=True)
class Shape:
    """A machine: its firmware, and words for QEMU; each {name} there is a disk image, made by the function of disks."""

    what: str
    firmware: str
    words: str
    disks: dict[str, Callable[[Path], None]]
    iommu: bool = True
    unplugged: tuple[str, ...] = ()


def blank(size: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with path.open("wb") as disk:
            disk.truncate(size)
    return make


def old_linux(path: Path) -> None:
    """Somebody's disk: one ext4 and one LVM partition in an MBR table."""
    blank(16 * GIB)(path)
    subprocess.run(["sfdisk", "--quiet", path], input="label: dos\nlabel-id: 0x00c0ffee\n,8GiB,83\n,,8e\n", text=True,
                   check=True)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "data", "-U", UUID, "-E", "offset=1048576", path, "8g"],
                   check=True)


def installed_node(path: Path) -> None:
    """A boot disk as imaging leaves it, as far as discovery looks: partition table, and node.json on state."""
    size = 32 * GIB
    blank(size)(path)
    table = layout("boot", size, 2 * GIB)
    with path.open("r+b") as disk:
        write_gpt(disk, size, derived_id("boot", "disk"), table.partitions)
    node = {"hypervisor": {"hostname": "NTNX-QEMU0005-A"}, "serial": "QEMU0005",
            "identity": "1c7a3a3e-6d0b-5d0c-9a51-3f2f6a0d8a11"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / NODE_FILE
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(node))
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "state", "-U", UUID, "-d", folder,
                        "-E", f"offset={table.state.offset}", path, f"{table.state.size // 1024}k"], check=True)


def dmi(number: int, product: str, block: str = "") -> str:
    """SMBIOS identity; bios words would hide the firmware's own, so there are none."""
    return (f"-smbios type=1,manufacturer=QEMU,product={product},serial=QEMU000{number},"
            f"uuid=00000000-0000-4000-8000-00000000000{number} "
            f"-smbios type=3,manufacturer=QEMU,serial={block or f'BLOCK000{number}'} "
            f"-smbios type=2,manufacturer=QEMU,product={product},location=A ")


def drive(name: str, options: str = "") -> str:
    return f"-drive if=none,id={name},format=raw,file={{{name}}}{options} "


SHAPES = {
    "qemu-nvme": Shape(
        "one NVMe disk, Secure Boot", "secureboot",
        dmi(1, "nvme")
        + "-device pcie-root-port,id=rp0,slot=1 " + drive("nvme")
        + "-device nvme,bus=rp0,drive=nvme,serial=NVME-0001 "
        "-netdev user,id=n0 -device pcie-root-port,id=rp1,slot=2 "
        "-device e1000e,bus=rp1,netdev=n0,mac=52:54:00:01:00:00 ",
        {"nvme": blank(64 * GIB)}),
    "qemu-three-tiers": Shape(
        "two sockets; two SATADOM on the chipset; an HBA with SSD and HDD and an NVMe disk on the second socket; a BMC",
        "uefi",
        dmi(2, "three-tiers")
        + "-smp 4,sockets=2,cores=2,threads=1 "
        "-object memory-backend-ram,id=m0,size=2G -numa node,nodeid=0,cpus=0-1,memdev=m0 "
        "-object memory-backend-ram,id=m1,size=2G -numa node,nodeid=1,cpus=2-3,memdev=m1 "
        + "".join(drive(name) for name in ("dom0", "dom1", "ssd0", "ssd1", "hdd0", "hdd1", "nvme"))
        + "-device ide-hd,bus=ide.1,drive=dom0,serial=DOM-0001,wwn=0x5000000000000201,model=SATADOM-SH,rotation_rate=1 "
        "-device ide-hd,bus=ide.2,drive=dom1,serial=DOM-0002,wwn=0x5000000000000202,model=SATADOM-SH,rotation_rate=1 "
        "-device pxb-pcie,id=pxb1,bus_nr=128,numa_node=1,bus=pcie.0 "
        "-device pcie-root-port,id=rp1,bus=pxb1,slot=11,chassis=11 "
        f"-device virtio-scsi-pci,id=hba,bus=rp1,{MODERN} "
        "-device scsi-hd,bus=hba.0,scsi-id=0,drive=ssd0,serial=SSD-0001,wwn=0x5000000000000211,rotation_rate=1 "
        "-device scsi-hd,bus=hba.0,scsi-id=1,drive=ssd1,serial=SSD-0002,wwn=0x5000000000000212,rotation_rate=1 "
        "-device scsi-hd,bus=hba.0,scsi-id=2,drive=hdd0,serial=HDD-0001,wwn=0x5000000000000213,rotation_rate=7200 "
        "-device scsi-hd,bus=hba.0,scsi-id=3,drive=hdd1,serial=HDD-0002,wwn=0x5000000000000214,rotation_rate=7200 "
        "-device pcie-root-port,id=rp2,bus=pxb1,slot=12,chassis=12 -device nvme,bus=rp2,drive=nvme,serial=NVME-0001 "
        "-netdev user,id=n0 -device pcie-root-port,id=rp3,bus=pcie.0,slot=13,chassis=13 "
        "-device e1000e,bus=rp3,netdev=n0,mac=52:54:00:02:00:00 "
        "-netdev user,id=n1 -device pcie-root-port,id=rp4,bus=pcie.0,slot=14,chassis=14 "
        "-device e1000e,bus=rp4,netdev=n1,mac=52:54:00:02:00:01 "
        "-device ipmi-bmc-sim,id=bmc0 -device isa-ipmi-kcs,bmc=bmc0 ",
        {"dom0": blank(64 * GIB), "dom1": blank(64 * GIB), "ssd0": blank(480 * GIB), "ssd1": blank(480 * GIB),
         "hdd0": blank(2048 * GIB), "hdd1": blank(2048 * GIB), "nvme": blank(1600 * GIB)}),
    "qemu-bios": Shape(
        "BIOS, no IOMMU, disks without serials, somebody's Linux on one, four interfaces without a link", "bios",
        dmi(3, "bios") + drive("old") + drive("new")
        + "-device virtio-blk-pci,drive=old -device virtio-blk-pci,drive=new "
        + "".join(f"-netdev user,id=n{n} -device e1000,id=nic{n},netdev=n{n},mac=52:54:00:03:00:0{n} "
                  for n in range(4)),
        {"old": old_linux, "new": blank(64 * GIB)}, iommu=False, unplugged=("nic0", "nic1", "nic2", "nic3")),
    "qemu-multipath": Shape(
        "two paths to each of two disks, by HBAs that share an IOMMU group with an interface", "uefi",
        dmi(4, "multipath") + drive("boot") + "-device ide-hd,bus=ide.1,drive=boot,serial=BOOT-0001 "
        "-device pcie-pci-bridge,id=br1,bus=pcie.0 "
        f"-device virtio-scsi-pci,id=hba0,bus=br1,addr=1,{MODERN} "
        f"-device virtio-scsi-pci,id=hba1,bus=br1,addr=2,{MODERN} "
        "-netdev user,id=n0 -device e1000,bus=br1,addr=3,netdev=n0,mac=52:54:00:04:00:00 "
        + "".join(f"-drive if=none,id=d{disk}p{path},format=raw,file={{d{disk}}},file.locking=off "
                  f"-device scsi-hd,bus=hba{path}.0,scsi-id={disk},drive=d{disk}p{path},share-rw=on,"
                  f"serial=DUAL-000{disk},wwn=0x500000000000040{disk} " for disk in (0, 1) for path in (0, 1)),
        {"boot": blank(64 * GIB), "d0": blank(480 * GIB), "d1": blank(480 * GIB)}),
    "qemu-installed": Shape(
        "an installed node; its data disks are volumes of a RAID controller", "uefi",
        dmi(5, "installed") + drive("boot") + drive("v0") + drive("v1")
        + "-device ide-hd,bus=ide.1,drive=boot,serial=BOOT-0001 "
        "-device pcie-root-port,id=rp0,slot=1 -device megasas-gen2,id=raid,bus=rp0 "
        "-device scsi-hd,bus=raid.0,scsi-id=0,drive=v0,serial=VOL-0001 "
        "-device scsi-hd,bus=raid.0,scsi-id=1,drive=v1,serial=VOL-0002 "
        "-netdev user,id=n0 -device e1000e,netdev=n0,mac=52:54:00:05:00:00 ",
        {"boot": installed_node, "v0": blank(480 * GIB), "v1": blank(480 * GIB)}),
}


def record(name: str, shape: Shape, iso: Path = ISO) -> Facts:
    """Boot the ISO on the machine and return its facts, with a clock that is the same at each recording."""
    logs = ROOT / "output" / "boots" / f"record-{name}"
    with tempfile.TemporaryDirectory(prefix="record-") as folder:
        images = {disk: Path(folder) / disk for disk in shape.disks}
        for disk, make in shape.disks.items():
            make(images[disk])
        facts = Path(folder) / "facts.json"
        words = [word.format(**images) for word in shape.words.split()]
        verdict = boot(iso, firmware=shape.firmware, media="cd", log_dir=logs, unplugged=shape.unplugged, extra=(
                           *(IOMMU if shape.iommu else ()), *words, "-chardev", f"file,id=facts,path={facts}",
                           "-device", f"virtserialport,bus=vser0.0,chardev=facts,name={PORT}"))
        if not verdict.ok:
            raise SystemExit(f"{name}: {verdict.sentence}; see {verdict.console_log}")
        told = Facts.load(facts)
    clock = replace(told.clock, system=1795348800, rtc=1795348800 if told.clock.rtc else None)
    return replace(told, clock=clock, source=f"QEMU, tests/machines/record.py: {shape.what}")


def main(names: list[str]) -> None:
    for name in names or SHAPES:
        (ROOT / "tests" / "machines" / f"{name}.json").write_text(record(name, SHAPES[name]).to_json())
        print(name)


if __name__ == "__main__":
    main(sys.argv[1:])

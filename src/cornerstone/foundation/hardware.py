"""A first look at the machine: the few lines that the screen shows. Read from /sys and /proc, nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SECURE_BOOT = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
# block devices that are no disks of the machine's own
NOT_DISKS = ("loop", "ram", "zram", "sr", "fd", "dm-", "md", "nbd")


@dataclass(frozen=True)
class Disk:
    """name as in /dev, size in bytes, serial empty when the disk has none."""

    name: str
    model: str
    serial: str
    size: int


@dataclass(frozen=True)
class Nic:
    """A physical network interface; link is whether a carrier was seen."""

    name: str
    mac: str
    driver: str
    link: bool


@dataclass(frozen=True)
class Machine:
    """What was seen; memory in bytes; virtualisation is 'vmx', 'svm' or empty; iommu_groups counts them."""

    vendor: str
    product: str
    serial: str
    cpu: str
    threads: int
    virtualisation: str
    iommu_groups: int
    memory: int
    uefi: bool
    secure_boot: bool
    disks: tuple[Disk, ...]
    nics: tuple[Nic, ...]
    bmc: bool

    def rows(self) -> list[tuple[str, str]]:
        """Label and text of each line on the screen."""
        firmware = "UEFI" if self.uefi else "BIOS"
        if self.uefi:
            firmware += ", Secure Boot " + ("on" if self.secure_boot else "off")
        disks = "; ".join(f"{d.name} {d.model or 'unknown model'}, {d.size / (1 << 30):.1f} GiB, "
                          f"{'serial ' + d.serial if d.serial else 'no serial'}" for d in self.disks)
        nics = "; ".join(f"{n.name} {n.mac} ({n.driver or 'no driver'}), link {'up' if n.link else 'down'}"
                         for n in self.nics)
        return [
            ("Machine", f"{self.vendor} {self.product}, {'serial ' + self.serial if self.serial else 'no serial'}"),
            ("CPU", f"{self.cpu}, {self.threads} threads, virtualisation {self.virtualisation or 'off'}, "
                    f"{self.iommu_groups} IOMMU groups"),
            ("Memory", f"{self.memory / (1 << 30):.1f} GiB"),
            ("Firmware", firmware),
            ("Disks", disks or "none"),
            ("Network", nics or "none"),
            ("BMC", "answers on /dev/ipmi0" if self.bmc else "none"),
        ]

    def summary(self) -> dict:
        """The same for an event's data."""
        return {"firmware": "uefi" if self.uefi else "bios", "secure_boot": self.secure_boot,
                "memory": self.memory, "threads": self.threads, "virtualisation": self.virtualisation,
                "disks": len(self.disks), "nics": len(self.nics)}


def look(root: Path = Path("/")) -> Machine:
    """Look at the machine below root (another folder in tests)."""
    sys, cpuinfo = root / "sys", _read(root / "proc/cpuinfo")
    dmi = sys / "class/dmi/id"
    fields = [line.partition(":") for line in cpuinfo.splitlines()]
    flags = next((value.split() for key, _, value in fields if key.strip() == "flags"), [])
    variable = sys / "firmware/efi/efivars" / SECURE_BOOT
    return Machine(
        vendor=_read(dmi / "sys_vendor"), product=_read(dmi / "product_name"), serial=_read(dmi / "product_serial"),
        cpu=next((value.strip() for key, _, value in fields if key.strip() == "model name"), "unknown CPU"),
        threads=sum(key.strip() == "processor" for key, _, _ in fields),
        virtualisation=next((flag for flag in ("vmx", "svm") if flag in flags), ""),
        iommu_groups=len(_children(sys / "kernel/iommu_groups")),
        memory=_memory(_read(root / "proc/meminfo")),
        uefi=(sys / "firmware/efi").is_dir(),
        # four bytes of attributes, then the value
        secure_boot=variable.is_file() and variable.read_bytes()[4:5] == b"\1",
        disks=tuple(_disk(path) for path in _children(sys / "block") if _is_disk(path)),
        nics=tuple(_nic(path) for path in _children(sys / "class/net") if (path / "device").exists()),
        bmc=(root / "dev/ipmi0").exists(),
    )


def _memory(meminfo: str) -> int:
    line = next((line for line in meminfo.splitlines() if line.startswith("MemTotal:")), "MemTotal: 0 kB")
    return int(line.split()[1]) << 10


def _is_disk(path: Path) -> bool:
    # hidden: one path of an NVMe multipath disk; size 0: a reader without a card
    return not path.name.startswith(NOT_DISKS) and _read(path / "hidden") != "1" and _read(path / "size") != "0"


def _disk(path: Path) -> Disk:
    serial = _read(path / "device/serial") or _read(path / "serial") or _unit_serial(path / "device/vpd_pg80")
    return Disk(path.name, _read(path / "device/model"), serial, int(_read(path / "size") or 0) * 512)


def _unit_serial(page: Path) -> str:
    # SCSI vital product data, page 0x80: four bytes of header, then the serial in ASCII (SPC-4, 7.8.15)
    try:
        return page.read_bytes()[4:].decode("ascii", "replace").strip("\0 ")
    except OSError:
        return ""


def _nic(path: Path) -> Nic:
    driver = path / "device/driver"
    return Nic(path.name, _read(path / "address"), driver.resolve().name if driver.exists() else "",
               _read(path / "carrier") == "1")


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""

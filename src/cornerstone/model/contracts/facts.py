"""Facts: what was found out about one machine, the schema of facts.json. Nothing here is a judgement: rules make those.

Sizes are bytes. "" and None mean that the machine doesn't tell. PCI addresses are as in sysfs, 0000:3b:00.0.
Standard library only; docs/facts.schema.json is the exported schema, and a test keeps the two equal.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.json_text import read_bounded
from cornerstone.lib.serde import Format, Within, schema_of, to_record
from cornerstone.model.contracts.node import erase_token
from cornerstone.model.disk.identity import DiskIdentity

SCHEMA_VERSION = 2

# PCI class codes, base class and subclass (PCI Code and ID Assignment Specification)
BRIDGE_CLASSES = ("0600", "0601", "0604")
RAID_CLASS = "0104"
STORAGE_BASE_CLASS = "01"
# Of bridges these only pass on what others say to one another; host and ISA bridges have functions of their own.
PCI_BRIDGE = "0604"
# The name that libblkid has for a Ceph OSD, and the partition types of ceph-disk's data and block partitions.
OSD_SIGNATURE = "ceph_bluestore"
OSD_PARTITIONS = ("4fbd7e29-9d25-41b8-afd0-062c0ceff05d", "cafecafe-9b03-4f30-b4c6-b4b80ceff106")

# what datetime can show in every time zone: to the end of the year 9998
Second = Annotated[int, Within(0, 253_370_764_799)]


@dataclass(frozen=True)
class Dmi:
    """Who the machine says it is. chassis_serial is the block of a multi-node chassis; position the node's place."""

    vendor: str = ""
    product: str = ""
    serial: str = ""
    chassis_serial: str = ""
    uuid: str = ""
    position: str = ""


@dataclass(frozen=True)
class Firmware:
    """mode: bios or uefi, as booted. tpm: 1.2, 2.0 or "". date: as the firmware writes it, usually MM/DD/YYYY."""

    mode: str
    secure_boot: bool = False
    tpm: str = ""
    vendor: str = ""
    version: str = ""
    date: str = ""


@dataclass(frozen=True)
class NumaNode:
    """cpus: the node's threads as a kernel list, 0-9,20-29; cores: how many physical cores these are."""

    id: int
    cpus: str
    cores: int
    memory: int


@dataclass(frozen=True)
class Cpu:
    """virtualisation: vmx, svm, "" for neither, None when it isn't told.

    virtualisation_disabled: the CPU has it and the firmware has switched it off.
    """

    model: str
    sockets: int
    cores: int
    threads: int
    virtualisation: str | None = None
    virtualisation_disabled: bool = False
    numa: tuple[NumaNode, ...] = ()


@dataclass(frozen=True)
class Nic:
    """A network interface with a device. usb: it hangs on USB, as the one that many BMCs show to their host.

    link: None while the interface is down, for then nothing is known. speed: Mbit/s.
    """

    name: str
    mac: str
    permanent_mac: str = ""
    driver: str = ""
    pci: str = ""
    usb: bool = False
    numa: int | None = None
    link: bool | None = None
    speed: int | None = None


@dataclass(frozen=True)
class Signature:
    """Something that tells of content: gpt, dos, ext4, LVM2_member, linux_raid_member …, the names of libblkid.

    "data" are bytes at the disk's edges that libblkid has no name for. Of a Ceph OSD the uuid is the OSD's, the label
    its cluster's.
    """

    type: str
    label: str = ""
    uuid: str = ""


@dataclass(frozen=True)
class Partition:
    """One partition; name, kind and uuid as in the partition table (kind: type GUID, or 0x83)."""

    number: int
    size: int
    name: str = ""
    kind: str = ""
    uuid: str = ""
    signatures: tuple[Signature, ...] = ()


@dataclass(frozen=True)
class Installed:
    """A node of ours on a disk: hostname and serial of its node.json, and the identity of the ISO it came from."""

    hostname: str = ""
    serial: str = ""
    identity: str = ""


@dataclass(frozen=True)
class Contents:
    """What is on a disk. readable: false when it couldn't be read, and then nothing is known.

    unfinished: its table says that imaging began on this very disk, and didn't come to its end. fingerprint: of all
    that is at its edges and its partitions' (model/disk/identity.py), "" for nothing but zeros.
    """

    readable: bool = True
    signatures: tuple[Signature, ...] = ()
    partitions: tuple[Partition, ...] = ()
    installed: Installed | None = None
    unfinished: bool = False
    fingerprint: str = ""

    @property
    def empty(self) -> bool:
        """True only when it was read and nothing was found."""
        return self.readable and not self.signatures and not self.partitions and not self.fingerprint

    @property
    def osd(self) -> Signature | None:
        """The Ceph OSD that is on the disk or one of its partitions, as far as it tells; None when there is none."""
        inner = [signature for partition in self.partitions for signature in partition.signatures]
        found = next((each for each in (*self.signatures, *inner) if each.type == OSD_SIGNATURE), None)
        if found is None and self.fingerprint.startswith("osd:"):
            return Signature(OSD_SIGNATURE, uuid=self.fingerprint.removeprefix("osd:"))
        if found is None and any(partition.kind in OSD_PARTITIONS for partition in self.partitions):
            return Signature(OSD_SIGNATURE)
        return found

    @property
    def key(self) -> str:
        """All that is known of what is on the disk, as one text: other contents give another one."""
        return json.dumps([self.fingerprint, to_record(self.signatures), to_record(self.partitions)])

    def __str__(self) -> str:
        """In a few words: gpt with 3 partitions (vfat, ext4)."""
        if not self.readable:
            return "unreadable"
        if self.osd:
            of = [f" {self.osd.uuid}" * bool(self.osd.uuid), f" of cluster {self.osd.label}" * bool(self.osd.label)]
            return f"a Ceph OSD{''.join(of)}"
        found = dict.fromkeys(signature.type for signature in self.signatures)
        inner = dict.fromkeys(s.type for partition in self.partitions for s in partition.signatures)
        text = ", ".join(found) or ("" if self.partitions else "data" if self.fingerprint else "empty")
        if self.partitions:
            text += f" with {len(self.partitions)} partition{'s' * (len(self.partitions) > 1)}"
        return text.strip() + (f" ({', '.join(inner)})" if inner else "")


@dataclass(frozen=True)
class Disk:
    """A block device that is a disk of the machine, or one path to it: see Facts.groups.

    transport: nvme, sata, sas, scsi, usb, virtio, mmc, raid (a volume that a RAID controller made) or "".
    controller: the PCI function that it hangs off. blocks in bytes. wwn: naa., eui. or uuid. form, as sysfs has it.
    sequence: the running kernel's number of this attachment (diskseq).
    """

    name: str
    size: int
    serial: str = ""
    wwn: str = ""
    vendor: str = ""
    model: str = ""
    transport: str = ""
    controller: str = ""
    logical_block: int = 512
    physical_block: int = 512
    rotational: bool = False
    removable: bool = False
    read_only: bool = False
    contents: Contents = Contents()
    sequence: int | None = None

    @property
    def identity(self) -> DiskIdentity:
        """Return by what the disk is known."""
        return DiskIdentity(self.serial, self.wwn, self.size, self.model, self.sequence)

    @property
    def token(self) -> str:
        """The token that lets all on it go, as it is now."""
        return erase_token(self.serial, self.wwn, self.contents.key, osd=self.contents.osd is not None)

    @property
    def path_key(self) -> tuple[object, ...]:
        """What two block devices that are paths to one disk both tell, a WWN too, and what they hold; () without."""
        if not (self.wwn and self.serial):
            return ()
        return (self.serial, self.wwn, self.size, self.model, self.contents)

    def __str__(self) -> str:
        """As people know it: sda INTEL SSDSC2BB48, 447.1 GiB, serial BTWL1."""
        return (f"{self.name} {self.model or 'unknown model'}, {self.size / (1 << 30):.1f} GiB, "
                f"{'serial ' + self.serial if self.serial else 'no serial'}")


@dataclass(frozen=True)
class PciDevice:
    """One PCI function. kind: class and subclass in hex, 0107; vendor and device in hex, 1000 and 0097.

    parent: the bridge above it, "" on a root bus. group: its IOMMU group. reset: the ways in which the kernel can reset
    it, as in reset_method, "" when none. direct: the firmware asks for memory of this group to be mapped one to one
    (RMRR, IVMD), None when the kernel doesn't tell.
    """

    address: str
    kind: str
    vendor: str
    device: str
    driver: str = ""
    group: int | None = None
    numa: int | None = None
    parent: str = ""
    reset: str = ""
    direct: bool | None = None

    @property
    def bridge(self) -> bool:
        """Whether it may stay with the host while another function of its IOMMU group is passed through.

        A group can be claimed while nothing in it has a driver that uses the kernel's DMA. The driver of PCI bridges
        declares that it doesn't (driver_managed_dma in the kernel's drivers/pci/pcie/portdrv.c); those of host and ISA
        bridges, such as lpc_ich, don't.
        """
        if self.kind == PCI_BRIDGE:
            return self.driver in ("", "pcieport")
        return self.kind in BRIDGE_CLASSES and not self.driver

    def __str__(self) -> str:
        return self.address + (f" [{self.vendor}:{self.device}]" if self.vendor else "")


@dataclass(frozen=True)
class Bmc:
    """The management controller behind /dev/ipmi0, and the LAN channel in use as ipmitool reads it.

    other_macs: those of its other LAN channels.
    """

    present: bool = False
    vendor: str = ""
    address: str = ""
    netmask: str = ""
    gateway: str = ""
    mac: str = ""
    other_macs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Clock:
    """Seconds since the epoch, read at one moment: the system's clock, and the hardware's taken as UTC."""

    system: Second
    rtc: Second | None = None


@dataclass(frozen=True)
class Facts:
    """One machine. memory: what Linux has to give, a little below what is built in.

    iommu_table: DMAR or IVRS, by which firmware offers an IOMMU, "" when it has neither, None when it isn't told.
    interrupt_remapping: whether the kernel has interrupts
    go through the IOMMU, None when it isn't told. boot_medium: name of the disk or drive that this
    environment was booted from. source: for recorded machines, where the figures are from.
    """

    dmi: Dmi
    firmware: Firmware
    cpu: Cpu
    memory: int
    clock: Clock
    nics: tuple[Nic, ...] = ()
    disks: tuple[Disk, ...] = ()
    pci: tuple[PciDevice, ...] = ()
    bmc: Bmc = Bmc()
    iommu_table: str | None = None
    boot_medium: str = ""
    source: str = ""
    interrupt_remapping: bool | None = None
    schema: int = SCHEMA_VERSION

    @property
    def iommu(self) -> bool:
        """Whether an IOMMU is at work: only then has a device a group."""
        return any(device.group is not None for device in self.pci)

    @property
    def iommu_told(self) -> bool:
        """Whether it is known that an IOMMU is at work, or that none is."""
        return self.iommu or self.iommu_table is not None

    def pci_device(self, address: str) -> PciDevice | None:
        """The function at an address; None when there is none, or the address is ""."""
        return next((device for device in self.pci if device.address == address), None)

    def iommu_group(self, number: int) -> tuple[PciDevice, ...]:
        """Its members, bridges included."""
        return tuple(device for device in self.pci if device.group == number)

    def disks_of(self, controller: str) -> tuple[Disk, ...]:
        """The disks that hang off a PCI function."""
        return tuple(disk for disk in self.disks if disk.controller == controller)

    def groups(self) -> tuple[tuple[Disk, ...], ...]:
        """Return the disks, each as all the block devices that are paths to it."""
        return self._groups

    @cached_property
    def _groups(self) -> tuple[tuple[Disk, ...], ...]:
        groups: dict[object, list[Disk]] = {}
        for number, disk in enumerate(self.disks):
            groups.setdefault(disk.path_key or number, []).append(disk)
        return tuple(map(tuple, groups.values()))

    @cached_property
    def _paths(self) -> dict[Disk, tuple[Disk, ...]]:
        # the first of two that are equal in all
        return {disk: group for group in reversed(self._groups) for disk in group}

    @cached_property
    def _of_serial(self) -> dict[str, list[Disk]]:
        found: dict[str, list[Disk]] = {}
        for disk in self.disks:
            found.setdefault(disk.serial, []).append(disk)
        return found

    def multipath(self) -> tuple[tuple[Disk, ...], ...]:
        """Return the disks that Linux sees more than once, each as all its paths."""
        return tuple(group for group in self.groups() if len(group) > 1)

    def paths(self, disk: Disk) -> tuple[Disk, ...]:
        """Return the block devices that are paths to a disk, itself among them."""
        return self._paths.get(disk, (disk,))

    def lookalikes(self, disk: Disk) -> tuple[Disk, ...]:
        """Return the other disks that have a disk's serial: whoever goes by that serial can take them for it."""
        others = list(self._of_serial.get(disk.serial, ())) if disk.serial else []
        for path in self.paths(disk):
            # one for one: a record may have two that are equal in all
            if path in others:
                others.remove(path)
        return tuple(others)

    def to_json(self) -> str:
        """The text of facts.json."""
        return json.dumps(FACTS.write(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "facts.json") -> Facts:
        """Parse facts.json; source names it in errors. CornerstoneError with the path of what is wrong."""
        return FACTS.read(text, source)

    @classmethod
    def load(cls, path: Path) -> Facts:
        """Read a file of facts."""
        try:
            return cls.from_json(read_bounded(path), str(path))
        except OSError as error:
            raise CornerstoneError(f"{path} can't be read: {error.strerror}", "name a file of facts") from error


def _know_both(record: dict[str, Any]) -> dict[str, Any]:
    """Take version 1 as it is: there virtualisation and the IOMMU's table are known to be there or not."""
    return record


FACTS = Format("facts.json", Facts, "Foundation: discover", "Foundation's rules and plan, recorded machines",
               SCHEMA_VERSION, key="schema", steps={1: _know_both},
               hint="make it with: python3 -m cornerstone.foundation.installer discover",
               newer="record the machine anew with this release")


def schema_text() -> str:
    """The JSON Schema of facts.json; docs/facts.schema.json holds it."""
    return json.dumps({**schema_of(Facts), "title": "Cornerstone facts of a machine"}, indent=1) + "\n"

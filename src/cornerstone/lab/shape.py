"""Machine shapes: what is inside a machine of the lab, as data files in shapes/, and the words that make QEMU build it.

Every controller and network card sits behind a root port of its own, so that it is alone in its IOMMU group, as it is
on a server; only disks of kind sata hang off the chipset.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, model_validator
from pydantic_core import PydanticCustomError

from cornerstone.lab.machine import quoted
from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.yaml_document import did_you_mean, load, validate
from cornerstone.model.profile.fields import MIB, Size

SHAPES = Path(__file__).parent / "shapes"
# The chipset has six SATA ports; the CD drive takes the first.
SATA_PORTS = range(1, 6)
# SMBIOS, SCSI and NVMe take longer ones, virtio-blk cuts after 20 without a word.
_SERIAL = r"^[A-Za-z0-9._-]{1,20}$"

_PCI = {"virtio-scsi": "virtio-scsi-pci", "megasas": "megasas-gen2", "virtio-blk": "virtio-blk-pci", "nvme": "nvme"}
_NIC = {"virtio": "virtio-net-pci", "e1000e": "e1000e"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DiskShape(_Part):
    """A disk. name: its image is NAME.qcow2 in the run's folder; serial, wwn, model: left out, the disk tells none.

    optical: it is a disc in a drive, which takes virtio-scsi or megasas.
    """

    name: str = Field(pattern=r"^[a-z0-9-]{1,20}$")
    size: Size
    serial: str = Field("", pattern=_SERIAL)
    wwn: str = Field("", pattern=r"^0x[0-9a-f]{16}$")
    model: str = Field("", pattern=r"^[A-Za-z0-9 ._-]{1,16}$")
    optical: StrictBool = False


class StorageController(_Part):
    """A storage controller with its disks. virtio-blk and nvme are disk and controller in one, so each has one disk."""

    kind: Literal["sata", "virtio-scsi", "megasas", "virtio-blk", "nvme"]
    disks: tuple[DiskShape, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> StorageController:
        one = self.kind in ("virtio-blk", "nvme")
        if one and len(self.disks) != 1:
            raise _wrong(f"a {self.kind} controller is one disk, not {len(self.disks)}", "give each disk its own")
        if self.kind == "sata" and len(self.disks) > len(SATA_PORTS):
            raise _wrong(f"the chipset has {len(SATA_PORTS)} SATA ports for disks", "take fewer disks, or another kind")
        for disk in self.disks:
            if self.kind in ("nvme", "sata") and not disk.serial:
                raise _wrong(f"the {self.kind} disk {disk.name} has no serial", "take virtio-scsi for that")
            if one and (disk.wwn or disk.model):
                raise _wrong(f"a {self.kind} disk tells neither wwn nor model", "take sata or virtio-scsi")
            if disk.optical and (one or self.kind == "sata"):
                raise _wrong(f"the {self.kind} disk {disk.name} is optical", "take virtio-scsi for that")
        return self


class Nic(_Part):
    """A network card. The first is on the network that the machine is given, each other on one of its own."""

    mac: str = Field(pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")
    model: Literal["virtio", "e1000e"] = "virtio"


class Identity(_Part):
    """What the machine says it is (SMBIOS); chassis: serial of the block, position: place in it; "" tells nothing."""

    serial: str = Field("", pattern=_SERIAL)
    chassis: str = Field("", pattern=_SERIAL)
    position: str = Field("", pattern=r"^[A-Z]$")
    product: str = Field("Cornerstone-Lab", pattern=r"^[A-Za-z0-9 ._-]{1,40}$")


class Shape(_Part):
    """A machine. memory in bytes; iommu: an emulated VT-d; bmc: an emulated BMC (bmc.py) at /dev/ipmi0."""

    description: str
    memory: Size
    cpus: Annotated[StrictInt, Field(ge=1, le=64)] = 2
    iommu: StrictBool = True
    bmc: StrictBool = False
    identity: Identity
    controllers: tuple[StorageController, ...] = ()
    nics: tuple[Nic, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> Shape:
        for what, found in (("disk name", [disk.name for disk in self.disks]),
                            ("MAC", [nic.mac for nic in self.nics])):
            if again := next((one for one in found if found.count(one) > 1), None):
                raise _wrong(f"the {what} {again} is there twice", "choose another one for each")
        if sum(controller.kind == "sata" for controller in self.controllers) > 1:
            raise _wrong("there are two sata controllers", "the chipset has one: list its disks together")
        return self

    def twin(self, number: int) -> Shape:
        """The machine that is number in a row of the same kind; 1 is this one. Serials, WWNs, MACs and place differ."""
        step = number - 1
        serial = re.sub(r"1$", str(number), self.identity.serial)

        def disk(one: DiskShape) -> DiskShape:
            wwn = f"0x{int(one.wwn, 16) + (step << 32):016x}" if one.wwn else ""
            return one.model_copy(update={"wwn": wwn, "serial": one.serial.replace(self.identity.serial, serial)})

        return self.model_copy(update={
            "identity": self.identity.model_copy(update={
                "serial": serial, "position": chr(ord(self.identity.position or "A") + step)}),
            "controllers": tuple(each.model_copy(update={"disks": tuple(map(disk, each.disks))})
                                 for each in self.controllers),
            "nics": tuple(nic.model_copy(update={"mac": f"{nic.mac[:-2]}{int(nic.mac[-2:], 16) + step:02x}"})
                          for nic in self.nics)})

    @property
    def disks(self) -> tuple[DiskShape, ...]:
        """All disks, controller by controller."""
        return tuple(disk for controller in self.controllers for disk in controller.disks)

    @property
    def memory_mib(self) -> int:
        return self.memory // MIB

    def words(self, images: Mapping[str, Path], network: str = "") -> tuple[str, ...]:
        """QEMU's words for all of it but memory, CPUs, IOMMU and BMC. images: disk name to its qcow2 image.

        network: the -netdev value of the first card (network.py), without an id; empty: it has one of its own, too.
        """
        ports = _RootPorts()
        words = self._identity()
        for number, controller in enumerate(self.controllers):
            words += self._controller(controller, f"hba{number}", images, ports)
        for number, nic in enumerate(self.nics):
            net = network if network and number == 0 else "user,restrict=on"
            words += ["-netdev", f"{net},id=net{number}", *ports.add(
                f"{_NIC[nic.model]},id=nic{number},netdev=net{number},mac={nic.mac}", self._virtio(nic.model))]
        return tuple(words)

    def _identity(self) -> list[str]:
        one = f"type=1,manufacturer=QEMU,product={self.identity.product}"
        words = ["-smbios", one + (f",serial={self.identity.serial}" if self.identity.serial else "")]
        if self.identity.position:
            words += ["-smbios", f"type=2,manufacturer=QEMU,location={self.identity.position}"]
        if self.identity.chassis:
            words += ["-smbios", f"type=3,manufacturer=QEMU,serial={self.identity.chassis}"]
        return words

    def _controller(self, controller: StorageController, name: str, images: Mapping[str, Path],
                    ports: _RootPorts) -> list[str]:
        words = [word for disk in controller.disks for word in drive(disk.name, images[disk.name])]
        virtio = self._virtio(controller.kind)
        if controller.kind == "sata":
            devices = [f"ide-hd,bus=ide.{port},{self._tells(disk, 'model')}"
                       for port, disk in zip(SATA_PORTS, controller.disks, strict=False)]
        elif controller.kind in ("virtio-blk", "nvme"):
            return [*words, *ports.add(f"{_PCI[controller.kind]},id={name},{self._tells(controller.disks[0])}", virtio)]
        else:
            words += ports.add(f"{_PCI[controller.kind]},id={name}", virtio)
            devices = [f"scsi-{'cd' if disk.optical else 'hd'},id={disk.name},bus={name}.0,scsi-id={number},"
                       f"{self._tells(disk, 'product')}"
                       for number, disk in enumerate(controller.disks)]
        return [*words, *(word for device in devices for word in ("-device", device))]

    def _tells(self, disk: DiskShape, model_key: str = "") -> str:
        """What a disk says of itself, and its place in the boot order, for -device."""
        # Firmware has all disks in its order, after the medium (0); those that aren't in it OVMF doesn't show to GRUB.
        parts = [f"drive={disk.name}", f"bootindex={self.disks.index(disk) + 1}",
                 f"serial={disk.serial}" * bool(disk.serial), f"wwn={disk.wwn}" * bool(disk.wwn),
                 f"{model_key}={disk.model}" * bool(disk.model)]
        return ",".join(filter(None, parts))

    def _virtio(self, kind: str) -> str:
        # Behind an IOMMU a virtio device has to go through it as a real one does, or it can't be passed through.
        if not kind.startswith("virtio"):
            return ""
        return ",disable-legacy=on" + (",iommu_platform=on" if self.iommu else "")


class _RootPorts:
    """Numbers the root ports of one machine."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, device: str, virtio: str) -> list[str]:
        """A root port and the device behind it."""
        self._count += 1
        port = f"rp{self._count}"
        return ["-device", f"pcie-root-port,id={port},bus=pcie.0,chassis={self._count},slot={self._count}",
                "-device", f"{device},bus={port}{virtio}"]


def drive(name: str, image: Path) -> list[str]:
    """The back end of a disk, a qcow2 image."""
    return ["-drive", f"if=none,id={name},format=qcow2,cache=writeback,discard=unmap,file={quoted(image)}"]


def load_shape(name_or_path: str) -> Shape:
    """A shape by its name in shapes/, or by the path of a YAML file. CornerstoneError with file and line."""
    path = Path(name_or_path) if name_or_path.endswith(".yaml") else SHAPES / f"{name_or_path}.yaml"
    if not path.is_file():
        raise CornerstoneError(f"there is no machine shape {name_or_path!r}",
                               did_you_mean(name_or_path, shape_names(), "shapes"))
    return validate(Shape, load(path, path.name))


def shape_names() -> list[str]:
    """The shapes in shapes/."""
    return sorted(path.stem for path in SHAPES.glob("*.yaml"))


def _wrong(problem: str, hint: str) -> PydanticCustomError:
    return PydanticCustomError("shape", "{problem}", {"problem": problem, "hint": hint})

"""The description of a QEMU machine and the command line that it turns into. Pure: nothing is started here."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cornerstone.lab.accel import Accel
from cornerstone.lib.error import Code, CornerstoneError

FIRMWARES = ("bios", "uefi", "secureboot")
MEDIA = ("cd", "usb", "disk")
# the medium of a machine without an image, whose network card has a boot ROM
NETWORK = "network"
DISK_BUSES = ("virtio", "scsi", "nvme")
# a setting: another QEMU than the computer's own
QEMU_SETTING = "CORNERSTONE_QEMU"
EVENTS_PORT = "org.cornerstone.events"
SOCKETS = ("events", "qmp")
OVMF_DIR = Path("/usr/share/OVMF")
# The second serial port, as SeaBIOS reads it from its configuration.
SERCON_PORT = (0x2F8).to_bytes(2, "little")

# Code and the template of its variables. The secureboot pair has Microsoft's keys enrolled: what a PC is sold with.
_OVMF = {"uefi": ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
         "secureboot": ("OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd")}


def qemu() -> str:
    """The program that runs machines."""
    return os.environ.get(QEMU_SETTING) or "qemu-system-x86_64"


@dataclass(frozen=True)
class Disk:
    """A disk of the machine: an image file, the serial number that the guest sees, and the bus that it sits on."""

    path: Path
    serial: str
    bus: str = "virtio"
    format: str = "raw"
    bootindex: int | None = None
    # Writes go to an unlinked temporary overlay, so that the image stays as it was.
    snapshot: bool = False

    def __post_init__(self) -> None:
        if self.bus not in DISK_BUSES:
            raise CornerstoneError(f"disk bus {self.bus!r} is unknown", f"use one of {', '.join(DISK_BUSES)}")


@dataclass(frozen=True)
class Paths:
    """Where one run of a machine keeps its files: pipes, sockets and firmware variables in run, logs in logs."""

    run: Path
    logs: Path

    @property
    def firmware_vars(self) -> Path:
        """This run's own copy of the UEFI variables."""
        return self.run / "vars.fd"

    @property
    def sercon_port(self) -> Path:
        """Tells SeaBIOS on which port to repeat its screen; holds SERCON_PORT."""
        return self.run / "sercon-port"

    def pipe(self, port: str) -> Path:
        """QEMU appends .in and .out; from .out the port's words are read."""
        return self.run / port

    def socket(self, name: str) -> Path:
        return self.run / f"{name}.sock"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"


@dataclass(frozen=True)
class Machine:
    """A machine to be run. Memory in MiB. No network unless extra, more words for QEMU's command line, adds one.

    clock: of its own, when it starts; None is this computer's. unplugged: ids of network devices whose cable is out
    from the start. serial: whether it has serial ports at all; many small machines have none.

    image with media "cd" or "usb" is attached read-only; with "disk" its writes are thrown away. With "network" there
    is none, and extra has the card that the machine starts by.
    """

    accel: Accel
    firmware: str = "bios"
    memory_mib: int = 4096
    cpus: int = 2
    image: Path | None = None
    media: str = "cd"
    disks: tuple[Disk, ...] = field(default=())
    iommu: bool = False
    # A guest's reboot ends the run, unless the run is one that must survive it (installing, upgrading).
    reboots: bool = False
    extra: tuple[str, ...] = ()
    unplugged: tuple[str, ...] = ()
    clock: datetime | None = None
    serial: bool = True
    binary: str = field(default_factory=qemu)
    ovmf_dir: Path = OVMF_DIR

    def __post_init__(self) -> None:
        if self.firmware not in FIRMWARES:
            raise CornerstoneError(f"firmware {self.firmware!r} is unknown", f"use one of {', '.join(FIRMWARES)}")
        if self.media not in (*MEDIA, NETWORK):
            raise CornerstoneError(f"media {self.media!r} is unknown", f"use one of {', '.join(MEDIA)}")
        if self.media == NETWORK and self.image is not None:
            raise CornerstoneError(f"{self.image} can't be the medium of a machine that starts over the network",
                                   "give it no image")
        if self.memory_mib < 256 or self.cpus < 1:
            raise CornerstoneError(f"a machine with {self.memory_mib} MiB and {self.cpus} CPUs can't boot",
                                   "give it at least 256 MiB and one CPU")

    @property
    def ports(self) -> tuple[str, ...]:
        """The serial ports in their order: the console, and for bios its screen as text."""
        if not self.serial:
            return ()
        return ("console", "screen") if self.firmware == "bios" else ("console",)

    def firmware_files(self) -> tuple[Path, Path] | None:
        """The UEFI code and the template of its variables; None for bios. CornerstoneError if not installed."""
        if self.firmware == "bios":
            return None
        code, variables = (self.ovmf_dir / name for name in _OVMF[self.firmware])
        for path in (code, variables):
            if not path.is_file():
                raise CornerstoneError(f"the UEFI firmware {path} isn't installed",
                                       "install the Debian package ovmf", Code.MACHINE)
        return code, variables

    def argv(self, paths: Paths) -> list[str]:
        """The whole command line. The caller has made the pipes of all ports and listens on the SOCKETS, and QEMU
        connects to them, qmp last: so nothing has to be polled for, and no early byte is lost.

        The serial ports are pipes because QEMU writes them byte by byte: a unix socket is full after some 270 of
        those, and QEMU's second try then sends a byte twice.
        """
        return [
            self.binary, "-name", "cornerstone-lab", "-nodefaults", "-no-user-config", "-display", "none",
            *self._core(), *self._firmware(paths), *self._devices(paths), *self._medium(),
            *(word for number, disk in enumerate(self.disks) for word in _disk(disk, number)),
            *([] if self.reboots else ["-no-reboot"]),
            *self.extra,
        ]

    def _core(self) -> list[str]:
        machine = ["q35", "kernel-irqchip=split"]
        if self.accel.name == "kvm":
            accel, cpu = ["-accel", "kvm"], "host"
        else:
            # An AMD model, because TCG emulates SVM (and not VMX): the guest gets a working /dev/kvm. Without erms and
            # fsrm, by which a kernel copies and clears byte by byte, for these are slow to emulate.
            accel, cpu = ["-accel", "tcg,thread=multi"], "EPYC-Rome-v2,+svm,+npt,-erms,-fsrm"
        if self.firmware == "secureboot":
            machine.append("smm=on")
        iommu = ["-device", "intel-iommu,intremap=on,caching-mode=on"] if self.iommu else []
        base = "utc" if self.clock is None else f"{self.clock.astimezone(UTC):%Y-%m-%dT%H:%M:%S}"
        return [*accel, "-machine", ",".join(machine), "-cpu", cpu, "-smp", str(self.cpus),
                "-m", str(self.memory_mib), "-rtc", f"base={base}", *iommu]

    def _firmware(self, paths: Paths) -> list[str]:
        files = self.firmware_files()
        if files is None and not self.serial:
            return []
        if files is None:
            # A BIOS speaks to the screen only, and so does GRUB until its configuration is read: have it repeated.
            return ["-fw_cfg", f"name=etc/sercon-port,file={quoted(paths.sercon_port)}"]
        words = ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={quoted(files[0])}",
                 "-drive", f"if=pflash,unit=1,format=raw,file={quoted(paths.firmware_vars)}"]
        if self.firmware == "secureboot":
            # Only code in SMM may write the variables; without this the guest could enrol its own keys.
            words += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
        return words

    def _devices(self, paths: Paths) -> list[str]:
        """A screen (so that tty1 exists), randomness, the console, the BIOS's screen as text, events and QMP."""
        words = ["-device", "VGA", "-object", "rng-builtin,id=rng0", "-device", "virtio-rng-pci,rng=rng0",
                 "-device", "virtio-serial-pci,id=vser0"]
        for port in self.ports:
            words += ["-chardev", f"pipe,id={port},path={quoted(paths.pipe(port))},{_log(paths, port)}",
                      "-serial", f"chardev:{port}"]
        if not self.serial:
            words += ["-serial", "none"]
        for name in SOCKETS:
            log = f",{_log(paths, name)}" if name == "events" else ""
            words += ["-chardev", f"socket,id={name},path={quoted(paths.socket(name))}{log}"]
        words += ["-device", f"virtserialport,bus=vser0.0,chardev=events,name={EVENTS_PORT}",
                  "-mon", "chardev=qmp,mode=control"]
        return words

    def _medium(self) -> list[str]:
        if self.image is None:
            return []
        if self.media == "disk":
            form = "qcow2" if self.image.suffix == ".qcow2" else "raw"
            return _disk(Disk(self.image, "CSLABBOOT", format=form, bootindex=0, snapshot=True), "medium")
        drive = ["-drive", f"if=none,id=medium,format=raw,readonly=on,file={quoted(self.image)}"]
        if self.media == "cd":
            return [*drive, "-device", "ide-cd,bus=ide.0,drive=medium,bootindex=0"]
        return [*drive, "-device", "qemu-xhci,id=xhci",
                "-device", "usb-storage,bus=xhci.0,drive=medium,removable=on,serial=CSLABUSB,bootindex=0"]


def _disk(disk: Disk, name: int | str) -> list[str]:
    drive = f"disk{name}" if isinstance(name, int) else name
    words = ["-drive", f"if=none,id={drive},format={disk.format},cache=writeback,discard=unmap,"
                       f"{'snapshot=on,' if disk.snapshot else ''}file={quoted(disk.path)}"]
    boot = "" if disk.bootindex is None else f",bootindex={disk.bootindex}"
    if disk.bus == "scsi":
        return [*words, "-device", f"virtio-scsi-pci,id={drive}-bus",
                "-device", f"scsi-hd,bus={drive}-bus.0,drive={drive},serial={disk.serial}{boot}"]
    device = {"virtio": "virtio-blk-pci", "nvme": "nvme"}[disk.bus]
    return [*words, "-device", f"{device},drive={drive},serial={disk.serial}{boot}"]


def _log(paths: Paths, name: str) -> str:
    return f"logfile={quoted(paths.log(name))},logappend=off"


def quoted(path: Path) -> str:
    """A path as a value of QEMU's options, which it splits at commas; a doubled comma is a plain one."""
    return str(path).replace(",", ",,")

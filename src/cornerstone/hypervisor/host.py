"""What the domain of the Controller VM has to know of this host: NUMA nodes, disks by serial, files with secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cornerstone.model.data_path import INITIATOR_FILE
from cornerstone.model.disk_identity import disk_serial
from cornerstone.model.error import Code, CornerstoneError
from cornerstone.model.node import SECRET_FILE, NodeConfig

STATE = Path("/var/lib/cornerstone")


@dataclass(frozen=True)
class NumaNode:
    """cpus: its threads as a kernel list, 0-9,20-29; threads: how many these are; cores: physical ones."""

    id: int
    cpus: str
    threads: int
    cores: int


@dataclass(frozen=True)
class BlockDevice:
    """A disk that the CVM gets singly: path is its lasting one below /dev/disk/by-id; scsi: it takes SCSI commands."""

    path: str
    scsi: bool


@dataclass(frozen=True)
class Host:
    """numa: its nodes; nearest: the one that most of the passed controllers hang off, None when none tells.

    disks: by serial, for all that node.json gives singly. secret, initiator: paths of the bootstrap secret and of the
    identity as an iSCSI initiator, "" without one.
    """

    numa: tuple[NumaNode, ...]
    nearest: NumaNode | None = None
    disks: Mapping[str, BlockDevice] = field(default_factory=dict)
    secret: str = ""
    initiator: str = ""


def read_host(config: NodeConfig, state: Path = STATE, root: Path = Path("/")) -> Host:
    """Look at the host below root (another folder in tests). CornerstoneError when a disk of node.json is missing."""
    nodes = tuple(_numa_nodes(root / "sys/devices/system"))
    homes = [_read(root / "sys/bus/pci/devices" / address / "numa_node") for address in config.controller.passthrough]
    homes = [home for home in homes if home not in ("", "-1")]
    nearest = max(sorted(set(homes)), key=homes.count, default=None)
    present = dict(_disks(root))
    if missing := [serial for serial in config.controller.scsi if serial not in present]:
        raise CornerstoneError(f"no disk has the serial {', '.join(missing)}, of node.json's controller.scsi; there "
                               f"are {', '.join(sorted(present)) or 'none'}", "put the disk back in", Code.MACHINE)
    secret, initiator = (state / Path(name).name for name in (SECRET_FILE, INITIATOR_FILE))
    return Host(nodes, next((node for node in nodes if str(node.id) == nearest), None),
                {serial: present[serial] for serial in config.controller.scsi},
                *(str(path) if path.exists() else "" for path in (secret, initiator)))


def _numa_nodes(system: Path) -> Iterator[NumaNode]:
    for folder in sorted((system / "node").glob("node[0-9]*"), key=lambda path: int(path.name[4:])):
        cpus = _read(folder / "cpulist")
        threads = _numbers(cpus)
        # a memory node without CPUs is none for us
        if threads:
            # hyperthreads of one core have the same list of siblings
            cores = {_read(system / f"cpu/cpu{number}/topology/thread_siblings_list") or str(number)
                     for number in threads}
            yield NumaNode(int(folder.name[4:]), cpus, len(threads), len(cores))


def _numbers(text: str) -> list[int]:
    """A kernel list: 0-2,8 → 0, 1, 2, 8."""
    ranges = (part.partition("-") for part in text.split(",") if part)
    return [number for first, _, last in ranges for number in range(int(first), int(last or first) + 1)]


def _disks(root: Path) -> Iterator[tuple[str, BlockDevice]]:
    """Every disk with a serial and a name that lasts; of several such names the one by WWN first."""
    names: dict[str, list[str]] = {}
    for link in sorted((root / "dev/disk/by-id").glob("*"), key=lambda path: (not path.name.startswith("wwn-"), path)):
        if not re.search(r"-part\d+$", link.name):
            names.setdefault(link.readlink().name, []).append(f"/dev/disk/by-id/{link.name}")
    for device in sorted((root / "sys/block").glob("*")):
        serial = disk_serial(device)
        if serial and device.name in names:
            scsi = (device / "device/subsystem").resolve().name == "scsi"
            yield serial, BlockDevice(names[device.name][0], scsi)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

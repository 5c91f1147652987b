"""What the domain of the Controller VM has to know of this host: NUMA nodes, disks by serial, files with secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.sysfs import read_text
from cornerstone.model.contracts.iscsi import INITIATOR_FILE
from cornerstone.model.contracts.node import SECRET_FILE, NodeConfig
from cornerstone.model.contracts.places import STATE
from cornerstone.model.disk.identity import DiskIdentity, fingerprint, read_identity


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
    """Look at the host below root (another folder in tests).

    Raises CornerstoneError (MACHINE) when a disk that node.json gives to the CVM singly is missing, is another one, or
    can be taken for another.
    """
    nodes = tuple(_numa_nodes(root / "sys/devices/system"))
    homes = [read_text(root / "sys/bus/pci/devices" / address / "numa_node") for address in config.cvm.passthrough]
    homes = [home for home in homes if home not in ("", "-1")]
    nearest = max(sorted(set(homes)), key=homes.count, default=None)
    secret, initiator = (state / Path(name).name for name in (SECRET_FILE, INITIATOR_FILE))
    return Host(nodes, next((node for node in nodes if str(node.id) == nearest), None),
                _single_disks(config, root),
                *(str(path) if path.exists() else "" for path in (secret, initiator)))


def _numa_nodes(system: Path) -> Iterator[NumaNode]:
    for folder in sorted((system / "node").glob("node[0-9]*"), key=lambda path: int(path.name[4:])):
        cpus = read_text(folder / "cpulist")
        threads = _numbers(cpus)
        # a memory node without CPUs is none for us
        if threads:
            # hyperthreads of one core have the same list of siblings
            cores = {read_text(system / f"cpu/cpu{number}/topology/thread_siblings_list") or str(number)
                     for number in threads}
            yield NumaNode(int(folder.name[4:]), cpus, len(threads), len(cores))


def _numbers(text: str) -> list[int]:
    """A kernel list: 0-2,8 → 0, 1, 2, 8."""
    ranges = (part.partition("-") for part in text.split(",") if part)
    return [number for first, _, last in ranges for number in range(int(first), int(last or first) + 1)]


@dataclass(frozen=True)
class _Found:
    """A disk of this host, or one path to it. links: names below /dev/disk/by-id that lead to it."""

    name: str
    identity: DiskIdentity
    links: tuple[str, ...]
    scsi: bool


def _single_disks(config: NodeConfig, root: Path) -> dict[str, BlockDevice]:
    wanted = dict.fromkeys(config.cvm.scsi)
    if not wanted:
        return {}
    present = tuple(_disks(root))
    serials = {disk.identity.serial for disk in present}
    if missing := [serial for serial in wanted if serial not in serials]:
        raise CornerstoneError(f"no disk has the serial {', '.join(missing)}, of node.json's cvm.scsi; there "
                               f"are {', '.join(sorted(serials)) or 'none'}", "put the disk back in", Code.MACHINE)
    return {serial: _single_disk(serial, config, present, root) for serial in wanted}


def _single_disk(serial: str, config: NodeConfig, present: Sequence[_Found], root: Path) -> BlockDevice:
    """Return the one disk of a serial, by a name that leads to no other.

    Raises CornerstoneError (MACHINE) when there are several, or it isn't the one that node.json means.
    """
    found = [disk for disk in present if disk.identity.serial == serial]
    names = ", ".join(f"{disk.name} ({disk.identity.wwn or 'no WWN'})" for disk in found)
    planned = [entry.identity for entry in config.cvm.disks if entry.serial == serial]
    if len(planned) > 1 or not _one_disk(found, root):
        raise CornerstoneError(f"disks that can't be told apart have the serial {serial}, of node.json's "
                               f"cvm.scsi: {names}", "take out those that aren't meant", Code.MACHINE)
    for identity in planned:
        if difference := identity.difference(found[0].identity):
            raise CornerstoneError(f"{names} isn't the disk of serial {serial} that node.json means: {difference}",
                                   "put back the disk that was imaged with this node, or image the node again",
                                   Code.MACHINE)
    wwn = found[0].identity.wwn
    shared = wwn and any(disk.identity.wwn == wwn for disk in present if disk not in found)
    # of disks that share a WWN, udev gives the names made of it to one of them
    own = [link for disk in found for link in disk.links if not shared or _readable(serial) in link]
    if not own:
        raise CornerstoneError(f"{names} has no name below /dev/disk/by-id that is its own",
                               f"take out the other disks with the WWN {wwn}" if shared else "see udevadm info",
                               Code.MACHINE)
    return BlockDevice(f"/dev/disk/by-id/{own[0]}", found[0].scsi)


def _one_disk(found: Sequence[_Found], root: Path) -> bool:
    """Return whether devices of one serial are one disk: a single one, or paths that say the same and hold the same."""
    first, *others = found
    if not others:
        return True
    if not first.identity.wwn or any(first.identity.difference(replace(other.identity, sequence=None))
                                     for other in others):
        return False
    try:
        return len({_contents(root / "dev" / disk.name, disk.identity.size) for disk in found}) == 1
    except OSError:
        return False


def _contents(device: Path, size: int) -> str:
    with device.open("rb", buffering=0) as disk:
        return fingerprint(lambda offset, count: os.pread(disk.fileno(), count, offset), size)


def _readable(serial: str) -> str:
    # udev's names have _ for blanks (util_replace_whitespace)
    return "_".join(serial.split())


def _disks(root: Path) -> Iterator[_Found]:
    """Yield every disk with a serial and a name that lasts; of several such names the one by WWN comes first."""
    names: dict[str, list[str]] = {}
    for link in sorted((root / "dev/disk/by-id").glob("*"), key=lambda path: (not path.name.startswith("wwn-"), path)):
        if not re.search(r"-part\d+$", link.name):
            names.setdefault(link.readlink().name, []).append(link.name)
    for device in sorted((root / "sys/block").glob("*")):
        identity = read_identity(device)
        # a path without a name may still be somebody's
        if identity.serial and (device.name in names or (device / "device").exists()):
            scsi = (device / "device/subsystem").resolve().name == "scsi"
            yield _Found(device.name, identity, tuple(names.get(device.name, ())), scsi)

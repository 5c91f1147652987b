"""What is on the disks: signatures by wipefs (libblkid, looking for all of them), partitions as the kernel has them.

Disks and partitions are only read.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from cornerstone.foundation.discover.disks import SECTOR
from cornerstone.foundation.discover.sysfs import children, number, read
from cornerstone.model.disk_identity import EDGE, fingerprint
from cornerstone.model.facts import Contents, Disk, Installed, Partition, Signature
from cornerstone.model.gpt import disk_guid
from cornerstone.model.node import NODE_FILE
from cornerstone.model.slot_disk import disk_identity

AT_A_TIME = 8
# Names of two partitions of a disk that was imaged (model/slot_disk.py).
SLOT_NAME, STATE_NAME = "root-a", "state"


def probe(disks: Sequence[Disk], root: Path) -> tuple[Disk, ...]:
    """The disks with their contents filled in; several at a time, because hard disks take their time."""
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        contents = pool.map(lambda disk: _contents(root, disk), disks)
        return tuple(replace(disk, contents=found) for disk, found in zip(disks, contents, strict=True))


def signatures(devices: Sequence[Path]) -> dict[str, tuple[Signature, ...]] | None:
    """What libblkid finds on each device (or image file), by its name; None when one of them can't be read."""
    done = subprocess.run(["wipefs", "--no-act", "--json", *devices], capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    found: dict[str, dict[Signature, None]] = {device.name: {} for device in devices}
    for entry in (json.loads(done.stdout) if done.stdout.strip() else {}).get("signatures", ()):
        # a table and its copy at the end are one
        found[Path(entry["device"]).name][Signature(entry["type"] or "data", entry["label"] or "",
                                                    entry["uuid"] or "")] = None
    return {name: tuple(every) for name, every in found.items()}


def installed(state: Path) -> Installed | None:
    """The node whose state partition this is; None when it has no node.json, or none that can be read."""
    done = subprocess.run(["debugfs", "-R", f"cat /{NODE_FILE}", state], capture_output=True, text=True, check=False)
    try:
        node = json.loads(done.stdout)
        return Installed(str(node["hypervisor"]["hostname"]), str(node.get("serial", "")),
                         str(node.get("identity", "")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _contents(root: Path, disk: Disk) -> Contents:
    partitions = _partitions(root, disk.name)
    found = signatures([root / "dev" / name for name in (disk.name, *partitions)])
    try:
        with (root / "dev" / disk.name).open("rb") as device:
            blank = not any(device.read(EDGE))
            held = fingerprint(lambda offset, count: os.pread(device.fileno(), count, offset), disk.size)
            unfinished = _guid(device, disk.size) == disk_identity(disk.serial, finished=False)
    except OSError:
        found = None
    if found is None:
        return Contents(readable=False, partitions=tuple(partitions.values()))
    whole = {name: replace(partition, signatures=found[name]) for name, partition in partitions.items()}
    return Contents(True, found[disk.name] if found[disk.name] or blank else (Signature("data"),),
                    tuple(whole.values()), _node(root, whole), unfinished, held)


def _guid(device: BinaryIO, size: int) -> str:
    """The GUID of a disk's partition table, or ""."""
    def bytes_at(offset: int, count: int) -> bytes:
        device.seek(offset)
        return device.read(count)
    return str(disk_guid(bytes_at, size) or "")


def _node(root: Path, partitions: dict[str, Partition]) -> Installed | None:
    named = {partition.name: name for name, partition in partitions.items()}
    return installed(root / "dev" / named[STATE_NAME]) if {SLOT_NAME, STATE_NAME} <= named.keys() else None


def _partitions(root: Path, disk: str) -> dict[str, Partition]:
    found = {path.name: _partition(root, path, count) for path in children(root / "sys/block" / disk)
             if (count := number(path / "partition")) is not None}
    return dict(sorted(found.items(), key=lambda item: item[1].number))


def _partition(root: Path, path: Path, count: int) -> Partition:
    # udev has read the partition table already
    entry = dict(line[2:].partition("=")[::2] for line in
                 read(root / "run/udev/data" / f"b{read(path / 'dev')}").splitlines() if line.startswith("E:"))

    def told(key: str) -> str:
        return re.sub(r"\\x([0-9a-f]{2})", lambda code: chr(int(code[1], 16)), entry.get(f"ID_PART_ENTRY_{key}", ""))
    return Partition(count, (number(path / "size") or 0) * SECTOR, told("NAME"), told("TYPE"), told("UUID"))

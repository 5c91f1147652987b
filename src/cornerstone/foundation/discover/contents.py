"""What is on the disks: signatures by wipefs (libblkid, which looks for all of them), partitions as the kernel has them.

Disks and partitions are only read.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from cornerstone.foundation.discover.disks import SECTOR
from cornerstone.foundation.discover.sysfs import children, number, read
from cornerstone.model.facts import Contents, Disk, Installed, Partition, Signature

# Tables begin and most formats tell themselves within this much.
HEAD = 1 << 20
# Partition names of a disk that was imaged, and where its state partition keeps node.json (/var lies over the root).
SLOT_NAME, STATE_NAME = "root-a", "state"
NODE_FILE = "/var/upper/lib/cornerstone/node.json"


def probe(disks: Sequence[Disk], root: Path) -> tuple[Disk, ...]:
    """The disks with their contents filled in."""
    partitions = {disk.name: _partitions(root, disk.name) for disk in disks}
    names = [name for disk in disks for name in (disk.name, *partitions[disk.name])]
    found = signatures([root / "dev" / name for name in names])
    return tuple(replace(disk, contents=_contents(root, disk, partitions[disk.name], found)) for disk in disks)


def signatures(devices: Iterable[Path]) -> dict[str, tuple[Signature, ...]]:
    """What libblkid finds on each device (or image file), by its name; a device without any isn't there."""
    done = subprocess.run(["wipefs", "--no-act", "--json", *devices], capture_output=True, text=True, check=False)
    found: dict[str, dict[Signature, None]] = {}
    for entry in (json.loads(done.stdout) if done.stdout.strip() else {}).get("signatures", ()):
        # a table and its copy at the end are one
        found.setdefault(Path(entry["device"]).name, {})[Signature(
            entry.get("type") or "data", entry.get("label") or "", entry.get("uuid") or "")] = None
    return {name: tuple(every) for name, every in found.items()}


def installed(state: Path) -> Installed | None:
    """The node whose state partition this is; None when it has no node.json, or none that can be read."""
    done = subprocess.run(["debugfs", "-R", f"cat {NODE_FILE}", state], capture_output=True, text=True, check=False)
    try:
        node = json.loads(done.stdout)
        return Installed(str(node["hypervisor"]["hostname"]), str(node.get("serial", "")),
                         str(node.get("identity", "")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _contents(root: Path, disk: Disk, partitions: dict[str, Partition],
              found: dict[str, tuple[Signature, ...]]) -> Contents:
    try:
        with (root / "dev" / disk.name).open("rb") as device:
            blank = not any(device.read(HEAD))
    except OSError:
        return Contents(readable=False, partitions=tuple(partitions.values()))
    named = found.get(disk.name, ())
    whole = tuple(replace(partition, signatures=found.get(name, ())) for name, partition in partitions.items())
    state = next((name for name, partition in partitions.items() if partition.name == STATE_NAME), None)
    ours = state is not None and any(partition.name == SLOT_NAME for partition in whole)
    return Contents(True, named if named or blank else (Signature("data"),), whole,
                    installed(root / "dev" / state) if state and ours else None)


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

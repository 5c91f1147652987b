"""What is on the disks: signatures by wipefs (libblkid, looking for all of them), partitions as the kernel has them.

Disks and partitions are only read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from cornerstone.foundation.installer.discover.disks import SECTOR
from cornerstone.lib import command
from cornerstone.lib.json_text import MOST, parse_once
from cornerstone.lib.printable import escaped
from cornerstone.lib.sysfs import children, number, read, read_bytes
from cornerstone.model.contracts.facts import OSD_SIGNATURE, Contents, Disk, Installed, Partition, Signature
from cornerstone.model.contracts.node import NODE_FILE
from cornerstone.model.disk.identity import EDGE, fingerprint, read_ceph
from cornerstone.model.disk.slot_disk import is_unfinished

AT_A_TIME = 8
# Names of two partitions of a disk that was imaged (model/disk/slot_disk.py).
SLOT_NAME, STATE_NAME = "root-a", "state"


def probe(disks: Sequence[Disk], root: Path) -> tuple[Disk, ...]:
    """The disks with their contents filled in; several at a time, because hard disks take their time."""
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        contents = pool.map(lambda disk: _contents(root, disk), disks)
        return tuple(replace(disk, contents=found) for disk, found in zip(disks, contents, strict=True))


def signatures(devices: Sequence[Path]) -> dict[str, tuple[Signature, ...]] | None:
    """Return what libblkid finds on each device (or image file), by its name; None when one of them can't be read."""
    done = command.run(["wipefs", "--no-act", "--json", *devices])
    if done.code:
        return None
    found: dict[str, dict[Signature, None]] = {device.name: {} for device in devices}
    try:
        # labels are whatever bytes somebody wrote
        said = parse_once(done.text, controls=True) if done.text.strip() else {}
        for entry in said.get("signatures", ()):
            # a table and its copy at the end are one
            one = Signature(*(escaped(entry[key] or default) for key, default in (
                ("type", "data"), ("label", ""), ("uuid", ""))))
            found[Path(entry["device"]).name][one] = None
    except (ValueError, KeyError, TypeError, AttributeError):
        # what wipefs says of it can't be understood, so it isn't known
        return None
    return {name: tuple(every) for name, every in found.items()}


def installed(state: Path) -> Installed | None:
    """Return the node whose state partition this is; None when it has no node.json, or none that can be read."""
    try:
        node = parse_once(command.run(["debugfs", "-R", f"cat /{NODE_FILE}", state], most=MOST + 1).out)
        return Installed(*(escaped(str(text)) for text in (node["hypervisor"]["hostname"], node.get("serial", ""),
                                                         node.get("identity", ""))))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _contents(root: Path, disk: Disk) -> Contents:
    partitions = _partitions(root, disk.name)
    found = signatures([root / "dev" / name for name in (disk.name, *partitions)])
    try:
        with (root / "dev" / disk.name).open("rb", buffering=0) as device:
            def read(offset: int, count: int) -> bytes:
                return os.pread(device.fileno(), count, offset)
            size = device.seek(0, os.SEEK_END)
            held, ceph = fingerprint(read, size), read_ceph(read(0, EDGE))
            unfinished = is_unfinished(read, size, disk.serial)
    except OSError:
        found = None
    if found is None:
        return Contents(readable=False, partitions=tuple(partitions.values()))
    whole = {name: replace(partition, signatures=found[name]) for name, partition in partitions.items()}
    own = found[disk.name]
    if ceph is not None:
        own = (*(each for each in own if each.type != OSD_SIGNATURE), Signature(OSD_SIGNATURE, ceph[1], ceph[0]))
    return Contents(True, own if own or not held else (Signature("data"),), tuple(whole.values()), _node(root, whole),
                    unfinished, held)


def _node(root: Path, partitions: dict[str, Partition]) -> Installed | None:
    named = {partition.name: name for name, partition in partitions.items()}
    return installed(root / "dev" / named[STATE_NAME]) if {SLOT_NAME, STATE_NAME} <= named.keys() else None


def _partitions(root: Path, disk: str) -> dict[str, Partition]:
    found = {path.name: _partition(root, path, count) for path in children(root / "sys/block" / disk)
             if (count := number(path / "partition")) is not None}
    return dict(sorted(found.items(), key=lambda item: item[1].number))


def _partition(root: Path, path: Path, count: int) -> Partition:
    # udev has read the partition table already
    lines = read_bytes(root / "run/udev/data" / f"b{read(path / 'dev')}").split(b"\n")
    entry = dict(line[2:].partition(b"=")[::2] for line in lines if line.startswith(b"E:"))

    def told(key: bytes) -> str:
        # udev writes bytes that it finds strange as \x20
        return escaped(re.sub(rb"\\x([0-9a-f]{2})", lambda code: bytes.fromhex(code[1].decode()),
                              entry.get(b"ID_PART_ENTRY_" + key, b"")).decode("utf-8", "replace"))
    return Partition(count, (number(path / "size") or 0) * SECTOR, told(b"NAME"), told(b"TYPE"), told(b"UUID"))

"""The engine floor: an older Ceph is never started on what a newer one has opened, for that destroys the store.

RocksDB writes what its older releases can't read ("unknown checksum type", seen between 16.2 and 18.2), and even a
newer release's tools for reading write. So what opens a store says so before: in the CVM's state for its monitor, and
in each data disk's label, which is outside the store and goes with the disk. Releases of one series, 18.2.1 and 18.2.7,
count as equal: Ceph's own orchestrator goes back within a series, and never to an older one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cornerstone.cvm import disks
from cornerstone.cvm.ceph import files
from cornerstone.cvm.ceph.tool import run
from cornerstone.cvm.disks import Disk
from cornerstone.cvm.membership.kept import STATE, write
from cornerstone.cvm.waiting import Waiting
from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.json_text import read_bounded
from cornerstone.lib.serde import Format
from cornerstone.model.disk.identity import OPENED_BY

FILE = "engine.json"
MONITORS = files.HOME / "mon"
DEVICES = Path("/dev/cornerstone")


@dataclass(frozen=True)
class Opened:
    """ceph: the version that has opened this CVM's monitor and OSDs last, as 18.2.7."""

    ceph: str


OPENED = Format(FILE, Opened, "genesis, before it starts Ceph", "genesis",
                hint="restore it; which Ceph has opened a disk is in its label: ceph-bluestore-tool show-label",
                newer="start the CVM of the release that wrote it, or a newer one")


@cache
def installed() -> str:
    """Return the version of Ceph that this CVM has, as 18.2.7. Raises CornerstoneError when it doesn't say one."""
    # ceph version 18.2.7 (<hash>) reef (stable)
    said = run("ceph-osd", "--version")
    found = re.search(r"\b(\d+\.\d+\.\d+)", said)
    if not found:
        raise CornerstoneError(f"ceph-osd says no version: {said.strip()[:200]!r}", "see: ceph-osd --version")
    return found[1]


def series(text: str) -> tuple[int, int]:
    """Return the series of a version, as (18, 2), however it is written; (0, 0) where there is none.

    A release alone, as 18, is (18, 0).
    """
    found = re.search(r"(?<![\w.])(\d{1,4})(?:\.(\d{1,4}))?(?!\d)", text)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


def require(found: Iterable[Disk], version: str, folder: Path = STATE, monitors: Path = MONITORS) -> None:
    """Raise Waiting when a newer Ceph than version has opened one of these OSDs, or what this CVM has of the engine."""
    opened = [(series(text), f"data disk {disk}") for disk in found for text in disk.opened_by]
    opened += [(series(path.read_text(errors="replace")), "this CVM's monitor")
               for path in monitors.glob("*/min_mon_release")]
    if kept := load(folder):
        opened.append((series(kept.ceph), "this CVM"))
    newest, what = max(opened, default=((0, 0), ""))
    if newest > series(version):
        theirs = _text(newest)
        raise Waiting(f"{what} was last opened by Ceph {theirs}, and this CVM has {_text(series(version))}: an older "
                      "one would destroy the store, so nothing is started",
                      f"the disks are whole: boot the release that opened them, or image the node with one that has "
                      f"Ceph {theirs} or newer")


def load(folder: Path = STATE) -> Opened | None:
    """Read what has opened this CVM's part of the engine; None when nothing has."""
    path = folder / FILE
    try:
        return OPENED.read(read_bounded(path), str(path))
    except FileNotFoundError:
        return None


def keep(version: str, folder: Path = STATE) -> None:
    """Keep that this version opens the monitor and the OSDs from now on."""
    kept = load(folder)
    if kept is None or kept.ceph != version:
        write(folder / FILE, json.dumps(OPENED.write(Opened(version))) + "\n")


def mark(disk: Disk) -> None:
    """Write into the label of an OSD that no process has open which Ceph opens it now, unless it says so."""
    if installed() in disk.opened_by:
        return
    device = DEVICES / f"{disk.osd}-label"
    with disks.hold(disk) as held:
        held.check_same(contents=False)
        held.make_node(device)
        try:
            mark_device(device)
        finally:
            device.unlink()


def mark_device(device: Path) -> None:
    """Write this CVM's Ceph version into the label of the OSD at device, a node of a disk that is held."""
    run("ceph-bluestore-tool", "set-label-key", "--no-mon-config", "--dev", device, "--key", OPENED_BY, "--value",
        installed())


def _text(version: tuple[int, int]) -> str:
    # of a release alone no series is known
    return f"{version[0]}.{version[1]}" if version[1] else str(version[0])

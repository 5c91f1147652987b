"""Disks put into a machine that runs, and taken out again: on a virtio-scsi controller, as in a cage of a server."""

from __future__ import annotations

import re
import time
from pathlib import Path

from cornerstone.lab.running import RunningMachine
from cornerstone.lib.error import Code, CornerstoneError

# How long a guest under emulation may take to see a disk come or go.
SECONDS = 120.0
_ATTACHED = re.compile(rb"\[sd[a-z]+\] Attached SCSI (?:removable )?disk|\[sr\d+\] scsi\S+ drive")


def plug(running: RunningMachine, controller: str, name: str, image: Path, *, serial: str = "", wwn: str = "",
         place: int = 0, optical: bool = False) -> None:
    """Put a disk (a qcow2 image), or a drive with a disc, into a place of a controller; returns when the guest has it.
    """
    running.ask("blockdev-add", driver="qcow2", **{"node-name": name, "read-only": optical}, discard="unmap",
                file={"driver": "file", "filename": str(image.absolute())})
    tells = {"scsi-id": place, **({"serial": serial} if serial else {}), **({"wwn": int(wwn, 16)} if wwn else {})}
    running.ask("device_add", driver="scsi-cd" if optical else "scsi-hd", bus=f"{controller}.0", id=name, drive=name,
                **tells)
    _await(running, "console", _ATTACHED, f"the disk {name} to be attached")


def unplug(running: RunningMachine, name: str) -> None:
    """Take out a disk that was put in; returns when it is gone."""
    pull(running, name)
    running.ask("blockdev-del", **{"node-name": name})


def pull(running: RunningMachine, name: str) -> None:
    """Take out a disk that was there from the start; returns when it is gone."""
    running.ask("device_del", id=name)
    _await(running, "qmp", re.compile(rb'"DEVICE_DELETED".*"device": "%b"' % name.encode()), f"the disk {name} to go")


def _await(running: RunningMachine, source: str, pattern: re.Pattern[bytes], what: str) -> None:
    """Take what the machine says until the pattern is in it; all of that is in the logs, and nobody else hears it."""
    said, end = b"", time.monotonic() + SECONDS
    while not pattern.search(said):
        chunks = running.wait(end - time.monotonic())
        said += b"".join(chunk.data for chunk in chunks if chunk.source == source)
        if running.status is not None or time.monotonic() >= end:
            raise CornerstoneError(f"waited in vain for {what}", f"see {running.logs / 'console.log'}", Code.BOOT)

"""A volume's block device in this CVM: a device-mapper device that always is there, and behind it, while this CVM
serves the volume, the image as the kernel's Ceph client maps it.

The image is mapped for this CVM alone (`exclusive`: no other client gets its lock while we live), with a client of its
own (`noshare`: so that one volume can be taken from us and not all), encrypted on the wire. Without an image behind it
the device is suspended: the first commands of an initiator that has asked for the volume wait until the image is there.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from cornerstone.model.error import Code, CornerstoneError

MAP_OPTIONS = "exclusive,noshare,ms_mode=secure"
SECTOR = 512
RBD_DEVICES = Path("/sys/bus/rbd/devices")
# `rbd map` waits for the lock as long as this
MAP_SECONDS = 60


@dataclass(frozen=True)
class Device:
    """name: below /dev/mapper; size in bytes."""

    name: str
    pool: str
    image: str
    size: int

    def make(self) -> None:
        """There, with nothing behind it, for LIO to open. One that is there already stays as it is."""
        if self.table() is None:
            self._dmsetup("create", self.name, "--table", self._table("error"))

    def table(self) -> str | None:
        """What is behind it: device mapper's table, None when there is no such device."""
        done = subprocess.run(["dmsetup", "table", self.name], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    @property
    def served(self) -> bool:
        """Whether the image is behind it."""
        return " linear " in (self.table() or "")

    def hold(self) -> None:
        """Have what arrives wait, until serve or close. Once is as good as twice."""
        # no file system of ours is on it to be frozen
        self._dmsetup("suspend", "--nolockfs", self.name)

    def serve(self) -> None:
        """Map the image and let what waits go on. CornerstoneError when another client has it."""
        path = self.mapped() or self._map()
        self._dmsetup("load", self.name, "--table", self._table(f"linear {path} 0"))
        self._dmsetup("resume", self.name)

    def close(self) -> None:
        """Take the image away. What is under way ends, what waits gets an error: none of it may be written later."""
        self.hold()
        self._dmsetup("load", self.name, "--table", self._table("error"))
        self._dmsetup("resume", self.name)
        self.hold()
        if path := self.mapped():
            # force: one that was taken from us can't end its writes
            _run("rbd", "device", "unmap", "--options", "force", path)

    def remove(self) -> None:
        """Gone, whatever is behind it."""
        if self.table() is not None:
            self.close()
            self._dmsetup("resume", self.name)
            self._dmsetup("remove", self.name)

    def _table(self, kind: str) -> str:
        return f"0 {self.size // SECTOR} {kind}"

    def mapped(self) -> str:
        """The image's own device, as /dev/rbd0; "" when it isn't mapped here."""
        found = (device for device in RBD_DEVICES.glob("*")
                 if (_read(device / "pool"), _read(device / "name")) == (self.pool, self.image))
        return next((f"/dev/rbd{device.name}" for device in found), "")

    def client(self) -> str:
        """The client that the image is mapped by, as Ceph calls it: client.4137; "" when it isn't mapped here."""
        path = self.mapped()
        return _read(RBD_DEVICES / path.removeprefix("/dev/rbd") / "client_id").replace("client", "client.") \
            if path else ""

    def _map(self) -> str:
        return _run("rbd", "device", "map", f"{self.pool}/{self.image}", "--options", MAP_OPTIONS).strip()

    def _dmsetup(self, *words: str) -> None:
        _run("dmsetup", *words)


def _run(*words: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=MAP_SECONDS)
    except subprocess.TimeoutExpired:
        raise CornerstoneError(f"{' '.join(words)}: no answer within {MAP_SECONDS} s", "see: ceph -s",
                               Code.FAILED) from None
    if done.returncode:
        raise CornerstoneError(f"{' '.join(words)}: {done.stderr.strip()[-300:]}", "see: dmesg", Code.FAILED)
    return done.stdout


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

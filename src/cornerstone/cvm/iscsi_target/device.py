"""A volume's block device in this CVM: a device-mapper device that always is there, and behind it, while this CVM
serves the volume, the image as the kernel's Ceph client maps it.

The image is mapped for this CVM alone (`exclusive`: no other client gets its lock while we live), with a client of its
own (`noshare`: so that one volume can be taken from us and not all), encrypted on the wire. A request that Ceph doesn't
answer ends with an error (`osd_request_timeout`): by default it would be sent again for ever. While the volume isn't
served the device gives errors; only while it is being taken it is suspended, and commands wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cornerstone.lib import command
from cornerstone.lib.sysfs import read_text

# rbd(8), with the seconds of REQUEST_SECONDS times the site's patience
MAP_OPTIONS = "exclusive,noshare,ms_mode=secure,osd_request_timeout={seconds}"
# until a request without an answer ends with -ETIMEDOUT; a fence outlasts it (conf.FENCE_SECONDS)
REQUEST_SECONDS = 60
# what a command of device mapper or rbd may take beyond the requests that it waits for
COMMAND_SECONDS = 15
SECTOR = 512
RBD_DEVICES = Path("/sys/bus/rbd/devices")
BLOCK_DEVICES = Path("/sys/class/block")


class Turns(Protocol):
    """Who serves an image after whom, as clients.Clients."""

    def begin(self, image: str) -> None: ...

    def serve(self, image: str, address: str) -> bool: ...


@dataclass(frozen=True)
class Device:
    """name: below /dev/mapper; size in bytes; patience: factor on the times until a request is given up."""

    name: str
    pool: str
    image: str
    size: int
    patience: int = 1
    turns: Turns | None = None

    def make(self) -> None:
        """Make the device for LIO to open, with nothing behind it. One that is there stays, with what it serves."""
        if self.table() is None:
            self._dmsetup("create", self.name, "--table", self._table("error"))

    def table(self) -> str | None:
        """Return device mapper's table, None when there is no such device."""
        done = command.run(["dmsetup", "table", self.name], seconds=COMMAND_SECONDS)
        return done.text.strip() if done.code == 0 else None

    @property
    def served(self) -> bool:
        """Whether the image is behind it."""
        return " linear " in (self.table() or "")

    def hold(self) -> None:
        """Have what arrives from now on wait, until serve or close. What an earlier process left waiting gets an error.

        An image that it left mapped goes, too: that client is about to be fenced.
        """
        self.close()
        if self.turns:
            # before the first command waits: should another CVM serve the volume meanwhile, what waits is too old
            self.turns.begin(self.image)
        # no file system of ours is on it to be frozen
        self._dmsetup("suspend", "--nolockfs", self.name)

    def serve(self) -> None:
        """Map the image and let what waits go on. Raises CornerstoneError when another client has it.

        When another may have served it since hold, what waits gets an error, and only what comes then goes on.
        """
        path = self._map()
        if self.turns and self.turns.serve(self.image, self.address()):
            self._dmsetup("resume", self.name)
            self._dmsetup("suspend", "--nolockfs", self.name)
        self._dmsetup("load", self.name, "--table", self._table(f"linear {path} 0"))
        self._dmsetup("resume", self.name)

    def close(self) -> None:
        """Take the image away and give errors from now on.

        What is under way ends first, at the latest after osd_request_timeout; what waits gets an error, and so does
        what arrives late. Nothing of it can be written when this CVM serves the volume again.
        """
        if not self._refuses():
            self._dmsetup("suspend", "--nolockfs", self.name)
            self._dmsetup("load", self.name, "--table", self._table("error"))
            self._dmsetup("resume", self.name)
        if path := self.mapped():
            self._unmap(path)

    def remove(self) -> None:
        """Remove the device, whatever is behind it."""
        if self.table() is not None:
            self.close()
            self._dmsetup("remove", self.name)

    def _refuses(self) -> bool:
        """Whether it gives errors, and nothing waits in it."""
        return self.table() == self._table("error") and not self._suspended()

    def _suspended(self) -> bool:
        device = Path("/dev/mapper", self.name).resolve().name
        return read_text(BLOCK_DEVICES / device / "dm/suspended") != "0"

    def _table(self, kind: str) -> str:
        return f"0 {self.size // SECTOR} {kind}"

    def mapped(self) -> str:
        """Return the image's own device, as /dev/rbd0; "" when it isn't mapped here."""
        found = (device for device in RBD_DEVICES.glob("*")
                 if (read_text(device / "pool"), read_text(device / "name")) == (self.pool, self.image))
        return next((f"/dev/rbd{device.name}" for device in found), "")

    def client(self) -> str:
        """Return the client that the image is mapped by, as client.4137; "" when it isn't mapped here."""
        return self._of_mapping("client_id").replace("client", "client.")

    def address(self) -> str:
        """Return that client's address, by which Ceph fences it: 10.20.0.31:0/3141592653; "" when there is none."""
        return self._of_mapping("client_addr")

    def _of_mapping(self, attribute: str) -> str:
        path = self.mapped()
        return read_text(RBD_DEVICES / path.removeprefix("/dev/rbd") / attribute) if path else ""

    def _map(self) -> str:
        options = MAP_OPTIONS.format(seconds=self._request_seconds)
        return self._run("rbd", "device", "map", f"{self.pool}/{self.image}", "--options", options).strip()

    def _unmap(self, path: str) -> None:
        # force: one that was taken from us can't end its writes
        self._run("rbd", "device", "unmap", "--options", "force", path)

    @property
    def _request_seconds(self) -> int:
        return REQUEST_SECONDS * self.patience

    def _dmsetup(self, *words: str) -> None:
        self._run("dmsetup", *words)

    def _run(self, *words: str) -> str:
        return _run(*words, seconds=self._request_seconds + COMMAND_SECONDS)


def client_addresses() -> frozenset[str]:
    """Return the addresses of all clients that images are mapped by in this kernel."""
    return frozenset(read_text(device / "client_addr") for device in RBD_DEVICES.glob("*"))


def _run(*words: str, seconds: float) -> str:
    return command.read(words, seconds=seconds, hint="see: dmesg; ceph -s")

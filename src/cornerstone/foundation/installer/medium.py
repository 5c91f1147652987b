"""The medium that this environment was booted from: which it is, and whether it is what was signed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cornerstone.lib import command
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.progress import by_percent
from cornerstone.model.contracts.manifest import HYPERVISOR, NAME, SIGNATURE_NAME, Entry, Manifest, difference, digest
from cornerstone.model.contracts.places import RUN

MOUNT_POINT = Path("/medium")
PUBLIC_KEY = Path("/usr/share/cornerstone/manifest.pem")
# the initramfs leaves the sha256 of the root that it checked and mounted here
CHECKED_ROOT = RUN / "checked-root"
# and here the device that the medium lies on: of an ISO in a file or behind a mapping that isn't what is mounted; of
# files that came over the network, their address
CARRIER = RUN / "medium"


@dataclass(frozen=True)
class Medium:
    """A mounted Foundation medium: its mount point, the device that it lies on, and its manifest as read.

    After a start over the network the files are in memory, and device is the http address that they came from.
    """

    mount_point: Path
    device: str
    manifest: Manifest
    public_key: Path = PUBLIC_KEY
    checked_root: Path = CHECKED_ROOT

    @classmethod
    def attached(cls, mount_point: Path = MOUNT_POINT, mounts: Path = Path("/proc/self/mounts"),
                 carrier: Path = CARRIER) -> Medium:
        """The medium that the initramfs mounted. Raises CornerstoneError when there is none."""
        lines = mounts.read_text(errors="replace").splitlines()
        found = [line.split()[0] for line in lines if line.split()[1] == str(mount_point)]
        if not found:
            raise CornerstoneError("no Foundation medium is mounted", "boot this machine from the Foundation ISO",
                                   Code.VERIFY)
        try:
            content = (mount_point / NAME).read_bytes()
        except OSError as error:
            raise CornerstoneError(f"manifest.json on the medium can't be read: {error.strerror}",
                                   "the medium is damaged: write it anew", Code.VERIFY) from error
        device = carrier.read_text().strip() if carrier.exists() else found[-1]
        return cls(mount_point, device, Manifest.from_bytes(content))

    @property
    def disk(self) -> str:
        """The device that must not be written; empty when the medium came over the network."""
        return "" if self._fetched else self.device

    @property
    def _fetched(self) -> bool:
        return self.device.startswith("http://")

    def _mend(self, what: str) -> str:
        """How to mend what is wrong with the medium."""
        if self._fetched:
            return f"what {self.device} serves {what}: serve the folder netboot as the build made it, whole"
        return f"the medium {what}: write it anew"

    def check_signature(self) -> None:
        """Raise CornerstoneError (VERIFY) unless the manifest is signed by the key in this root."""
        done = command.run(["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", self.public_key, "-rawin",
                            "-in", self.mount_point / NAME, "-sigfile", self.mount_point / SIGNATURE_NAME])
        if done.code:
            raise CornerstoneError("manifest.json on the medium isn't signed by the key of this environment",
                                   self._mend("was changed after it was made"), Code.VERIFY)

    def check_files(self, progress: Callable[[str, int], None]) -> str:
        """Compare every file with the manifest; progress(name, percent of all bytes). Returns a line for the screen.

        Raises CornerstoneError (VERIFY) that names the first file that differs.
        """
        entries = self.manifest.entries
        total, before, begun, name = sum(e.size for e in entries), 0, time.monotonic(), ""
        advance = by_percent(lambda percent, *_: progress(name, percent), every=10)
        for entry in entries:
            name = entry.layer

            def count(done: int, before: int = before) -> None:
                advance(before + done, total)

            problem = "" if self._checked_by_initramfs(entry) else self._compare(entry, count)
            if problem:
                raise CornerstoneError(problem, self._mend("is damaged or was changed"), Code.VERIFY)
            before += entry.size
        seconds = time.monotonic() - begun
        return f"{len(entries)} files match the manifest ({total >> 20} MiB, {seconds:.0f} s)"

    def _checked_by_initramfs(self, entry: Entry) -> bool:
        try:
            return entry.path == HYPERVISOR and self.checked_root.read_text(errors="replace").strip() == entry.sha256
        except OSError:
            return False

    def _compare(self, entry: Entry, count: Callable[[int], None]) -> str:
        try:
            with (self.mount_point / entry.path).open("rb") as file:
                return difference(entry, *digest(file, entry.masked, count))
        except OSError as error:
            return f"layer {entry.layer} can't be read: {error.strerror}"

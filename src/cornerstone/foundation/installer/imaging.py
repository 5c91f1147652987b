"""Imaging: a plan becomes a disk that boots. The one module that writes to disks.

The order makes a power cut harmless at every point. The partition table is written first, with a GUID that says
"unfinished": from then on the disk is known as one whose imaging was cut, and starts over. No firmware boots it: its
ESP isn't typed as one and has no loader by the name that firmware looks for, and its boot code hands on to the next
device. When all is written and read back, one sector changes what the disk is: the primary GPT header. What comes
after it (`complete`) only makes it start, and is done again when it was cut.

No byte of the medium is written that wasn't compared with the manifest on its way: large layers are hashed while they
are copied, small ones are read once and kept, and the boot loaders are taken out of the root slot that was written. The
live root has them too, but is read from the medium piece by piece, long after it was hashed.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cornerstone.foundation.installer import copying, esp
from cornerstone.foundation.installer.block import (
    forget_cached,
    mount,
    open_disk,
    part,
    require_disk,
    run,
    size_of,
    step,
    write_all,
)
from cornerstone.foundation.installer.medium import Medium
from cornerstone.foundation.installer.plan import Plan
from cornerstone.lib.atomic import put
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.event import Event, Listener
from cornerstone.lib.gpt import BOOT_CODE_SIZE, LINUX_DATA, Copy, tables
from cornerstone.lib.progress import by_percent
from cornerstone.model.contracts.manifest import CVM, FIRST_BOOT, HYPERVISOR, Entry
from cornerstone.model.contracts.node import CVM_FILE, FIRST_BOOT_FILE, NODE_FILE, SECRET_FILE, NodeConfig
from cornerstone.model.disk.identity import DiskIdentity
from cornerstone.model.disk.slot_disk import (
    BOOT_FOLDER,
    ESP_FILES,
    GRUB_CONFIGS,
    HYPERVISOR_ARGUMENTS,
    INSTALLED_MARK,
    Layout,
    bios_grub,
    disk_identity,
    grub_config,
)

STAGE = "foundation"
# on the ESP until the disk is complete; firmware starts only the last part of the name under EFI/BOOT
LOADER = "EFI/BOOT/BOOTX64.EFI"
LOADER_BEFORE = "EFI/BOOT/SHIM.TMP"
# int 18h: a BIOS that starts this goes on to its next boot device; if it comes back, hlt for ever
NO_BOOT_CODE = b"\xcd\x18\xf4\xeb\xfd"
# what of ESP_FILES is on the medium itself, by its name there
BOOT_LAYERS = {"vmlinuz": "boot/vmlinuz", "initrd.img": "boot/initrd.img"}
PHASES = ("partition", "root", "esp", "state", "cvm", "check", "commit")


@dataclass(frozen=True)
class Imaging:
    """One disk to be imaged. disk: its device; secret: the cluster's bootstrap secret, or "".

    serial, size, wwn, model, sequence: by what the disk is known; contents: the fingerprint of what may be overwritten,
    "" for an empty disk.
    """

    medium: Medium
    disk: Path
    serial: str
    size: int
    layout: Layout
    config: NodeConfig
    tell: Listener
    secret: str = ""
    wwn: str = ""
    model: str = ""
    sequence: int | None = None
    contents: str = ""

    @classmethod
    def of(cls, plan: Plan, medium: Medium, secret: str, tell: Listener) -> Imaging:
        """What a plan says. ValueError for one that refuses the machine."""
        if plan.refusals or plan.boot_disk is None or plan.layout is None or plan.config is None:
            raise ValueError("this plan refuses the machine")
        disk = plan.boot_disk
        return cls(medium, Path("/dev", disk.name), disk.serial, disk.size, plan.layout, plan.config, tell, secret,
                   wwn=disk.wwn, model=disk.model, sequence=disk.sequence, contents=disk.contents.fingerprint)

    def run(self) -> None:
        """Write the disk, read it back, and make it boot. An error leaves it marked as unfinished.

        Raises CornerstoneError, REFUSED before the first byte when it isn't the disk that was chosen, VERIFY with the
        file when the medium's isn't the manifest's, STEP with the disk and the step when it can't be written.
        """
        small = {path: copying.read_whole(self.medium.mount_point / path, self._entry(path))
                 for path in (FIRST_BOOT, *BOOT_LAYERS.values())}
        with open_disk(self.disk) as disk:
            require_disk(disk, self.disk, DiskIdentity(self.serial, self.wwn, self.size, self.model, self.sequence),
                         self.contents)
            with self._phase("partition"):
                write_tables(disk, self.serial, self.layout, finished=False)
            with self._phase("root"):
                self._copy("root", HYPERVISOR, disk, self.layout.root_a.offset)
            with self._phase("esp"):
                self._make_esp(disk, small)
            with self._phase("state"):
                self._make_state(disk, small)
            with self._phase("check"):
                self._check(disk, small)
            with self._phase("commit"):
                write_tables(disk, self.serial, self.layout, finished=True)
            complete(disk, self.disk, self.serial, self.layout)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self.tell(Event(STAGE, "image", "progress", name, {"phase": name, "percent": 0, "bytes": 0, "total": 0}))
        with step(self.disk, name):
            yield

    def _progress(self, phase: str, total: int) -> Callable[[int], None]:
        told = by_percent(lambda percent, done, total: self.tell(
            Event(STAGE, "image", "progress", phase,
                  {"phase": phase, "percent": percent, "bytes": done, "total": total})))
        return lambda done: told(done, total)

    def _entry(self, path: str) -> Entry:
        return self.medium.manifest.entry(path)

    def _copy(self, phase: str, path: str, target: int, offset: int = 0) -> None:
        entry = self._entry(path)
        copying.copy(self.medium.mount_point / path, entry, target, offset, self._progress(phase, entry.size))

    def _make_esp(self, disk: int, small: Mapping[str, bytes]) -> None:
        with root_slot(disk, self.layout) as root, part(disk, self.layout.esp) as device:
            esp.make(device, "ESP", self.layout.esp.identity.hex[:8], self._esp_files(root, small))

    def _esp_files(self, root: Path, small: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """Yield path and content of each file; small: the medium's, as they were compared."""
        for path, name in ESP_FILES.items():
            layer = BOOT_LAYERS.get(name)
            yield (LOADER_BEFORE if path == LOADER else path), small[layer] if layer else loader(root, name)
        arguments = " ".join((HYPERVISOR_ARGUMENTS, *self.medium.manifest.kernel_arguments))
        for path in GRUB_CONFIGS:
            yield path, grub_config(self.layout, arguments).encode()
        yield f"{Path(INSTALLED_MARK).parent}/README", b"The file beside this one says that imaging came to its end.\n"

    def _make_state(self, disk: int, small: Mapping[str, bytes]) -> None:
        with part(disk, self.layout.state) as device:
            run(["mkfs.ext4", "-q", "-F", "-L", "state", "-U", self.layout.state.identity, "-m", "1",
                 "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", device])
        with mount(disk, self.layout.state, "ext4") as state:
            for path, content, mode in self._state_files(small):
                (state / path).parent.mkdir(parents=True, exist_ok=True)
                put(state / path, content, mode)
            # root's alone from its first byte on: what the CVM will keep in it are the cluster's keys
            target = os.open(state / CVM_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(target, "wb", buffering=0):
                self._copy("cvm", CVM, target)

    def _state_files(self, small: Mapping[str, bytes]) -> Iterator[tuple[str, bytes, int]]:
        yield NODE_FILE, self.config.to_json().encode(), 0o644
        yield FIRST_BOOT_FILE, small[FIRST_BOOT], 0o644
        if self.secret:
            yield SECRET_FILE, self.secret.encode(), 0o600

    def _check(self, disk: int, small: Mapping[str, bytes]) -> None:
        """Read back from the disk what was written, and compare it with the manifest, or with what was compared."""
        root, cvm = self._entry(HYPERVISOR), self._entry(CVM)
        progress = self._progress("check", root.size + cvm.size)
        copying.read_back(disk, self.layout.root_a.offset, root, "root slot A", progress)
        with mount(disk, self.layout.state, "ext4", read_only=True) as state:
            with (state / CVM_FILE).open("rb", buffering=0) as file:
                copying.read_back(file.fileno(), 0, cvm, "the Controller VM's disk",
                                  lambda done: progress(root.size + done))
            for path, content, _ in self._state_files(small):
                require_same(path, (state / path).read_bytes(), content)
        with root_slot(disk, self.layout) as slot, part(disk, self.layout.esp, read_only=True) as device:
            for name, content in self._esp_files(slot, small):
                require_same(name, esp.read(device, name), content)


def write_tables(disk: int, serial: str, disk_layout: Layout, *, finished: bool) -> None:
    """Write both partition tables; which comes first makes the change from unfinished to finished one sector.

    Unfinished: the copy at the end first, so that the disk is known as ours before its old table is gone, and the boot
    code of whatever was there goes last. Finished: the primary first, and the copy after it.
    """
    partitions = disk_layout.partitions
    if not finished:
        # to firmware and others there is nothing here to boot
        partitions = tuple(replace(each, kind=LINUX_DATA, name=f"unfinished {each.name}") for each in partitions)
    made = tables(size_of(disk), uuid.UUID(disk_identity(serial, finished)), partitions, bootable_mbr=True)
    for table in (made.primary, made.backup) if finished else (made.backup, made.primary):
        _write_table(disk, table)
    if not finished:
        write_all(disk, NO_BOOT_CODE.ljust(BOOT_CODE_SIZE, b"\0") + made.mbr, 0)
        os.fsync(disk)


def _write_table(disk: int, table: Copy) -> None:
    # entries first: their checksum is in the header, so a table of new entries and an old header counts as none
    write_all(disk, table.entries, table.entries_offset)
    os.fsync(disk)
    write_all(disk, table.header, table.header_offset)
    os.fsync(disk)


def complete(disk: int, device: Path, serial: str, disk_layout: Layout) -> None:
    """Make a finished disk start: the loader's name, the mark that GRUB on an ISO looks for, and boot code last.

    The boot code is that of the disk's own root slot, which was read back and compared before the disk was finished.

    Each is harmless to do again. disk: a descriptor of device, which is only named. Raises CornerstoneError (STEP) with
    the device when it can't be written.
    """
    with step(device, "boot"):
        with root_slot(disk, disk_layout) as root:
            boot, core = bios_grub(disk_layout.bios, loader(root, "boot.img"), loader(root, "disk.img"))
        write_tables(disk, serial, disk_layout, finished=True)
        write_all(disk, core, disk_layout.bios.offset)
        with part(disk, disk_layout.esp) as partition:
            if LOADER_BEFORE in esp.files(partition):
                esp.rename(partition, LOADER_BEFORE, Path(LOADER).name)
            esp.put(partition, INSTALLED_MARK, f"{serial}\n".encode())
            esp.flush(partition)
        write_all(disk, boot, 0)
        forget_cached(disk)


def root_slot(disk: int, disk_layout: Layout) -> AbstractContextManager[Path]:
    """Mount root slot A of an open disk."""
    return mount(disk, disk_layout.root_a, "squashfs", read_only=True)


def loader(root: Path, name: str) -> bytes:
    """Return one of the boot loaders that a root carries."""
    return (root / BOOT_FOLDER / name).read_bytes()


def is_complete(device: Path) -> bool:
    """Tell whether `complete` came to its end on a finished disk."""
    with device.open("rb") as disk:
        return not disk.read(BOOT_CODE_SIZE).startswith(NO_BOOT_CODE)


def require_same(name: str, found: bytes, written: bytes) -> None:
    """Raise CornerstoneError (VERIFY) unless a file reads back as it was written."""
    if found != written:
        raise CornerstoneError(f"{name} reads back other bytes than were written",
                               "the disk is bad, or its cable or controller: replace it", Code.VERIFY)

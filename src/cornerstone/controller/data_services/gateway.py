"""Which CVM serves a volume: one at a time, the one that an initiator has asked last.

An initiator asks by SCSI's own means. Every CVM shows every volume, as ALUA standby where it doesn't serve it. When
multipath on a host chooses a path, the kernel there sends SET TARGET PORT GROUPS; LIO makes the state active here and
writes that down, which wakes us. Then the volume is taken: who serves it now is asked to let go, and who doesn't
answer is cut off from it by Ceph (blocklisted) before its lock is broken. docs/data-path.md says why that is safe.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from cornerstone.controller.data_services.catalogue import Disk
from cornerstone.controller.data_services.target import ACTIVE, STANDBY, Lun
from cornerstone.model.error import CornerstoneError
from cornerstone.model.event import Event, Listener

STAGE, STEP = "data-services", "volume"


class States(Protocol):
    """The ALUA states of this CVM's LUNs, as lio.Lio has them."""

    def state(self, lun: Lun) -> int: ...

    def set_state(self, lun: Lun, state: int) -> None: ...


class BlockDevice(Protocol):
    """A volume's device, as device.Device."""

    @property
    def served(self) -> bool: ...

    def hold(self) -> None: ...

    def serve(self) -> None: ...

    def close(self) -> None: ...


class Locks(Protocol):
    """Who has an image, as locks.py asks Ceph."""

    def ask_for(self, disk: Disk) -> None: ...

    def break_all(self, disk: Disk) -> int: ...

    def lost(self, disk: Disk) -> bool: ...


def lun_of(disk: Disk) -> Lun:
    return Lun(disk.lun, disk.serial)


class Gateway:
    """Brings each volume to what its ALUA state says; that may be asked at any time, by several threads."""

    def __init__(self, states: States, locks: Locks, device: Callable[[Disk], BlockDevice], tell: Listener) -> None:
        self._states = states
        self._locks = locks
        self._device = device
        self._tell = tell
        self._busy: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def look(self, disk: Disk) -> None:
        """Take a volume that an initiator has asked for; give back one that it hasn't. A failure is told."""
        device = self._device(disk)
        with self._busy[disk.serial]:
            asked = self._states.state(lun_of(disk)) == ACTIVE
            try:
                if asked and not device.served:
                    self._take(disk, device)
                elif not asked:
                    (device.close if device.served else device.hold)()
            except CornerstoneError as error:
                self._tell(Event(STAGE, STEP, "failed", f"{disk.serial}: {error.message}"))

    def _take(self, disk: Disk, device: BlockDevice) -> None:
        device.hold()
        try:
            self._locks.ask_for(disk)
            broken = self._locks.break_all(disk)
            device.serve()
        except BaseException:
            # refused from now on, and what waited gets its error: nothing may lie here and be written later
            self._states.set_state(lun_of(disk), STANDBY)
            device.close()
            raise
        self._tell(Event(STAGE, STEP, "done", f"{disk.serial} is served here"
                         + (", taken from a CVM that didn't answer" if broken else "")))

    def release(self, disk: Disk) -> None:
        """Let go of a volume because another CVM was asked for it; when we are just taking it, they will fight."""
        with self._unless_busy(disk.serial) as mine:
            if mine and (device := self._device(disk)).served:
                self._states.set_state(lun_of(disk), STANDBY)
                device.close()
                self._tell(Event(STAGE, STEP, "progress", f"{disk.serial} is given to another CVM"))

    def check(self, disks: Iterable[Disk]) -> None:
        """Let go of what was taken from us while we didn't answer: writes to it fail for ever."""
        for disk in disks:
            with self._busy[disk.serial]:
                device = self._device(disk)
                if device.served and self._locks.lost(disk):
                    self._states.set_state(lun_of(disk), STANDBY)
                    device.close()
                    self._tell(Event(STAGE, STEP, "warning", f"{disk.serial} was taken by another CVM"))

    @contextlib.contextmanager
    def _unless_busy(self, serial: str) -> Iterator[bool]:
        mine = self._busy[serial].acquire(timeout=1)
        try:
            yield mine
        finally:
            if mine:
                self._busy[serial].release()

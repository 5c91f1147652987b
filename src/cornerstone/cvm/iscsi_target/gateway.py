"""Which CVM serves a volume: one at a time, the one that an initiator has asked last.

An initiator asks by SCSI's own means. Every CVM shows every volume, as ALUA standby where it doesn't serve it. When
multipath on a host chooses a path, the kernel there sends SET TARGET PORT GROUPS; LIO makes the state active here and
answers when we hold back the volume's commands (asked.py). Then the volume is taken: who serves it now is asked to let
go, and everybody who has had it is fenced by Ceph (blocklisted). docs/data-path.md says why that is safe.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from cornerstone.cvm.iscsi_target.addresses import LEASE_SECONDS
from cornerstone.cvm.iscsi_target.catalogue import Disk
from cornerstone.cvm.iscsi_target.target import ACTIVE, STANDBY, Lun
from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.event import Event, Listener

STAGE, STEP = "data-services", "volume"
# of a volume: one that is busy is left to whoever is at it
BUSY_SECONDS = 1


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
    """Brings each volume to what its ALUA state says; that may be asked at any time, by several threads.

    lease: the seconds for which a volume is served without an answer from the cluster; clock: a monotonic one.
    """

    def __init__(self, states: States, locks: Locks, device: Callable[[Disk], BlockDevice], tell: Listener,
                 lease: float = LEASE_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._states = states
        self._locks = locks
        self._device = device
        self._tell = tell
        self._lease = lease
        self._clock = clock
        self._busy: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._unanswered: dict[str, float] = {}

    def look(self, disk: Disk, held: Callable[[], None] = lambda: None) -> None:
        """Take a volume that an initiator has asked for; give back one that it hasn't. A failure is told.

        held: called once commands wait, or when none will; the initiator's request is answered then.
        """
        with self._unless_busy(disk.serial) as mine:
            if mine:
                self._look(disk, held)
        # whoever is busy may be waiting for that answer: until then LIO changes no state of the volume
        held()
        if not mine:
            with self._busy[disk.serial]:
                self._look(disk, held)

    def _look(self, disk: Disk, held: Callable[[], None]) -> None:
        try:
            device = self._device(disk)
            if self._states.state(lun_of(disk)) != ACTIVE:
                device.close()
            elif not device.served:
                self._take(disk, device, held)
        except CornerstoneError as error:
            self._tell(Event(STAGE, STEP, "failed", f"{disk.serial}: {error.message}"))

    def _take(self, disk: Disk, device: BlockDevice, held: Callable[[], None]) -> None:
        try:
            device.hold()
            held()
            self._locks.ask_for(disk)
            broken = self._locks.break_all(disk)
            device.serve()
        except BaseException:
            held()
            # refused from now on, and what waited gets its error: nothing may lie here and be written later
            self._let_go(disk, device)
            raise
        self._unanswered.pop(disk.serial, None)
        self._tell(Event(STAGE, STEP, "done", f"{disk.serial} is served here"
                         + (", taken from a CVM that didn't answer" if broken else "")))

    def _let_go(self, disk: Disk, device: BlockDevice) -> None:
        try:
            self._states.set_state(lun_of(disk), STANDBY)
        finally:
            device.close()

    def release(self, disk: Disk) -> None:
        """Let go of a volume because another CVM was asked for it; when we are just taking it, they will fight."""
        with self._unless_busy(disk.serial) as mine:
            if mine and (device := self._device(disk)).served:
                self._let_go(disk, device)
                self._tell(Event(STAGE, STEP, "progress", f"{disk.serial} is given to another CVM"))

    def check(self, disks: Iterable[Disk]) -> None:
        """Let go of what was taken from us, and of what the cluster hasn't answered for longer than the lease.

        Writes to the one fail for ever, those to the other hang. A failure is told, and the others are looked at.
        """
        for disk in disks:
            try:
                with self._unless_busy(disk.serial) as mine:
                    if mine:
                        self._check(disk)
            except CornerstoneError as error:
                self._tell(Event(STAGE, STEP, "failed", f"{disk.serial}: {error.message}"))

    def _check(self, disk: Disk) -> None:
        device = self._device(disk)
        if device.served and (why := self._why_lost(disk)):
            self._let_go(disk, device)
            self._tell(Event(STAGE, STEP, "warning", f"{disk.serial} {why}"))

    def _why_lost(self, disk: Disk) -> str:
        """Say why a volume can't be served any longer; "" while it can."""
        asked = self._clock()
        try:
            lost = self._locks.lost(disk)
        except CornerstoneError as error:
            since = self._unanswered.setdefault(disk.serial, asked)
            return f"can't be reached: {error.message}" if self._clock() - since >= self._lease else ""
        self._unanswered.pop(disk.serial, None)
        return "was taken by another CVM" if lost else ""

    @contextlib.contextmanager
    def _unless_busy(self, serial: str) -> Iterator[bool]:
        mine = self._busy[serial].acquire(timeout=BUSY_SECONDS)
        try:
            yield mine
        finally:
            if mine:
                self._busy[serial].release()

"""data-services.service: serves the cluster's volumes by iSCSI from this CVM, and its floating addresses.

What is wanted is the catalogue, the hosts that may come in, and what initiators ask for; what wakes it is a notify on
the catalogue, and LIO when it is about to write a change of a volume's state. It starts with an empty kernel or finds
what an earlier process left there: both end the same.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import rados

from cornerstone.cvm.iscsi_target import container, target
from cornerstone.cvm.iscsi_target.addresses import LEASE_SECONDS, FloatingAddress
from cornerstone.cvm.iscsi_target.asked import Asked
from cornerstone.cvm.iscsi_target.catalogue import NOTICE, Disk
from cornerstone.cvm.iscsi_target.clients import Clients
from cornerstone.cvm.iscsi_target.device import Device
from cornerstone.cvm.iscsi_target.fences import RadosFences
from cornerstone.cvm.iscsi_target.gateway import Gateway, lun_of
from cornerstone.cvm.iscsi_target.lease import MonotonicLease
from cornerstone.cvm.iscsi_target.lio import Lio
from cornerstone.cvm.iscsi_target.locks import ImageLocks, RadosRegister
from cornerstone.cvm.iscsi_target.offering import Offering
from cornerstone.cvm.iscsi_target.store import CATALOGUE, Store
from cornerstone.cvm.iscsi_target.watch import SILENT_SECONDS, LastingWatch
from cornerstone.cvm.node import EVENTS
from cornerstone.lib.error import Code, CornerstoneError, ends_in_one_line
from cornerstone.lib.event import Event, Listener, open_listeners, telling_the_end
from cornerstone.lib.failures import Failures
from cornerstone.lib.sd_notify import notify
from cornerstone.model.contracts.iscsi import CVM_ADDRESS, INITIATOR_CREDENTIAL, Initiator, from_line
from cornerstone.model.contracts.network import CVM_CARD
from cornerstone.model.contracts.node import NODE_CREDENTIAL, NodeConfig
from cornerstone.model.contracts.places import RUN

RECORDS = RUN / "alua"
# of a volume in RECORDS, with the volume's serial behind it
FOLDER = "tpgs_"
# times the patience, a look without anything having been said, for what a lost notify would have told; and a check of
# what is served, however busy the looks are
LOOK_SECONDS = 30
# a notify's sender waits for us this long, and less than NOTIFY_MS
HEARD_SECONDS = 4
# volumes that are taken at once, when a CVM has died
TAKERS = 8
# before initiators are listened to again, when that failed
PAUSE_SECONDS = 1
STAGE, STEP = "data-services", "target"


class Service:
    """All of it, on one connection to Ceph."""

    def __init__(self, config: NodeConfig, store: Store, tell: Listener) -> None:
        self._config = config
        self._store = store
        self._tell = tell
        self._failures = Failures(lambda line: tell(Event(STAGE, STEP, "failed", line)))
        own = config.cvm.address.partition("/")[0]
        self._members = config.cluster.members if config.cluster else (own,)
        self._own = own
        self._tag = self._members.index(own) + 1
        self._fsid = store.cluster.get_fsid()
        self._lio = Lio(target.target_name(self._fsid), self._tag, RECORDS)
        self._clients = Clients(RadosFences(store))
        self._gateway = Gateway(self._lio, ImageLocks(store, self._tag, self._clients), self._device, tell,
                                config.patience * LEASE_SECONDS)
        self._asked = Asked()
        self._takers = ThreadPoolExecutor(TAKERS)
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._disks: dict[str, Disk] = {}
        # of volumes that are deleted, with their device still here
        self._gone: dict[str, Disk] = {}
        self._stop = threading.Event()
        self._looks = threading.Condition()
        self._looks_begun = self._looks_done = 0
        cluster = config.cluster
        # of the two only this one is a portal
        self._data_services = cluster.data_services if cluster else ""
        names = (self._data_services, cluster.address) if cluster else ()
        self._addresses = [self._floating(name) for name in names if name]
        self.offering = Offering(tell, answered=lambda generation: store.note_answer(own, generation))

    def _device(self, disk: Disk) -> Device:
        return Device(lun_of(disk).backstore, self._store.pool, disk.image, disk.size, self._config.patience,
                      self._clients)

    def _floating(self, address: str) -> FloatingAddress:
        lease = MonotonicLease(RadosRegister(self._store.objects, f"address-{address}"),
                               f"{self._own} {uuid.uuid4()}", self._config.patience * LEASE_SECONDS)
        return FloatingAddress(address, CVM_CARD, lease, self.wake, self._tell)

    def wake(self) -> None:
        """Have the loop look, from any thread."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake, b"x")

    def run(self, initiator: Initiator | None) -> None:
        """Serve until SIGTERM. initiator: this CVM's own host."""
        if initiator is not None and self._store.let_in(self._own, initiator):
            self._store.tell({})
        signal.signal(signal.SIGTERM, lambda *_: (self._stop.set(), self.wake()))
        self._store.begin()
        self._watch = LastingWatch(
            lambda lost: self._store.objects.watch(CATALOGUE, self._heard, lost), self.wake, self._tell,
            SILENT_SECONDS * self._config.patience)
        self._watch.open()
        threads = [threading.Thread(target=address.run, args=(self._stop,)) for address in self._addresses]
        threads += [threading.Thread(target=run, daemon=True) for run in (
            lambda: self.offering.run(self._stop), self._watch.run, self._answer, self._check_by_time)]
        for thread in threads[len(self._addresses):]:
            thread.start()
        self.look()
        for thread in threads[:len(self._addresses)]:
            thread.start()
        notify("READY=1")
        try:
            self._serve()
        finally:
            self._stop.set()
            self._watch.close()
            self.offering.stop()
            for thread in threads[:len(self._addresses)]:
                thread.join()
        self._let_go()

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        while not self._stop.is_set():
            poll.poll(LOOK_SECONDS * self._config.patience * 1000)
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, 65536)
            # what couldn't be done is looked at again with the next look
            self._tell_failure(self.look)

    def _tell_failure(self, do: Callable[[], object]) -> bool:
        """Whatever it is: none of the threads may end because of one volume or one message. True when it was done."""
        return self._failures.attempt(do)

    def _answer(self) -> None:
        """Take what initiators ask for, and let LIO answer them.

        A thread of its own: LIO waits like this when we set a state, too.
        """
        poll = select.poll()
        poll.register(self._asked.fileno(), select.POLLIN)
        while poll.poll():
            if not self._tell_failure(self._take_asked):
                # what can't be read is still there, and would be tried without a pause
                self._stop.wait(PAUSE_SECONDS)

    def _take_asked(self) -> None:
        for folder, held in self._asked.openings():
            if disk := self._disks.get(folder.name.removeprefix(FOLDER)):
                self._takers.submit(self._tell_failure, partial(self._gateway.look, disk, held))
            else:
                held()

    def _check_by_time(self) -> None:
        """Let go of what is served no longer; a thread of its own, for a look may wait for a cluster that is away."""
        while not self._stop.wait(LOOK_SECONDS * self._config.patience):
            disks = tuple(self._disks.values())
            self._tell_failure(partial(self._check, disks))
            self._tell_failure(partial(self._clients.end_fences, [disk.image for disk in disks]))

    def _check(self, disks: Iterable[Disk]) -> None:
        with ThreadPoolExecutor(TAKERS) as checkers:
            # each by itself: one that hangs keeps no other waiting
            for disk in disks:
                checkers.submit(self._tell_failure, partial(self._gateway.check, (disk,)))

    def _heard(self, notify_id: int, notifier: int, watch_id: int, data: bytes) -> None:
        """On a thread of librados, and the notifier waits: another CVM wants a volume, or the catalogue is another."""
        self._tell_failure(partial(self._hear, data))

    def _hear(self, data: bytes) -> None:
        notice = NOTICE.read(data or b"{}", "what a CVM tells")
        if not notice.release:
            with self._looks:
                # the one that may be under way has begun before this
                due = self._looks_begun + 1
                self.wake()
                self._looks.wait_for(lambda: self._looks_done >= due, HEARD_SECONDS)
        elif (disk := self._disks.get(notice.release)) and notice.by != str(self._tag):
            self._gateway.release(disk)

    def look(self) -> None:
        """Bring the kernel to what is wanted, and take the volumes that initiators have asked for."""
        self._watch.check()
        with self._looks:
            self._looks_begun = begun = self._looks_begun + 1
        try:
            self._look()
        finally:
            with self._looks:
                self._looks_done = begun
                self._looks.notify_all()

    def _look(self) -> None:
        catalogue = self._store.catalogue()
        disks = {disk.serial: disk for disk in catalogue.disks()}
        wanted = target.Target(
            target.target_name(self._fsid), self._tag,
            frozenset((CVM_ADDRESS, self._own, *(each.address for each in self._addresses
                                                 if each.held and each.address == self._data_services))),
            frozenset(lun_of(disk) for disk in disks.values()), frozenset(self._store.initiators()))
        self._gone |= {serial: disk for serial, disk in self._disks.items() if serial not in disks}
        for step in target.steps(self._lio.present(), wanted):
            self._tell_failure(partial(self._do, step, disks))
        for disk in tuple(self._gone.values()):
            self._tell_failure(partial(self._remove, disk))
        self._disks = disks
        for disk in disks.values():
            self._tell_failure(partial(self._asked.watch, RECORDS / f"{FOLDER}{disk.serial}"))
        # not by the takers: these wait for volumes that are being let go, initiators for the takers
        with ThreadPoolExecutor(TAKERS) as lookers:
            list(lookers.map(self._gateway.look, disks.values()))
        self.offering.set(target.offer(self._fsid, self._members, self._own, CVM_ADDRESS, sorted(disks)),
                          catalogue.generation)

    def _do(self, step: target.Step, disks: Mapping[str, Disk]) -> None:
        if isinstance(step.what, target.Lun) and step.verb == "add":
            self._device(disks[step.what.serial]).make()
        self._lio.take(step)

    def _remove(self, disk: Disk) -> None:
        self._device(disk).remove()
        del self._gone[disk.serial]

    def _let_go(self) -> None:
        """Nothing served and no image mapped, so that another CVM needs to break nothing."""
        for step in target.steps(self._lio.present(), target.Target("", self._tag)):
            self._tell_failure(partial(self._lio.take, step))
        for disk in self._disks.values():
            self._tell_failure(self._device(disk).remove)


@ends_in_one_line
def main() -> int:
    """Serve this CVM's part; 0 after SIGTERM, or an error's code with the error in one line."""
    credentials = Path(os.environ["CREDENTIALS_DIRECTORY"])
    try:
        config = NodeConfig.read(credentials / NODE_CREDENTIAL)
        given = credentials / INITIATOR_CREDENTIAL
        initiator = from_line(Initiator, given.read_bytes(), f"credential {INITIATOR_CREDENTIAL}") \
            if given.exists() else None
        tell = open_listeners(EVENTS)
        with telling_the_end(tell, STAGE, STEP, again=True), Store(container()) as store:
            Service(config, store, tell).run(initiator)
    except rados.Error as error:
        raise CornerstoneError(f"Ceph: {error}", "see: ceph -s", Code.FAILED) from error
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The catalogue of volumes and their images in Ceph: changed by one at a time, and told to every CVM that serves them.

A change takes a RADOS lock on the catalogue, so two operators on two CVMs can't lose each other's; the write is one
object's, so it happens or it doesn't; and the notify returns when every CVM has it.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator

import rados
import rbd

from cornerstone.controller.ceph.cluster import Cluster
from cornerstone.controller.data_services.catalogue import Catalogue, Disk
from cornerstone.model.data_path import Initiator
from cornerstone.model.error import Code, CornerstoneError
from cornerstone.model.gpt import derived_id
from cornerstone.model.record import from_record, to_record

# objects of ours lie beside the images in a namespace of their own
NAMESPACE = "cornerstone"
CATALOGUE = "volumes"
INITIATORS = "cornerstone/initiators/"
LOCK = "change"
# a change takes seconds; the lock of one that died in the middle doesn't hold up the next for longer than this
LOCK_SECONDS = 60
NOTIFY_MS = 5000
# of an image whose volume is gone, by whoever serves it
LET_GO_SECONDS = 60


class Store:
    """One connection to the cluster, on one container. A context manager."""

    def __init__(self, pool: str) -> None:
        self.pool = pool

    def __enter__(self) -> Store:
        with contextlib.ExitStack() as stack, _told(f"open the container {self.pool}"):
            self.cluster = stack.enter_context(Cluster()).rados
            self.images = stack.enter_context(self.cluster.open_ioctx(self.pool))
            self.objects = stack.enter_context(self.cluster.open_ioctx(self.pool))
            self.objects.set_namespace(NAMESPACE)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def catalogue(self) -> Catalogue:
        """As it is now."""
        with _told("read the catalogue of volumes"):
            try:
                size, _ = self.objects.stat(CATALOGUE)
                return Catalogue.from_json(self.objects.read(CATALOGUE, size))
            except rados.ObjectNotFound:
                return Catalogue()

    def create_group(self, name: str) -> None:
        """A new, empty group."""
        self._change(lambda catalogue: catalogue.with_group(name))

    def create_disk(self, name: str, size: int) -> Disk:
        """A new disk in a group, of size bytes, all zero."""
        made: list[Disk] = []

        def change(catalogue: Catalogue) -> Catalogue:
            index, lun = catalogue.next_disk(name)
            made.append(self._make_image(name, index, lun, size))
            return catalogue.with_disk(name, made[0])
        self._change(change)
        return made[0]

    def _make_image(self, group: str, index: int, lun: int, size: int) -> Disk:
        image = f"volume-{uuid.uuid4()}"
        with _told(f"make the image {image}"):
            # what the kernel's client can do; exclusive-lock is what keeps two CVMs from writing at once
            rbd.RBD().create(self.images, image, size, old_format=False,
                             features=rbd.RBD_FEATURE_LAYERING | rbd.RBD_FEATURE_EXCLUSIVE_LOCK)
            with rbd.Image(self.images, image) as opened:
                serial = str(derived_id(self.cluster.get_fsid(), self.pool, opened.id()))
                for key, value in {"volume-group": group, "index": index, "lun": lun, "serial": serial}.items():
                    opened.metadata_set(f"{NAMESPACE}.{key}", str(value))
        return Disk(index, lun, image, serial, size)

    def delete_group(self, name: str) -> None:
        """A group and all that is on its disks. First nobody serves them any more, then they go."""
        disks = self.catalogue().group(name).disks
        self._change(lambda catalogue: catalogue.without_group(name))
        for disk in disks:
            with _told(f"remove the image {disk.image}", "it isn't a volume any more, but something still has it open; "
                       f"once that is gone: rbd rm {self.pool}/{disk.image}"), \
                    contextlib.suppress(rbd.ImageNotFound):
                self._remove(disk.image)

    def _remove(self, image: str) -> None:
        """When all CVMs have let go of it. Ceph tells nobody of that; what a dead one had open it closes after 30 s."""
        end = time.monotonic() + LET_GO_SECONDS
        while True:
            try:
                rbd.RBD().remove(self.images, image)
                return
            except rbd.ImageBusy:
                if time.monotonic() >= end:
                    raise
            # returns when each has looked once more
            self.tell({})
            time.sleep(1)

    def _change(self, change: Callable[[Catalogue], Catalogue]) -> None:
        with self._locked():
            with _told("change the catalogue of volumes"):
                self.objects.write_full(CATALOGUE, change(self.catalogue()).to_json())
            self.tell({})

    def tell(self, message: dict[str, str]) -> None:
        """Have every CVM look again, and return when they have, or when NOTIFY_MS are over: they will still look."""
        with contextlib.suppress(rados.TimedOut, rados.ObjectNotFound):
            self.objects.notify(CATALOGUE, json.dumps(message), NOTIFY_MS)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        cookie = str(uuid.uuid4())
        try:
            with _told("lock the catalogue of volumes"):
                self.objects.lock_exclusive(CATALOGUE, LOCK, cookie, "a change of volumes", LOCK_SECONDS)
        except rados.ObjectBusy:
            raise CornerstoneError("somebody else is changing volumes", "wait until that is done, and ask again",
                                   Code.FAILED) from None
        try:
            yield
        finally:
            with contextlib.suppress(rados.ObjectNotFound):
                self.objects.unlock(CATALOGUE, LOCK, cookie)

    def initiators(self) -> tuple[Initiator, ...]:
        """All hosts that the target lets in, by name."""
        keys = json.loads(self.command("config-key ls"))
        wanted = sorted(key for key in keys if key.startswith(INITIATORS))
        return tuple(from_record(Initiator, json.loads(self.command("config-key get", key=key)), key)
                     for key in wanted)

    def let_in(self, member: str, initiator: Initiator) -> bool:
        """Keep a member's host as an initiator; False when it is kept like this already."""
        key, value = f"{INITIATORS}{member}", json.dumps(to_record(initiator))
        with contextlib.suppress(rados.ObjectNotFound):
            if self.command("config-key get", key=key).decode() == value:
                return False
        self.command("config-key set", key=key, val=value)
        return True

    def command(self, prefix: str, **arguments: str) -> bytes:
        """Ask a monitor."""
        code, out, said = self.cluster.mon_command(json.dumps({"prefix": prefix, "format": "json", **arguments}), b"")
        if code == -2:
            raise rados.ObjectNotFound(f"{prefix}: {said}")
        if code:
            raise CornerstoneError(f"ceph {prefix}: {said}", "see: ceph -s", Code.FAILED)
        return out


@contextlib.contextmanager
def _told(what: str, hint: str = "see: ceph -s") -> Iterator[None]:
    """Ceph's errors as ours; what is busy or isn't there is for the caller."""
    try:
        yield
    except (rados.ObjectBusy, rados.ObjectNotFound):
        raise
    except (rados.Error, rbd.Error) as error:
        raise CornerstoneError(f"can't {what}: {error}", hint, Code.FAILED) from error

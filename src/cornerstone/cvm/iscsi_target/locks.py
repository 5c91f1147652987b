"""Locks in Ceph: an image's, and how it is taken from one that is gone; and where an address's lease is kept."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

import rados
import rbd

from cornerstone.cvm.iscsi_target.catalogue import Disk
from cornerstone.cvm.iscsi_target.clients import Clients
from cornerstone.cvm.iscsi_target.device import Device
from cornerstone.cvm.iscsi_target.store import Store
from cornerstone.lib.error import Code, CornerstoneError

# of the text in a register's object
KEY = "holder"


class ImageLocks:
    """Of the images of one container. by: our tag, so that our own words don't reach ourselves."""

    def __init__(self, store: Store, by: int, clients: Clients) -> None:
        self._store = store
        self._by = by
        self._clients = clients

    def ask_for(self, disk: Disk) -> None:
        """Ask whoever has it to let go, and wait for the answer. One that is dead has none."""
        if self._owners(disk):
            self._store.tell({"release": disk.serial, "by": str(self._by)})

    def break_all(self, disk: Disk) -> int:
        """Fence everybody who has had it, and break the lock of who still has it; how many locks were broken.

        Ceph blocklists the lock's client itself before it breaks the lock.
        """
        owners = self._owners(disk)
        self._clients.fence_former(disk.image, bool(owners))
        with self._opened(disk) as image:
            for owner in owners:
                with contextlib.suppress(rbd.ImageNotFound):
                    image.lock_break(rbd.RBD_LOCK_MODE_EXCLUSIVE, owner)
        return len(owners)

    def lost(self, disk: Disk) -> bool:
        """Whether the image's lock isn't that of our mapping."""
        ours = Device("", self._store.pool, disk.image, 0).client()
        with self._opened(disk) as image:
            lockers = image.list_lockers()
        holders = [client for client, _, _ in lockers["lockers"]] if lockers else []
        return bool(ours) and holders != [ours]

    def _owners(self, disk: Disk) -> list[str]:
        with self._opened(disk) as image:
            return [owner["owner"] for owner in image.lock_get_owners()]

    @contextlib.contextmanager
    def _opened(self, disk: Disk) -> Iterator[rbd.Image]:
        try:
            with rbd.Image(self._store.images, disk.image) as image:
                yield image
        except rbd.Error as error:
            raise CornerstoneError(f"image {disk.image}: {error}", "see: ceph -s", Code.FAILED) from error


class RadosRegister:
    """A text on an object of its own; "" when there is none yet."""

    def __init__(self, objects: rados.Ioctx, name: str) -> None:
        self._objects = objects
        self._name = name

    def read(self) -> str:
        """Return it. Raises CornerstoneError when the cluster can't be asked."""
        with self._asked(), rados.ReadOpCtx() as op:
            pairs, _ = self._objects.get_omap_vals(op, "", KEY, 1)
            try:
                self._objects.operate_read_op(op, self._name)
            except rados.ObjectNotFound:
                return ""
            return dict(pairs).get(KEY, b"").decode()

    def swap(self, old: str, new: str) -> bool:
        """Write new if it is old now; False when it isn't. Raises CornerstoneError when the cluster can't be asked."""
        with self._asked(), rados.WriteOpCtx() as op:
            op.new(rados.LIBRADOS_CREATE_IDEMPOTENT)
            op.omap_cmp(KEY, old)
            self._objects.set_omap(op, (KEY,), (new.encode(),))
            try:
                self._objects.operate_write_op(op, self._name)
            except rados.Error as error:
                if error.errno == errno.ECANCELED:
                    return False
                raise
        return True

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except rados.Error as error:
            raise CornerstoneError(f"{self._name}: {error}", "see: ceph -s", Code.FAILED) from error

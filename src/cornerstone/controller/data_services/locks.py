"""Locks in Ceph: an image's, and how it is taken from one that is gone; and the lease of a floating address."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import rados
import rbd

from cornerstone.controller.data_services.catalogue import Disk
from cornerstone.controller.data_services.device import Device
from cornerstone.controller.data_services.store import Store
from cornerstone.model.error import Code, CornerstoneError

MAY_RENEW = 1  # LIBRADOS_LOCK_FLAG_MAY_RENEW


class ImageLocks:
    """Of the images of one container. by: our tag, so that our own words don't reach ourselves."""

    def __init__(self, store: Store, by: int) -> None:
        self._store = store
        self._by = by

    def ask_for(self, disk: Disk) -> None:
        """Ask whoever has it to let go, and wait for the answer. One that is dead has none."""
        if self._owners(disk):
            self._store.tell({"release": disk.serial, "by": str(self._by)})

    def break_all(self, disk: Disk) -> int:
        """Cut off whoever still has it. Ceph blocklists the client first, so nothing of it is written afterwards."""
        owners = self._owners(disk)
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


class RadosLease:
    """On an object of its own; holder: what only this process calls itself."""

    def __init__(self, objects: rados.Ioctx, name: str, holder: str, seconds: int) -> None:
        self._objects = objects
        self._name = name
        self._holder = holder
        self.seconds = seconds

    def renew(self) -> bool:
        """Take it or keep it; False when another has it or the cluster can't be asked."""
        try:
            self._objects.lock_exclusive(self._name, "holder", self._holder, self._holder, self.seconds, MAY_RENEW)
        except rados.Error:
            return False
        return True

    def end(self) -> None:
        with contextlib.suppress(rados.Error):
            self._objects.unlock(self._name, "holder", self._holder)

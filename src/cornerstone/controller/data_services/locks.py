"""Who has an image's exclusive lock, and how it is taken from one that is gone."""

from __future__ import annotations

import contextlib

import rbd

from cornerstone.controller.data_services.catalogue import Disk
from cornerstone.controller.data_services.device import Device
from cornerstone.controller.data_services.store import Store
from cornerstone.model.error import Code, CornerstoneError


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
    def _opened(self, disk: Disk):
        try:
            with rbd.Image(self._store.images, disk.image) as image:
                yield image
        except rbd.Error as error:
            raise CornerstoneError(f"image {disk.image}: {error}", "see: ceph -s", Code.FAILED) from error

"""The RBD images of volumes: made with our metadata, asked who uses them, and deleted by way of RBD's trash.

Each image carries in its metadata what the catalogue says of it, so an image is known as a volume's without that, in
the trash too. What a full cluster would let wait ends with an error here: the connection is set to full-try, with which
Ceph still takes whatever frees room.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import rados
import rbd

from cornerstone.cvm.ceph.capacity import MORE_ROOM
from cornerstone.cvm.ceph.cluster import wait_until
from cornerstone.cvm.iscsi_target.catalogue import Disk
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.gpt import derived_id

# of our keys in an image's metadata
PREFIX = "cornerstone."
# a deleted volume can be restored for so long
TRASH_SECONDS = 24 * 3600
# until whoever serves it has let go of an image; what a dead client had open Ceph closes after 30 s
LET_GO_SECONDS = 60
# an image is opened for a moment by each CVM that looks after it
MOMENT_SECONDS = 5
# Who has just lost a volume, because its CVM or its host died, may be about to take it again.
RECENT_SECONDS = 300
# of an image's own making on a slow machine, which changes the image's header as a user does
SETTLE_SECONDS = 60
# where RBD keeps what is in the trash
TRASH_OBJECT = "rbd_trash"
# LIBRADOS_OPERATION_FULL_FORCE, which the bindings have no name for: written although the cluster is full
FULL_FORCE = 128


@dataclass(frozen=True)
class Trashed:
    """An image in the trash: RBD's id and its name, the volume that it was, and until when it is kept.

    deletion: the same for all that was deleted at once, and higher for what was deleted later.
    """

    id: str
    image: str
    group: str
    index: int
    serial: str
    size: int
    deletion: int
    until: datetime


class Images:
    """The images of the container whose name is pool."""

    def __init__(self, cluster: rados.Rados, images: rados.Ioctx, pool: str) -> None:
        self._cluster = cluster
        self._images = images
        self._pool = pool

    def make(self, group: str, size: int) -> Disk:
        """Make an image of size bytes, all zero. Its disk has no place yet: see place."""
        image = f"volume-{uuid.uuid4()}"
        with ceph_errors(f"make the image {image}"):
            # what the kernel's client can do; exclusive-lock is what keeps two CVMs from writing at once
            rbd.RBD().create(self._images, image, size, old_format=False,
                             features=rbd.RBD_FEATURE_LAYERING | rbd.RBD_FEATURE_EXCLUSIVE_LOCK)
            with rbd.Image(self._images, image) as opened:
                serial = str(derived_id(self._cluster.get_fsid(), self._pool, opened.id()))
                _note(opened, serial=serial, **{"volume-group": group})
        return Disk(0, 0, image, serial, size)

    def place(self, group: str, disk: Disk) -> None:
        """Note a disk's place in its image; nobody has used it so far."""
        with self._opened(disk.image) as image:
            _note(image, index=disk.index, lun=disk.lun, idle=time.time(), **{"volume-group": group})

    def names(self) -> list[str]:
        """Images that are or were volumes, those in the trash too."""
        with ceph_errors("list the images"):
            there = [name for name in rbd.RBD().list(self._images) if "serial" in self._noted(name=name)]
        return sorted((*there, *(f"{each.image} (in the trash)" for each in self.trash())))

    def _noted(self, **which: str) -> dict[str, str]:
        """What place and others have noted in an image, and its size.

        which: its name, or the image_id of one in the trash. {} when there is none.
        """
        with contextlib.suppress(rbd.ImageNotFound), rbd.Image(self._images, read_only=True, **which) as image:
            return {"size": str(image.size()), **{key.removeprefix(PREFIX): value for key, value in
                                                  image.metadata_list() if key.startswith(PREFIX)}}
        return {}

    def user(self, image: str) -> str:
        """Who uses an image, or when it was used within the last RECENT_SECONDS; "" when it isn't in use."""
        wait_until(lambda: not self.holders(image), MOMENT_SECONDS)
        if holders := self.holders(image):
            return holders
        with ceph_errors(f"look who uses {image}"):
            with rbd.Image(self._images, image, read_only=True) as opened:
                header, made = f"rbd_header.{opened.id()}", opened.create_timestamp().replace(tzinfo=UTC).timestamp()
            # Who opens it to write, takes its lock or gives it back changes its header.
            changed = time.mktime(self._images.stat(header)[1])
        idle = max(made, float(self._noted(name=image).get("idle", 0)))
        seconds = time.time() - changed
        return f"it was in use {max(0, round(seconds))} s ago" \
            if changed > idle + SETTLE_SECONDS and seconds < RECENT_SECONDS else ""

    def holders(self, image: str) -> str:
        """Clients besides us that have the image's lock or have it open, for people; "" when there are none."""
        # who only reads is no watcher
        with ceph_errors(f"look who has {image}"), rbd.Image(self._images, image, read_only=True) as opened:
            lockers = opened.list_lockers()
            found = {each["addr"] for each in opened.watchers_list()} | {
                address for _, _, address in (lockers["lockers"] if lockers else ())}
        return f"{', '.join(sorted(found))} has it" if found else ""

    def break_dead(self, image: str) -> None:
        """Break the lock of a client that doesn't watch the image any more, so one that is dead or cut off."""
        with self._opened(image) as opened:
            owners = list(opened.lock_get_owners())
            # who opens an image to write watches it, so by now we do, too
            others = {each["id"] for each in opened.watchers_list()} - {self._cluster.get_instance_id()}
            if owners and not others:
                for owner in owners:
                    with contextlib.suppress(rbd.ImageNotFound):
                        # Ceph blocklists it first
                        opened.lock_break(rbd.RBD_LOCK_MODE_EXCLUSIVE, owner["owner"])

    def set_idle(self, image: str) -> None:
        """Note that nobody uses an image: what was before is no reason to keep it."""
        with self._opened(image) as opened:
            _note(opened, idle=time.time())

    def discard(self, image: str, deletion: int | None, wake: Callable[[], object]) -> None:
        """Put an image into the trash, or remove it at once when deletion is None. wake: has every CVM look again.

        CornerstoneError when it is still there afterwards.
        """
        self._make_trash()
        failed = ""

        def gone() -> bool:
            nonlocal failed
            try:
                if deletion is None:
                    rbd.RBD().remove(self._images, image)
                else:
                    with rbd.Image(self._images, image) as opened:
                        _note(opened, deletion=deletion)
                    rbd.RBD().trash_move(self._images, image, TRASH_SECONDS)
            except (rbd.ImageBusy, rbd.ReadOnlyImage) as error:
                # open elsewhere, or locked by a client that gives the lock to nobody
                failed = str(error)
                wake()
                return False
            except rbd.ImageNotFound as error:
                # which librbd says in place of other errors, too
                failed = str(error)
            return image not in rbd.RBD().list(self._images)
        with ceph_errors(f"delete the image {image}"):
            if not wait_until(gone, LET_GO_SECONDS):
                raise CornerstoneError(f"can't delete the image {image}: {failed or 'it is still there'}",
                                       f"it isn't a volume any more; see who has it: rbd status {self._pool}/{image}; "
                                       f"then: rbd rm {self._pool}/{image}", Code.FAILED)

    def _make_trash(self) -> None:
        """Else the first that goes there would need room for it, which a full cluster doesn't give."""
        with ceph_errors("make the trash"), rados.WriteOpCtx() as once:
            once.new(rados.LIBRADOS_CREATE_IDEMPOTENT)
            self._images.operate_write_op(once, TRASH_OBJECT, flags=FULL_FORCE)

    def trash(self) -> list[Trashed]:
        """The volumes in the trash, those that were deleted last at the end."""
        found = []
        with ceph_errors("look into the trash"):
            for entry in rbd.RBD().trash_list(self._images):
                said = self._noted(image_id=entry["id"])
                if "serial" in said:
                    found.append(Trashed(entry["id"], entry["name"], said.get("volume-group", ""),
                                         int(said.get("index", 0)), said["serial"], int(said["size"]),
                                         int(said.get("deletion", 0)),
                                         entry["deferment_end_time"].replace(tzinfo=UTC)))
        return sorted(found, key=lambda each: (each.deletion, each.index))

    def bring_back(self, trashed: Trashed) -> None:
        """Take an image out of the trash."""
        with ceph_errors(f"restore the image {trashed.image}"):
            rbd.RBD().trash_restore(self._images, trashed.id, trashed.image)

    def purge(self, trashed: Trashed) -> None:
        """Destroy an image in the trash, before its term too. CornerstoneError when it is still there afterwards."""
        with ceph_errors(f"purge the image {trashed.image}"):
            with contextlib.suppress(rbd.ImageNotFound):
                rbd.RBD().trash_remove(self._images, trashed.id, True)
            if trashed.id in {entry["id"] for entry in rbd.RBD().trash_list(self._images)}:
                raise CornerstoneError(f"the image {trashed.image} is still in the trash",
                                       f"see: rbd trash ls {self._pool}", Code.FAILED)

    @contextlib.contextmanager
    def _opened(self, image: str) -> Iterator[rbd.Image]:
        with ceph_errors(f"open the image {image}"), rbd.Image(self._images, image) as opened:
            yield opened


def _note(image: rbd.Image, **what: object) -> None:
    for key, value in what.items():
        image.metadata_set(f"{PREFIX}{key}", str(value))


@contextlib.contextmanager
def ceph_errors(what: str, hint: str = "see: ceph -s") -> Iterator[None]:
    """Turn Ceph's errors into ours: "can't {what}". Objects that aren't there or are there already are for the caller.

    A lack of room is said as such.
    """
    try:
        yield
    except (rados.ObjectNotFound, rados.ObjectExists):
        raise
    except (rados.NoSpace, rbd.NoSpace, rbd.DiskQuotaExceeded) as error:
        raise CornerstoneError(f"can't {what}: the cluster is full", MORE_ROOM, Code.FAILED) from error
    except (rados.Error, rbd.Error) as error:
        raise CornerstoneError(f"can't {what}: {error}", hint, Code.FAILED) from error

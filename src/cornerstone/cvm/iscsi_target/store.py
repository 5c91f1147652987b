"""The catalogue of volumes in Ceph, changed by compare-and-swap, and told to every CVM that serves them.

A change is written on the condition that the catalogue's object has still the version that was read; else it is made
anew from what is there by then. So no change is lost, however long one takes. The write is one object's, so it happens
or it doesn't. An image is made before its entry in the catalogue and goes after it: no entry is without its image.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import rados

from cornerstone.cvm.ceph.capacity import MORE_ROOM, OVERCOMMIT, Capacity, capacity
from cornerstone.cvm.ceph.cluster import Cluster, parsed, wait_until
from cornerstone.cvm.iscsi_target.catalogue import LONGEST, NOTICE, Catalogue, Disk, Notice, VolumeGroup
from cornerstone.cvm.iscsi_target.images import FULL_FORCE, LET_GO_SECONDS, Images, Trashed, ceph_errors
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.contracts.iscsi import INITIATOR, Initiator

# objects of ours lie beside the images in a namespace of their own
NAMESPACE = "cornerstone"
CATALOGUE = "volumes"
INITIATORS = "cornerstone/initiators/"
# the catalogue's generation whose offer a member's host has answered
ANSWERED = "cornerstone/answered/"
# a change that others overtake so often meets more than a few operators
TRIES = 100
NOTIFY_MS = 5000
# a host that uses a volume asks for it with its next command
TAKEN_AGAIN_SECONDS = 15
# until the manager has told the monitors how large the disks are
CAPACITY_SECONDS = 30


class Store:
    """One connection to the cluster, on one container. A context manager."""

    def __init__(self, pool: str) -> None:
        self.pool = pool

    def __enter__(self) -> Store:
        with contextlib.ExitStack() as stack, ceph_errors(f"open the container {self.pool}"):
            self.cluster = stack.enter_context(Cluster()).rados
            if not self.cluster.pool_exists(self.pool):
                raise CornerstoneError(f"there is no container {self.pool} yet", "see: genesis status", Code.FAILED)
            self.images = stack.enter_context(self.cluster.open_ioctx(self.pool))
            self.objects = stack.enter_context(self.cluster.open_ioctx(self.pool))
            self.objects.set_namespace(NAMESPACE)
            # Of its own: the version of what was read last is kept in it, and others' threads read too.
            self._catalogue = stack.enter_context(self.cluster.open_ioctx(self.pool))
            self._catalogue.set_namespace(NAMESPACE)
            for each in (self.images, self.objects, self._catalogue):
                each.set_osdmap_full_try()
            self.volumes = Images(self.cluster, self.images, self.pool)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def catalogue(self) -> Catalogue:
        """As it is now. CornerstoneError when it is damaged, or missing although there are images of volumes."""
        return self._read()[0] or Catalogue()

    def begin(self) -> None:
        """Write the first, empty catalogue, unless there is one. CornerstoneError as catalogue."""
        catalogue, version = self._read()
        if catalogue is None:
            # when another CVM was faster it has written the same
            self._swap(self._first(), version)

    def _read(self) -> tuple[Catalogue | None, int]:
        """The catalogue and the version of its object, which is 0 when there is none.

        None in a container that never had a volume; older releases make the object there, without contents.
        """
        with ceph_errors("read the catalogue of volumes"):
            try:
                text = self._catalogue.read(CATALOGUE, LONGEST)
                version = self._catalogue.get_last_version()
            except rados.ObjectNotFound:
                text, version = b"", 0
        if text:
            try:
                return Catalogue.from_json(text), version
            except CornerstoneError as error:
                if error.code == Code.REFUSED:
                    raise
                raise self._lost(error.message, self.volumes.names()) from error
        if names := self.volumes.names():
            raise self._lost(f"the catalogue of volumes is {'empty' if version else 'missing'}", names)
        return None, version

    def _first(self) -> Catalogue:
        """Later than what hosts have answered, which the monitors keep longer than the catalogue."""
        return Catalogue(generation=max(0, *self._answers().values(), 0))

    def _lost(self, what: str, names: list[str]) -> CornerstoneError:
        return CornerstoneError(f"{what}; images of volumes: {', '.join(names) or 'none'}",
                                f"nothing is dropped. Write the object {CATALOGUE} in the namespace {NAMESPACE} of "
                                f"{self.pool} anew, from the images' metadata: rbd image-meta list", Code.FAILED)

    def _swap(self, catalogue: Catalogue, version: int) -> bool:
        """Write the catalogue if its object has still this version; whether it had."""
        with ceph_errors("change the catalogue of volumes"), rados.WriteOpCtx() as write:
            if version:
                write.assert_version(version)
            else:
                write.new(rados.LIBRADOS_CREATE_EXCLUSIVE)
            write.write_full(catalogue.to_json())
            try:
                # some hundred bytes, without which a full cluster couldn't be freed
                self._catalogue.operate_write_op(write, CATALOGUE, flags=FULL_FORCE)
            except rados.OSError as error:
                if error.errno in (errno.ERANGE, errno.EOVERFLOW, errno.EEXIST):
                    return False
                raise
        return True

    def _change(self, change: Callable[[Catalogue], Catalogue]) -> Catalogue:
        """Change the catalogue and have every CVM look; the new one. change is called anew when another came first."""
        for _ in range(TRIES):
            found, version = self._read()
            catalogue = found or self._first()
            if catalogue.released:
                catalogue = catalogue.confirmed(min(self._answers().values(), default=-1))
            changed = change(catalogue)
            if self._swap(changed, version):
                self.tell({})
                return changed
        raise CornerstoneError("others are changing volumes all the time", "ask again", Code.FAILED)

    def create_group(self, name: str) -> None:
        """A new, empty group."""
        self._change(lambda catalogue: catalogue.with_group(name))

    def create_disk(self, name: str, size: int) -> Disk:
        """A new disk in a group, of size bytes, all zero."""
        self.begin()
        self.purge_expired()
        room, there = self.capacity(), self.catalogue()
        there.group(name)
        _require_room(there, size, room)
        image = self._make_image(name, size)
        made = image

        def change(catalogue: Catalogue) -> Catalogue:
            nonlocal made
            _require_room(catalogue, size, room)
            index, lun = catalogue.next_disk(name)
            made = replace(image, index=index, lun=lun)
            self.volumes.place(name, made)
            return catalogue.with_disk(name, made)
        try:
            self._change(change)
        except CornerstoneError as error:
            # a write without an answer may have been done, or be done later
            unknown = isinstance(error.__cause__, rados.TimedOut)
            try:
                if not unknown:
                    self.volumes.discard(image.image, None, lambda: None)
                    raise
            except CornerstoneError as left:
                if left is error:
                    raise
            what = "it isn't known whether the volume is there" if unknown else f"its image {image.image} is left"
            raise CornerstoneError(f"{error.message}; {what}", f"see: acli vg.get {name}; when it isn't there: "
                                   f"rbd rm {self.pool}/{image.image}", Code.FAILED) from error
        return made

    def _make_image(self, group: str, size: int) -> Disk:
        return self.volumes.make(group, size)

    def require_unused(self, name: str) -> VolumeGroup:
        """The group. CornerstoneError when one of its volumes is or was just now in use."""
        group = self.catalogue().group(name)
        used = [f"disk {disk.index}: {user}" for disk in group.disks if (user := self.volumes.user(disk.image))]
        if used:
            raise CornerstoneError(f"{name} is in use: {'; '.join(used)}", "shut down the guests that have it; then: "
                                   f"acli vg.detach {name}", Code.REFUSED)
        return group

    def detach_group(self, name: str) -> None:
        """Have the CVMs let go of a group's volumes. CornerstoneError when a host takes one of them again."""
        disks = self.catalogue().group(name).disks

        def held() -> dict[int, str]:
            return {disk.index: holders for disk in disks if (holders := self.volumes.holders(disk.image))}
        for disk in disks:
            self.tell({"release": disk.serial, "by": ""})

        def let_go() -> bool:
            for disk in disks:
                self.volumes.break_dead(disk.image)
            return not held()
        wait_until(let_go, LET_GO_SECONDS)
        # whoever uses one takes it again
        if wait_until(lambda: bool(held()), TAKEN_AGAIN_SECONDS):
            used = "; ".join(f"disk {index}: {holders}" for index, holders in held().items())
            raise CornerstoneError(f"{name} is in use: {used or 'a host took it again'}", "shut down the guests that "
                                   "have it", Code.REFUSED)
        for disk in disks:
            self.volumes.set_idle(disk.image)

    def delete_group(self, name: str, now: bool = False) -> datetime | None:
        """Delete a group that isn't in use; until when it can be restored, None when it can't.

        Its images go into the trash; they are destroyed at once when that is wanted (now) or the cluster is full.
        """
        self.purge_expired()
        group = self.require_unused(name)
        now = now or self.full()

        def change(catalogue: Catalogue) -> Catalogue:
            if catalogue.group(name) != group:
                raise CornerstoneError(f"{name} was changed meanwhile", f"see: acli vg.get {name}", Code.FAILED)
            return catalogue.without_group(name)
        deletion = self._change(change).generation
        failed: list[CornerstoneError] = []
        for disk in group.disks:
            try:
                self.volumes.discard(disk.image, None if now else deletion, lambda: self.tell({}))
            except CornerstoneError as error:
                failed.append(error)
        if failed:
            raise failed[0]
        return min((each.until for each in self.volumes.trash() if each.deletion == deletion), default=None)

    def restore_group(self, name: str) -> VolumeGroup:
        """Bring a group back from the trash, the one that was deleted last of several; its disks get new LUNs."""
        found = self._trashed(name)
        last = [each for each in found if each.deletion == found[-1].deletion]
        if any(group.name == name for group in self.catalogue().groups):
            raise CornerstoneError(f"there is a volume group {name} already", "delete it first", Code.REFUSED)
        for each in last:
            self.volumes.bring_back(each)

        def change(catalogue: Catalogue) -> Catalogue:
            catalogue = catalogue.with_group(name)
            for each in last:
                _, lun = catalogue.next_disk(name)
                disk = Disk(each.index, lun, each.image, each.serial, each.size)
                self.volumes.place(name, disk)
                catalogue = catalogue.with_disk(name, disk)
            return catalogue
        return self._change(change).group(name)

    def _trashed(self, name: str) -> list[Trashed]:
        """The volumes of a group in the trash; CornerstoneError when there are none."""
        found = [each for each in self.volumes.trash() if each.group == name]
        if not found:
            raise CornerstoneError(f"there is no volume group {name!r:.80} in the trash", "see: acli vg.trash_list")
        return found

    def purge_group(self, name: str) -> None:
        """Destroy what the trash has of a group."""
        for each in self._trashed(name):
            self.volumes.purge(each)

    def purge_expired(self) -> None:
        """Destroy what has been in the trash for longer than its term; what can't be stays until the next time."""
        for each in self.volumes.trash():
            if each.until.timestamp() < time.time():
                with contextlib.suppress(CornerstoneError):
                    self.volumes.purge(each)

    def capacity(self) -> Capacity:
        """How much room the container has. CornerstoneError while the cluster doesn't know."""
        def asked() -> Capacity:
            return capacity(self.pool, self._ask("df"), self._ask("osd dump"))
        if not wait_until(lambda: asked().usable > 0, CAPACITY_SECONDS):
            raise CornerstoneError("the cluster doesn't know yet how large its disks are", "see: ceph df", Code.FAILED)
        return asked()

    def full(self) -> bool:
        """Whether the cluster takes no more writes."""
        return not {"OSD_FULL", "POOL_FULL"}.isdisjoint(self._ask("health")["checks"])

    def tell(self, message: dict[str, str]) -> None:
        """Have every CVM look again, and return when they have, or when NOTIFY_MS are over: they will still look."""
        # releases before versions take a release that is there, but empty, for one of no volume of theirs
        said = {key: value for key, value in NOTICE.write(Notice(**message)).items() if value != ""}
        with contextlib.suppress(rados.TimedOut, rados.ObjectNotFound):
            self.objects.notify(CATALOGUE, json.dumps(said), NOTIFY_MS)

    def initiators(self) -> tuple[Initiator, ...]:
        """All hosts that the target lets in, by name."""
        return tuple(INITIATOR.read(text, key)
                     for key, text in self._kept(INITIATORS).items())

    def let_in(self, member: str, initiator: Initiator) -> bool:
        """Keep a member's host as an initiator; False when it is kept like this already."""
        return self._keep(f"{INITIATORS}{member}", json.dumps(INITIATOR.write(initiator)))

    def note_answer(self, member: str, generation: int) -> None:
        """Note that a member's host has let go of all that the catalogue of this generation doesn't have."""
        self._keep(f"{ANSWERED}{member}", str(generation))

    def _answers(self) -> dict[str, int]:
        """The generation that each host has answered, by the member; -1 of one that has never answered."""
        said = self._kept(ANSWERED)
        return {member: _generation(said.get(f"{ANSWERED}{member}", ""))
                for member in (key.removeprefix(INITIATORS) for key in self._kept(INITIATORS))}

    def _kept(self, prefix: str) -> dict[str, str]:
        """What the monitors keep below a prefix, by key, sorted."""
        found = self._ask("config-key dump", key=prefix)
        return {key: value for key, value in sorted(found.items()) if key.startswith(prefix)}

    def _keep(self, key: str, value: str) -> bool:
        if self._kept(key).get(key) == value:
            return False
        self.command("config-key set", key=key, val=value)
        return True

    def _ask(self, prefix: str, **arguments: str) -> Any:
        """The parsed answer of a monitor."""
        return parsed(prefix, self.command(prefix, **arguments))

    def command(self, prefix: str, **arguments: str) -> bytes:
        """Ask a monitor."""
        code, out, said = self.cluster.mon_command(json.dumps({"prefix": prefix, "format": "json", **arguments}), b"")
        if code == -errno.ENOENT:
            raise rados.ObjectNotFound(f"{prefix}: {said}")
        if code:
            raise CornerstoneError(f"ceph {prefix}: {said}", "see: ceph -s", Code.FAILED)
        return out


def _generation(text: str) -> int:
    """A generation as a member noted it; -1 for none, and for what is no number: that host has let go of nothing."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else -1


def _require_room(catalogue: Catalogue, size: int, room: Capacity) -> None:
    """CornerstoneError when size bytes more would be more than the cluster may promise, or it is full."""
    sold = sum(disk.size for disk in catalogue.disks())
    if not room.free:
        raise CornerstoneError("the cluster is full", MORE_ROOM, Code.REFUSED)
    if sold + size > room.most_sold:
        raise CornerstoneError(
            f"{size} bytes more than the {sold} that volumes have would be more than {OVERCOMMIT} times the "
            f"{room.usable} bytes that the cluster can take", f"make it smaller, {MORE_ROOM}", Code.REFUSED)

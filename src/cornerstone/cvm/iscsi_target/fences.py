"""Ceph's fences: its blocklist, and the records of who has mapped which image, in one object of the container."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import rados

from cornerstone.cvm.ceph.cluster import parsed
from cornerstone.cvm.iscsi_target.clients import KERNEL, Client, Kernel
from cornerstone.cvm.iscsi_target.store import Store
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.printable import shown

RECORDS = "clients"
# keys that are read at once
PAGE = 1000


class RadosFences:
    """As clients.Fences says."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def clients(self, image: str = "") -> list[Client]:
        """Return the clients that have mapped an image, or any image."""
        found: list[Client] = []
        last, prefix = "", f"{image} " if image else ""
        with _ceph("read who has mapped volumes"):
            while page := self._page(last, prefix):
                last = page[-1][0]
                found += [kept_client(key, value) for key, value in page]
        return found

    def _page(self, last: str, prefix: str) -> list[tuple[str, bytes]]:
        with rados.ReadOpCtx() as op:
            pairs, _ = self._store.objects.get_omap_vals(op, last, prefix, PAGE)
            try:
                self._store.objects.operate_read_op(op, RECORDS)
            except rados.ObjectNotFound:
                return []
            return list(pairs)

    def note(self, client: Client) -> None:
        """Keep a client, until forget."""
        value = json.dumps(KERNEL.write(Kernel(client.machine, client.boot))).encode()
        with _ceph("note who maps a volume"), rados.WriteOpCtx() as op:
            self._store.objects.set_omap(op, (_key(client),), (value,))
            self._store.objects.operate_write_op(op, RECORDS)

    def forget(self, client: Client) -> None:
        """Keep a client no longer."""
        with _ceph("forget who has mapped a volume"), rados.WriteOpCtx() as op:
            self._store.objects.remove_omap_keys(op, (_key(client),))
            self._store.objects.operate_write_op(op, RECORDS)

    def fenced(self) -> set[str]:
        """Return the addresses that are blocklisted."""
        with _ceph("read the blocklist"):
            # not `osd blocklist ls`: from Ceph 17 on its JSON is two arrays, one behind the other
            return set(parsed("osd dump", self._store.command("osd dump"))["blocklist"])

    def fence(self, address: str) -> None:
        """Blocklist an address, for `mon osd blocklist default expire`; returns when the monitors have it."""
        with _ceph(f"fence {address}"):
            self._store.command("osd blocklist", blocklistop="add", addr=address)

    def end_fence(self, address: str) -> None:
        """Take an address off the blocklist."""
        with _ceph(f"end the fence of {address}"):
            self._store.command("osd blocklist", blocklistop="rm", addr=address)


def kept_client(key: str, value: bytes) -> Client:
    """The client that a record is about, also one of another release. Raises CornerstoneError when it is about none."""
    image, _, address = key.partition(" ")
    if not image or not address:
        raise CornerstoneError(f"{RECORDS}: {shown(key)} is no image and address", "see: ceph -s", Code.FAILED)
    kernel = KERNEL.read(value, f"the client {shown(key)}")
    return Client(image, address, kernel.machine, kernel.boot)


def _key(client: Client) -> str:
    return f"{client.image} {client.address}"


@contextlib.contextmanager
def _ceph(what: str) -> Iterator[None]:
    try:
        yield
    except rados.Error as error:
        raise CornerstoneError(f"can't {what}: {error}", "see: ceph -s", Code.FAILED) from error

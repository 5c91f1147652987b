"""Which key each member has, as this node has come to know it: the others' certificates, pinned.

A certificate of the cluster's authority says that its holder had the bootstrap secret once. From when this node is a
member on, that isn't enough: each address has the one certificate with which its member was met first, or was admitted
by an operator. What one member knows the others learn from it (`learn`): a later admission has a higher number.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cornerstone.cvm.membership.kept import CERTIFICATE, MEMBER, load, write
from cornerstone.lib.atomic import sweep
from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.json_text import parse_once, read_bounded
from cornerstone.lib.serde import Format, from_record, to_record
from cornerstone.model.contracts.places import STATE

KEYS = "member-keys.json"


@dataclass(frozen=True)
class Key:
    """certificate: SHA-256 of it, hexadecimal; admission: how many certificates the address had before, from 0."""

    certificate: str
    admission: int


@dataclass(frozen=True)
class _Keys:
    """Beside the version it has a Key for each member, by the member's address."""


KEYS_FORMAT = Format("member-keys.json", _Keys, "the CVM's services and commands", "the CVM's services and commands",
                     newer="start the CVM of the release that wrote it, or a newer one")


def known(folder: Path = STATE) -> dict[str, Key]:
    """Return the key of each member that this node knows, by address.

    Raises CornerstoneError when they can't be read: not to know any must not look like having met nobody.
    """
    path = folder / KEYS
    damaged = CornerstoneError(f"{path} is damaged", "remove it where all members can be trusted to be who they are: "
                               "it is made anew of what they say")
    try:
        record = parse_once(read_bounded(path))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise damaged from None
    record = KEYS_FORMAT.upgrade(record, str(path))
    try:
        return _keys(record)
    except CornerstoneError:
        raise damaged from None


def meet(address: str, certificate: bytes, folder: Path = STATE, *, admitted: bool = False) -> bool:
    """Tell whether a certificate (DER) of the authority is the member's at an address, or becomes it now.

    It becomes it when the member is met for the first time, or when an operator has admitted it; before this node is a
    member itself, anybody's is taken and nobody's kept.
    """
    if load(folder) is None:
        return True
    digest = hashlib.sha256(certificate).hexdigest()
    with _changing(folder) as keys:
        ours = keys.get(address)
        if ours is None:
            keys[address] = Key(digest, 0)
        elif ours.certificate != digest:
            if not admitted:
                return False
            keys[address] = Key(digest, ours.admission + 1)
    return True


def learn(record: Any, own: str, folder: Path = STATE) -> None:
    """Take over what another member knows of all but this node: of each address the later admission's.

    record: parsed JSON, as `told` makes it; what isn't of that form is ignored.
    """
    try:
        theirs = _keys(record)
    except CornerstoneError:
        return
    with _changing(folder) as keys:
        for address, key in theirs.items():
            if address != own and (address not in keys or keys[address].admission < key.admission):
                keys[address] = key


def told(own: str, folder: Path = STATE) -> dict[str, Any]:
    """Return what this node knows of the members' keys, its own among them, for another member."""
    mine = CERTIFICATE.search((folder / MEMBER).read_text())
    keys = known(folder)
    if mine:
        keys[own] = Key(hashlib.sha256(ssl.PEM_cert_to_DER_cert(mine[0])).hexdigest(), 0)
    # the answer that has them has a version; releases before versions take each name here for an address
    return {address: to_record(key) for address, key in keys.items()}


def another(address: str) -> tuple[str, str]:
    """Return what is wrong when a member's address comes with another certificate than the member's, and the hint."""
    return (f"{address} shows another certificate than the member had that joined the cluster",
            f"if that node was imaged anew: cluster admit {address}, on a member of the cluster, while it asks to join")


def _keys(record: Any) -> dict[str, Key]:
    """Read the keys of parsed JSON. Each name but the version is an address: no key is lost by its name."""
    if not isinstance(record, Mapping):
        raise CornerstoneError(f"{KEYS} isn't an object")
    return {str(address): from_record(Key, key, KEYS, ignore_unknown=True) for address, key in record.items()
            if address != KEYS_FORMAT.key}


@contextlib.contextmanager
def _changing(folder: Path) -> Iterator[dict[str, Key]]:
    """The keys to be changed, with the service, genesis and commands kept out meanwhile; written if they changed."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        # what an interrupted write has left
        sweep(folder / KEYS)
        keys = known(folder)
        before = dict(keys)
        yield keys
        if keys != before:
            record = KEYS_FORMAT.write(_Keys()) | {address: to_record(key) for address, key in sorted(keys.items())}
            write(folder / KEYS, json.dumps(record) + "\n")
    finally:
        os.close(handle)

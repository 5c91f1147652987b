"""What a node keeps of its membership, below /var/lib/cornerstone: each file whole or not at all, root's alone.

member.pem is by what other members know this node: its own key, its certificate, the authority's certificate; a first
line says whose it is. membership.json is the cluster's: its id and keys, the same on every member. Once written it is
never written again: nothing here changes to another cluster.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import secrets
import struct
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cornerstone.lib.atomic import flush, put, sweep
from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.json_text import parse_once, read_bounded
from cornerstone.lib.serde import Format, from_record
from cornerstone.model.contracts.places import STATE

MEMBER = "member.pem"
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n", re.S)
MEMBERSHIP = "membership.json"
# what another cluster has on this node's data disks, while it isn't a member: a list of texts
OSDS = "foreign-osds.json"


@dataclass(frozen=True)
class Membership:
    """fsid: the cluster's UUID, for Ceph too; the keys are cephx keys as Ceph writes them, base64."""

    fsid: str
    monitor_key: str = field(repr=False)
    admin_key: str = field(repr=False)

    @classmethod
    def draw(cls) -> Membership:
        """Draw a new cluster's membership."""
        return cls.renew(str(uuid.uuid4()))

    @classmethod
    def renew(cls, fsid: str) -> Membership:
        """Draw new keys for the cluster of this id, whose monitors have lost theirs."""
        return cls(fsid, cephx_key(), cephx_key())

    @classmethod
    def from_json(cls, text: str | bytes, source: str) -> Membership:
        """Parse membership.json; source names it in the CornerstoneError when it can't be."""
        damaged = CornerstoneError(f"{source} is damaged", "restore it, or image the node again")
        try:
            record = parse_once(text)
        except ValueError:
            raise damaged from None
        record = MEMBERSHIP_FORMAT.upgrade(record, source)
        try:
            return cls.of(record)
        except CornerstoneError:
            raise damaged from None

    @classmethod
    def of(cls, record: Any) -> Membership:
        """Read a membership from parsed JSON. Raises CornerstoneError, which unlike serde.py's shows no value."""
        record = MEMBERSHIP_FORMAT.upgrade(record, MEMBERSHIP)
        try:
            return from_record(cls, record, MEMBERSHIP, ignore_unknown=True)
        except CornerstoneError:
            raise CornerstoneError("what should be a cluster's id and keys is something else") from None

    def to_json(self) -> str:
        """The text of membership.json."""
        return json.dumps(MEMBERSHIP_FORMAT.write(self)) + "\n"


MEMBERSHIP_FORMAT = Format("membership.json", Membership, "genesis, once; a member, to one that joins",
                           "all services of the CVM; the CVM that joins",
                           newer="start the CVM of the release that wrote it, or a newer one")


@dataclass(frozen=True)
class _ForeignOsds:
    """osds: in words for people."""

    osds: tuple[str, ...]


# version 1 is the bare list
OSDS_FORMAT = Format("foreign-osds.json", _ForeignOsds, "genesis, anew at each run", "the members' service", 2,
                     newer="remove it: genesis writes it anew")


def cephx_key() -> str:
    """Draw a cephx key as Ceph writes it: type AES, when it was made in seconds and nanoseconds, length, key."""
    key = secrets.token_bytes(16)
    return base64.b64encode(struct.pack("<HIIH", 1, int(time.time()), 0, len(key)) + key).decode()


def load(folder: Path = STATE) -> Membership | None:
    """Return the cluster that this node is a member of, or None when it isn't one yet."""
    path = folder / MEMBERSHIP
    try:
        return Membership.from_json(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None


def keep(membership: Membership, folder: Path = STATE) -> Membership:
    """Keep a membership, or leave the one that is there; returns what is kept afterwards."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        put(folder / MEMBERSHIP, membership.to_json(), 0o600, exclusive=True)
    flush(folder)
    return load(folder) or membership


def keep_osds(osds: Sequence[str], folder: Path = STATE) -> None:
    """Keep which OSDs of another cluster this node has, for the members that ask."""
    if osds:
        write(folder / OSDS, json.dumps(OSDS_FORMAT.write(_ForeignOsds(tuple(osds)))) + "\n")
    else:
        (folder / OSDS).unlink(missing_ok=True)


def load_osds(folder: Path = STATE) -> list[str]:
    """Return which OSDs of another cluster this node has, in words for people.

    Raises CornerstoneError when the list can't be read: not to know of any must not look like having none.
    """
    path = folder / OSDS
    try:
        found = parse_once(read_bounded(path))
        record = OSDS_FORMAT.upgrade({"osds": found} if isinstance(found, list) else found, str(path))
        return list(from_record(_ForeignOsds, record, str(path), ignore_unknown=True).osds)
    except FileNotFoundError:
        return []
    except (ValueError, CornerstoneError) as error:
        if isinstance(error, CornerstoneError) and error.code == OSDS_FORMAT.newer_code:
            raise
        raise CornerstoneError(f"{path} is damaged", OSDS_FORMAT.newer) from None


def tidy(folder: Path) -> None:
    """Remove what an interrupted write has left."""
    for name in (MEMBER, MEMBERSHIP, OSDS):
        sweep(folder / name)


def write(path: Path, text: str) -> None:
    """Write a file that root alone may read, in the place of what is there."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    put(path, text, 0o600)

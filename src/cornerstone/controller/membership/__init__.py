"""Which cluster this node is a member of: its id and keys, drawn by the first member and fetched by the others."""

from __future__ import annotations

import base64
import json
import os
import secrets
import struct
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from cornerstone.model.error import Code, CornerstoneError
from cornerstone.model.node import NodeConfig
from cornerstone.model.record import from_record, to_record

FILE = Path("/var/lib/cornerstone/membership.json")


@dataclass(frozen=True)
class Membership:
    """fsid: the cluster's id; monitor_key, admin_key: cephx keys of mon. and client.admin. Secret."""

    fsid: str
    monitor_key: str
    admin_key: str


def load(file: Path = FILE) -> Membership | None:
    """What an earlier boot has kept; None for a node that is no member yet."""
    try:
        return from_record(Membership, json.loads(file.read_bytes()), str(file))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CornerstoneError(f"{file} isn't JSON: {error}", "image the node again", Code.FAILED) from error


def bring_up(config: NodeConfig, file: Path = FILE) -> Membership:
    """Form a cluster or join it, unless that is done; what comes of it is on the disk before this returns."""
    member = load(file)
    if member is None:
        if config.cluster and len(config.cluster.members) > 1:
            raise CornerstoneError("a cluster of several nodes can't be formed yet", "", Code.FAILED)
        member = Membership(str(uuid.uuid4()), _cephx_key(), _cephx_key())
        _keep(member, file)
    return member


def _keep(member: Membership, file: Path) -> None:
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as out:
        out.write(json.dumps(to_record(member)) + "\n")
        out.flush()
        os.fsync(out.fileno())
    new.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _cephx_key() -> str:
    """A new one as Ceph writes it: type AES, when it was made, and 16 random bytes, in base64."""
    return base64.b64encode(struct.pack("<hiih", 1, int(time.time()), 0, 16) + secrets.token_bytes(16)).decode()

"""What a host and its Controller VM tell each other about the iSCSI data path.

From the host, as the systemd credential cornerstone.initiator: who it is as an initiator, and its CHAP secret. From the
CVM, over the internal network and again at each change: an Offer, one line of JSON, answered by one line of JSON
(Answer) once the host has logged in. There is no secret in either of those.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any, TypeVar

from cornerstone.lib.serde import Format
from cornerstone.model.contracts import ports
from cornerstone.model.contracts.network import CVM_INTERNAL, HOST_INTERNAL
from cornerstone.model.contracts.node import FOLDER

# below the state partition; the credential's file, root's alone
INITIATOR_FILE = f"{FOLDER}/initiator.json"
INITIATOR_CREDENTIAL = "cornerstone.initiator"
HOST_ADDRESS, CVM_ADDRESS = str(HOST_INTERNAL), str(CVM_INTERNAL)
# RFC 3720, 3.2.6.3.1: a year and month in which the domain was its namer's; .internal is everybody's own
IQN = "iqn.2024-07.internal.cornerstone"

Record = TypeVar("Record")


@dataclass(frozen=True)
class Initiator:
    """A host to the target: its iSCSI name, and the CHAP secret to its name."""

    name: str
    secret: str


@dataclass(frozen=True)
class Portal:
    """Where one CVM's target answers: an address, and the tag of its target portal group."""

    address: str
    tag: int

    def __str__(self) -> str:
        return f"{self.address}:{ports.ISCSI},{self.tag}"


@dataclass(frozen=True)
class Offer:
    """The cluster's target, where it answers, and the serials of its volumes (see device_name)."""

    target: str
    portals: tuple[Portal, ...]
    volumes: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """Portals that the host is logged in to, as `address:port,tag`; error: what didn't work, "" if all did.

    unseen: serials of the volumes that some of these portals don't show yet.
    """

    sessions: tuple[str, ...]
    error: str = ""
    unseen: tuple[str, ...] = ()


INITIATOR = Format("initiator.json", Initiator, "first boot of the host",
                   "host; CVM, as a credential and in Ceph (config-key)",
                   hint="see: journalctl -u first-boot", newer="boot a release that knows it, or image the node again")
OFFER = Format("offer", Offer, "the CVM's iSCSI target", "data-path.service of its host", message=True,
               hint="run the same release on both sides")
ANSWER = Format("answer", Answer, "data-path.service of the host", "the CVM's iSCSI target", message=True,
                hint="run the same release on both sides")
_LINES: dict[type, Format[Any]] = {each.kind: each for each in (INITIATOR, OFFER, ANSWER)}


def to_line(record: Any) -> bytes:
    """A record as one line of JSON, with the version of its format."""
    return json.dumps(_LINES[type(record)].write(record), separators=(",", ":")).encode() + b"\n"


def from_line(kind: type[Record], line: bytes, source: str) -> Record:
    """Read a record from a line. Raises CornerstoneError, with source, when it isn't one or of too old a version."""
    return _LINES[kind].read(line, source)


def device_name(serial: str) -> str:
    """Name below /dev/mapper of the volume with this unit serial (a UUID): multipath names a device by its NAA id.

    LIO forms that of its company id, 001405, and the first 25 hexadecimal digits of the serial.
    """
    return f"36001405{uuid.UUID(serial).hex[:25]}"

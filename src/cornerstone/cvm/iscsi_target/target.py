"""What the iSCSI target of this CVM has to be and is, and the steps from one to the other. Pure; lio.py takes them.

One iSCSI name for the cluster and one target portal group for each CVM, so that to an initiator all CVMs are ports of
one target. A volume has the same LUN and the same unit serial on all of them: multipath takes these for one device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cornerstone.model.contracts.iscsi import IQN, Initiator, Offer, Portal

# ALUA access states, SPC-5 6.36
ACTIVE, STANDBY = 0, 2


@dataclass(frozen=True, order=True)
class Lun:
    """A volume of the target. backstore is its name in LIO, and of its device below /dev/mapper."""

    number: int
    serial: str

    @property
    def backstore(self) -> str:
        return f"volume-{self.serial}"


@dataclass(frozen=True)
class Target:
    """One CVM's part of the cluster's target. tag: of its target portal group, from 1; portals: addresses."""

    name: str
    tag: int
    portals: frozenset[str] = frozenset()
    luns: frozenset[Lun] = frozenset()
    initiators: frozenset[Initiator] = frozenset()


@dataclass(frozen=True)
class Step:
    """One thing to do, verb and object: remove or add, a Lun, an Initiator or a portal's address."""

    verb: str
    what: Lun | Initiator | str


def target_name(fsid: str) -> str:
    """The cluster's iSCSI name."""
    return f"{IQN}:{fsid}"


def steps(present: Target, wanted: Target) -> Iterator[Step]:
    """What to do, in an order that works: what goes first, portals last, so that who logs in finds all that there is.

    An initiator whose secret changed goes and comes: its sessions end, and it logs in with the new one.
    """
    for kind in ("portals", "initiators", "luns"):
        before, after = getattr(present, kind), getattr(wanted, kind)
        yield from (Step("remove", what) for what in _sorted(before - after))
    for kind in ("luns", "initiators", "portals"):
        before, after = getattr(present, kind), getattr(wanted, kind)
        yield from (Step("add", what) for what in _sorted(after - before))


def _sorted(things: frozenset) -> list:
    return sorted(things, key=repr)


def offer(fsid: str, members: tuple[str, ...], own: str, internal: str, volumes: list[str]) -> Offer:
    """What this CVM offers its host: itself on the internal network, all other CVMs at their addresses."""
    return Offer(target_name(fsid), tuple(Portal(internal if member == own else member, number)
                                          for number, member in enumerate(members, 1)), tuple(volumes))

"""What the states of genesis work on and hand to each other: one node, in one process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cornerstone.cvm.membership import Membership
from cornerstone.lib.event import Event, Listener
from cornerstone.model.contracts.node import NodeConfig
from cornerstone.model.contracts.places import EVENTS_FILE, STATE

STAGE = "genesis"
EVENTS = STATE / EVENTS_FILE


@dataclass
class Node:
    """config: who it is; tell: where events go; membership: there from the state of this name on.

    osds: what another cluster has on the data disks, in words for people, while the node isn't a member.
    step: the state that runs now; warnings: what it has to say that doesn't stop it; note: keeps how it gets on.
    """

    config: NodeConfig
    tell: Listener
    membership: Membership | None = None
    osds: tuple[str, ...] = ()
    step: str = ""
    warnings: list[str] = field(default_factory=list)
    note: Callable[[str], None] = lambda message: None

    @property
    def member(self) -> Membership:
        """Its membership, in the states after that."""
        if self.membership is None:
            raise ValueError("this node is no member yet")
        return self.membership

    @property
    def address(self) -> str:
        """The CVM's own address, without its prefix."""
        return self.config.cvm.address.partition("/")[0]

    @property
    def members(self) -> tuple[str, ...]:
        """CVM addresses of all members in the site's order; a node without a cluster in the site is its own."""
        return self.config.cluster.members if self.config.cluster else (self.address,)

    def say(self, message: str) -> None:
        """Tell how the state that runs gets on; `genesis status` shows it too."""
        self.note(message)
        self.tell(Event(STAGE, self.step, "progress", message))

    def warn(self, message: str) -> None:
        """Tell something that is wrong and doesn't stop the state that runs; `genesis status` shows it too."""
        self.warnings.append(message)

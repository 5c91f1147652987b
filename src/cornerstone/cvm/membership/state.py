"""How a node is, as it tells the other members: its services as systemd has them, and how far genesis is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cornerstone.cvm import services
from cornerstone.cvm.membership.kept import load
from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.serde import Format
from cornerstone.model.contracts.genesis import Genesis

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class NodeState:
    """fsid: of its cluster, or ""; ready: all is up; now: else what genesis does, or for what it waits.

    stopped: somebody wants its services stopped.
    """

    fsid: str
    ready: bool
    now: str
    stopped: bool
    services: tuple[services.Service, ...]


STATE_FORMAT = Format("node state", NodeState, "the members' service of each CVM", "the command cluster on any CVM",
                      message=True)


def node_state(folder: Path) -> NodeState:
    """How this node is right now."""
    membership, held, running = load(folder), (folder / services.HELD.name).exists(), services.running()
    genesis = load_genesis(folder)
    ready = genesis is not None and genesis.ready and not held and all(service.up for service in running)
    return NodeState(membership.fsid if membership else "", ready, _now(genesis) if genesis else "genesis", held,
                     running)


def load_genesis(folder: Path) -> Genesis | None:
    """What genesis has told in this boot; None when it hasn't yet, for what an earlier boot has left says nothing."""
    try:
        genesis = Genesis.from_json((folder / "genesis.json").read_bytes())
    except (FileNotFoundError, CornerstoneError):
        return None
    return genesis if genesis.boot == BOOT_ID.read_text().strip() else None


def _now(genesis: Genesis) -> str:
    """The state that isn't done yet, and what it says."""
    for record in genesis.states:
        if record.state != "done":
            return f"{record.name}: {record.message or record.error}".rstrip(": ")
    return "services"

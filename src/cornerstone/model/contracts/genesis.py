"""How far a Controller VM is: genesis.json, its schema. Written by genesis in the CVM; nothing in it is secret.

Times are whole milliseconds: since is wall clock since the epoch, uptime is since the CVM's kernel started, took is how
long the last try lasted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from cornerstone.lib.serde import Format

SCHEMA_VERSION = 1
STATES = ("waiting", "running", "done", "failed")


@dataclass(frozen=True)
class StateRecord:
    """One state of genesis: name, state (of STATES) since when, what it says of its last try.

    error and hint: of the last try that failed, "" once it is done. warnings: what is wrong and doesn't stop it.
    tries: in this boot. message: of one that runs, how it gets on, or for what it waits.
    """

    name: str
    state: str = "waiting"
    since: int = 0
    uptime: int = 0
    took: int = 0
    tries: int = 0
    error: str = ""
    hint: str = ""
    warnings: tuple[str, ...] = ()
    message: str = ""


@dataclass(frozen=True)
class Genesis:
    """The whole file. boot: the kernel's boot id, so that what another boot has left can be told from this one's."""

    boot: str
    states: tuple[StateRecord, ...]
    schema: int = SCHEMA_VERSION

    @property
    def ready(self) -> bool:
        return all(record.state == "done" for record in self.states)

    def of(self, name: str) -> StateRecord:
        """One state by its name."""
        return next(record for record in self.states if record.name == name)

    def to_json(self) -> str:
        return json.dumps(GENESIS.write(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "genesis.json") -> Genesis:
        """Parse genesis.json. Raises CornerstoneError with the path of what is wrong."""
        return GENESIS.read(text, source)


GENESIS = Format("genesis.json", Genesis, "genesis, at each change", "the CVM's commands and its members' service",
                 SCHEMA_VERSION, key="schema", hint="restart genesis.service", newer="restart genesis.service")

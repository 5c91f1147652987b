"""The declaration of events, which every stage writes: the format itself stands in lib/event.py."""

from __future__ import annotations

from cornerstone.lib.event import SCHEMA_VERSION, Event
from cornerstone.lib.serde import Format

EVENT = Format("event", Event, "every stage: Foundation, first boot, host, genesis",
               "host (of its CVM), lab, whoever watches", SCHEMA_VERSION, message=True, key="v")

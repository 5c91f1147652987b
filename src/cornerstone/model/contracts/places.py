"""Where a node keeps things, on its host and in its Controller VM alike. Standard library only."""

from __future__ import annotations

from pathlib import Path

# what lasts; on the host it is node.FOLDER of the state partition
STATE = Path("/var/lib/cornerstone")
# until the next start
RUN = Path("/run/cornerstone")
# by their name in both
EVENTS_FILE = "events.jsonl"

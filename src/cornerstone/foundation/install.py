"""From a verified medium to a restarting node: discover, site, plan, addresses, image. Each stage tells what it does."""

from __future__ import annotations

STAGE = "foundation"

"""How full the cluster may get: the ratio from which on it warns, and how much may be promised to volumes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Ceph's own figures: from then on an OSD takes no copies from others, and no writes
BACKFILLFULL, FULL = 0.90, 0.95
# Warned of from here on at the latest; Ceph's own is 0.85. Five hundredths more to act before rebuilding stops.
NEARFULL = 0.80
# Volumes take room as they are written, so more may be sold than there is. OpenStack's Cinder sells up to 20 times as
# much (max_over_subscription_ratio); it can move volumes to another cluster, which we can't.
OVERCOMMIT = 10
MORE_ROOM = "delete volume groups that aren't needed (acli vg.delete), or add disks"


@dataclass(frozen=True)
class Capacity:
    """In bytes of volumes' data, which counts once however many copies of it there are.

    usable: fits before the cluster warns that it is nearly full; free: can be written until it is full.
    """

    usable: int
    free: int

    @property
    def most_sold(self) -> int:
        """Bytes that all volumes together may have."""
        return self.usable * OVERCOMMIT


def capacity(pool: str, df: Mapping[str, Any], osdmap: Mapping[str, Any]) -> Capacity:
    """The capacity of a Ceph pool, from the answers to `ceph df` and `ceph osd dump`; 0 while they don't know it."""
    copies = next(entry["size"] for entry in osdmap["pools"] if entry["pool_name"] == pool)
    free = next((entry["stats"]["max_avail"] for entry in df["pools"] if entry["name"] == pool), None)
    if free is None:
        return Capacity(0, 0)
    return Capacity(int(df["stats"]["total_bytes"] * osdmap["nearfull_ratio"]) // copies, free)


def nearfull_ratio(domains: Sequence[float], copies: int) -> float:
    """The ratio from which on the cluster is nearly full: what is left has room for the copies of the largest domain.

    domains: how much each host holds, on a single one each disk, in any unit. Where no domain is left over for the
    copies of one that failed, nothing is rebuilt and no room is kept for it.
    """
    filled = [each for each in domains if each > 0]
    if len(filled) <= copies:
        return NEARFULL
    total = sum(filled)
    # rounded before it is cut, so that 0.9 × 2 / 3 isn't 0.59
    return min(NEARFULL, math.floor(round(100 * BACKFILLFULL * (total - max(filled)) / total, 6)) / 100)

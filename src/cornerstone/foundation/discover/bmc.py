"""The management controller, as ipmitool reads it through /dev/ipmi0."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cornerstone.model.disk_identity import shown
from cornerstone.model.facts import Bmc

SECONDS = 10
UNSET = ("0.0.0.0", "00:00:00:00:00:00")  # noqa: S104 (what a BMC says when nobody has set it)


def read_bmc(root: Path) -> Bmc:
    """Present when the device is there; the rest is "" when the BMC doesn't tell it in time."""
    if not (root / "dev/ipmi0").exists():
        return Bmc()
    lan = fields(_ipmitool("lan", "print"))

    def told(key: str) -> str:
        value = lan.get(key, "")
        return "" if value in UNSET else value
    vendor = fields(_ipmitool("mc", "info")).get("Manufacturer Name", "")
    return Bmc(True, "" if vendor.startswith("Unknown") else vendor, told("IP Address"),
               told("Subnet Mask"), told("Default Gateway IP"), told("MAC Address"))


def fields(text: str) -> dict[str, str]:
    """ipmitool's `Key   : value` lines; of a key without a name, which continues the one above, nothing."""
    lines = (line.partition(": ") for line in text.split("\n"))
    return {key.strip(): shown(value.strip()) for key, _, value in lines if key.strip()}


def _ipmitool(*words: str) -> str:
    try:
        done = subprocess.run(["ipmitool", *words], capture_output=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")

"""The management controller, as ipmitool reads it through /dev/ipmi0."""

from __future__ import annotations

import contextlib
from pathlib import Path

from cornerstone.lib import command
from cornerstone.lib.printable import escaped
from cornerstone.model.contracts.facts import Bmc

SECONDS = 10
# those that can be a LAN's (IPMI 2.0, table 6-1)
CHANNELS = range(1, 12)
UNSET = ("0.0.0.0", "00:00:00:00:00:00")  # noqa: S104 (what a BMC says when nobody has set it)


def read_bmc(root: Path) -> Bmc:
    """Present when the device is there; the rest is "" when the BMC doesn't tell it in time."""
    if not (root / "dev/ipmi0").exists():
        return Bmc()
    lans, vendor = [], ""
    # one that is silent once stays so, and there are many channels to ask
    with contextlib.suppress(TimeoutError):
        vendor = fields(_ipmitool("mc", "info")).get("Manufacturer Name", "")
        for number in CHANNELS:
            lans += [fields(text)] if (text := _ipmitool("lan", "print", str(number))) else []

    def told(key: str, lan: dict[str, str]) -> str:
        value = lan.get(key, "")
        return "" if value in UNSET else value

    # of several LAN channels the one in use is escaped; the machine is known by the MACs of all
    used = next((lan for lan in lans if told("IP Address", lan)), lans[0] if lans else {})
    macs = dict.fromkeys(told("MAC Address", lan) for lan in lans)
    return Bmc(True, "" if vendor.startswith("Unknown") else vendor,
               *(told(key, used) for key in ("IP Address", "Subnet Mask", "Default Gateway IP", "MAC Address")),
               tuple(mac for mac in macs if mac and mac != used.get("MAC Address")))


def fields(text: str) -> dict[str, str]:
    """ipmitool's `Key   : value` lines; of a key without a name, which continues the one above, nothing."""
    lines = (line.partition(": ") for line in text.split("\n"))
    return {key.strip(): escaped(value.strip()) for key, _, value in lines if key.strip()}


def _ipmitool(*words: str) -> str:
    done = command.run(["ipmitool", *words], seconds=SECONDS)
    if not done.ended and done.code == command.TIMED_OUT:
        raise TimeoutError(done.said)
    return done.text

"""Who the machine says it is, from the SMBIOS tables."""

from __future__ import annotations

from pathlib import Path

from cornerstone.lib.printable import escaped
from cornerstone.lib.sysfs import read
from cornerstone.model.contracts.facts import Dmi

# What vendors leave in fields that nobody filled in: worse than nothing, because many machines have the same.
PLACEHOLDERS = (
    "to be filled by o.e.m.", "default string", "not specified", "not available", "system serial number",
    "chassis serial number", "system product name", "system manufacturer", "0123456789", "123456789", "1234567890",
    "none", "n/a", "unknown", "part component", "invalid", "empty", "oem", "o.e.m.")
BASEBOARD = 2
LOCATION_IN_CHASSIS = 0x0A


def read_dmi(sys: Path) -> Dmi:
    """Fields that hold a vendor's placeholder, or one character over and over, count as not told."""
    fields = sys / "class/dmi/id"

    def field(name: str) -> str:
        return told(read(fields / name))
    return Dmi(field("sys_vendor"), field("product_name"), field("product_serial"), field("chassis_serial"),
               field("product_uuid"), told(_position(sys / "firmware/dmi/tables/DMI")))


def told(text: str) -> str:
    """The text, or "" when it is a placeholder."""
    empty = text.lower() in PLACEHOLDERS or (len(text) > 3 and len(set(text.replace("-", ""))) <= 1)
    return "" if empty else text


def _position(table: Path) -> str:
    """The baseboard's place in its chassis (SMBIOS 3.7, 7.3), the first that is told."""
    try:
        content = table.read_bytes()
    except OSError:
        return ""
    at = 0
    while at + 4 <= len(content):
        kind, length = content[at], content[at + 1]
        # The structure's strings follow it; two zero bytes end them.
        end = content.find(b"\0\0", at + length)
        if length < 4 or end < 0:
            break
        if kind == BASEBOARD and length > LOCATION_IN_CHASSIS:
            index = content[at + LOCATION_IN_CHASSIS]
            strings = content[at + length:end].split(b"\0")
            if 0 < index <= len(strings) and strings[index - 1].strip():
                return escaped(strings[index - 1].decode("ascii", "replace").strip())
        at = end + 2
    return ""

"""Messages of QEMU's machine protocol, one JSON object a line."""

from __future__ import annotations

from typing import Any

from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.json_text import parse_once
from cornerstone.lib.printable import shown


def message(line: bytes) -> dict[str, Any]:
    """Parse a line; an empty one is an empty message. Raises CornerstoneError when it is no object in JSON."""
    if not line.strip():
        return {}
    try:
        found = parse_once(line)
    except ValueError as error:
        raise _unknown(str(error), line) from None
    if not isinstance(found, dict) or not isinstance(found.get("data", {}), dict):
        raise _unknown("is no message", line)
    return found


def _unknown(why: str, line: bytes) -> CornerstoneError:
    return CornerstoneError(f"what QEMU says by QMP {why}: {shown(line[:80].decode(errors='replace'))}",
                            "see qemu.log beside the console log", Code.MACHINE)

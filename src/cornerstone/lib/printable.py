"""Text from outside, made fit for a terminal and a log. Standard library only."""

from __future__ import annotations

import json
from typing import Any

LONGEST = 60
_CUT = "..."


def printable(text: str, longest: int | None = None) -> str:
    """Return text with whatever doesn't print escaped as \\x1b or \\u202e, cut to longest characters.

    Escaped are control characters, line breaks, bidirectional and other format characters, and lone surrogates.
    """
    if longest is not None and len(text) > longest:
        text = text[:longest - len(_CUT)] + _CUT
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def escaped(text: str) -> str:
    """Return text from a disk or a tool fit for a screen, a log and a terminal: what can't be printed as \\x0a."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def printable_lines(text: str) -> str:
    """Return text of several lines with each line printable; tabs stay."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def shown(value: Any, longest: int = LONGEST) -> str:
    """Return a parsed JSON value for a message, cut when long. Objects and lists may hold secrets: they are named only.
    """
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    return printable(f"'{value}'" if isinstance(value, str) else json.dumps(value), longest)


def quoted(value: Any, longest: int = LONGEST) -> str:
    """Return a parsed JSON value as Python writes it, and otherwise as shown does."""
    if isinstance(value, (dict, list)) and value:
        return shown(value)
    return printable(repr(value[:longest] if isinstance(value, str) else value), longest)

"""Which of two versions of a Debian package is newer."""

from __future__ import annotations

import re
from itertools import zip_longest


def compare(a: str, b: str) -> int:
    """Below 0 when version a is older than b, 0 when they are equal, else above. Source: Debian Policy, 5.6.12."""
    for left, right in zip(_split(a), _split(b), strict=True):
        parts = zip_longest(_parts(left), _parts(right), fillvalue=([0], 0))
        if order := next((-1 if x < y else 1 for x, y in parts if x != y), 0):
            return order
    return 0


def _split(version: str) -> tuple[str, str, str]:
    """Epoch, upstream version and revision."""
    epoch, colon, rest = version.rpartition(":") if ":" not in version else version.partition(":")
    upstream, dash, revision = rest.rpartition("-")
    return (epoch if colon else "0", upstream if dash else rest, revision if dash else "0")


def _parts(text: str) -> list[tuple[list[int], int]]:
    """Pairs of what isn't a digit, as its place in the order (~, end, letters, others), and of the number after it."""
    def place(character: str) -> int:
        return -1 if character == "~" else ord(character) + (0 if character.isalpha() else 256)
    return [([*map(place, word), 0], int(number or 0)) for word, number in re.findall(r"([^0-9]*)([0-9]*)", text)
            if word or number]

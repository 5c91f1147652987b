"""Sizes in words, for people."""

from __future__ import annotations


def size(count: int) -> str:
    """Bytes in the unit that fits: 355.9 MiB, 12 B."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def grown(count: int) -> str:
    """The same with its sign; nothing for 0."""
    return f"{'+' if count > 0 else '-'}{size(abs(count))}" if count else ""


def share(a: int, b: int) -> str:
    """How much b is more than a, in percent with its sign; nothing when they are equal."""
    if a == b:
        return ""
    return f"{(b - a) * 100 / a:+.2f}%" if a else "new"

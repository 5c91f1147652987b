"""How far something is that counts bytes: told once a percent, whatever the number of calls."""

from __future__ import annotations

from collections.abc import Callable

from cornerstone.lib.event import Event, Listener

MIB = 1 << 20


def by_percent(report: Callable[[int, int, int], object], every: int = 1) -> Callable[[int, int], None]:
    """Return what takes (done, total) and calls report(percent, done, total) when it has grown by so many percent."""
    last = -1

    def progress(done: int, total: int) -> None:
        nonlocal last
        percent = 100 * done // max(total, 1)
        if percent >= last + every:
            last = percent
            report(percent, done, total)
    return progress


def tell_bytes(listener: Listener, stage: str, step: str) -> Callable[[int, int], None]:
    """Return what takes (done, total) in bytes and tells, once a percent, how many MiB these are."""
    return by_percent(lambda percent, done, total: listener(
        Event(stage, step, "progress", f"{done // MIB} of {total // MIB} MiB", {"percent": percent})))

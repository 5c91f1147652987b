"""The host's multipath maps of volumes: which there are, and the end of their queues."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., tuple[int, str]]

# LIO's company id in the NAA id of what it shows (see model/contracts/iscsi.py's device_name)
OURS = "36001405"
# words of multipathd, which may come with the exit code 0
_NOT_DONE = ("fail", "timeout", "blocked")


def maps(block: Path) -> list[str]:
    """The names of all maps of volumes below /sys/block."""
    found = []
    for uuid in block.glob("dm-*/dm/uuid"):
        # one may go while we look
        with contextlib.suppress(OSError):
            found.append(uuid.read_text().strip().removeprefix("mpath-"))
    return sorted(name for name in found if name.startswith(OURS))


def stop_queueing(run: Run, name: str = "") -> list[str]:
    """Have I/O that has no path fail from now on, for one map or for all. Returns what of it didn't work.

    multipathd is asked, which otherwise switches queueing on again when a path comes and goes; the kernel is told
    itself, for each map, when multipathd doesn't answer.
    """
    code, said = run("multipathd", "disablequeueing", *(("map", name) if name else ("maps",)))
    if not code and not said.startswith(_NOT_DONE):
        return []
    problems = [f"multipathd doesn't stop queueing: {said}"]
    names = [name]
    if not name:
        code, said = run("dmsetup", "ls", "--target", "multipath")
        if code:
            problems.append(f"the maps aren't known: {said}")
        # "No devices found", or lines of a name and its number in brackets
        names = [line.split()[0] for line in said.splitlines() if line.endswith(")")] if not code else []
    for each in names:
        code, said = run("dmsetup", "message", each, "0", "fail_if_no_path")
        if code:
            problems.append(f"{each} goes on queueing: {said}")
    return problems

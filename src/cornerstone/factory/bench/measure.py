"""Measure whole processes from outside, and set them side by side."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cornerstone.lib import process


@dataclass(frozen=True)
class Usage:
    """What a process and all that it started took: wall and CPU in seconds, and the memory of its largest, in bytes.

    Below this process's own memory the last figure can't be seen: a child begins as a copy of it.
    """

    wall: float
    cpu: float
    memory: int


def measure(argv: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None,
            cwd: Path | None = None) -> Usage:
    """Run argv to its end, its output appended to log, and return what it took.

    env is added to the tools' one environment. Raises CornerstoneError (STEP) when it fails.
    """
    words = [str(word) for word in argv]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        out.write(f"+ {process.by_hand(words, env)}\n".encode())
        out.flush()
        process.find(words[0], env)
        begun = time.monotonic()
        child = subprocess.Popen([*process.WITH_US, *words], stdin=subprocess.DEVNULL, stdout=out,
                                 stderr=subprocess.STDOUT, cwd=cwd, env=process.environment(env),
                                 start_new_session=True, pass_fds=tuple(process.guards))
        try:
            _, status, used = os.wait4(child.pid, 0)
        except BaseException:
            process.end_family(child)
            raise
        wall = time.monotonic() - begun
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        process.end_family(child)
        raise process.explain(words, child.returncode, log, env)
    return Usage(wall, used.ru_utime + used.ru_stime, used.ru_maxrss << 10)


def side_by_side(ways: Mapping[str, Callable[[], Usage]], rounds: int) -> dict[str, tuple[Usage, ...]]:
    """Run every way once a round, in turns, so that what disturbs the machine disturbs all of them.

    What was written before is synced first, so that nobody pays for another's writing.
    """
    runs: dict[str, list[Usage]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            os.sync()
            runs[name].append(way())
    return {name: tuple(found) for name, found in runs.items()}


def ratio(ours: Sequence[Usage], theirs: Sequence[Usage]) -> float:
    """The median of ours by theirs in wall time, taken pair by pair."""
    return statistics.median(mine.wall / other.wall for mine, other in zip(ours, theirs, strict=True))


def typical(runs: Sequence[Usage]) -> Usage:
    """The median of each figure; of the memory the most."""
    return Usage(statistics.median(run.wall for run in runs), statistics.median(run.cpu for run in runs),
                 max(run.memory for run in runs))

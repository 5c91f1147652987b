"""`invoke test`: pytest on the tiers of tests/, and its end as a code of docs/errors.md."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from cornerstone.factory.settings import Workspace
from cornerstone.lib.error import Code, CornerstoneError

TIERS = ("unit", "build", "image", "sandbox", "boot", "node")
ON_DEMAND = ("engine", "power")
# Tiers of different lanes run beside each other, for a machine under emulation keeps about one CPU busy. The second
# lane makes the ISOs while the unit tests, which need none, run in the first.
LANES = (("unit", "boot"), ("build", "image", "sandbox", "node", *ON_DEMAND))


def run_tiers(workspace: Workspace, names: str, nightly: bool = False) -> int:
    """Run tiers by name with commas, or `all`; returns 0 or Code.FAILED. Raises CornerstoneError for other names.

    nightly: with the tests that are marked so. Raises CornerstoneError (MACHINE) when pytest itself couldn't run the
    tests.
    """
    tiers = TIERS if names == "all" else tuple(name.strip() for name in names.split(","))
    known = (*TIERS, *ON_DEMAND)
    if wrong := [name for name in tiers if name not in known]:
        raise CornerstoneError(f"there is no test tier {wrong[0]!r}", f"{', '.join(known[:-1])}, {known[-1]} or all")
    lanes = [chosen for lane in LANES if (chosen := [name for name in lane if name in tiers])]
    return max(map(judge, run_pytest(workspace, lanes, nightly)))


def judge(code: int) -> int:
    """The exit code of pytest as one of ours: 0, or FAILED for tests that failed or couldn't be collected.

    Raises CornerstoneError when pytest didn't get as far as running tests.
    """
    if code in (0, 1, 2):
        return int(Code.FAILED) if code else 0
    why, kind = {4: ("it can't use its options", Code.INPUT), 5: ("there are no tests to run", Code.INPUT)}.get(
        code, ("pytest itself failed", Code.STEP))
    raise CornerstoneError(f"the tests couldn't be run: {why} (pytest ended with {code})",
                           "its own lines, above, say more; PYTEST_ADDOPTS adds options and can leave tests out", kind)


def run_pytest(workspace: Workspace, groups: list[list[str]], nightly: bool = False) -> list[int]:
    """Run pytest on each group of tiers, all at the same time; returns the exit code of each.

    What the first says is seen as it goes, the others' at the end. output/junit-TIERS.xml has the results of each.
    """
    workspace.output.mkdir(exist_ok=True)
    running: list[tuple[subprocess.Popen[bytes], Path]] = []
    try:
        for tiers in groups:
            name = "-".join(tiers)
            log = workspace.output / f"test-{name}.log"
            argv = [sys.executable, "-m", "pytest", f"--junitxml={workspace.output / f'junit-{name}.xml'}",
                    *(("-m", "") if nightly else ()), *(workspace.root / "tests" / tier for tier in tiers)]
            # A session of its own: Ctrl-C is passed on once, and waited for, so that its machines are ended in order.
            with _opened(log if running else None) as out:
                running.append((subprocess.Popen(argv, cwd=workspace.root, stdout=out, stderr=out,
                                                 start_new_session=True), log))
        return [process.wait() for process, _ in running]
    finally:
        for process, _ in running:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait()
        for _, log in running[1:]:
            sys.stdout.write(log.read_text(encoding="utf-8", errors="replace"))


@contextlib.contextmanager
def _opened(log: Path | None) -> Iterator[int | None]:
    if log is None:
        yield None
        return
    with log.open("wb") as file:
        yield file.fileno()

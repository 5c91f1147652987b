"""Run the cases one after the other, keep what each found at once, and clean up."""

from __future__ import annotations

import json
from pathlib import Path

from cornerstone.factory.bench import table
from cornerstone.factory.bench.bench import Bench
from cornerstone.factory.bench.cases import CASES, chosen
from cornerstone.factory.bench.machine import describe
from cornerstone.factory.build.build import check_privilege
from cornerstone.factory.scratch import own_folder
from cornerstone.factory.settings import Workspace
from cornerstone.lib.atomic import put
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.event import Event, Listener
from cornerstone.model.profile.profile import Profile

STAGE = "bench"


def run_bench(workspace: Workspace, profile: Profile, cases: str, rounds: int, output: Path,
              listener: Listener) -> list[table.Result]:
    """Measure some cases (names with commas, or all) and write bench.json and bench.md into output.

    A case that fails leaves its reason among the results, and the others go on. What the cases make lies in
    a temporary folder of the cache, as a build's, and is removed.
    """
    names = chosen(cases)
    if rounds < 1:
        raise CornerstoneError(f"{rounds} rounds measure nothing", "give at least 1", Code.INPUT)
    check_privilege()
    output = output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    results: list[table.Result] = []
    with own_folder(workspace) as mine:
        bench = Bench(workspace, profile, rounds, mine.temporary, output / "logs")
        machine = describe(bench.work, workspace.root)
        for log in bench.logs.glob("*.log"):
            log.unlink()
        bench.prepare()
        for name in names:
            listener(Event(STAGE, name, "started"))
            try:
                results.append(CASES[name](bench))
            except CornerstoneError as error:
                results.append(table.Result(name, failed=error.message))
                listener(Event(STAGE, name, "failed", error.message.partition("\n")[0]))
            else:
                listener(Event(STAGE, name, "done", results[-1].left_out))
            put(output / "bench.json", json.dumps(table.record(machine, results), indent=1) + "\n")
            put(output / "bench.md", table.markdown(machine, results))
    return results


def verdict(results: list[table.Result], strict: bool) -> int:
    """The exit code: FAILED when a case couldn't be measured, or with strict when a target is missed; else 0."""
    missed = any(not check.met for result in results for check in result.checks)
    return int(Code.FAILED) if any(result.failed for result in results) or (strict and missed) else 0

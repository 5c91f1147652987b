"""The cases that measure our own builds, each against what issue and reader hold it to; and the list of all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from cornerstone.factory.bench import compression, mastering, peers
from cornerstone.factory.bench.bench import CONTAINED, SHORT_RUNS, Bench
from cornerstone.factory.bench.measure import Usage, measure, ratio, side_by_side, typical
from cornerstone.factory.bench.table import Check, Figure, Result
from cornerstone.factory.build.plan import make_plan
from cornerstone.factory.payload import root
from cornerstone.factory.settings import Workspace
from cornerstone.factory.signing.signing import signing_key
from cornerstone.lib.error import Code, CornerstoneError

OURS = "invoke build, empty store, warm pool"
TOGETHER, IN_TURN = "floor, both roots at once", "floor, one root after the other"


def cold(bench: Bench) -> Result:
    """A build from nothing but the packages, against the floor under it."""
    def ours() -> Usage:
        bench.forget()
        return bench.build("cold")

    runs = side_by_side({OURS: ours, TOGETHER: lambda: _floor(bench, "together"),
                         IN_TURN: lambda: _floor(bench, "in-turn")}, bench.rounds)
    quicker = min(TOGETHER, IN_TURN, key=lambda way: typical(runs[way]).wall)
    return Result("cold", tuple(Figure("cold", way, found) for way, found in runs.items()),
                  (Check("cold", "our build by the floor", ratio(runs[OURS], runs[quicker]), 1.2, "×", note=quicker),))


def _floor(bench: Bench, how: str) -> Usage:
    folder = bench.work / "floor"
    try:
        bench.repositories(folder)
        return measure([*CONTAINED, Path(__file__).with_name("floor.sh"), how, bench.profile.reference.suite, bench.iso,
                        folder], log=bench.logs / "floor.log",
                       env={"COMPRESSION": " ".join(root.COMPRESSION), "LC_ALL": "C.UTF-8", "TMPDIR": str(bench.work),
                            "SOURCE_DATE_EPOCH": str(max(lock.epoch for lock in bench.locks.values()))})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def no_op(bench: Bench) -> Result:
    """A build when nothing changed."""
    bench.built()
    runs = side_by_side({"": lambda: bench.build("no-op")}, SHORT_RUNS * bench.rounds)[""]
    return Result("no-op", (Figure("no-op", "invoke build, nothing changed", runs),),
                  (Check("no-op", "whole process", typical(runs).wall, 0.7, "s"),))


def customize(bench: Bench) -> Result:
    """Another site file into an ISO, in place."""
    sites = sorted(path for path in (bench.checkout / "sites").glob("*.json") if path.name != "schema.json")
    if not sites:
        return Result("customize", left_out="this checkout has no site files")
    iso = bench.work / "customize.iso"
    shutil.copyfile(bench.built(), iso)

    def ours() -> Usage:
        bench.invoke("customize", iso, "--reset", log="customize")
        return bench.invoke("customize", iso, "--site", sites[0], log="customize")

    try:
        runs = side_by_side({"": ours}, SHORT_RUNS * bench.rounds)[""]
    finally:
        iso.unlink()
    return Result("customize", (Figure("customize", f"invoke customize --site {sites[0].name}", runs),),
                  (Check("customize", "whole process", typical(runs).wall, 0.5, "s"),))


def one_element(bench: Bench) -> Result:
    """One static file of an element of the cvm root changed: that root, what follows from it, and the ISO are made."""
    bench.built()
    workspace = Workspace(bench.checkout)
    plan = make_plan(workspace, bench.profile, signing_key(bench.cache))
    expected = {"cvm", "iso"}
    for layer in plan.layers.values():
        if expected & {needed.name for needed in layer.needs}:
            expected.add(layer.name)
    file = next((workspace.elements / "cvm" / "static").rglob("*.preset"))
    before, wrong, turn = file.read_bytes(), set(), 0

    def ours() -> Usage:
        nonlocal turn
        turn += 1
        file.write_bytes(before + f"# changed {turn}\n".encode())
        (bench.product / "events.jsonl").unlink(missing_ok=True)
        usage = bench.build("one-element")
        wrong.update(bench.made() & {*plan.layers, "iso"} ^ expected)
        return usage

    try:
        runs = side_by_side({"": ours}, bench.rounds)[""]
    finally:
        file.write_bytes(before)
        bench.iso.unlink(missing_ok=True)
    made = f"made: {', '.join(sorted(expected))}" if not wrong else f"made or not made: {', '.join(sorted(wrong))}"
    return Result("one-element", (Figure("one-element", f"invoke build, {file.name} of cvm changed", runs, made),),
                  (Check("one-element", "layers made needlessly, or not made", len(wrong), 0, ""),))


CASES: Mapping[str, Callable[[Bench], Result]] = {
    "cold": cold, "no-op": no_op, "customize": customize, "one-element": one_element,
    "mastering": mastering.real, "mastering-large": mastering.large,
    "stock": peers.stock, "mkosi": peers.mkosi, "live-build": peers.live_build,
    "compression": compression.choices,
}
# What is measured once for a decision, and not each time.
ON_DEMAND = ("compression",)


def chosen(names: str) -> list[str]:
    """The cases of a list with commas, in the order in which they serve each other; without one, all but ON_DEMAND."""
    if not names:
        return [name for name in CASES if name not in ON_DEMAND]
    asked = [name.strip() for name in names.split(",")]
    if unknown := [name for name in asked if name not in CASES]:
        raise CornerstoneError(f"there is no case {unknown[0]!r}", f"choose from {', '.join(CASES)}", Code.INPUT)
    return [name for name in CASES if name in asked]

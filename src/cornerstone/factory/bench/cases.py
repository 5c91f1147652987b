"""The cases that measure our own builds, each against what issue and reader hold it to; and the list of all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cornerstone.factory.bench import compression, mastering, peers
from cornerstone.factory.bench.bench import SHORT_RUNS, Bench
from cornerstone.factory.bench.measure import Usage, measure, ratio, side_by_side, typical
from cornerstone.factory.bench.table import Check, Figure, Result
from cornerstone.factory.build.plan import make_plan
from cornerstone.factory.contained import CONTAINED
from cornerstone.factory.payload import root
from cornerstone.factory.settings import Workspace
from cornerstone.factory.signing.signing import signing_key
from cornerstone.factory.store.closure import PACKAGE
from cornerstone.factory.store.layers import Layer
from cornerstone.lib.error import Code, CornerstoneError

OURS = "invoke build, empty store, warm pool"
NOTHING, START = "invoke build, nothing changed", "invoke --version"
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
    """A build when nothing changed, against the start of the same program."""
    bench.built()
    runs = side_by_side({START: lambda: bench.invoke("--version", log="no-op"),
                         NOTHING: lambda: bench.build("no-op")}, SHORT_RUNS * bench.rounds)
    return Result("no-op", tuple(Figure("no-op", way, found) for way, found in runs.items()), (
        Check("no-op", "nothing changed, by invoke --version", ratio(runs[NOTHING], runs[START]), 2.5, "×"),
        Check("no-op", "whole process", typical(runs[NOTHING]).wall, 0.7, "s"),))


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
    file = next((bench.checkout / "elements" / "cvm" / "static").rglob("*.preset"))
    change = Change(file, lambda text, turn: f"{text}# changed {turn}\n", {"cvm"})
    return _one_change(bench, "one-element", change, 0.25)


def one_module(bench: Bench) -> Result:
    """One module of the room that runs in the CVM changed: as for an element."""
    file = bench.checkout / "src" / PACKAGE / "controller" / "node.py"
    change = Change(file, lambda text, turn: f"{text}CHANGED = {turn}\n", {"cvm"})
    return _one_change(bench, "one-module", change, 0.25)


def one_size(bench: Bench) -> Result:
    """One size of the profile changed: the CVM's disk and the ISO are made."""
    disk = bench.profile.cvm.disk >> 30
    file = bench.checkout / "profiles" / f"{bench.profile.name}.yaml"

    def grow(text: str, turn: int) -> str:
        return f"{text}\ncontroller: {{disk: {disk + turn} GiB}}\n"

    return _one_change(bench, "one-size", Change(file, grow, {"cvm-disk"}), 0.1)


def one_rule(bench: Bench) -> Result:
    """One rule on which releases go together changed: nothing is made."""
    file = bench.checkout / "src" / PACKAGE / "model" / "rules" / "release.py"
    return _one_change(bench, "one-rule", Change(file, lambda text, turn: f"{text}CHANGED = {turn}\n", set()), 0.05)


@dataclass(frozen=True)
class Change:
    """A change that a benchmark makes in the checkout.

    A file, how (its text and the number of the turn), the layers that it moves.

    An ISO is made again when any layer is.
    """

    file: Path
    make: Callable[[str, int], str]
    moves: set[str]


def _one_change(bench: Bench, case: str, change: Change, limit: float) -> Result:
    """A build after one change, against a cold build just before it, and what of it was made."""
    plan = make_plan(Workspace(bench.checkout), bench.profile, signing_key(bench.cache))
    expected = following(plan.layers.values(), change.moves)
    before, wrong, turn = change.file.read_text(), set(), 0

    def ours() -> Usage:
        bench.forget()
        return bench.build(case)

    def changed() -> Usage:
        nonlocal turn
        turn += 1
        change.file.write_text(change.make(before, turn))
        (bench.product / "events.jsonl").unlink(missing_ok=True)
        usage = bench.build(case)
        wrong.update(bench.made() & {*plan.layers, "iso"} ^ expected)
        return usage

    what = f"invoke build, {change.file.name} changed"
    try:
        runs = side_by_side({OURS: ours, what: changed}, bench.rounds)
    finally:
        change.file.write_text(before)
        bench.iso.unlink(missing_ok=True)
    made = f"made: {', '.join(sorted(expected)) or 'nothing'}" if not wrong else \
        f"made or not made: {', '.join(sorted(wrong))}"
    return Result(case, (Figure(case, OURS, runs[OURS]), Figure(case, what, runs[what], made)), (
        Check(case, "by a cold build of the same round", ratio(runs[what], runs[OURS]), limit, "×"),
        Check(case, "layers made needlessly, or not made", len(wrong), 0, "")))


def following(layers: Iterable[Layer], moved: set[str]) -> set[str]:
    """Return the names of the layers that moved and of all that are made from them; and the ISO's, if any did."""
    found = set(moved)
    for layer in layers:  # needed ones come first
        if found & {needed.name for needed in layer.needs}:
            found.add(layer.name)
    return found | ({"iso"} if found else set())


CASES: Mapping[str, Callable[[Bench], Result]] = {
    "cold": cold, "no-op": no_op, "customize": customize, "one-element": one_element, "one-module": one_module,
    "one-size": one_size, "one-rule": one_rule,
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

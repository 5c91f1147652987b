"""Mastering alone: our ISO from its real files, against cp of the same bytes, and xorriso with the same files.

    python -m cornerstone.factory.bench.mastering JOB.json    masters once: a process of its own, to be measured
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from cornerstone.customize import iso_image
from cornerstone.factory.bench.bench import SHORT_RUNS, Bench
from cornerstone.factory.bench.measure import Usage, measure, side_by_side, typical
from cornerstone.factory.bench.table import Check, Figure, Result
from cornerstone.factory.iso import mastering
from cornerstone.lib import process
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.fat import MIB
from cornerstone.model.contracts.manifest import NAME

LARGE = 6 << 30
MEMORY_LIMIT = 300 * MIB
OURS, CP, XORRISO = "our mastering", "cp of the same files", "xorriso with the same files"


def real(bench: Bench) -> Result:
    """With the real layers."""
    return _compare("mastering", bench, unpack(bench), SHORT_RUNS * bench.rounds, "")


def large(bench: Bench) -> Result:
    """With one more layer of 6 GiB: memory mustn't grow with it."""
    files = unpack(bench)
    layer = bench.work / "mastering" / "large"
    # the layer, what is written from it, and room to breathe
    dense = shutil.disk_usage(bench.work).free > 3 * LARGE
    with layer.open("wb") as out:
        if dense:
            piece = os.urandom(8 * MIB)
            for _ in range(LARGE // len(piece)):
                out.write(piece)
        out.truncate(LARGE)
    return _compare("mastering-large", bench, {**files, "layers/large": layer}, bench.rounds,
                    "with 6 GiB of data" if dense else "with 6 GiB of holes: the disk is short")


def unpack(bench: Bench) -> dict[str, Path]:
    """The files of the built ISO by their paths on it; those are the real layers and all that goes with them."""
    folder = bench.work / "mastering" / "files"
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(parents=True)
    process.run(["xorriso", "-osirrox", "on", "-indev", bench.built(), "-extract", "/", folder],
                log=bench.logs / "mastering.log")
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    # the boot catalog is mastering's own
    files.pop(iso_image.BOOT_CATALOG)
    return files


def _compare(case: str, bench: Bench, files: Mapping[str, Path], rounds: int, note: str) -> Result:
    folder, log = bench.work / "mastering", bench.logs / "mastering.log"
    manifest = json.loads(files[NAME].read_text())
    target, copies, seconds = folder / "ours.iso", folder / "copies", folder / "seconds"
    with bench.iso.open("rb") as built:
        boot_hybrid = built.read(512)
    job = folder / "job.json"
    job.write_text(json.dumps({
        "target": str(target), "files": {path: str(at) for path, at in files.items()}, "seconds": str(seconds),
        "boot_hybrid": boot_hybrid.hex(), "identity": manifest["identity"], "epoch": manifest["epoch"]}))
    inside: list[float] = []
    syncs: dict[str, list[float]] = {OURS: [], CP: [], XORRISO: []}

    def ours() -> Usage:
        usage = measure([sys.executable, "-m", __spec__.name, job], log=log,
                        env={"PYTHONPATH": str(bench.checkout / "src")})
        inside.append(float(seconds.read_text()))
        return usage

    def cp() -> Usage:
        copies.mkdir()
        return measure(["cp", "--reflink=never", "--backup=numbered", *files.values(), copies], log=log)

    def xorriso() -> Usage:
        return measure(["xorriso", "-as", "mkisofs", "-o", target, "-J", "-R", "-iso-level", "3", "-graft-points",
                        *(f"{path}={at}" for path, at in files.items())], log=log)

    def alike(name: str, way: Callable[[], Usage]) -> Callable[[], Usage]:
        def run() -> Usage:
            # each begins with its sources in the page cache, nothing to write back, and no file in its place
            for at in files.values():
                process.read(["sh", "-c", 'cat -- "$1" >/dev/null', "-", at])
            usage = way()
            begun = time.monotonic()
            os.sync()
            syncs[name].append(time.monotonic() - begun)
            target.unlink(missing_ok=True)
            shutil.rmtree(copies, ignore_errors=True)
            return usage
        return run

    try:
        runs = side_by_side({name: alike(name, way) for name, way in ((OURS, ours), (CP, cp), (XORRISO, xorriso))},
                            rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    synced = {name: f"{note}; " * bool(note) + f"sync after it {statistics.median(times):.2f} s"
              for name, times in syncs.items()}
    synced[OURS] += f"; without the interpreter's start {statistics.median(inside):.2f} s"
    # mastering is a call within the build, so the speeds are those of the call, its process's start left out
    against = {name: statistics.median(other.wall / mine for mine, other in zip(inside, runs[name], strict=True))
               for name in (CP, XORRISO)}
    return Result(case, tuple(Figure(case, name, found, synced[name]) for name, found in runs.items()), (
        Check(case, "speed by cp's", against[CP], 0.8, "×", at_least=True, note=note),
        Check(case, "speed by xorriso's", against[XORRISO], 1.0, "×", at_least=True, note=note),
        Check(case, "peak memory", typical(runs[OURS]).memory / MIB, MEMORY_LIMIT / MIB, "MiB", note=note)))


def master_once(job: Path) -> None:
    """Master what a job says, and write beside it how many seconds the call took."""
    words = json.loads(job.read_text())
    begun = time.monotonic()
    mastering.master(Path(words["target"]), {path: Path(at) for path, at in words["files"].items()},
               boot_hybrid=bytes.fromhex(words["boot_hybrid"]), identity=words["identity"], epoch=words["epoch"],
               progress=lambda done, total: None)
    Path(words["seconds"]).write_text(str(time.monotonic() - begun))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise CornerstoneError("one job is wanted", code=Code.INPUT)
    master_once(Path(sys.argv[1]))

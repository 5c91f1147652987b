"""What squashfs's compression costs and gives, on the real hypervisor tree: the figures behind root.COMPRESSION."""

from __future__ import annotations

import shutil

from cornerstone.factory.bench.bench import Bench
from cornerstone.factory.bench.mastering import unpack
from cornerstone.factory.bench.measure import Usage, measure, side_by_side
from cornerstone.factory.bench.table import Figure, Result
from cornerstone.lib import process
from cornerstone.lib.fat import MIB
from cornerstone.model.contracts.manifest import HYPERVISOR

LEVELS = (3, 6, 9, 15)
BLOCKS = ("128K", "256K", "1M")


def choices(bench: Bench) -> Result:
    """Pack and unpack the tree once with each level and block size."""
    source = unpack(bench)[HYPERVISOR]
    folder, log = bench.work / "compression", bench.logs / "compression.log"
    tree, packed, out = folder / "tree", folder / "packed", folder / "out"
    folder.mkdir()
    figures = []
    try:
        process.run(["unsquashfs", "-no-progress", "-quiet", "-dest", tree, source], log=log)
        for level in LEVELS:
            for block in BLOCKS:
                def pack(level: int = level, block: str = block) -> Usage:
                    return measure(["mksquashfs", tree, packed, "-noappend", "-no-progress", "-no-recovery", "-comp",
                                    "zstd", "-Xcompression-level", str(level), "-b", block], log=log)

                def unpack_again() -> Usage:
                    shutil.rmtree(out, ignore_errors=True)
                    return measure(["unsquashfs", "-no-progress", "-quiet", "-dest", out, packed], log=log)

                for what, runs in side_by_side({"pack": pack, "unpack": unpack_again}, 1).items():
                    figures.append(Figure("compression", f"zstd {level}, {block} blocks: {what}", runs,
                                          f"{packed.stat().st_size / MIB:.0f} MiB"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(bench.work / "mastering", ignore_errors=True)
    return Result("compression", tuple(figures))

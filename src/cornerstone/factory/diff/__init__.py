"""`invoke diff A B`: what differs between two ISOs, told as text, JSON or HTML, and a gate on growth."""

from __future__ import annotations

import tempfile
from pathlib import Path

from cornerstone.factory.diff.compare import compare
from cornerstone.factory.diff.gate import judge, parse_limit
from cornerstone.factory.diff.image import read_both
from cornerstone.factory.diff.show import FORMATS, outcome, show
from cornerstone.lib.atomic import put
from cornerstone.lib.error import Code, CornerstoneError


def diff_isos(a: Path, b: Path, scratch: Path, *, format: str = "text", files: bool = False, max_growth: str = "",
              output: Path | None = None) -> None:
    """Tell on standard output, or in the file output, what differs from ISO a to ISO b.

    scratch: an existing or new folder, for both CVM disks while they are read. Raises CornerstoneError: FAILED when a
    layer or the whole grew by more than max_growth (after telling), else for arguments and ISOs that are no good.
    """
    if format not in FORMATS:
        raise CornerstoneError(f"--format {format!r} isn't one of {', '.join(FORMATS)}", "write --format text")
    limit = parse_limit(max_growth) if max_growth else None
    if output and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise CornerstoneError(f"{output} can't be written: it is a folder, or its folder isn't there",
                               "name a file in a folder that is there")
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="diff-", dir=scratch) as folder:
        difference = compare(*read_both((a, b), Path(folder)))
    verdict = judge(difference.sizes, limit) if limit else None
    told = show(difference, verdict, format=format, files=files)
    if output:
        put(output, told)
    else:
        print(told, end="")
    if verdict and not verdict.passed:
        raise CornerstoneError(outcome(verdict), "", Code.FAILED)

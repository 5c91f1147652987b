"""Runs Ceph's own tools."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cornerstone.lib.error import Code, CornerstoneError


def run(*words: str | Path, stdin: str = "") -> str:
    """What it printed. CornerstoneError with the last words of what it said when it fails."""
    # what a disk says of itself may be any bytes, and the tools repeat it
    done = subprocess.run(list(map(str, words)), input=stdin, capture_output=True, encoding="utf-8", errors="replace",
                          check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-500:]
        raise CornerstoneError(f"{words[0]} ended with {done.returncode}: {said}",
                               "see: journalctl -u genesis", Code.FAILED)
    return done.stdout

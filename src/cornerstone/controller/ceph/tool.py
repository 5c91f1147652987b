"""Runs Ceph's own tools."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cornerstone.model.error import Code, CornerstoneError


def run(*words: str | Path, stdin: str = "") -> str:
    """What it printed. CornerstoneError with the last words of what it said when it fails."""
    done = subprocess.run(list(map(str, words)), input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-500:]
        raise CornerstoneError(f"{words[0]} ended with {done.returncode}: {said}",
                               "see: journalctl -u genesis", Code.FAILED)
    return done.stdout

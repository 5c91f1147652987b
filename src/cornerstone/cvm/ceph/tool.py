"""Ceph's own tools, for the states of genesis."""

from __future__ import annotations

from pathlib import Path

from cornerstone.lib import command


def run(*words: str | Path, stdin: str = "") -> str:
    """Run one and return what it printed. Raises CornerstoneError with its last words when it fails."""
    return command.run(words, stdin=stdin).check(hint="see: journalctl -u genesis").text

"""`invoke lint`: style, imports, elements and shell scripts."""

from __future__ import annotations

import sys
from pathlib import Path

from cornerstone.factory.settings import Workspace
from cornerstone.lib import process
from cornerstone.lib.error import Code, CornerstoneError

SCRIPT = r"^#!/bin/(ba)?sh|^#!/usr/bin/env bash"


def lint(workspace: Workspace) -> None:
    """Run all linters and print a line for each. Raises CornerstoneError (FAILED) when one found something."""
    root, programs = workspace.root, Path(sys.executable).parent
    empty = workspace.output / "lint"
    empty.mkdir(parents=True, exist_ok=True)
    checks = {
        "ruff": [programs / "ruff", "check", "."],
        "import-linter": [programs / "lint-imports"],
        "shellcheck": ["shellcheck", "--severity=warning", *shell_scripts(root)],
        "dib-lint": [programs / "dib-lint"],
    }
    env = {"ELEMENTS_DIR": str(root / "elements"), "LIB_DIR": str(empty), "PYTHONPATH": str(root / "src"),
           "PYTHONIOENCODING": "utf-8"}
    failed = []
    for name, argv in checks.items():
        done = process.call(argv, cwd=root, env=env)
        print(f"{'✗' if done.code else '✓'} {name}", flush=True)
        if done.code:
            print(done.text + done.error.decode("utf-8", "replace"))
            failed.append(name)
    if failed:
        raise CornerstoneError(f"{', '.join(failed)} found something", "mend what is listed above", Code.FAILED)


def shell_scripts(root: Path) -> list[str]:
    """The shell scripts that git knows or would know. Raises CornerstoneError (MACHINE) where git can't say."""
    # Called with sudo, the checkout is another user's, which git would refuse to read.
    argv = ["git", "-c", f"safe.directory={root}", "grep", "--untracked", "-lE", SCRIPT]
    hint = "lint a git checkout; a copy without .git has no list of its files"
    done = process.call(argv, cwd=root)
    if done.code:
        raise CornerstoneError(f"git can't list the scripts: {done.said or 'there are none'}", hint, Code.MACHINE)
    return [name for name in done.text.split("\n") if name and not name.endswith((".py", ".j2", ".md"))]

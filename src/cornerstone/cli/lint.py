"""`invoke lint`: style, imports, elements and shell scripts."""

from __future__ import annotations

import subprocess
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
    env = process.environment({"ELEMENTS_DIR": str(root / "elements"), "LIB_DIR": str(empty),
                               "PYTHONPATH": str(root / "src"), "PYTHONIOENCODING": "utf-8"})
    failed = []
    for name, argv in checks.items():
        try:
            done = subprocess.run(argv, cwd=root, env=env, capture_output=True, text=True, encoding="utf-8",
                                  errors="replace", check=False)
        except FileNotFoundError:
            raise CornerstoneError(f"{name} is not installed", "run ./invoke, which installs what is missing",
                                   Code.MACHINE) from None
        print(f"{'✗' if done.returncode else '✓'} {name}", flush=True)
        if done.returncode:
            print(done.stdout + done.stderr)
            failed.append(name)
    if failed:
        raise CornerstoneError(f"{', '.join(failed)} found something", "mend what is listed above", Code.FAILED)


def shell_scripts(root: Path) -> list[str]:
    """The shell scripts that git knows or would know. Raises CornerstoneError (MACHINE) where git can't say."""
    # Called with sudo, the checkout is another user's, which git would refuse to read.
    argv = ["git", "-c", f"safe.directory={root}", "grep", "--untracked", "-lE", SCRIPT]
    hint = "lint a git checkout; a copy without .git has no list of its files"
    try:
        done = subprocess.run(argv, cwd=root, env=process.environment(), capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CornerstoneError("git is not installed", "run ./invoke, which installs what is missing",
                               Code.MACHINE) from None
    if done.returncode:
        raise CornerstoneError(f"git can't list the scripts: {done.stderr.strip() or 'there are none'}", hint,
                               Code.MACHINE)
    return [name for name in done.stdout.split("\n") if name and not name.endswith((".py", ".j2", ".md"))]

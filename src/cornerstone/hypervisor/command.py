"""Commands of the host's tools, each in bounded time: what hangs is left behind, so that the rest can go on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

SECONDS = 120.0
# a CVM's memory is pinned, and so zeroed, before its start returns
VIRSH_SECONDS = 600.0
# how long one that was killed may take: what waits for a disk in the kernel can't be
KILLED_SECONDS = 5.0
# as a shell has it (timeout(1); a command that isn't there)
TIMED_OUT, NOT_FOUND = 124, 127


def run(*words: str, seconds: float = SECONDS) -> tuple[int, str]:
    """Run a command and return its exit code and what it said on both outputs.

    124 when it hasn't ended after so many seconds, 127 when it can't be run: with words that say so.
    """
    code, out, error = _run(words, seconds, subprocess.STDOUT)
    return code, (out or error).strip()


def virsh(*words: str, seconds: float = VIRSH_SECONDS) -> tuple[int, str]:
    """Run virsh and return its exit code and what it printed, or else its error, in one line."""
    code, out, error = _run(("virsh", "--quiet", *words), seconds, subprocess.PIPE)
    return code, " ".join((out.strip() or error.strip()).split())


def _run(words: tuple[str, ...], seconds: float, errors: int) -> tuple[int, str, str]:
    try:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True,
                                   errors="replace", start_new_session=True)
    except OSError as error:
        return NOT_FOUND, "", f"{words[0]}: {error.strerror}"
    try:
        out, error = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        # with all that it started
        os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=KILLED_SECONDS)
        return TIMED_OUT, "", f"{words[0]} hasn't ended within {seconds:.0f} s"
    return process.returncode, out, error or ""

"""Run a tool as one build step: its whole output kept in a log, ended cleanly, its failure explained."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cornerstone.lib import command
from cornerstone.lib.command import WITH_US, Done
from cornerstone.lib.error import Code, CornerstoneError

# dib unmounts and detaches in its exit trap; this is how long it gets before it is killed
GRACE_SECONDS = 30
TAIL_LINES = 15

# file descriptors of locks that each step's processes hold too, in case they outlive us
guards: set[int] = set()

# What every tool runs under, whatever the desk it runs on: its words are read, and its output is compared.
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", "LANGUAGE": "", "TZ": "UTC"}
# What of our own environment a tool gets besides: where programs, homes and temporary folders are, how the network is
# reached, apt's and TLS's own settings, and whose build it is. Nothing else, so that no key, PIN or token of a CI
# system is among it.
KEPT = frozenset({"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TMPDIR", "APT_CONFIG", "SSL_CERT_FILE",
                  "SSL_CERT_DIR", "CURL_CA_BUNDLE", "CORNERSTONE_CACHE"}
                 | {f"{name}_proxy" for name in ("http", "https", "ftp", "all", "no")}
                 | {f"{name}_PROXY" for name in ("HTTP", "HTTPS", "FTP", "ALL", "NO")})
UMASK = 0o022

_running: set[subprocess.Popen] = set()
_ended: set[subprocess.Popen] = set()
_stopping = threading.Event()


def run(argv: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None,
        cwd: Path | None = None, stdin: bytes | None = None, private: Mapping[str, str] | None = None) -> None:
    """Run argv to its end, appending command, output and exit status to log.

    env is added to the tools' one environment (ENVIRONMENT, UMASK); private too, and is told nowhere. The tool gets a
    session of its own, so that whatever ends us (an error, Ctrl-C, SIGTERM) ends the whole family of processes, and
    only that family.
    When we are killed outright, the kernel kills the tool itself.
    Raises CornerstoneError (STEP) naming the log, its last lines and the command to run by hand.
    """
    words = [str(word) for word in argv]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        out.write(f"+ {by_hand(words, env)}\n".encode())
        out.flush()
        if _stopping.is_set():
            raise CornerstoneError("not started: another step failed or the build was interrupted", "", Code.STEP)
        find(words[0], env)
        with start(words, env={**(env or {}), **(private or {})}, cwd=cwd, stdout=out, stderr=subprocess.STDOUT,
                     stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL) as child:
            child.communicate(stdin)
        out.write(f"= exit status {child.returncode}\n".encode())
    if child in _ended:
        raise CornerstoneError("ended, because another step failed or the build was interrupted", "", Code.STEP)
    if child.returncode:
        raise explain(words, child.returncode, log, env)


def find(program: str | Path, env: Mapping[str, str] | None = None) -> str:
    """Return the path of a program in the tools' environment. Raises CornerstoneError (MACHINE) without it."""
    if (path := shutil.which(program, path=environment(env).get("PATH"))) is None:
        raise CornerstoneError(f"{Path(program).name} is not installed", "run ./invoke, which installs what is missing",
                               Code.MACHINE)
    return path


def explain(words: Sequence[str], code: int, log: Path, env: Mapping[str, str] | None) -> CornerstoneError:
    """Return the error of a tool that failed: its log, the last lines of it, and the command to run by hand."""
    said = f"{words[0]} failed with exit status {code}; its last lines:\n{tail(log)}\n  whole log: {log}"
    if os.strerror(errno.ENOSPC) in said:
        return CornerstoneError(f"the disk is full: {said}", "make room, or set CORNERSTONE_CACHE to a larger disk; "
                                "nothing half-written stays", Code.MACHINE)
    return CornerstoneError(said, f"run it by hand: {by_hand(words, env)}", Code.STEP)


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment that tools run under: KEPT of ours, with language and time zone fixed, and more on top."""
    return {**{name: value for name, value in os.environ.items() if name in KEPT}, **ENVIRONMENT, **(more or {})}


@contextlib.contextmanager
def start(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None,
            **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a tool in a session of its own while the block lasts; whatever breaks off the block ends it.

    It holds the locks of this build. more: what subprocess.Popen takes.
    """
    child = subprocess.Popen([*WITH_US, *map(str, argv)], env=environment(env), umask=UMASK, start_new_session=True,
                             pass_fds=tuple(guards), **{"stdin": subprocess.DEVNULL, **more})
    _running.add(child)
    try:
        if _stopping.is_set():
            _ended.add(child)
            end_family(child)
        yield child
    except BaseException:
        end_family(child)
        raise
    finally:
        _running.discard(child)


def end_all() -> None:
    """End every step that still runs, from whichever thread, and let none start within ending_together."""
    _stopping.set()
    for child in list(_running):
        _ended.add(child)
        end_family(child)


def pause(seconds: float) -> None:
    """Wait. Raises CornerstoneError (STEP) when the steps are being ended."""
    if _stopping.wait(seconds):
        raise CornerstoneError("not started: another step failed or the build was interrupted", "", Code.STEP)


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """A block whose threads' steps end together: after end_all none starts until the block is left."""
    try:
        yield
    finally:
        _stopping.clear()


def read(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Return the standard output of a short, quiet tool. Raises CornerstoneError (STEP) with its last words."""
    return call(argv, env=env, cwd=cwd).check(hint=f"run it by hand: {by_hand([*map(str, argv)], env)}",
                                              code=Code.STEP).text


def call(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None,
         stdin: bytes = b"", most: int = command.MOST) -> Done:
    """Run a short, quiet tool in the tools' environment and return how it ended.

    Raises CornerstoneError (MACHINE) when it isn't installed. most: bytes of its output, after which it is killed.
    """
    find(argv[0], env)
    return command.run(argv, env=environment(env), cwd=cwd, umask=UMASK, stdin=stdin, most=most)


def by_hand(words: Sequence[str], env: Mapping[str, str] | None) -> str:
    """Return the command line that a person can paste to run the same thing."""
    assignments = [f"{name}={value}" for name, value in (env or {}).items()]
    return shlex.join((["env", *assignments] if assignments else []) + list(words))


def end_family(child: subprocess.Popen) -> None:
    """End the session that child leads: ask, wait for its own cleaning up, then insist."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, sign)
        try:
            child.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        break
    # who outlived the first of the family
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a log, indented for an error message."""
    text = log.read_bytes()[-20000:].decode("utf-8", "replace")
    kept = [line for line in text.splitlines() if line.strip() and not line.startswith("= exit status")][-lines:]
    return "\n".join(f"    {line[:300]}" for line in kept)

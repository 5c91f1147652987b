"""Run a program to its end: its output captured and bounded, its time too, its failure one error with its own words."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cornerstone.lib.error import Code, CornerstoneError

# as a shell has it (timeout(1); a command that isn't there)
TIMED_OUT, NOT_FOUND = 124, 127
# what the kernel does for us when we are killed: the process that we started ends with us
WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
# bytes of each output that are kept; a program that writes more is killed
MOST = 64 << 20
# characters of its last words in an error
SHOWN = 500
# how long one that was killed may take: what waits for a disk in the kernel can't be
KILLED_SECONDS = 5.0
CHUNK = 1 << 16


@dataclass(frozen=True)
class Done:
    """How a program ended, and what it wrote.

    code: its exit status; minus the number of the signal that ended it; TIMED_OUT or NOT_FOUND when it didn't end by
    itself or wasn't started, and error says so.
    """

    name: str
    code: int
    out: bytes = b""
    error: bytes = b""
    ended: bool = True

    @property
    def text(self) -> str:
        """What it printed. It may have been any bytes."""
        return self.out.decode("utf-8", "replace")

    @property
    def said(self) -> str:
        """Its last words: of its errors, or else of what it printed."""
        return (self.error.strip() or self.out.strip()).decode("utf-8", "replace")[-SHOWN:]

    def check(self, *, what: str = "", hint: str = "", code: Code = Code.FAILED) -> Done:
        """Raise CornerstoneError with its last words unless it ended well. what: its name there."""
        if not self.ended:
            raise CornerstoneError(self.said, hint, code)
        if self.code:
            raise CornerstoneError(f"{what or self.name} failed with exit status {self.code}: {self.said}", hint, code)
        return self


def read(argv: Sequence[object], *, hint: str = "", code: Code = Code.FAILED, seconds: float | None = None,
         stdin: bytes | str = b"") -> str:
    """Run a program and return what it printed. Raises CornerstoneError, with all its words, when it fails."""
    return run(argv, seconds=seconds, stdin=stdin).check(what=" ".join(map(str, argv)), hint=hint, code=code).text


def run(argv: Sequence[object], *, stdin: bytes | str = b"", seconds: float | None = None,
        env: Mapping[str, str] | None = None, cwd: Path | None = None, umask: int = -1, merged: bool = False,
        most: int = MOST) -> Done:
    """Run a program to its end, in a session of its own, and return how it ended; raises nothing for that.

    What hasn't ended after so many seconds, or has written most bytes, is killed with all that it started, and left
    behind if that doesn't end it. merged: what it says of errors is in out too, in its order.
    """
    words = [str(word) for word in argv]
    name = Path(words[0]).name
    given = stdin.encode() if isinstance(stdin, str) else stdin
    try:
        child = subprocess.Popen(words, stdin=subprocess.PIPE if given else subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT if merged else subprocess.PIPE, env=env, cwd=cwd,
                                 umask=umask, start_new_session=True)
    except OSError as error:
        return Done(name, NOT_FOUND, error=f"{name}: {error.strerror}".encode(), ended=False)
    found: dict[IO[bytes], bytearray] = {stream: bytearray() for stream in (child.stdout, child.stderr) if stream}
    end = None if seconds is None else time.monotonic() + seconds
    try:
        in_time = _exchange(child, given, found, end, most)
        if in_time and not any(len(content) >= most for content in found.values()):
            child.wait(None if end is None else max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        in_time = False
    finally:
        _end(child)
    out, error = (bytes(content[:most]) for content in (*found.values(), b"")[:2])
    if not in_time:
        return Done(name, TIMED_OUT, error=f"{name} hasn't ended within {seconds:.0f} s".encode(), ended=False)
    return Done(name, child.returncode if child.returncode is not None else -signal.SIGKILL, out, error)


def _exchange(child: subprocess.Popen[bytes], given: bytes, found: Mapping[IO[bytes], bytearray], end: float | None,
              most: int) -> bool:
    """Write to a program and read what it writes, up to most bytes; False when the end comes before its own."""
    left = memoryview(given)
    with selectors.DefaultSelector() as ready:
        for stream in found:
            ready.register(stream, selectors.EVENT_READ)
        if child.stdin:
            os.set_blocking(child.stdin.fileno(), False)
            ready.register(child.stdin, selectors.EVENT_WRITE)
        while ready.get_map():
            events = ready.select(None if end is None else max(0.0, end - time.monotonic()))
            if not events and end is not None and time.monotonic() >= end:
                return False
            for key, _ in events:
                if key.fileobj is child.stdin:
                    with contextlib.suppress(BlockingIOError):
                        try:
                            left = left[os.write(key.fd, left[:CHUNK]):]
                        except BrokenPipeError:
                            left = left[:0]
                    if not left:
                        ready.unregister(child.stdin)
                        child.stdin.close()
                elif chunk := os.read(key.fd, CHUNK):
                    found[key.fileobj].extend(chunk)
                    if len(found[key.fileobj]) >= most:
                        return True
                else:
                    ready.unregister(key.fileobj)
    return True


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill one that wasn't waited for, with all that it started, and close our ends."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(KILLED_SECONDS)
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream:
            stream.close()

"""The one place through which every command ends: with one message at most, and a code of docs/errors.md."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable

from invoke import Exit

from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.streams import PIPE_ENDED, discard, pipe_ended

_FULL = (errno.ENOSPC, errno.EDQUOT)
_PATH = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST, errno.ENXIO)
_RIGHTS = (errno.EACCES, errno.EPERM, errno.EROFS)


def end(body: Callable[[], object]) -> int:
    """Run body and return the exit code, having told on standard error what kept it from ending with 0.

    SIGTERM ends body as Ctrl-C does. A pipe that is no longer read ends it without a word.
    """
    for stream in (sys.stdout, sys.stderr):
        # An output that isn't UTF-8 gets a "?" for what it can't show, and never ends a command.
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="replace")
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(body)
    except BrokenPipeError:
        discard(1, 2)
        return PIPE_ENDED
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _run(body: Callable[[], object]) -> int:
    try:
        code = 0
        try:
            body()
        except Exit as exit:
            code = exit.code
        sys.stdout.flush()
        return code
    except CornerstoneError as error:
        return _tell(error)
    except KeyboardInterrupt:
        print("interrupted: what was running has been ended and cleaned up", file=sys.stderr)
        return int(Code.INTERRUPTED)
    except EOFError:
        print("\ninterrupted: the answers have ended, and nothing was written", file=sys.stderr)
        return int(Code.INTERRUPTED)
    except SystemExit:
        # rich ends so when what it prints is no longer read
        raise BrokenPipeError from None
    except MemoryError:
        return _tell(CornerstoneError("there is not enough memory", "end other programs, or take a larger machine",
                                      Code.MACHINE))
    except OSError as error:
        if isinstance(error, BrokenPipeError) and pipe_ended():
            raise
        return _tell(explain(error))
    except Exception:
        traceback.print_exc()
        return _tell(CornerstoneError("this is a defect of Cornerstone", "report it, with the lines above and the "
                                      "command that was called", Code.DEFECT))


def _tell(error: CornerstoneError) -> int:
    try:
        sys.stdout.flush()
    except OSError:
        discard(1)
    try:
        print(f"error: {error}", file=sys.stderr, flush=True)
    except OSError:
        discard(2)
    return int(error.code)


def explain(error: OSError) -> CornerstoneError:
    """The error of an operating system's call in the project's form."""
    place = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes, os.PathLike)) else ""
    where = f"{place}: " if place else ""
    if error.errno in _FULL:
        return CornerstoneError(f"the disk is full: {place or 'while writing'}", "make room, or set CORNERSTONE_CACHE "
                                "to a larger disk; nothing half-written stays", Code.MACHINE)
    if error.errno in _PATH:
        return CornerstoneError(f"{where}{error.strerror}", "check the path")
    hint = "call as the user who may, or with sudo" if error.errno in _RIGHTS else "see what the system's log says"
    return CornerstoneError(f"{where}{error.strerror or error}", hint, Code.MACHINE)

"""The one error that users see: what is wrong, where, and how to mend it; and its exit code."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable
from enum import IntEnum
from typing import ParamSpec

from cornerstone.lib.printable import printable_lines
from cornerstone.lib.streams import PIPE_ENDED, discard, pipe_ended

Given = ParamSpec("Given")


class Code(IntEnum):
    """Exit codes of every command; the table is in docs/errors.md, and a test keeps the two equal."""

    FAILED = 1  # a check ran and its answer is no
    INPUT = 2  # a file, an argument or a setting is wrong
    MACHINE = 3  # the build machine lacks a tool, a right, space or memory
    NETWORK = 4  # a mirror can't be reached, broke off or lacks a locked file
    STEP = 5  # a build step's tool failed; its log is named
    VERIFY = 6  # an ISO, a layer or a signature isn't what the manifest says
    BOOT = 7  # a machine didn't reach the state that it was booted for
    REFUSED = 8  # Foundation won't image this machine: a rule, a disk or an address speaks against it
    DEFECT = 70  # Cornerstone itself is wrong; sysexits.h calls it EX_SOFTWARE
    INTERRUPTED = 130  # Ctrl-C or SIGTERM


class CornerstoneError(Exception):
    """Raised for anything a user can act on.

    message: what is wrong and where, one sentence; hint: how to mend it; code: the exit code. Both texts are made
    printable, because they often quote what came from outside.
    """

    def __init__(self, message: str, hint: str = "", code: Code = Code.INPUT) -> None:
        self.message = printable_lines(message)
        self.hint = printable_lines(hint)
        super().__init__(self.message)
        self.code = code

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message

    @property
    def line(self) -> str:
        """The same in one line, for a journal."""
        return f"{self.message}; {self.hint}" if self.hint else self.message


def as_failure(error: Exception) -> CornerstoneError:
    """Return what to tell of an error that ends a program of a node: itself, or what stands for one of Python's own."""
    if isinstance(error, CornerstoneError):
        return error
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return CornerstoneError(f"{where}{error.strerror or error}", "see the journal of this machine", Code.MACHINE)
    return CornerstoneError(f"this is a defect of Cornerstone: {type(error).__name__}: {error}",
                            "report it, with the lines above it in the journal", Code.DEFECT)


def ends_in_one_line(main: Callable[Given, int]) -> Callable[Given, int]:
    """Of the main of a node's program: whatever ends it is told in one line, the last on standard error, with its code.

    Above the line of an error that nobody foresaw stands its traceback. A pipe that is no longer read ends it quietly.
    """
    @functools.wraps(main)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> int:
        try:
            code = main(*args, **kwargs)
            if sys.stdout is not None:
                sys.stdout.flush()
            return code
        except BrokenPipeError as error:
            if pipe_ended():
                discard(1, 2)
                return PIPE_ENDED
            failure: Exception = error
        except Exception as error:
            failure = error
        if not isinstance(failure, (CornerstoneError, OSError)):
            traceback.print_exception(failure)
        told = as_failure(failure)
        print(told.line, file=sys.stderr)
        return int(told.code)
    return run

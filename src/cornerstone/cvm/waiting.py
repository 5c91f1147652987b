"""What a state of genesis raises when it waits for somebody else."""

from __future__ import annotations

from cornerstone.lib.error import Code, CornerstoneError


class Waiting(CornerstoneError):
    """Another member or an operator has to do something: message says who and what. It is nobody's fault."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, Code.FAILED)

"""How a boot looks to the person who started it: lines as it goes, then the verdict."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.markup import escape

from cornerstone.lab.verdict import Verdict
from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.event import Event

LAST_LINES = 15
_COLOURS = {"done": "green", "cached": "green", "waiting": "green", "warning": "yellow", "failed": "red"}


class Terminal:
    """Prints events; on a terminal with colours and a moving line that says what is waited for."""

    def __init__(self, plain: bool | None = None, console: Console | None = None) -> None:
        self._out = console or Console(highlight=False, soft_wrap=True)
        self._plain = (not self._out.is_terminal) if plain is None else plain
        self._status = None if self._plain else self._out.status("power on")

    def __enter__(self) -> Terminal:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._status is not None:
            self._status.stop()

    def event(self, event: Event) -> None:
        """One line for the event; the guest's percentages only move the status line."""
        if event.stage == "boot" and event.step == "verdict":
            return
        name = event.step if event.stage == "boot" else f"{event.stage}/{event.step}"
        if self._status is not None:
            self._status.update(escape(f"{name} {event.message}".strip()))
        if event.state == "progress" and "percent" in event.data:
            return
        text = event.message
        if event.stage == "boot" and "seconds" in event.data:
            text = f"{event.data['seconds']:6.1f} s"
        elif event.stage != "boot" and event.state != "progress":
            text = f"{event.state} {text}".strip()
        self._print(f"{name:<24} {text}", _COLOURS.get(event.state, ""))

    def verdict(self, verdict: Verdict) -> int:
        """The closing lines, and the exit code."""
        if self._status is not None:
            self._status.stop()
        way = f"{verdict.firmware}, {verdict.media}, {verdict.accel}"
        proof = ", Secure Boot proven" if verdict.firmware == "secureboot" and verdict.ok else ""
        if verdict.ok:
            self._print(f"BOOTED   {way}: {verdict.sentence}{proof}", "bold green")
            self._print(f"console  {verdict.console_log}")
            return 0
        for line in verdict.last_lines[-LAST_LINES:]:
            self._print(f"  | {line}")
        self._print(f"FAILED   {way}: {verdict.sentence} [{verdict.reason}]", "bold red")
        if verdict.hint:
            self._print(f"  hint: {verdict.hint}")
        self._print(f"console  {verdict.console_log}")
        return verdict.code

    def error(self, error: CornerstoneError) -> None:
        if self._status is not None:
            self._status.stop()
        self._print(f"error: {error}", "bold red")

    def _print(self, text: str, style: str = "") -> None:
        # The console's words may hold square brackets: they are text and never markup.
        self._out.print(text, style=None if self._plain else style, markup=False)

"""How a build looks to the person who started it: a line a step; on a terminal, what runs now below them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from cornerstone.lib.event import Event

_MARKS = {"done": ("✓", "green"), "cached": ("=", "cyan"), "failed": ("✗", "red"), "warning": ("!", "yellow")}


@dataclass
class _Running:
    """A step under way: when it began, and the last that it said."""

    begun: float = field(default_factory=time.monotonic)
    message: str = ""
    spinner: Spinner = field(default_factory=lambda: Spinner("dots"))


class Progress:
    """A listener for a build's events. On a terminal it is alive; piped, it prints plain lines."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._running: dict[str, _Running] = {}
        self._lock = threading.Lock()
        self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=8, transient=True) \
            if self._console.is_terminal else None

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        with self._lock:
            if event.state == "started":
                self._running[event.step] = _Running()
            elif event.state == "progress":
                if event.step in self._running:
                    self._running[event.step].message = event.message
                return
            else:
                self._running.pop(event.step, None)
            self._line(event)

    def _line(self, event: Event) -> None:
        if event.state == "started":
            if not self._live:
                self._console.print(f"  {event.step} …", markup=False)
            return
        mark, style = _MARKS.get(event.state, ("·", ""))
        took = f"{event.data['seconds']:7.1f} s" if "seconds" in event.data else f"{event.state:>9}"
        self._console.print(Text.assemble((mark, style), f" {event.step:<18}{took}  {event.message}".rstrip()),
                            soft_wrap=True)

    def _table(self) -> Table:
        table = Table.grid()
        for name, step in list(self._running.items()):
            step.spinner.update(text=f"{name:<18}{time.monotonic() - step.begun:7.0f} s  {step.message}")
            table.add_row(step.spinner)
        return table

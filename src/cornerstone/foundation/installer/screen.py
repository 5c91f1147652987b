"""The Foundation screen: a few labelled rows, drawn whole on a screen and told line by line on a serial line."""

from __future__ import annotations

import contextlib
import os
import select
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cornerstone.lib.error import CornerstoneError
from cornerstone.model.contracts.manifest import Manifest

WIDTH = 79
LABEL_WIDTH = 11
CLEAR = "\033[H\033[2J\033[3J"
# A terminal that takes nothing for this long is stopped, or a port at which nobody receives.
STUCK_SECONDS = 5.0


class Output(Protocol):
    """What takes text, or raises OSError: a Terminal, or a text file."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> None: ...


@dataclass
class Console:
    """One place to show the screen: a terminal that can be cleared, or a line that only goes on."""

    out: Output
    redraws: bool


def console_devices(active: Path = Path("/sys/class/tty/console/active"), devices: Path = Path("/dev")) -> list[Path]:
    """tty1, and each serial console that the kernel was told of."""
    names = active.read_text(errors="replace").split() if active.exists() else []
    serial = [name for name in names if not name.startswith("tty") or name.startswith("ttyS")]
    return [devices / name for name in ["tty1", *serial] if (devices / name).exists()]


def open_consoles(active: Path = Path("/sys/class/tty/console/active"), devices: Path = Path("/dev")) -> list[Console]:
    """Open each of console_devices for writing, leaving out those that can't be opened."""
    found = []
    for path in console_devices(active, devices):
        # x86 registers a serial port that the kernel was told of without looking whether it is there
        with contextlib.suppress(OSError):
            found.append(Console(Terminal(path), path.name == "tty1"))
    return found


class Terminal:
    """A terminal that never holds its writer up: one that takes nothing for STUCK_SECONDS is an OSError."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)

    def write(self, text: str) -> None:
        """Write all of text. Raises OSError when the terminal fails, or is stuck."""
        # a file's name may hold bytes that are no text
        left = memoryview(text.encode(errors="replace"))
        while left:
            if not select.select([], [self._descriptor], [], STUCK_SECONDS)[1]:
                raise TimeoutError(f"nothing was taken for {STUCK_SECONDS} s")
            left = left[os.write(self._descriptor, left):]

    def flush(self) -> None:
        """Do nothing: write keeps nothing back."""

    def close(self) -> None:
        os.close(self._descriptor)


@dataclass
class Screen:
    """What is shown, row by row; each change goes to all consoles at once. One that fails is left out from then on."""

    consoles: list[Console]
    _head: list[str] = field(default_factory=list)
    _rows: dict[str, str] = field(default_factory=dict)
    _foot: list[str] = field(default_factory=list)

    def title(self, manifest: Manifest) -> None:
        """Say what this medium installs."""
        profile = manifest.profile
        payload = f"{profile['payload']} payload"
        if profile["payload"] == "reference":
            payload += ": an open stack, not Nutanix software"
        self._head = [f"Cornerstone Foundation, profile {profile['name']}",
                      f"AOS {profile['aos']} with AHV {profile['ahv']}", payload[0].upper() + payload[1:]]
        self._show(self._head)

    def row(self, label: str, text: str) -> None:
        """Set a row; the same label again replaces it."""
        self._rows[label] = text
        self._show(_row_lines(label, text))

    def forget_after(self, label: str) -> None:
        """Drop the rows after one, and what is below all: the machine is looked at again."""
        kept = list(self._rows)[:list(self._rows).index(label) + 1]
        self._rows = {name: self._rows[name] for name in kept}
        self._foot = []

    def wait(self, what: str) -> None:
        """Say what has to come before anything else happens."""
        self._foot = textwrap.wrap(f"Waiting for {what}", WIDTH)
        self._show(["", *self._foot])

    def refuse(self, error: CornerstoneError) -> None:
        """Say why nothing will happen. The first word is what a console's watcher looks for."""
        self._foot = [*textwrap.wrap(f"REFUSED: {error.message}", WIDTH), *textwrap.wrap(error.hint, WIDTH)]
        self._show(["", *self._foot])

    def log(self, text: str) -> None:
        """Write a text of many lines, as a traceback, on the consoles that only go on: a screen has no room for it."""
        self._write([console for console in self.consoles if not console.redraws],
                    lambda console: text.rstrip("\n").replace("\n", "\r\n") + "\r\n")

    def lines(self) -> list[str]:
        """The whole screen."""
        rows = [line for label, text in self._rows.items() for line in _row_lines(label, text)]
        return [*self._head, "", *rows, "", *self._foot]

    def _show(self, change: list[str]) -> None:
        whole, more = CLEAR + "\n".join(self.lines()) + "\n", "".join(f"{line}\r\n" for line in change)
        self._write(list(self.consoles), lambda console: whole if console.redraws else more)

    def _write(self, consoles: Iterable[Console], text: Callable[[Console], str]) -> None:
        for console in consoles:
            try:
                console.out.write(text(console))
                console.out.flush()
            except OSError:
                self.consoles.remove(console)


def _row_lines(label: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"{label:<{LABEL_WIDTH}}",
                         subsequent_indent=" " * LABEL_WIDTH) or [label]

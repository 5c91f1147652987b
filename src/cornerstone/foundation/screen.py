"""The Foundation screen: a few labelled rows, drawn whole on a screen and told line by line on a serial line."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from cornerstone.model.error import CornerstoneError
from cornerstone.model.manifest import Manifest

WIDTH = 79
LABEL_WIDTH = 11
CLEAR = "\033[H\033[2J\033[3J"


@dataclass
class Console:
    """One place to show the screen: a terminal that can be cleared, or a line that only goes on."""

    out: TextIO
    redraws: bool


def console_devices(active: Path = Path("/sys/class/tty/console/active"), devices: Path = Path("/dev")) -> list[Path]:
    """tty1, and each serial console that the kernel was told of."""
    names = active.read_text(errors="replace").split() if active.exists() else []
    serial = [name for name in names if not name.startswith("tty") or name.startswith("ttyS")]
    return [devices / name for name in ["tty1", *serial] if (devices / name).exists()]


def open_consoles(active: Path = Path("/sys/class/tty/console/active"), devices: Path = Path("/dev")) -> list[Console]:
    """Those devices, to write to."""
    return [Console(path.open("w", encoding="utf-8"), path.name == "tty1") for path in console_devices(active, devices)]


@dataclass
class Screen:
    """What is shown, row by row; each change goes to all consoles at once."""

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

    def lines(self) -> list[str]:
        """The whole screen."""
        rows = [line for label, text in self._rows.items() for line in _row_lines(label, text)]
        return [*self._head, "", *rows, "", *self._foot]

    def _show(self, change: list[str]) -> None:
        for console in self.consoles:
            console.out.write(CLEAR + "\n".join(self.lines()) + "\n" if console.redraws else
                              "".join(f"{line}\r\n" for line in change))
            console.out.flush()


def _row_lines(label: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"{label:<{LABEL_WIDTH}}",
                         subsequent_indent=" " * LABEL_WIDTH) or [label]

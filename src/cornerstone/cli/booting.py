"""`invoke boot`: one way of booting an ISO, or several one after the other, whatever becomes of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cornerstone.cli.inputs import check_folder
from cornerstone.lab.boot import boot_task
from cornerstone.lab.machine import FIRMWARES, MEDIA
from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.junit import Case, write_report

# of a console, in a report; all of it is in its file
LAST_BYTES = 1 << 16


def boot_ways(iso: Path, firmware: str, media: str, memory: int, boots: Path, junit: Path | None = None) -> int:
    """Boot an ISO with each firmware from each medium, both with commas or `all`; returns the first code that isn't 0.

    boots: the folder that gets a folder of each boot. junit: a folder that gets a report with a test of each, and its
    console, also when one fails. Raises CornerstoneError for a word that names none, before anything boots.
    """
    ways = [(one, other) for one in _words("firmware", firmware, FIRMWARES) for other in _words("media", media, MEDIA)]
    check_folder("--junit", junit)
    codes, cases = [], []
    for one, other in ways:
        folder = boots / f"{iso.stem}-{one}-{other}"
        codes.append(boot_task(iso, firmware=one, media=other, memory_mib=memory, log_dir=folder))
        cases.append(_case(f"{one}-{other}", codes[-1], folder))
        if junit is not None:
            # after each: who is ended in the middle has what was seen
            write_report(junit / f"boot-{iso.stem}.xml", "boot", iso.stem, cases)
    return next((code for code in codes if code), 0)


def _words(flag: str, text: str, known: Sequence[str]) -> list[str]:
    """The words of a flag, each once. `all` is all that boot an ISO: a disk image is asked for by name."""
    words = [word for word in known if word != "disk"] if text == "all" else text.split(",")
    if wrong := [word for word in words if word not in known]:
        raise CornerstoneError(f"--{flag} {wrong[0]!r} is unknown",
                               f"use {', '.join(known)}, several with commas, or all")
    return list(dict.fromkeys(words))


def _case(name: str, code: int, folder: Path) -> Case:
    console, wrong = folder / "console.log", f"it ended with code {code}" if code else ""
    output = ""
    if console.is_file():
        output = console.read_bytes()[-LAST_BYTES:].decode(errors="replace")
    return Case(name, wrong, output=output)

"""The live environment's one process: verify the medium, look at the machine, show the screen, wait."""

from __future__ import annotations

import signal
import sys

from cornerstone.foundation.hardware import look
from cornerstone.foundation.medium import Medium
from cornerstone.foundation.screen import Screen, open_consoles
from cornerstone.foundation.telling import open_listeners
from cornerstone.model.error import CornerstoneError
from cornerstone.model.event import Event

STAGE = "foundation"


def main() -> int:
    """0 never: it waits for a site until the machine is switched off; 1 when the medium is refused."""
    tell = open_listeners()
    screen = Screen(open_consoles())
    try:
        medium = Medium.attached()
        screen.title(medium.manifest)
        tell(Event(STAGE, "verify", "started"))
        medium.check_signature()
        screen.row("Medium", f"{medium.device}, identity {medium.manifest.identity}")
        screen.row("Manifest", f"signature good, {medium.manifest.signed}")

        def progress(name: str, percent: int) -> None:
            screen.row("Layers", f"checking {name}, {percent} %")
            tell(Event(STAGE, "verify", "progress", name, {"percent": percent}))

        screen.row("Layers", medium.check_files(progress))
        tell(Event(STAGE, "verify", "done", data={"files": len(medium.manifest.entries),
                                                  "identity": medium.manifest.identity}))
        machine = look()
        for label, text in machine.rows():
            screen.row(label, text)
        tell(Event(STAGE, "discover", "done", data=machine.summary()))
    except CornerstoneError as error:
        screen.refuse(error)
        tell(Event(STAGE, "verify", "failed", error.message))
        return 1
    screen.wait("a site file: this medium carries none.")
    tell(Event(STAGE, "screen", "waiting", "site", machine.summary()))
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())

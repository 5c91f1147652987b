"""The live environment's one process: verify the medium, look at the machine, show the screen, wait.

`discover` as the only argument prints the facts of any machine instead, as facts.json.
"""

from __future__ import annotations

import signal
import sys

from cornerstone.foundation.discover import discover
from cornerstone.foundation.discover.network import await_link, raise_links
from cornerstone.foundation.medium import Medium
from cornerstone.foundation.rows import checks, outcome, rows, summary
from cornerstone.foundation.screen import Screen, open_consoles
from cornerstone.foundation.telling import keep_facts, open_listeners
from cornerstone.model.error import Code, CornerstoneError
from cornerstone.model.event import Event
from cornerstone.model.requirements import Requirements
from cornerstone.model.rules import check_machine

STAGE = "foundation"


def main() -> int:
    """0 never: it waits for a site until the machine is switched off; 1 when the medium is refused."""
    tell = open_listeners()
    screen = Screen(open_consoles())
    try:
        # Now, because a link takes seconds to come up.
        raise_links()
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
        await_link()
        facts = discover(medium=medium.device)
        keep_facts(facts)
        for label, text in rows(facts):
            screen.row(label, text)
        tell(Event(STAGE, "discover", "done", data=summary(facts)))
        found = check_machine(facts, Requirements.of(medium.manifest.profile, medium.manifest.epoch))
        screen.row("Checks", checks(found))
        tell(Event(STAGE, "validate", *outcome(found)))
    except CornerstoneError as error:
        screen.refuse(error)
        tell(Event(STAGE, "verify", "failed", error.message))
        return 1
    screen.wait("a site file: this medium carries none.")
    tell(Event(STAGE, "screen", "waiting", "site", summary(facts)))
    while True:
        signal.pause()


def command(arguments: list[str]) -> int:
    """The live environment without arguments; else the one subcommand."""
    if arguments == ["discover"]:
        sys.stdout.write(discover().to_json())
        return 0
    if arguments:
        print(f"error: {' '.join(arguments)!r} is unknown\n  hint: say discover, or nothing", file=sys.stderr)
        return int(Code.INPUT)
    return main()


if __name__ == "__main__":
    sys.exit(command(sys.argv[1:]))

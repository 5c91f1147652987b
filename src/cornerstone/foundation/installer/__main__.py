"""The live environment's one process: verify the medium, look at the machine, and make it the node that a site says.

Instead: `discover` prints the facts of any machine; `plan` prints the whole decision for facts and a site.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cornerstone.foundation.installer.ask import Console
from cornerstone.foundation.installer.discover import discover
from cornerstone.foundation.installer.discover.network import await_link, raise_links
from cornerstone.foundation.installer.install import Install, as_refusal
from cornerstone.foundation.installer.medium import MOUNT_POINT, Medium
from cornerstone.foundation.installer.plan import make_plan
from cornerstone.foundation.installer.plan_text import lines
from cornerstone.foundation.installer.rows import checks, outcome, rows, summary
from cornerstone.foundation.installer.screen import Screen, console_devices, open_consoles
from cornerstone.foundation.installer.site_source import kernel_arguments
from cornerstone.foundation.installer.telling import EVENTS, keep_facts
from cornerstone.lib.command import read
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.event import Event, Listener, open_listeners
from cornerstone.lib.json_text import read_bounded
from cornerstone.model.contracts.facts import Facts
from cornerstone.model.contracts.manifest import NAME, Manifest
from cornerstone.model.contracts.requirements import Requirements
from cornerstone.model.rules import check_machine
from cornerstone.model.site.file import MOST, read_site

STAGE = "foundation"
# until a network that failed is tried again by itself: nobody may be there to press a key
NETWORK_SECONDS = 30.0


def main() -> int:
    """0 when the machine restarts as a node; 1 when the medium is refused.

    A machine that is refused is looked at anew each time that somebody presses Enter: disks and cables can be changed
    while it runs, and a stick with another site put in. No error ends this process but one of the medium: there is
    nothing else that would say what is wrong.
    """
    tell = open_listeners(EVENTS)
    screen = Screen(open_consoles())
    try:
        # Now, because a link takes seconds to come up.
        raise_links()
        medium = verify_medium(screen, tell)
    except Exception as error:
        refuse(error, "verify", screen, tell)
        return 1
    arguments = kernel_arguments(Path("/proc/cmdline").read_text(errors="replace"))
    while True:
        seconds = None
        try:
            facts = discover_machine(medium, screen, tell)
        except Exception as error:
            refuse(error, "discover", screen, tell)
        else:
            try:
                Install(medium, facts, arguments, screen, tell,
                        look_again=lambda: discover_machine(medium, screen, tell)).run()
                break
            except CornerstoneError as error:
                screen.refuse(error)
                seconds = NETWORK_SECONDS if error.code is Code.NETWORK else None
        with Console(console_devices()) as console:
            console.wait("When that is mended, press Enter: the machine is looked at again"
                         + (f", or by itself in {seconds:.0f} s." if seconds else "."), seconds)
        screen.forget_after("Layers")
    tell(Event(STAGE, "install", "done"))
    read(["systemctl", "reboot"])
    return 0


def refuse(error: Exception, step: str, screen: Screen, tell: Listener) -> None:
    """Tell an event and the screen why nothing will happen."""
    refusal = as_refusal(error, step)
    tell(Event(STAGE, step, "failed", refusal.message, {"code": refusal.code.name.lower(), "hint": refusal.hint}))
    screen.refuse(refusal)


def verify_medium(screen: Screen, tell: Listener) -> Medium:
    """Return the medium that was booted from, checked. Raises CornerstoneError (VERIFY) with what differs."""
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
    return medium


def discover_machine(medium: Medium, screen: Screen, tell: Listener) -> Facts:
    """Return the machine's facts, shown with what the rules say of them."""
    await_link()
    facts = discover(medium=medium.disk)
    keep_facts(facts)
    for label, text in rows(facts):
        screen.row(label, text)
    tell(Event(STAGE, "discover", "done", data=summary(facts)))
    found = check_machine(facts, Requirements.of(medium.manifest.profile, medium.manifest.epoch))
    screen.row("Checks", checks(found))
    tell(Event(STAGE, "validate", *outcome(found)))
    return facts


def print_plan(facts: Path, site: Path, manifest: Manifest) -> int:
    """Print the plan for a machine's facts and a site, with the ISO of a manifest; returns the exit code.

    Nothing is touched. CornerstoneError when a file can't be read, or the machine is no node of the site.
    """
    try:
        content = read_bounded(site, MOST)
    except OSError as error:
        raise CornerstoneError(f"{site} can't be read: {error.strerror}", "name a site file") from error
    plan = make_plan(Facts.load(facts), read_site(content, str(site)), manifest)
    print("\n".join(lines(plan)))
    return int(Code.REFUSED) if plan.refusals else 0


def command(words: list[str]) -> int:
    """The live environment without arguments; else a subcommand."""
    parser = argparse.ArgumentParser(prog="foundation", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("discover", help="print this machine's facts, as facts.json")
    plan = commands.add_parser("plan", help="print the whole decision for a machine and a site; nothing is touched")
    plan.add_argument("--facts", required=True, type=Path, help="facts.json of the machine")
    plan.add_argument("--site", required=True, type=Path, help="site file")
    plan.add_argument("--manifest", default=MOUNT_POINT / NAME, type=Path, help="manifest.json of the ISO")
    chosen = parser.parse_args(words)
    if chosen.command == "discover":
        sys.stdout.write(discover().to_json())
        return 0
    if chosen.command == "plan":
        try:
            content = chosen.manifest.read_bytes()
            return print_plan(chosen.facts, chosen.site, Manifest.from_bytes(content, str(chosen.manifest)))
        except OSError as error:
            print(f"error: {error.filename} can't be read: {error.strerror}", file=sys.stderr)
            return int(Code.INPUT)
        except CornerstoneError as error:
            print(f"error: {error}", file=sys.stderr)
            return int(error.code)
    return main()


if __name__ == "__main__":
    sys.exit(command(sys.argv[1:]))

"""`invoke build` when there is nothing to do: the same words as a build's, without the imports that a plan takes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cornerstone.cli.inputs import DEFAULT_PROFILE
from cornerstone.factory.build import unchanged
from cornerstone.factory.settings import Workspace
from cornerstone.lib.event import Event, JsonLines

if TYPE_CHECKING:
    from cornerstone.factory.build.unchanged import Inputs
    from cornerstone.model.profile.profile import Profile

STAGE, STEP, STATE = "build", "iso", "cached"


def tell_up_to_date(workspace: Workspace, word: str, inputs: Inputs | None) -> bool:
    """Tell that a profile's ISO is up to date, if all is as it was when that was last found; else return False."""
    name = word or DEFAULT_PROFILE
    if os.geteuid() != 0 or not (known := unchanged.recall(workspace, name, inputs)):
        return False
    event = Event(STAGE, STEP, STATE, known["message"])
    JsonLines(workspace.output / name / "events.jsonl")(event)
    print("\n".join(known["lines"]), file=sys.stderr)
    print(f"= {STEP:<18}{STATE:>9}  {event.message}", file=sys.stderr)
    print(known["signed"], file=sys.stderr, flush=True)
    print(known["iso"], flush=True)
    return True


def note_up_to_date(workspace: Workspace, profile: Profile, inputs: Inputs | None, iso: Path, signed: str,
                    is_customised: Callable[[Path], bool]) -> None:
    """Note what tell_up_to_date needs, after a build of a profile that was named by its name.

    Nothing is noted for an ISO that carries a site, a release, or a profile with files of its own: those lie anywhere.
    """
    files = any(profile.additions(root).files for root in ("hypervisor", "cvm"))
    if signed != "development-signed" or files or is_customised(iso):
        inputs = None
    unchanged.remember(workspace, profile.name, inputs, {
        "lines": profile.lines(), "signed": signed, "iso": str(iso),
        "message": f"{iso} is up to date: nothing to do"})

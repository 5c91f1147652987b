"""`invoke build` and `invoke why`: one profile or several, and what the person who called is told."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cornerstone.cli.ending import explain
from cornerstone.cli.inputs import check_folder, check_format
from cornerstone.cli.up_to_date import note_up_to_date
from cornerstone.customize.iso_area import is_customised
from cornerstone.factory.build.build import build, why
from cornerstone.factory.build.progress import Progress
from cornerstone.factory.build.unchanged import Inputs
from cornerstone.factory.settings import Workspace
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.event import Event, JsonLines
from cornerstone.model.contracts.manifest import NAME, Manifest
from cornerstone.model.profile.profile import Profile


@dataclass(frozen=True)
class Built:
    """One profile's end: iso where it was built, else error; seconds that it took."""

    profile: str
    seconds: float
    iso: Path | None = None
    error: CornerstoneError | None = None


def build_one(workspace: Workspace, profile: Profile, keep: bool = False, carried: Path | None = None) -> Path:
    """Build a profile's ISO, showing its steps and keeping them in events.jsonl. Raises CornerstoneError."""
    record = JsonLines(workspace.output / profile.name / "events.jsonl")
    with Progress() as show:
        def listener(event: Event) -> None:
            record(event)
            show(event)
        try:
            return build(workspace, profile, listener, keep, carried)
        finally:
            record.close()


def build_all(workspace: Workspace, profiles: Sequence[Profile], keep: bool = False,
              carried: Path | None = None, inputs: Inputs | None = None) -> int:
    """Build profiles one after the other, with a table at the end when they are several; returns the worst exit code.

    They share the layers that they have in common, and one that fails doesn't keep the others from being built. Each
    ISO's path is a line of standard output. inputs: what was looked at before any profile was read, for the next build.
    Raises CornerstoneError when there is but one profile and it fails.
    """
    ends: list[Built] = []
    for profile in profiles:
        print("\n".join(profile.lines()), file=sys.stderr)
        begun = time.monotonic()
        try:
            iso = build_one(workspace, profile, keep, carried)
        except (CornerstoneError, OSError) as error:
            # a pipe that isn't read any more ends them all
            if len(profiles) == 1 or isinstance(error, BrokenPipeError):
                raise
            failure = error if isinstance(error, CornerstoneError) else explain(error)
            print(f"error: {profile.name}: {failure}", file=sys.stderr, flush=True)
            ends.append(Built(profile.name, time.monotonic() - begun, error=failure))
        else:
            signed = Manifest.from_bytes(iso.with_name(NAME).read_bytes()).signed
            print(signed, file=sys.stderr)
            print(iso, flush=True)
            note_up_to_date(workspace, profile, inputs, iso, signed, is_customised)
            ends.append(Built(profile.name, time.monotonic() - begun, iso))
    if len(profiles) > 1:
        Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 200).print(table(ends))
    return max((int(end.error.code) for end in ends if end.error), default=0)


def table(ends: Sequence[Built]) -> Table:
    """A row for each profile: built or not, how long it took, and its ISO or its error."""
    found = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("profile", "", "seconds", "ISO or error"):
        found.add_column(heading, justify="right" if heading == "seconds" else "left", overflow="fold")
    for end in ends:
        told = end.error.message.partition("\n")[0] if end.error else str(end.iso)
        found.add_row(end.profile, "failed" if end.error else "built", f"{end.seconds:.1f}", told)
    return found


def tell_why(workspace: Workspace, profile: Profile, format: str) -> None:
    """Print for each layer whether it is there and what changed, as text or json."""
    check_format(format)
    rows = why(workspace, profile)
    if format == "json":
        print(json.dumps({"v": 1, "profile": profile.name, "layers": [
            {"name": name, "there": there, "changed": changed} for name, there, changed in rows]}, indent=2))
        return
    for name, there, changed in rows:
        print(f"{'hit ' if there else 'miss'}  {name:<20} {', '.join(changed) or 'nothing changed'}")


def tell_reproduced(workspace: Workspace, profile: Profile) -> None:
    """Build a profile's ISO twice and say that the bytes are the same. Raises CornerstoneError (FAILED) if not."""
    from cornerstone.factory.build.reproduce import reproduce
    with Progress() as show:
        differences = reproduce(workspace, profile, show)
    if differences:
        raise CornerstoneError("the two ISOs differ:\n  " + "\n  ".join(differences),
                               f"see {workspace.output / profile.name / 'logs' / 'reproduce.log'}", Code.FAILED)
    print("the same bytes")


def tell_bench(workspace: Workspace, profile: Profile, case: str, rounds: int, output: Path | None,
               strict: bool) -> int:
    """Run the benchmark and print its tables; returns its exit code."""
    from cornerstone.factory.bench.run import run_bench, verdict
    from cornerstone.factory.bench.table import show
    check_folder("--output", output)
    folder = output or workspace.output / "bench"
    with Progress() as progress:
        results = run_bench(workspace, profile, case, rounds, folder, progress)
    show(Console(width=None if sys.stdout.isatty() else 160), results)
    print(folder / "bench.md")
    return verdict(results, strict)

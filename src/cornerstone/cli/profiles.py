"""`invoke profiles`: what can be cut, each profile with its releases and what the rules say of it."""

from __future__ import annotations

import datetime
import json
import sys
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from cornerstone.cli.inputs import check_format
from cornerstone.factory.build.build import iso_path
from cornerstone.factory.settings import Workspace
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.catalogue.catalogue import load_catalogue
from cornerstone.model.profile.profile import Profile, load_profile, profile_names
from cornerstone.model.rules.registry import Level
from cornerstone.model.rules.release import check_profile


@dataclass(frozen=True)
class Listed:
    """One file of profiles/: the profile with the findings of the rules, worst first, or why it can't be read."""

    name: str
    profile: Profile | None
    findings: tuple[tuple[Level, str], ...]
    error: CornerstoneError | None = None
    iso: str = ""

    @property
    def verdict(self) -> str:
        """ok, warning, error or malformed."""
        if self.error:
            return "malformed"
        return next((str(level) for level in (Level.ERROR, Level.WARNING) if any(level is each for each, _ in
                                                                                self.findings)), "ok")


def list_profiles(workspace: Workspace, today: datetime.date) -> list[Listed]:
    """Every profile that isn't abstract, in release order. Raises CornerstoneError when the catalogue is wrong."""
    catalogue, found = load_catalogue(workspace.root), []
    for name in profile_names(workspace.root):
        try:
            profile = load_profile(name, workspace.root, catalogue)
        except CornerstoneError as error:
            found.append(Listed(name, None, (), error))
            continue
        findings = [(verdict.severity, f"{verdict.rule.id}: {verdict.message}")
                    for verdict in check_profile(profile, catalogue, today=today) if verdict.severity]
        iso = iso_path(workspace, profile)
        found.append(Listed(name, profile, tuple(sorted(findings, key=lambda each: list(Level).index(each[0]))),
                            iso=str(iso) if iso.is_file() else ""))
    return found


def tell_profiles(workspace: Workspace, format: str = "table", today: datetime.date | None = None) -> int:
    """Print the profiles as a table or as json; returns 0, or Code.FAILED when a profile can't be built."""
    check_format(format, ("table", "json"))
    found = list_profiles(workspace, today or datetime.date.today())
    if format == "json":
        print(json.dumps({"v": 1, "profiles": [record(each) for each in found]}, indent=2))
    else:
        Console(highlight=False, width=None if sys.stdout.isatty() else 200).print(table(found))
    return int(Code.FAILED) if any(each.verdict in ("malformed", "error") for each in found) else 0


def record(listed: Listed) -> dict[str, object]:
    """A profile as JSON."""
    profile = listed.profile
    return {"name": listed.name, "verdict": listed.verdict,
            **({"aos": profile.aos, "ahv": profile.ahv, "suite": profile.reference.suite, "payload": profile.payload,
                "description": profile.description} if profile else {}),
            "iso": listed.iso or None, "error": str(listed.error) if listed.error else None,
            "findings": [{"level": str(level), "message": message} for level, message in listed.findings]}


def table(found: list[Listed]) -> Table:
    """A row for each profile; the last column is its worst finding, or why it can't be read."""
    rows = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("profile", "AOS", "AHV", "suite", "built", "verdict", ""):
        rows.add_column(heading, overflow="fold")
    for each in found:
        profile = each.profile
        releases = (profile.aos, profile.ahv, profile.reference.suite) if profile else ("", "", "")
        worst = each.findings[0][1] if each.verdict in ("warning", "error") else ""
        rows.add_row(each.name, *releases, "yes" if each.iso else "no", each.verdict,
                     each.error.message if each.error else worst)
    return rows

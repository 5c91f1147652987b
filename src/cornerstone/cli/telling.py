"""Print the results of `invoke site.check`, `customize` and `plan`: text for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cornerstone.cli.inputs import check_format, find_iso, find_profile
from cornerstone.factory.settings import Workspace
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.contracts.manifest import HYPERVISOR, Entry, Manifest
from cornerstone.model.contracts.site_area import ROOM, SIZE
from cornerstone.model.site.file import SiteError, read_site, size_in_iso
from cornerstone.model.site.site import Site


def check_sites(files: Sequence[str], format: str = "text") -> int:
    """Check site files and print what is in them or wrong with them; returns 0 or Code.INPUT.

    With format json everything is one document on standard output. Raises CornerstoneError when there is but one file
    and it is wrong, in text.
    """
    from cornerstone.customize.customize import read_file

    check_format(format)
    if not files:
        raise CornerstoneError("no site file is named", "give its path; the examples are in sites/")
    told, wrong = [], []
    for file in files:
        try:
            site = read_site(read_file(Path(file)), file)
        except CornerstoneError as error:
            if format == "text" and len(files) == 1:
                raise
            wrong.append(error)
            told.append(problems_record(file, error))
        else:
            told.append(site_record(file, site))
            if format == "text":
                tell_site(file, site)
    if format == "json":
        print(json.dumps({"v": 1, "files": told}, indent=2))
    elif wrong:
        raise CornerstoneError("\n".join(error.message for error in wrong), wrong[-1].hint)
    return int(Code.INPUT) if wrong else 0


def write_site(file: str, given: dict[str, str], force: bool) -> None:
    """Write a new site file from answers, asking for missing ones on a terminal, and print what is in it."""
    from cornerstone.customize.site_new import new_site

    if not file:
        raise CornerstoneError("no site file is named", "give the path of the new file")
    tell_site(file, new_site(Path(file), given, input if sys.stdin.isatty() else None, force=force))


def tell_site(file: str, site: Site) -> None:
    """Print which nodes and clusters a site file has, and what its reader should know."""
    print(f"{file} is valid")
    for node in site.nodes:
        bmc = f", BMC {node.bmc.address}" if node.bmc else ""
        print(f"  {node}: hypervisor {node.hypervisor}, CVM {node.cvm}{bmc}")
    for cluster in site.clusters:
        print(f"  cluster {cluster.name}: {len(cluster.members)} of the nodes, {cluster.redundancy_factor} copies")
    print(f"  {size_in_iso(site)} of {ROOM} bytes of an ISO's site area")
    for warning in site.warnings:
        print(f"note: {warning}; {warning.hint}")


def site_record(file: str, site: Site) -> dict[str, Any]:
    """A valid site file as JSON, without its secrets."""
    return {"file": file, "valid": True,
            "nodes": [{"hostname": node.hostname, "serial": node.serial, "hypervisor": str(node.hypervisor),
                       "cvm": str(node.cvm), "bmc": str(node.bmc.address) if node.bmc else None}
                      for node in site.nodes],
            "clusters": [{"name": cluster.name, "members": len(cluster.members),
                          "redundancy_factor": cluster.redundancy_factor} for cluster in site.clusters],
            "size": size_in_iso(site), "room": ROOM,
            "notes": [{"note": str(warning), "hint": warning.hint} for warning in site.warnings], "problems": []}


def problems_record(file: str, error: CornerstoneError) -> dict[str, Any]:
    """A site file that is refused as JSON."""
    problems = error.problems if isinstance(error, SiteError) else ()
    return {"file": file, "valid": False, "nodes": [], "clusters": [], "size": None, "room": ROOM, "notes": [],
            "problems": [{"problem": str(problem), "hint": problem.hint} for problem in problems]
            or [{"problem": error.message, "hint": error.hint}]}


def customize_iso(workspace: Workspace, iso: str, site: str, output: str, console: str, arguments: Sequence[str], *,
                  show: bool, reset: bool) -> None:
    """Put a site file and boot settings into an ISO, take them out or show them, and print what was done.

    Raises CornerstoneError.
    """
    from cornerstone.customize import customize
    from cornerstone.model.contracts.boot_area import BootSettings, read_settings

    boot = read_settings(console, arguments) if console or arguments else None
    if not iso or [bool(site or boot), show, reset].count(True) != 1 or (output and show):
        raise CornerstoneError("customize needs an ISO, and one of --site FILE, --show and --reset",
                               "./invoke customize ISO --site FILE [--output NEW], or --console and --kernel-argument")
    path, target = find_iso(workspace, iso, device=True), Path(output) if output else None
    if show:
        print(customize.show(path), end="")
        if (settings := customize.show_boot(path)) != BootSettings():
            print(f"note: {path} starts with {settings}", file=sys.stderr)
    else:
        print("\n".join(customize.reset(path, target) if reset else
                        customize.customize(path, Path(site) if site else None, target, boot)))


def tell_plan(workspace: Workspace, facts: Path, site: Path, iso: str, profile: str, format: str) -> int:
    """Print what Foundation would do with a machine; returns 0, or Code.REFUSED when it would refuse.

    iso names an ISO or is "": then the profile decides, and its root slots count as full. Raises CornerstoneError for
    files that can't be read, the facts first.
    """
    from cornerstone.customize.customize import read_file
    from cornerstone.foundation.installer.plan import make_plan
    from cornerstone.foundation.installer.plan_text import lines
    from cornerstone.model.contracts.facts import Facts

    check_format(format)
    recorded, described = Facts.load(facts), read_site(read_file(site), str(site))
    plan = make_plan(recorded, described, manifest_of(workspace, iso, profile))
    if format == "json":
        print(json.dumps({"v": 1, "refused": bool(plan.refusals), "refusals": [asdict(each) for each in plan.refusals],
                          "warnings": list(plan.warnings), "plan": lines(plan)}, indent=2))
    else:
        print("\n".join(lines(plan)))
    return int(Code.REFUSED) if plan.refusals else 0


def manifest_of(workspace: Workspace, iso: str, profile: str) -> Manifest:
    """The manifest of a named ISO; with iso "" the profile's, as far as a plan needs it and without the ISO."""
    if iso and profile:
        raise CornerstoneError("--iso and --profile are both given", "an ISO has its profile inside: give one of them")
    if iso:
        from cornerstone.customize.iso_image import Image
        image = Image(find_iso(workspace, iso, device=True))
        try:
            return image.manifest
        finally:
            image.close()
    from cornerstone.factory.build.plan import read_locks
    chosen = find_profile(workspace, profile)
    epoch = max(lock.epoch for lock in read_locks(workspace, chosen).values())
    root = Entry(HYPERVISOR, chosen.hypervisor.root_slot, "0" * 64)
    return Manifest("not-built", chosen.resolved(), "development", epoch, (root,), SIZE)

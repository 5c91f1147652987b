"""The report beside an ISO: what is in it, for people (report.md) and for tools (report.json)."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from cornerstone.lib.fat import MIB

if TYPE_CHECKING:
    from cornerstone.factory.build.plan import Plan
    from cornerstone.model.contracts.manifest import Manifest

JSON_NAME, TEXT_NAME = "report.json", "report.md"


def files(plan: Plan, manifest: Manifest, iso: str, size: int, sha256: str) -> dict[str, bytes]:
    """report.json and report.md by their names; iso, size, sha256: the ISO's file name, bytes, and digest as built."""
    packages = {root: [{"name": p.name, "version": p.version} for p in lock.packages]
                for root, lock in plan.locks.items()}
    record = {
        "iso": {"file": iso, "size": size, "sha256": sha256, "identity": manifest.identity},
        "profile": manifest.profile, "signed": manifest.signed,
        "signed_with": f"{plan.key.kind} key", "key_sha256": hashlib.sha256(plan.key.public_pem()).hexdigest(),
        "files": [{"path": e.path, "size": e.size, "sha256": e.sha256} for e in manifest.entries],
        "packages": packages,
    }
    return {JSON_NAME: (json.dumps(record, indent=1) + "\n").encode(), TEXT_NAME: _markdown(record).encode()}


def _markdown(record: dict) -> str:
    profile, iso = record["profile"], record["iso"]
    lines = [
        f"# Foundation ISO of profile {profile['name']}", "",
        f"AOS {profile['aos']} with AHV {profile['ahv']}; {profile['payload']} payload"
        + (": an open stack in their place, not Nutanix software." if profile["payload"] == "reference" else "."), "",
        f"- file: {iso['file']}, {iso['size'] // MIB} MiB", f"- sha256: {iso['sha256']}",
        f"- identity: {iso['identity']}", f"- {record['signed']}: signed with the {record['signed_with']}", "",
        "| file on the ISO | bytes | sha256 |", "|---|---:|---|",
        *(f"| {f['path']} | {f['size']} | {f['sha256']} |" for f in record["files"]), "",
    ]
    for root, packages in record["packages"].items():
        lines += [f"## Packages of the {root} root ({len(packages)})", "",
                  *(f"- {p['name']} {p['version']}" for p in packages), ""]
    return "\n".join(lines)

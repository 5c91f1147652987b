"""`invoke schema`: the JSON Schemas and docs/formats.md, which are kept in the checkout, written anew from the code."""

from __future__ import annotations

import json
from pathlib import Path

from cornerstone.factory.settings import Workspace
from cornerstone.lib.atomic import put
from cornerstone.model.catalogue.catalogue import load_catalogue
from cornerstone.model.contracts import facts, report
from cornerstone.model.profile import profile
from cornerstone.model.site import fields as site_fields


def texts(root: Path) -> dict[str, str]:
    """Each schema, and the page of formats, by its path in the checkout."""
    # not at the top: it imports every room
    from cornerstone.cli.formats import page
    return {
        "profiles/schema.json": profile.schema_text(load_catalogue(root)),
        "sites/schema.json": json.dumps(site_fields.schema(), indent=2) + "\n",
        "docs/facts.schema.json": facts.schema_text(),
        "docs/report.schema.json": report.schema_text(),
        "docs/formats.md": page(),
    }


def write_schemas(workspace: Workspace) -> list[Path]:
    """Write each schema beside its place and rename it, if it changed; returns the paths of those."""
    changed = []
    for name, text in texts(workspace.root).items():
        path = workspace.root / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        put(path, text)
        changed.append(path)
    return changed

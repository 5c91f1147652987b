"""Every file and message that one release writes and another reads, as docs/formats.md shows them.

Each is declared where it is written or read; here they are put side by side, and nothing else is done with them.
"""

from __future__ import annotations

from typing import Any

from cornerstone.cvm.ceph.floor import OPENED
from cornerstone.cvm.iscsi_target.catalogue import CATALOGUE_FORMAT, NOTICE
from cornerstone.cvm.iscsi_target.clients import KERNEL
from cornerstone.cvm.membership.kept import MEMBERSHIP_FORMAT, OSDS_FORMAT
from cornerstone.cvm.membership.keys import KEYS_FORMAT
from cornerstone.cvm.membership.member import MEMBER_FORMAT
from cornerstone.cvm.membership.messages import REFUSAL, REQUEST
from cornerstone.cvm.membership.state import STATE_FORMAT
from cornerstone.factory.build.build import BUILD
from cornerstone.factory.store.layers import LAYER
from cornerstone.lib.serde import Format
from cornerstone.model.contracts.event import EVENT
from cornerstone.model.contracts.facts import FACTS
from cornerstone.model.contracts.genesis import GENESIS
from cornerstone.model.contracts.iscsi import ANSWER, INITIATOR, OFFER
from cornerstone.model.contracts.manifest import MANIFEST
from cornerstone.model.contracts.member_page import MEMBER_PAGE
from cornerstone.model.contracts.node import NODE
from cornerstone.model.contracts.report import REPORT

FORMATS: tuple[Format[Any], ...] = tuple(sorted(
    (ANSWER, BUILD, CATALOGUE_FORMAT, EVENT, FACTS, GENESIS, INITIATOR, KERNEL, KEYS_FORMAT, LAYER, MANIFEST,
     MEMBERSHIP_FORMAT, MEMBER_FORMAT, MEMBER_PAGE, NODE, NOTICE, OFFER, OPENED, OSDS_FORMAT, REFUSAL, REPORT, REQUEST,
     STATE_FORMAT), key=lambda each: (each.message, each.name)))
SAMPLES = "tests/data/formats"

_BEGINNING = """# Formats

What one release writes and another reads. Made by `./invoke schema` from the declarations in the code \
(`lib/serde.py` has what all of them share); a test keeps the two equal.

- **A file's reader** ignores fields that it doesn't know, reads versions from its floor on, and refuses a newer \
one with a sentence that says what to do. A file without a version is of version 1.
- **A message's reader** ignores fields that it doesn't know, whatever version wrote them, and refuses a version below \
its floor with a sentence that says which side to update.
- **A field that is added** has a default and keeps the version. What is renamed, taken away or means something else \
takes a new version, and a step that reads the older one.
- **Nothing may be ignored that forbids or limits.** A field without which something would be erased, opened or let in \
takes a new version of its file; in a message it is another action, for which an older release has no answer. \
Signatures and seals are over bytes, or over all fields, known or not.
- **What people write** (profiles, sites, the catalogue in `versions/`, machine shapes) isn't in the table: there an \
unknown key is a typing error, and is refused with a suggestion.

Samples of every version are in `tests/data/formats/` and are read by the newest code; beside each is what its version \
requires (`.fields.json`), by which what the newest code writes is read.

"""


def slug(form: Format[Any]) -> str:
    """Return what the samples of a format are called."""
    return form.name.removesuffix(".json").replace(" ", "-")


def sample(form: Format[Any], version: int) -> str:
    """Return the path of a version's sample in the checkout."""
    return f"{SAMPLES}/{slug(form)}-v{version}.json"


def page() -> str:
    """Return the text of docs/formats.md."""
    lines = []
    for title, message in (("Files", False), ("Messages", True)):
        lines += [f"## {title}", "", "| name | version | floor | its key | who writes | who reads | samples |",
                  "|---|---|---|---|---|---|---|"]
        for form in FORMATS:
            if form.message == message:
                samples = ", ".join(f"[v{version}](../{sample(form, version)})"
                                    for version in range(form.floor, form.version + 1))
                lines.append(f"| {form.name} | {form.version} | {form.floor} | `{form.key}` | {form.writer} | "
                             f"{form.reader} | {samples} |")
        lines.append("")
    return _BEGINNING + "\n".join(lines)

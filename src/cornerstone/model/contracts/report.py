"""Reports: what a node tells the site's webhook, one JSON object a POST. Standard library only.

docs/report.schema.json is the exported schema, and a test keeps the two equal.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from cornerstone.lib.serde import Format, schema_of

SCHEMA_VERSION = 1
STARTED, PROGRESS, SUCCEEDED, FAILED = STATES = ("started", "progress", "succeeded", "failed")


@dataclass(frozen=True)
class Report:
    """One report of a node that is being imaged.

    v: this schema's version; sequence: counts this run's reports from 1, and a report that comes twice has the same
    one; t: seconds since the epoch, by the node's clock; state: started, progress, succeeded or failed, the last two
    being final; serial and hostname: the node's; profile and identity: what the ISO installs, and its own identity;
    step: what the node was doing; percent: of the step, null when it has none; message: for people; code and hint:
    with failed, its kind as in docs/errors.md, such as machine, and how to mend it.
    """

    v: int
    sequence: int
    t: int
    state: str
    serial: str
    hostname: str
    profile: str
    identity: str
    step: str
    percent: int | None = None
    message: str = ""
    code: str = ""
    hint: str = ""

    def to_json(self) -> bytes:
        """The body of the POST."""
        return json.dumps(REPORT.write(self)).encode()


REPORT = Format("report", Report, "Foundation", "the site's webhook", SCHEMA_VERSION, message=True, key="v")


def schema_text() -> str:
    """The JSON Schema of a report."""
    return json.dumps({**schema_of(Report), "title": "Cornerstone report to a webhook"}, indent=1) + "\n"

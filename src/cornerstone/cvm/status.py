"""`genesis status`: how far this node is, from genesis.json and from what systemd says of its services."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from cornerstone.cvm import services
from cornerstone.lib.error import ends_in_one_line
from cornerstone.lib.serde import to_record
from cornerstone.model.contracts.genesis import Genesis

USAGE = "usage: genesis status [--json]"


@ends_in_one_line
def main(words: list[str], file: Path) -> int:
    """Print it. 0 when the node is ready, 1 when it isn't, 2 when that wasn't asked."""
    if words not in (["status"], ["status", "--json"]):
        print(USAGE, file=sys.stderr)
        return 2
    try:
        genesis = Genesis.from_json(file.read_bytes(), str(file))
    except FileNotFoundError:
        print("genesis hasn't run here; see: systemctl status genesis", file=sys.stderr)
        return 1
    running = services.running()
    if "--json" in words:
        print(json.dumps(to_record(genesis) | {"services": [to_record(service) for service in running]}, indent=1))
    else:
        print(text(genesis, running), end="")
    return 0 if genesis.ready else 1


def text(genesis: Genesis, running: tuple[services.Service, ...]) -> str:
    """For people: a line a state with what is wrong below it, then a line a service."""
    lines = []
    for record in genesis.states:
        when = f"{time.strftime('%F %T', time.localtime(record.since / 1000))}  {record.took / 1000:6.1f} s" \
            if record.state != "waiting" else ""
        tries = f"  tried {record.tries} times" if record.tries > 1 else ""
        lines.append(f"{record.name:<14} {record.state:<8} {when}{tries}".rstrip())
        lines += [f"  {line}" for line in (record.message, record.error, record.hint, *record.warnings) if line]
    lines += [f"{service.name:<14} {'UP' if service.up else 'DOWN':<8} {list(service.pids)}" for service in running]
    return "\n".join(lines) + "\n"

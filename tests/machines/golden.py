"""What every rule says of every recorded machine, and what would be done with it, for a profile of the default sizes.

    .venv/bin/python tests/machines/golden.py

writes tests/machines/golden/ and tests/machines/plans/ anew; look at the difference before you commit it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "src"))

from cornerstone.foundation.installer.plan import make_plan  # noqa: E402
from cornerstone.foundation.installer.plan_text import lines  # noqa: E402
from cornerstone.lib.error import CornerstoneError  # noqa: E402
from cornerstone.model.contracts.facts import Facts  # noqa: E402
from cornerstone.model.contracts.manifest import HYPERVISOR, Entry, Manifest  # noqa: E402
from cornerstone.model.contracts.requirements import GIB, Requirements  # noqa: E402
from cornerstone.model.rules.hardware import check_machine  # noqa: E402
from cornerstone.model.site.file import read_site  # noqa: E402

# profiles/base.yaml, and an ISO of 2026-11-20
NEEDS = Requirements(cvm_memory=20 * GIB, cvm_vcpus=None, cvm_disk=20 * GIB, root_slot=2 * GIB,
                     epoch=1795132800)


def names() -> list[str]:
    """The recorded machines."""
    return sorted(path.stem for path in HERE.glob("*.json"))


def machine(name: str) -> Facts:
    return Facts.load(HERE / f"{name}.json")


def verdicts(name: str) -> str:
    """One line a rule: severity, or ok; id; message."""
    return "".join(f"{verdict.severity or 'ok':<8} {verdict.rule.id:<21} {verdict.message}\n"
                   for verdict in check_machine(machine(name), NEEDS))


PROFILE = {"name": "aos-6.8", "aos": "6.8", "ahv": "20230302.100173", "payload": "reference",
           "hypervisor": {"root_slot": NEEDS.root_slot},
           "cvm": {"memory": NEEDS.cvm_memory, "vcpus": NEEDS.cvm_vcpus,
                          "disk": NEEDS.cvm_disk}}
MANIFEST = Manifest("0c2f7a52-27a5-5b0e-8c0b-5b2d1d9c6a11", PROFILE, "development", NEEDS.epoch,
                    (Entry(HYPERVISOR, 400 << 20, ""),), 0)


def plans(name: str) -> str:
    """The plan with a site that leaves all open; then with one that names the smallest disk with a serial to boot."""
    facts = machine(name)
    named = sorted((disk.size, disk.serial) for disk in facts.disks if disk.serial)
    choices = [("nothing chosen", {})]
    choices += [(f"boot disk {serial}", {"boot_disk": {"serial": serial}}) for _, serial in named[:1]]
    return "\n".join(f"# {title}\n{plan(facts, choice)}" for title, choice in choices)


def plan(facts: Facts, choice: dict) -> str:
    """What `foundation plan` prints for a machine and a site of one node with this choice of disks."""
    node = {"node_position": "A", "hypervisor_hostname": "node-a", "hypervisor_ip": "10.20.0.11",
            "cvm_ip": "10.20.0.21", "hypervisor": "kvm", "cornerstone": choice}
    node |= {"node_serial": facts.dmi.serial} if facts.dmi.serial else \
        {"bond_uplinks": [facts.nics[0].mac]} if facts.nics else {}
    site = {"cvm_gateway": "10.20.0.1", "cvm_netmask": "255.255.255.0", "hypervisor_gateway": "10.20.0.1",
            "hypervisor_netmask": "255.255.255.0", "nos_package": None, "hypervisor_iso": {},
            "blocks": [{"block_id": "GOLDEN", "nodes": [node]}]}
    try:
        return "\n".join(lines(make_plan(facts, read_site(json.dumps(site).encode()), MANIFEST))) + "\n"
    except CornerstoneError as error:
        return f"error: {error}\n"


if __name__ == "__main__":
    for folder, content in (("golden", verdicts), ("plans", plans)):
        (HERE / folder).mkdir(exist_ok=True)
        for old in (HERE / folder).iterdir():
            old.unlink()
        for each in names():
            (HERE / folder / f"{each}.txt").write_text(content(each))

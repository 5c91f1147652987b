"""A machine's facts, and what the rules say of it: a few lines for the screen, a few values for an event."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

from cornerstone.model.contracts.facts import Facts, Nic
from cornerstone.model.rules.registry import Level, Verdict

# of a key on the screen: its fingerprint has 50
KEY_WIDTH = 90
LINK = {True: "up", False: "down", None: "unknown"}


def rows(facts: Facts) -> list[tuple[str, str]]:
    """Label and text of each line on the screen."""
    dmi, cpu, firmware = facts.dmi, facts.cpu, facts.firmware
    mode = firmware.mode.upper()
    if firmware.mode == "uefi":
        mode += ", Secure Boot " + ("on" if firmware.secure_boot else "off")
    virtualisation = "not told" if cpu.virtualisation is None else cpu.virtualisation or "off"
    groups = len({device.group for device in facts.pci} - {None})
    return [
        ("Machine", f"{dmi.vendor} {dmi.product}, {'serial ' + dmi.serial if dmi.serial else 'no serial'}"),
        ("CPU", f"{cpu.model or 'unknown CPU'}, {cpu.threads} threads, virtualisation {virtualisation}, "
                f"{groups} IOMMU groups"),
        ("Memory", f"{facts.memory / (1 << 30):.1f} GiB"),
        ("Firmware", mode),
        ("Disks", "; ".join(map(str, facts.disks)) or "none"),
        ("Network", "; ".join(map(_nic, facts.nics)) or "none"),
        ("BMC", "none" if not facts.bmc.present else "answers on /dev/ipmi0"
                + (f", address {facts.bmc.address}" if facts.bmc.address else "")),
    ]


def summary(facts: Facts) -> dict:
    """The same for an event's data."""
    return {"firmware": facts.firmware.mode, "secure_boot": facts.firmware.secure_boot, "memory": facts.memory,
            "threads": facts.cpu.threads, "virtualisation": facts.cpu.virtualisation, "disks": len(facts.disks),
            "nics": len(facts.nics)}


def checks(verdicts: Sequence[Verdict]) -> str:
    """How the rules came out, and each error."""
    count = {level: sum(verdict.severity is level for verdict in verdicts) for level in Level}
    errors = [f"{verdict.rule.id}: {verdict.message} ({verdict.rule.hint})" for verdict in verdicts
              if verdict.severity is Level.ERROR]
    return "; ".join([f"{len(verdicts)} rules, {count[Level.ERROR]} errors, {count[Level.WARNING]} warnings", *errors])


def outcome(verdicts: Sequence[Verdict]) -> tuple[str, str, dict]:
    """State, message and data of the event that tells of it: every rule that isn't met, by its id.

    An error is no failure yet: what refuses a machine is the plan for it.
    """
    missed = {verdict.rule.id: {"level": str(verdict.severity), "message": verdict.message}
              for verdict in verdicts if verdict.severity}
    errors = [rule_id for rule_id, about in missed.items() if about["level"] == Level.ERROR]
    return "warning" if errors else "done", ", ".join(errors), {"rules": len(verdicts), "missed": missed}


def fingerprint(key: str) -> str:
    """Return the fingerprint of a public ssh key, a line of a .pub file, as ssh-keygen -l shows it."""
    digest = hashlib.sha256(base64.b64decode(key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def who_gets_in(keys: Sequence[str]) -> str:
    """Say whose keys let in as root: the fingerprint of each, and its comment, which anybody may have written."""
    named = [" ".join([fingerprint(key), *key.split(None, 2)[2:]])[:KEY_WIDTH] for key in keys]
    return "; ".join(named) or "nobody: the site has no ssh key"


def _nic(nic: Nic) -> str:
    return f"{nic.name} {nic.mac} ({nic.driver or 'no driver'}), link {LINK[nic.link]}"

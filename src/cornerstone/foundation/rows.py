"""A machine's facts in a few lines for the screen, and in a few numbers for an event."""

from __future__ import annotations

from cornerstone.model.facts import Facts, Nic

LINK = {True: "up", False: "down", None: "unknown"}


def rows(facts: Facts) -> list[tuple[str, str]]:
    """Label and text of each line on the screen."""
    dmi, cpu, firmware = facts.dmi, facts.cpu, facts.firmware
    mode = firmware.mode.upper()
    if firmware.mode == "uefi":
        mode += ", Secure Boot " + ("on" if firmware.secure_boot else "off")
    groups = len({device.group for device in facts.pci} - {None})
    return [
        ("Machine", f"{dmi.vendor} {dmi.product}, {'serial ' + dmi.serial if dmi.serial else 'no serial'}"),
        ("CPU", f"{cpu.model}, {cpu.threads} threads, virtualisation {cpu.virtualisation or 'off'}, "
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


def _nic(nic: Nic) -> str:
    return f"{nic.name} {nic.mac} ({nic.driver or 'no driver'}), link {LINK[nic.link]}"

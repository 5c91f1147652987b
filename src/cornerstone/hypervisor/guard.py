"""libvirt's hook for QEMU: no domain starts that would take a controller from under a disk that this host has mounted.

PCI addresses are those of the day of imaging. A card that was added since may have moved them, and what was the data
disks' controller may be the boot disk's. The hook's interface: https://libvirt.org/hooks.html.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path


def passed(domain: str) -> Iterator[str]:
    """The PCI addresses that a domain takes: 0000:3b:00.0."""
    # libvirt's own words
    tree = ET.fromstring(domain)  # noqa: S314
    for at in tree.iterfind("./devices/hostdev[@type='pci']/source/address"):
        numbers = [int(at.get(name, "0"), 0) for name in ("domain", "bus", "slot", "function")]
        yield "{:04x}:{:02x}:{:02x}.{:x}".format(*numbers)


def mounted(root: Path = Path("/")) -> Iterator[Path]:
    """Where in the device tree the disks are that something is mounted from."""
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
        number = line.split()[2]
        device = root / "sys/dev/block" / number
        if device.exists():
            yield device.resolve()


def refusal(domain: str, root: Path = Path("/")) -> str:
    """Why a domain must not start, "" when it may."""
    disks = sorted(set(mounted(root)))
    for address in passed(domain):
        if disk := next((disk for disk in disks if address in disk.parts), None):
            return (f"the controller at {address} has the disk {disk.name} that this host runs from: PCI addresses "
                    "have moved since it was imaged; put the cards back, or image the node again")
    return ""


def main(words: list[str]) -> int:
    """As libvirt calls it: name, operation, sub-operation, more; the domain's XML comes on standard input."""
    if words[1:3] == ["prepare", "begin"] and (why := refusal(sys.stdin.read())):
        print(why, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

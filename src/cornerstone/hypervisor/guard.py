"""libvirt's hook for QEMU: what may start, and what the kernel ends last. Interface: https://libvirt.org/hooks.html.

No domain starts that would take a controller from under a disk that this host has mounted: PCI addresses are those of
the day of imaging, and a card that was added since may have moved them. No guest starts that doesn't fit beside the
Controller VM (admission.py). And the Controller VM's QEMU is the last that a shortage of memory ends: with the memory
that VFIO pins it would be the first.
"""

from __future__ import annotations

import contextlib
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from cornerstone.hypervisor import admission
from cornerstone.lib.error import CornerstoneError, ends_in_one_line
from cornerstone.model.contracts.node import NodeConfig
from cornerstone.model.contracts.places import STATE

# proc(5); -1000 is never, and a host that can't end anything stands still
OOM_SCORE_ADJ = -900


def pci_addresses(domain: str) -> Iterator[str]:
    """Yield the PCI addresses that a domain takes: 0000:3b:00.0."""
    # libvirt's own words
    tree = ET.fromstring(domain)  # noqa: S314
    for at in tree.iterfind("./devices/hostdev[@type='pci']/source/address"):
        numbers = [int(at.get(name, "0"), 0) for name in ("domain", "bus", "slot", "function")]
        yield "{:04x}:{:02x}:{:02x}.{:x}".format(*numbers)


def list_mounted_disks(root: Path = Path("/")) -> Iterator[Path]:
    """Yield where in the device tree the disks are that something is mounted from."""
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
        number = line.split()[2]
        device = root / "sys/dev/block" / number
        if device.exists():
            yield device.resolve()


def refusal(domain: str, root: Path = Path("/")) -> str:
    """Return why a domain must not start, "" when it may."""
    disks = sorted(set(list_mounted_disks(root)))
    for address in pci_addresses(domain):
        if disk := next((disk for disk in disks if address in disk.parts), None):
            return (f"the controller at {address} has the disk {disk.name} that this host runs from: PCI addresses "
                    "have moved since it was imaged; put the cards back, or image the node again")
    config = node(root)
    return admission.refusal(domain, config, root) if config else ""


def node(root: Path) -> NodeConfig | None:
    """Return node.json; None without a good one: then no CVM can be defined either, and others tell what is wrong."""
    with contextlib.suppress(CornerstoneError):
        return NodeConfig.read(root / STATE.relative_to("/") / "node.json")
    return None


def protect(name: str, root: Path = Path("/")) -> None:
    """If this domain is the Controller VM, have the kernel end its QEMU after everything else."""
    config = node(root)
    if config and name == config.cvm.name:
        try:
            pid = int((root / admission.STATUS / f"{name}.pid").read_text())
            (root / f"proc/{pid}/oom_score_adj").write_text(f"{OOM_SCORE_ADJ}\n")
        except (OSError, ValueError) as error:
            # a refusal would end what has just started
            print(f"{name}: its oom_score_adj stays as it is: {error}", file=sys.stderr)


@ends_in_one_line
def main(words: list[str]) -> int:
    """As libvirt calls it: name, operation, sub-operation, more; the domain's XML comes on standard input."""
    if words[1:3] == ["prepare", "begin"] and (why := refusal(sys.stdin.read())):
        print(why, file=sys.stderr)
        return 1
    # reconnect: libvirtd was started again, by an update for instance
    if words[1:3] in (["started", "begin"], ["reconnect", "begin"]):
        protect(words[0])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Whether a guest's memory fits beside the Controller VM, which is the last that a shortage of memory may end.

Everything is computed of what is promised, not of what is free just now: a guest's memory fills up in time, and the
Controller VM may have to be started again. Huge pages are aside: they are nobody else's.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from cornerstone.model.contracts.node import NodeConfig

# kernel, libvirt, Open vSwitch, and the Controller VM's QEMU beside its memory. Our choice
HOST_MEMORY = 1 << 30
# of QEMU itself, for each guest. Our choice
GUEST_OVERHEAD = 128 << 20
# as `virsh dumpxml` has them, and what a person may write
UNITS = {"b": 1, "bytes": 1, "KB": 1000, "k": 1 << 10, "KiB": 1 << 10, "MB": 1000**2, "M": 1 << 20, "MiB": 1 << 20,
         "GB": 1000**3, "G": 1 << 30, "GiB": 1 << 30, "TB": 1000**4, "T": 1 << 40, "TiB": 1 << 40}
# where libvirt keeps what it knows of a domain that runs: <domstatus><domain>…</domain></domstatus>
STATUS = Path("run/libvirt/qemu")


def refusal(domain: str, config: NodeConfig, root: Path = Path("/")) -> str:
    """Why a guest with this XML doesn't fit on this host, "" when it does, or is the Controller VM."""
    # libvirt's own words
    guest = ET.fromstring(domain)  # noqa: S314
    name, needs = guest.findtext("name", ""), promised(guest)
    if name == config.cvm.name:
        return ""
    total, cvm = memory(root), config.cvm.memory
    others = sum(needs for other, needs in running(root) if other not in (name, config.cvm.name))
    free = total - cvm - others - HOST_MEMORY
    if needs <= max(free, 0):
        return ""
    return (f"{name} needs {_mib(needs)} of memory, and {_mib(max(free, 0))} are left for it: of this host's "
            f"{_mib(total)} the Controller VM has {_mib(cvm)}, other guests {_mib(others)}, the host itself "
            f"{_mib(HOST_MEMORY)}; give it less memory, or end another guest")


def promised(domain: ET.Element) -> int:
    """The bytes that a domain may come to take, without its huge pages."""
    if domain.find("memoryBacking/hugepages") is not None:
        return GUEST_OVERHEAD
    tag = domain.find("memory")
    if tag is None:
        return GUEST_OVERHEAD
    return int(tag.text or 0) * UNITS[tag.get("unit", "KiB")] + GUEST_OVERHEAD


def running(root: Path) -> Iterator[tuple[str, int]]:
    """Each running domain's name and what it is promised. By libvirt's files: a hook must not ask libvirt."""
    for path in sorted((root / STATUS).glob("*.xml")):
        try:
            domain = ET.parse(path).find("domain")  # noqa: S314
        except (OSError, ET.ParseError):
            # it has just ended
            continue
        if domain is not None:
            yield domain.findtext("name", ""), promised(domain)


def memory(root: Path) -> int:
    """The host's bytes of memory, without those set aside as huge pages."""
    text = (root / "proc/meminfo").read_text()
    found = {key: int(kib) << 10 for key, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    return found["MemTotal"] - found.get("Hugetlb", 0)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"

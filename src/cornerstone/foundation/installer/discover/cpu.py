"""CPUs, their NUMA nodes, and whether they can virtualise."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cornerstone.lib.printable import escaped
from cornerstone.lib.sysfs import children, read, read_text, whole
from cornerstone.model.contracts.facts import Cpu, NumaNode

KMSG_RECORD = 8192
# Kernels clear the CPU's flag then, and leave this line: x86/cpu: VMX (outside TXT) disabled by BIOS,
# kvm_amd: SVM disabled (by BIOS) in MSR_VM_CR, kvm: disabled by bios
DISABLED = re.compile(r"(VMX|SVM|kvm)\b.*disabled \(?by bios", re.IGNORECASE)


def read_cpu(root: Path, cpuinfo: str) -> Cpu:
    """cpuinfo: the text of /proc/cpuinfo."""
    blocks = [_fields(block) for block in cpuinfo.split("\n\n") if block.strip()]
    cores = {cpu: (block.get("physical id", "0"), block.get("core id", block["processor"]))
             for block in blocks if (cpu := whole(block.get("processor", ""))) is not None}
    flags = blocks[0].get("flags", "").split() if blocks else []
    told = "" if flags else None
    return Cpu(
        model=escaped(" ".join(blocks[0].get("model name", "").split())) if blocks else "",
        sockets=len({socket for socket, _ in cores.values()}), cores=len(set(cores.values())), threads=len(cores),
        virtualisation=next((flag for flag in ("vmx", "svm") if flag in flags), told),
        virtualisation_disabled=_disabled(root / "dev/kmsg"),
        numa=tuple(_node(path, cores) for path in _nodes(root / "sys/devices/system/node")))


def _fields(block: str) -> dict[str, str]:
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block.splitlines())}


def _nodes(folder: Path) -> list[Path]:
    found = [path for path in children(folder) if re.fullmatch(r"node[0-9]{1,6}", path.name)]
    return sorted(found, key=lambda path: int(path.name[4:]))


def _node(path: Path, cores: dict[int, tuple[str, str]]) -> NumaNode:
    cpus = read(path / "cpulist")
    total = re.search(r"MemTotal:\s+([0-9]{1,15}) kB", read_text(path / "meminfo"))
    return NumaNode(int(path.name[4:]), cpus, len({cores[cpu] for cpu in _listed(cpus) if cpu in cores}),
                    int(total[1]) << 10 if total else 0)


def _listed(cpus: str) -> list[int]:
    """Return the numbers of a kernel list, 0-3,8; of a part that is none, nothing."""
    spans = re.findall(r"(?:^|,)([0-9]{1,6})(?:-([0-9]{1,6}))?(?=,|$)", cpus)
    return [cpu for first, last in spans for cpu in range(int(first), int(last or first) + 1)]


def _disabled(log: Path) -> bool:
    """Whether the kernel has said that the firmware switched virtualisation off."""
    try:
        source = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        while True:
            # one record a read; the log's end would block
            try:
                record = os.read(source, KMSG_RECORD)
            except BrokenPipeError:
                # overwritten before it was read: go on with the next
                continue
            if not record or DISABLED.search(record.decode(errors="replace")):
                return bool(record)
    except OSError:
        return False
    finally:
        os.close(source)

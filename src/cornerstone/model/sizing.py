"""How large a Controller VM is when neither profile nor site say so."""

from __future__ import annotations

# Published sizing (Field Installation Guide, "CVM vCPU and vRAM Allocation"): the physical cores of the NUMA node
# that holds the storage controller, at least 8 and at most 12.
FEWEST_VCPUS = 8
MOST_VCPUS = 12


def cvm_vcpus(cores: int, threads: int) -> int:
    """vCPUs by the cores of the controller's NUMA node; never more than the whole machine has threads."""
    return min(max(FEWEST_VCPUS, min(cores, MOST_VCPUS)), threads)

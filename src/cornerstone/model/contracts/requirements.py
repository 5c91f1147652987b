"""What a profile asks of a machine. Sizes in bytes. Standard library only: made from the manifest's resolved profile.

Where a minimum is published it is a warning to be below it, because it is for the vendor's payload; what refuses a
machine is derived from the profile's own sizes: a machine that is below can't hold what would be put on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from cornerstone.lib.serde import Within
from cornerstone.model.disk.slot_disk import ESP_SIZE, MIB

GIB = 1 << 30

# The boot disk beside its two root slots and state: first and last MiB (GPT), BIOS boot partition, ESP.
BOOT_PARTITIONS = 3 * MIB + ESP_SIZE
# State holds the Controller VM's disk whole, and the host's own /etc, /var and logs: 2 GiB for them is our choice.
HOST_STATE = 2 * GIB
# What the host keeps for itself beside the Controller VM: kernel, libvirt, Open vSwitch. Our choice, too.
HOST_MEMORY = 2 * GIB
# The Controller VM doesn't run with less (rule cvm.sizing).
MIN_THREADS = 2
# ceph-volume refuses smaller devices: "Insufficient space (<5GB)", by which it means GiB.
MIN_DATA_DISK = 5 * GIB

# What the Controller VM needs beside its OSDs, and for each of them: with less than the first an OSD runs out of memory
# when it recovers, with the second it has room for its caches.
# Beside them it has 4 GiB, or half of a smaller one: so small are those of a lab, with few guests and short maps.
CVM_BASE_MEMORY = 4 * GIB
OSD_LEAST_MEMORY = GIB * 9 // 10
OSD_GOOD_MEMORY = GIB * 3 // 2
# What can be written in a profile is far below.
Size = Annotated[int, Within(1, 1 << 60)]

# Community Edition 2.1, as published: 4 cores, 32 GB of memory.
PUBLISHED_CORES = 4
PUBLISHED_MEMORY = 32 * 1000 ** 3


@dataclass(frozen=True)
class _Reference:
    suite: str


@dataclass(frozen=True)
class _Extra:
    kernel_arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Hypervisor:
    root_slot: Size
    extra: _Extra = _Extra()


@dataclass(frozen=True)
class _Cvm:
    memory: Size
    disk: Size
    root_slot: Size
    vcpus: Annotated[int, Within(1, 256)] | None


@dataclass(frozen=True)
class _Machine:
    firmware: str = "any"
    tpm: str = "any"


@dataclass(frozen=True)
class ResolvedProfile:
    """The profile as the manifest carries it (Profile.resolved): what is read of it, with its types. Sizes in bytes."""

    name: str
    aos: str
    ahv: str
    payload: str
    hypervisor: _Hypervisor
    cvm: _Cvm
    reference: _Reference | None = None
    description: str = ""
    inherits: tuple[str, ...] = ()
    machine: _Machine = _Machine()
    aos_beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Requirements:
    """One profile's needs. firmware: any, uefi or secureboot; tpm: any or 2.0.

    cvm_vcpus: None when the machine decides (sizing.py). epoch: when the ISO was made, in seconds; a clock that
    is before it is wrong. data_disks: how many were chosen; None: not chosen yet, and all that are fit may be.
    """

    cvm_memory: int
    cvm_vcpus: int | None
    cvm_disk: int
    root_slot: int
    firmware: str = "any"
    tpm: str = "any"
    epoch: int = 0
    data_disks: int | None = None

    @classmethod
    def of(cls, profile: dict[str, Any], epoch: int = 0) -> Requirements:
        """From a resolved profile, as the manifest carries it."""
        cvm, machine = profile["cvm"], profile.get("machine", {})
        return cls(cvm["memory"], cvm["vcpus"], cvm["disk"], profile["hypervisor"]["root_slot"],
                   machine.get("firmware", "any"), machine.get("tpm", "any"), epoch)

    @property
    def memory(self) -> int:
        """The machine's least memory."""
        return self.cvm_memory + HOST_MEMORY

    @property
    def boot_disk(self) -> int:
        """The boot disk's least size."""
        return BOOT_PARTITIONS + 2 * self.root_slot + self.cvm_disk + HOST_STATE

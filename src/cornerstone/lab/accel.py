"""How a machine is run: with KVM where it is worth something, else by plain emulation (TCG)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Accel:
    """name is "kvm" or "tcg"; reason says in a few words why it was chosen."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


def choose(cpuinfo: Path = Path("/proc/cpuinfo"), kvm: Path = Path("/dev/kvm")) -> Accel:
    """KVM only if the CPU has vmx or svm and the device opens read-write; else TCG.

    /dev/kvm alone proves nothing: some clouds offer it without the CPU's help, firmware then runs and
    Linux hangs for ever.
    """
    try:
        flags = _cpu_flags(cpuinfo.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        return Accel("tcg", f"{cpuinfo} can't be read: {error.strerror}")
    found = sorted(flags & {"vmx", "svm"})
    if not found:
        return Accel("tcg", "the CPU has neither vmx nor svm")
    try:
        os.close(os.open(kvm, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return Accel("tcg", f"{kvm} doesn't open read-write: {error.strerror}")
    return Accel("kvm", f"the CPU has {found[0]} and {kvm} opens read-write")


def _cpu_flags(text: str) -> set[str]:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            return set(value.split())
    return set()

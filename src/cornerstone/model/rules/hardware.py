"""The rules on machines (scope machine): facts against what a profile needs. Standard library only.

They judge the machine as it is, before anybody has chosen disks: a rule on disks is met when a choice is possible.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cornerstone.model.contracts.facts import Disk, Facts, Nic
from cornerstone.model.contracts.requirements import (
    CVM_BASE_MEMORY,
    GIB,
    MIN_THREADS,
    OSD_GOOD_MEMORY,
    OSD_LEAST_MEMORY,
    PUBLISHED_CORES,
    PUBLISHED_MEMORY,
    Requirements,
)
from cornerstone.model.rules.fitness import (
    boot_disks,
    data_disks,
    hiding_controllers,
    namesakes,
    obstacle,
    unfit_for_boot,
    unfit_for_data,
)
from cornerstone.model.rules.registry import REGISTRY, Level, Result, Verdict
from cornerstone.model.sizing import FEWEST_VCPUS

SCOPE = "machine"
CLOCK_YEARS = 10
CLOCK_DRIFT = 3600


@dataclass(frozen=True)
class Subject:
    """What the rules of this file look at."""

    facts: Facts
    needs: Requirements


def check_machine(facts: Facts, needs: Requirements) -> tuple[Verdict, ...]:
    """Run the rules on one machine."""
    return REGISTRY.check(Subject(facts, needs), SCOPE)


@REGISTRY.rule("hw.virtualisation", Level.ERROR, SCOPE, "switch on VT-x or SVM in the firmware's setup")
def virtualisation(subject: Subject) -> Result:
    """The CPU can run virtual machines, and the firmware lets it."""
    cpu = subject.facts.cpu
    if cpu.virtualisation_disabled:
        return Result.violated(f"the firmware has switched virtualisation off ({cpu.model})")
    if cpu.virtualisation is None:
        return Result.unknown(f"whether the CPU has vmx or svm isn't told ({cpu.model})")
    if not cpu.virtualisation:
        return Result.violated(f"the CPU shows neither vmx nor svm ({cpu.model})")
    return Result.ok(f"{cpu.model} has {cpu.virtualisation}")


@REGISTRY.rule("hw.iommu", Level.ERROR, SCOPE, "switch on VT-d or AMD-Vi in the firmware's setup")
def iommu(subject: Subject) -> Result:
    """An IOMMU is at work, without which no controller can be passed through."""
    facts = subject.facts
    if facts.iommu:
        return Result.ok(f"IOMMU groups: {len({device.group for device in facts.pci} - {None})}")
    if facts.iommu_table is None:
        return Result.unknown("whether there is one isn't told")
    if facts.iommu_table:
        return Result.violated(f"the firmware offers an IOMMU ({facts.iommu_table}), but the kernel doesn't use it")
    return Result.violated("the firmware offers no IOMMU")


@REGISTRY.rule("hw.interrupt-remapping", Level.WARNING, SCOPE,
               "switch on x2APIC and interrupt remapping in the firmware's setup, or update the firmware; else "
               "passthrough \"scsi\" in the site")
def interrupt_remapping(subject: Subject) -> Result:
    """The IOMMU remaps interrupts, without which VFIO refuses every controller."""
    facts = subject.facts
    if facts.iommu and facts.interrupt_remapping is False:
        return Result.violated("the kernel doesn't have interrupts go through the IOMMU")
    return Result.ok("they go through the IOMMU" if facts.interrupt_remapping else "not told")


@REGISTRY.rule("hw.cores", Level.WARNING, SCOPE, "use a machine with more cores")
def cores(subject: Subject) -> Result:
    """The machine has two threads, so that the host and its Controller VM don't share one."""
    cpu = subject.facts.cpu
    if cpu.threads < MIN_THREADS:
        return Result.violated(f"{cpu.threads} thread, below {MIN_THREADS}")
    return Result.ok(f"{cpu.sockets} sockets, {cpu.cores} cores, {cpu.threads} threads")


@REGISTRY.rule("hw.cvm-cpus", Level.WARNING, SCOPE, "give the Controller VM fewer CPUs, or the machine more")
def cvm_cpus(subject: Subject) -> Result:
    """Each of the Controller VM's CPUs has a thread of its own."""
    threads, vcpus = subject.facts.cpu.threads, subject.needs.cvm_vcpus or FEWEST_VCPUS
    if threads < vcpus:
        return Result.violated(f"the Controller VM's {vcpus} CPUs would share {threads} threads")
    return Result.ok(f"{vcpus} of {threads} threads")


@REGISTRY.rule("hw.memory", Level.ERROR, SCOPE, "add memory, or give the Controller VM less")
def memory(subject: Subject) -> Result:
    """The memory holds the Controller VM and 2 GiB for the host."""
    has, needs, cvm = subject.facts.memory, subject.needs.memory, subject.needs.cvm_memory
    if has < needs:
        return Result.violated(f"{has / GIB:.1f} GiB, below {needs / GIB:.1f}: {cvm / GIB:.1f} for the "
                               f"Controller VM and {(needs - cvm) / GIB:.1f} for the host")
    return Result.ok(f"{has / GIB:.1f} GiB")


@REGISTRY.rule("hw.published-minimum", Level.WARNING, SCOPE, "expect no room for guests; use a larger machine")
def published_minimum(subject: Subject) -> Result:
    """The machine has the 4 cores and 32 GB that are published as the least for Community Edition 2.1."""
    cpu, has = subject.facts.cpu, subject.facts.memory
    if cpu.cores < PUBLISHED_CORES or has < PUBLISHED_MEMORY:
        return Result.violated(f"{cpu.cores} cores and {has / 1000 ** 3:.1f} GB")
    return Result.ok(f"{cpu.cores} cores and {has / 1000 ** 3:.1f} GB")


@REGISTRY.rule("hw.boot-disk", Level.ERROR, SCOPE,
               "add a disk of that size that has a serial of its own, isn't removable and is cabled once")
def boot_disk(subject: Subject) -> Result:
    """A fixed disk with a serial and blocks of 512 bytes holds the boot partitions, two root slots and the state."""
    facts, needs = subject.facts, subject.needs
    fit = boot_disks(facts, needs)
    if fit:
        return Result.ok(f"{_names(fit)} could be it")
    if not facts.disks:
        return Result.violated("the machine shows no disk")
    return Result.violated("no disk is fit: " + "; ".join(
        f"{disk.name} {unfit_for_boot(disk, facts, needs)}" for disk in facts.disks))


@REGISTRY.rule("hw.data-disks", Level.ERROR, SCOPE, "add a disk, or have the RAID controller show its disks singly")
def data(subject: Subject) -> Result:
    """Beside the boot disk there is a disk of at least 5 GiB for data, with a serial, and as it is."""
    facts = subject.facts
    fit = data_disks(facts)
    boot = boot_disks(facts, subject.needs)
    if not fit:
        return Result.violated("no disk is fit" + "".join(
            f"; {disk.name} {unfit_for_data(disk, facts)}" for disk in facts.disks).replace(";", ":", 1))
    if {disk.serial for disk in boot} == {disk.serial for disk in fit} and len({disk.serial for disk in fit}) == 1:
        return Result.violated(f"{fit[0].name} is the only disk, and it would be the boot disk")
    return Result.ok(f"{_names(fit)} could be used")


@REGISTRY.rule("hw.osd-memory", Level.ERROR, SCOPE,
               "give the Controller VM more with cvm_gb_ram, or name fewer disks in data_disks")
def osd_memory(subject: Subject) -> Result:
    """The Controller VM has 4 GiB (at most half of it) for itself and 0.9 GiB for each data disk."""
    return _enough_for_osds(subject, OSD_LEAST_MEMORY)


@REGISTRY.rule("hw.osd-cache", Level.WARNING, SCOPE,
               "expect slow disks; give the Controller VM more with cvm_gb_ram, or name fewer disks in data_disks")
def osd_cache(subject: Subject) -> Result:
    """The Controller VM has 4 GiB (at most half of it) for itself and 1.5 GiB for each data disk."""
    return _enough_for_osds(subject, OSD_GOOD_MEMORY)


def _enough_for_osds(subject: Subject, each: int) -> Result:
    count, has = _osds(subject), subject.needs.cvm_memory
    needs = min(CVM_BASE_MEMORY, has // 2) + count * each
    said = f"{has / GIB:.1f} GiB for {count} data disk{'s' * (count != 1)}"
    if has >= needs:
        return Result.ok(said)
    message = f"{said}, below {needs / GIB:.1f}"
    # nobody has chosen yet, and may choose fewer
    return Result.violated(message) if subject.needs.data_disks is not None else Result.unknown(
        f"{message} if all that are fit are used")


def _osds(subject: Subject) -> int:
    """Return how many data disks there are or, before any is chosen, can be: one that is fit is booted from."""
    if subject.needs.data_disks is not None:
        return subject.needs.data_disks
    fit = {group[0] for group in subject.facts.groups()} & set(data_disks(subject.facts))
    return max(len(fit) - (set(boot_disks(subject.facts, subject.needs)) <= fit), 0)


@REGISTRY.rule("hw.disk-serials", Level.WARNING, SCOPE,
               "such disks are never written, and refuse the machine when they are chosen; let the controller tell "
               "serials, or take one out")
def disk_serials(subject: Subject) -> Result:
    """Every fixed disk has a serial, and no two disks have the same."""
    facts = subject.facts
    fixed = [disk for disk in facts.disks if not disk.removable and disk.name != facts.boot_medium]
    without = [disk.name for disk in fixed if not disk.serial]
    if without:
        return Result.violated(f"no serial: {', '.join(without)}")
    twice = sorted({disk.serial for disk in fixed if facts.lookalikes(disk)})
    if twice:
        return Result.violated(f"different disks have the serial {', '.join(twice)}")
    return Result.ok(f"serials: {len({disk.serial for disk in fixed})}")


@REGISTRY.rule("hw.multipath", Level.WARNING, SCOPE, "cable each disk once, or pass all its controllers through")
def multipath(subject: Subject) -> Result:
    """No disk is seen by more than one path."""
    facts = subject.facts
    seen = [f"{_names(group)} are the same disk" for group in facts.multipath()]
    # by their serials they are different disks, and that is what they are taken for
    seen += [f"{_names(group)} have the WWN {group[0].wwn} and not the same serial" for group in namesakes(facts)]
    return Result.violated("; ".join(seen)) if seen else Result.ok("each disk is seen once")


@REGISTRY.rule("hw.passthrough", Level.ERROR, SCOPE,
               "put the data disks on a controller of their own, in a slot whose IOMMU group has no other device")
def passthrough(subject: Subject) -> Result:
    """A controller with data disks can be passed through: alone in its IOMMU group, and not the boot disk's."""
    facts = subject.facts
    boot = {disk.controller for disk in boot_disks(facts, subject.needs)}
    disks = data_disks(facts)
    loose = tuple(disk for disk in disks if facts.pci_device(disk.controller) is None)
    problems = [f"{_names(loose)} hang off no PCI function"] if loose else []
    fit = []
    for device in facts.pci:
        if any(disk.controller == device.address for disk in disks):
            problem = obstacle(device.address, facts)
            if not problem and boot == {device.address}:
                problem = "has every disk that is fit to boot from"
            if problem:
                problems.append(f"{device} {problem}")
            else:
                fit.append(str(device))
    if fit:
        return Result.ok("; ".join([f"{', '.join(fit)} can be", *problems]))
    message = "; ".join(problems) or "no controller has a disk that is fit for data"
    # without an IOMMU's groups nothing can be said of controllers
    return Result.violated(message) if facts.iommu_told else Result.unknown(f"IOMMU groups aren't told; {message}")


@REGISTRY.rule("hw.raid", Level.WARNING, SCOPE, "set the controller to HBA or JBOD mode")
def raid(subject: Subject) -> Result:
    """No RAID controller hides disks."""
    hiding = hiding_controllers(subject.facts)
    if hiding:
        return Result.violated("; ".join(f"{device} {what}" for device, what in hiding))
    return Result.ok("none does")


@REGISTRY.rule("hw.nic", Level.ERROR, SCOPE, "add a network card that Linux has a driver for")
def nic(subject: Subject) -> Result:
    """The machine has a network interface of its own."""
    found = _wired(subject.facts)
    if not found:
        return Result.violated("there is none")
    return Result.ok(", ".join(f"{nic.name} ({nic.driver})" for nic in found))


@REGISTRY.rule("hw.link", Level.ERROR, SCOPE, "plug in a cable, and see that the switch port is on")
def link(subject: Subject) -> Result:
    """A network interface has a link."""
    found = _wired(subject.facts)
    up = [nic for nic in found if nic.link]
    if up:
        return Result.ok(", ".join(f"{nic.name} {nic.speed} Mbit/s" if nic.speed else nic.name for nic in up))
    unknown = [nic.name for nic in found if nic.link is None]
    if unknown:
        return Result.unknown(f"not known while they are down: {', '.join(unknown)}")
    return Result.violated("no link: " + (", ".join(nic.name for nic in found) or "there is no interface"))


@REGISTRY.rule("hw.firmware", Level.ERROR, SCOPE, "change the boot mode in the firmware's setup")
def firmware(subject: Subject) -> Result:
    """The firmware mode is what the profile asks for."""
    firmware, wanted = subject.facts.firmware, subject.needs.firmware
    mode = "BIOS" if firmware.mode == "bios" else f"UEFI, Secure Boot {'on' if firmware.secure_boot else 'off'}"
    if (wanted == "uefi" and firmware.mode != "uefi") or (wanted == "secureboot" and not firmware.secure_boot):
        return Result.violated(f"{mode}; the profile asks for {wanted}")
    return Result.ok(mode)


@REGISTRY.rule("hw.tpm", Level.ERROR, SCOPE, "switch on the TPM in the firmware's setup")
def tpm(subject: Subject) -> Result:
    """There is the TPM that the profile asks for."""
    has, wanted = subject.facts.firmware.tpm, subject.needs.tpm
    said = f"TPM {has}" if has else "no TPM"
    if wanted not in ("any", has):
        return Result.violated(f"{said}; the profile asks for TPM {wanted}")
    return Result.ok(said)


@REGISTRY.rule("hw.clock", Level.WARNING, SCOPE, "set the clock in the firmware's setup, and look at its battery")
def clock(subject: Subject) -> Result:
    """The clock is after the making of this ISO, within ten years of it, and agrees with the hardware clock."""
    clock, epoch = subject.facts.clock, subject.needs.epoch
    try:
        shown = datetime.datetime.fromtimestamp(clock.system, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, OSError, ValueError):
        return Result.violated(f"{clock.system} s since 1970 is no time")
    if clock.system < epoch:
        return Result.violated(f"{shown} is before this ISO was made")
    if epoch and clock.system > epoch + CLOCK_YEARS * 365 * 86400:
        return Result.violated(f"{shown} is more than ten years after this ISO was made")
    if clock.rtc is not None and abs(clock.system - clock.rtc) > CLOCK_DRIFT:
        return Result.violated(f"the hardware clock differs from {shown} by {abs(clock.system - clock.rtc)} s")
    return Result.ok(shown)


@REGISTRY.rule("hw.bmc", Level.INFO, SCOPE, "nothing is lost but switching it on from afar")
def bmc(subject: Subject) -> Result:
    """A management controller answers."""
    bmc = subject.facts.bmc
    if not bmc.present:
        return Result.violated("there is no /dev/ipmi0")
    return Result.ok(f"{bmc.vendor or 'a BMC'} at {bmc.address or 'no address yet'}")


def _names(disks: tuple[Disk, ...]) -> str:
    return ", ".join(disk.name for disk in disks)


def _wired(facts: Facts) -> list[Nic]:
    # One on USB is the BMC's way to its host: it has a link always.
    return [nic for nic in facts.nics if not nic.usb]

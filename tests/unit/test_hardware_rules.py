"""The rules on machines: each with a machine that passes and one that is refused, with the exact text."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.model.contracts.facts import Bmc, Clock, Contents, Cpu, Disk, Dmi, Facts, Firmware, Nic, PciDevice
from cornerstone.model.contracts.requirements import GIB, Requirements
from cornerstone.model.rules.fitness import boot_disks, data_disks, obstacle, unfit_for_boot, unfit_for_data
from cornerstone.model.rules.hardware import check_machine
from cornerstone.model.rules.registry import REGISTRY, Level, Outcome

ROOT = Path(__file__).resolve().parents[2]
EPOCH = 1795132800
NEEDS = Requirements(cvm_memory=20 * GIB, cvm_vcpus=8, cvm_disk=20 * GIB, root_slot=2 * GIB,
                     epoch=EPOCH)
AHCI, HBA, NVME = "0000:00:1f.2", "0000:01:00.0", "0000:02:00.0"

DOM = Disk("sda", 64 * 10 ** 9, "DOM-1", "naa.1", "ATA", "SATADOM", "sata", AHCI)
HDD = Disk("sdb", 4 * 10 ** 12, "HDD-1", "naa.2", "SEAGATE", "ST4000", "sas", HBA, rotational=True)
GOOD = Facts(
    dmi=Dmi("Example Inc.", "Node", "SN1"), firmware=Firmware("uefi", True, "2.0"),
    cpu=Cpu("Example CPU", 2, 16, 32, "vmx"), memory=128 * GIB, clock=Clock(EPOCH + 86400, EPOCH + 86400),
    nics=(Nic("eno1", "52:54:00:00:00:01", driver="igb", pci="0000:03:00.0", link=True, speed=1000),),
    disks=(DOM, HDD), bmc=Bmc(True, "Supermicro", "192.0.2.7"), iommu_table="DMAR",
    pci=(PciDevice("0000:00:01.0", "0604", "8086", "1901", group=1),
         PciDevice(HBA, "0107", "1000", "0097", "mpt3sas", 1, parent="0000:00:01.0"),
         PciDevice(AHCI, "0106", "8086", "a182", "ahci", 2),
         PciDevice("0000:00:1f.4", "0c05", "8086", "a1a3", group=2)))


def with_cpu(**change) -> Facts:
    return replace(GOOD, cpu=replace(GOOD.cpu, **change))


def with_nic(**change) -> Facts:
    return replace(GOOD, nics=(replace(GOOD.nics[0], **change),))


def with_pci(address: str, **change) -> Facts:
    return replace(GOOD, pci=tuple(replace(device, **change) if device.address == address else device
                                   for device in GOOD.pci))


def with_disks(*disks: Disk, **change) -> Facts:
    return replace(GOOD, disks=disks, **change)


def verdict(facts: Facts, rule_id: str, needs: Requirements = NEEDS):
    return next(verdict for verdict in check_machine(facts, needs) if verdict.rule.id == rule_id)


PERC = PciDevice("0000:05:00.0", "0104", "1000", "005d", "megaraid_sas", 5)
VOLUME = Disk("sdc", 600 * 10 ** 9, "VOL-1", "naa.9", "DELL", "PERC H730", "raid", PERC.address)


def test_a_good_machine_meets_every_rule():
    assert [v.message for v in check_machine(GOOD, NEEDS) if v.severity] == []


@pytest.mark.parametrize(("rule_id", "facts", "message"), [
    ("hw.virtualisation", with_cpu(virtualisation=""), "the CPU shows neither vmx nor svm (Example CPU)"),
    ("hw.virtualisation", with_cpu(virtualisation_disabled=True),
     "the firmware has switched virtualisation off (Example CPU)"),
    ("hw.iommu", replace(GOOD, pci=(), iommu_table=""), "the firmware offers no IOMMU"),
    ("hw.iommu", replace(GOOD, pci=()), "the firmware offers an IOMMU (DMAR), but the kernel doesn't use it"),
    ("hw.interrupt-remapping", replace(GOOD, interrupt_remapping=False),
     "the kernel doesn't have interrupts go through the IOMMU"),
    ("hw.cores", with_cpu(threads=1), "1 thread, below 2"),
    ("hw.cvm-cpus", with_cpu(threads=7), "the Controller VM's 8 CPUs would share 7 threads"),
    ("hw.memory", replace(GOOD, memory=22 * GIB - 1),
     "22.0 GiB, below 22.0: 20.0 for the Controller VM and 2.0 for the host"),
    ("hw.published-minimum", replace(GOOD, memory=32 * 10 ** 9 - 1), "16 cores and 32.0 GB"),
    ("hw.published-minimum", with_cpu(cores=3), "3 cores and 137.4 GB"),
    ("hw.boot-disk", with_disks(), "the machine shows no disk"),
    ("hw.boot-disk", with_disks(replace(DOM, serial=""), replace(HDD, size=4 * GIB)),
     "no disk is fit: sda has no serial; sdb has 4.0 GiB, below 26.3"),
    ("hw.boot-disk", with_disks(replace(DOM, transport="usb"), replace(HDD, read_only=True)),
     "no disk is fit: sda is removable; sdb is read-only"),
    ("hw.boot-disk", with_disks(replace(DOM, contents=Contents(readable=False))), "no disk is fit: sda can't be read"),
    ("hw.boot-disk", with_disks(DOM, boot_medium="sda"), "no disk is fit: sda is the medium that was booted from"),
    ("hw.boot-disk", with_disks(replace(DOM, logical_block=4096)),
     "no disk is fit: sda has blocks of 4096 bytes, 512 are needed to boot"),
    ("hw.boot-disk", with_disks(DOM, replace(DOM, name="sdb")),
     "no disk is fit: sda is seen by more than one path; sdb is seen by more than one path"),
    ("hw.boot-disk", with_disks(DOM, replace(DOM, name="sdb", wwn="naa.3")),
     "no disk is fit: sda has the serial of sdb (naa.3); sdb has the serial of sda (naa.1)"),
    ("hw.data-disks", with_disks(), "no disk is fit"),
    ("hw.data-disks", with_disks(DOM), "sda is the only disk, and it would be the boot disk"),
    ("hw.data-disks", with_disks(VOLUME, replace(HDD, serial="")),
     "no disk is fit: sdc is a volume of a RAID controller; sdb has no serial"),
    ("hw.data-disks", with_disks(replace(DOM, size=4 * GIB)), "no disk is fit: sda has 4.0 GiB, below 5.0"),
    ("hw.disk-serials", with_disks(DOM, replace(HDD, serial="")), "no serial: sdb"),
    ("hw.disk-serials", with_disks(DOM, HDD, replace(HDD, name="sdc", wwn="naa.3")),
     "different disks have the serial HDD-1"),
    ("hw.multipath", with_disks(DOM, HDD, replace(HDD, name="sdc")), "sdb, sdc are the same disk"),
    # an array tells the serial of the controller that a path ends at
    ("hw.multipath", with_disks(DOM, HDD, replace(HDD, name="sdc"), replace(HDD, name="sdd", serial="HDD-2")),
     "sdb, sdc are the same disk; sdb, sdc, sdd have the WWN naa.2 and not the same serial"),
    ("hw.passthrough", with_disks(), "no controller has a disk that is fit for data"),
    ("hw.passthrough", with_disks(HDD, replace(HDD, name="sdc", serial="HDD-2", wwn="naa.3")),
     "0000:01:00.0 [1000:0097] has every disk that is fit to boot from"),
    ("hw.passthrough", with_pci("0000:00:01.0", kind="0200"),
     "0000:01:00.0 [1000:0097] shares IOMMU group 1 with 0000:00:01.0 [8086:1901]; "
     "0000:00:1f.2 [8086:a182] shares IOMMU group 2 with 0000:00:1f.4 [8086:a1a3]"),
    ("hw.passthrough", with_pci(HBA, group=None),
     "0000:01:00.0 [1000:0097] has no IOMMU group; "
     "0000:00:1f.2 [8086:a182] shares IOMMU group 2 with 0000:00:1f.4 [8086:a1a3]"),
    ("hw.passthrough", with_disks(replace(DOM, controller=""), replace(HDD, controller="")),
     "sda, sdb hang off no PCI function"),
    ("hw.raid", with_disks(DOM, replace(VOLUME, transport="scsi"), pci=(*GOOD.pci, replace(PERC, driver="mpi3mr"))),
     "0000:05:00.0 [1000:005d] with driver mpi3mr shows sdc, which can't be told from volumes"),
    ("hw.clock", replace(GOOD, clock=Clock(1 << 70)), f"{1 << 70} s since 1970 is no time"),
    ("hw.raid", with_disks(DOM, VOLUME, pci=(*GOOD.pci, PERC)),
     "0000:05:00.0 [1000:005d] shows volumes instead of disks: sdc"),
    ("hw.raid", replace(GOOD, pci=(*GOOD.pci, PERC)), "0000:05:00.0 [1000:005d] shows no disk"),
    ("hw.nic", replace(GOOD, nics=()), "there is none"),
    ("hw.nic", with_nic(usb=True), "there is none"),
    ("hw.link", with_nic(link=False), "no link: eno1"),
    ("hw.link", with_nic(usb=True), "no link: there is no interface"),
    ("hw.clock", replace(GOOD, clock=Clock(EPOCH - 1)), "2026-11-19 23:59 UTC is before this ISO was made"),
    ("hw.clock", replace(GOOD, clock=Clock(2208988800)),
     "2040-01-01 00:00 UTC is more than ten years after this ISO was made"),
    ("hw.clock", replace(GOOD, clock=Clock(EPOCH, EPOCH + 3601)),
     "the hardware clock differs from 2026-11-20 00:00 UTC by 3601 s"),
    ("hw.bmc", replace(GOOD, bmc=Bmc()), "there is no /dev/ipmi0"),
])
def test_refused(rule_id, facts, message):
    found = verdict(facts, rule_id)
    assert (found.outcome, found.message) == (Outcome.VIOLATED, message)


@pytest.mark.parametrize(("rule_id", "wanted", "firmware", "message"), [
    ("hw.firmware", {"firmware": "uefi"}, Firmware("bios"), "BIOS; the profile asks for uefi"),
    ("hw.firmware", {"firmware": "secureboot"}, Firmware("uefi"),
     "UEFI, Secure Boot off; the profile asks for secureboot"),
    ("hw.tpm", {"tpm": "2.0"}, Firmware("uefi"), "no TPM; the profile asks for TPM 2.0"),
    ("hw.tpm", {"tpm": "2.0"}, Firmware("uefi", tpm="1.2"), "TPM 1.2; the profile asks for TPM 2.0"),
])
def test_firmware_that_the_profile_asks_for(rule_id, wanted, firmware, message):
    needs = replace(NEEDS, **wanted)
    assert verdict(GOOD, rule_id, needs).outcome is Outcome.OK
    assert verdict(replace(GOOD, firmware=firmware), rule_id).outcome is Outcome.OK
    found = verdict(replace(GOOD, firmware=firmware), rule_id, needs)
    assert (found.outcome, found.message) == (Outcome.VIOLATED, message)


@pytest.mark.parametrize(("rule_id", "facts"), [
    ("hw.memory", replace(GOOD, memory=22 * GIB)),
    ("hw.interrupt-remapping", replace(GOOD, interrupt_remapping=True)),
    ("hw.interrupt-remapping", replace(GOOD, interrupt_remapping=False, pci=())),
    ("hw.published-minimum", replace(GOOD, memory=32 * 10 ** 9)),
    ("hw.cvm-cpus", with_cpu(threads=8)),
    ("hw.cores", with_cpu(threads=2)),
    ("hw.boot-disk", with_disks(replace(DOM, size=NEEDS.boot_disk))),
    ("hw.data-disks", with_disks(DOM, replace(HDD, size=5 * GIB))),
    ("hw.data-disks", with_disks(DOM, replace(HDD, logical_block=4096))),
    ("hw.multipath", with_disks(replace(DOM, wwn=""), replace(HDD, wwn=""))),
    ("hw.disk-serials", with_disks(DOM, HDD, replace(HDD, name="sdc"))),
    ("hw.disk-serials", with_disks(DOM, replace(HDD, serial="", removable=True))),
    ("hw.raid", with_pci(AHCI, kind="0104")),
    ("hw.clock", replace(GOOD, clock=Clock(EPOCH, EPOCH + 3600))),
    ("hw.clock", replace(GOOD, clock=Clock(EPOCH))),
])
def test_just_enough(rule_id, facts):
    assert verdict(facts, rule_id).outcome is Outcome.OK


@pytest.mark.parametrize(("rule_id", "facts", "message"), [
    ("hw.virtualisation", with_cpu(virtualisation=None), "whether the CPU has vmx or svm isn't told (Example CPU)"),
    ("hw.iommu", replace(GOOD, pci=(), iommu_table=None), "whether there is one isn't told"),
    ("hw.passthrough", replace(GOOD, pci=tuple(replace(device, group=None) for device in GOOD.pci), iommu_table=None),
     "IOMMU groups aren't told; 0000:01:00.0 [1000:0097] has no IOMMU group; 0000:00:1f.2 [8086:a182] has no IOMMU "
     "group"),
])
def test_what_a_machine_does_not_tell_is_unknown_and_warns(rule_id, facts, message):
    found = verdict(facts, rule_id)
    assert (found.outcome, found.message, found.severity) == (Outcome.UNKNOWN, message, Level.WARNING)


def test_a_machine_that_is_known_to_have_an_iommu_needs_no_table():
    assert verdict(replace(GOOD, iommu_table=None), "hw.iommu").outcome is Outcome.OK


def test_facts_that_leave_out_what_is_not_told_say_none():
    record = json.loads(GOOD.to_json())
    del record["iommu_table"], record["cpu"]["virtualisation"]
    facts = Facts.from_json(json.dumps(record))
    assert (facts.iommu_table, facts.cpu.virtualisation) == (None, None)
    assert Facts.from_json(facts.to_json()) == facts


def test_very_many_disks_are_judged_in_no_time():
    """The longest list that facts may have would take hours if each disk were compared with each."""
    disks = tuple(replace(HDD, name=f"sd{number}", serial=f"S{number % 5000}", wwn=f"naa.{number % 5000}")
                  for number in range(20_000))
    began = time.monotonic()
    assert verdict(with_disks(DOM, *disks), "hw.boot-disk").message == "sda could be it"
    assert time.monotonic() - began < 20


def test_a_link_is_unknown_while_the_interface_is_down():
    found = verdict(with_nic(link=None), "hw.link")
    assert (found.outcome, found.message) == (Outcome.UNKNOWN, "not known while they are down: eno1")


def test_bridges_may_share_the_group():
    assert obstacle(HBA, GOOD) == ""


def test_what_a_vmd_controller_hides_can_not_be_passed_through():
    behind = PciDevice("10000:01:00.0", "0108", "8086", "0a54", "nvme", 7)
    assert obstacle(behind.address, replace(GOOD, pci=(*GOOD.pci, behind))) == "is behind a VMD controller"


def test_a_volume_may_be_the_boot_disk_and_holds_no_data():
    facts = with_disks(VOLUME, HDD)
    assert boot_disks(facts, NEEDS) == (VOLUME, HDD)
    assert data_disks(facts) == (HDD,)
    assert unfit_for_boot(VOLUME, facts, NEEDS) == ""
    assert unfit_for_data(VOLUME, facts) == "is a volume of a RAID controller"


def test_requirements_are_read_from_a_resolved_profile():
    profile = {"cvm": {"memory": 1, "vcpus": 2, "disk": 3, "root_slot": 4}, "hypervisor": {"root_slot": 5}}
    assert Requirements.of(profile, 6) == Requirements(1, 2, 3, 5, epoch=6)


def test_the_table_in_the_docs_is_the_registry():
    page = (ROOT / "docs" / "hardware.md").read_text()
    table = page.split("<!-- rules:")[1].split("|---|---|---|---|\n")[1].split("\n\n")[0]
    assert table.splitlines() == [f"| `{rule.id}` | {rule.level} | {rule.sentence} | {rule.hint} |"
                                  for rule in REGISTRY.rules("machine")]


def test_the_commands_in_the_docs_are_those_of_the_files():
    page = (ROOT / "docs" / "hardware.md").read_text()
    for script in re.findall(r"tests/machines/\w+\.py", page):
        assert script in (ROOT / script).read_text()

"""The plan: which disk is written and what is passed through; and every reason to write nothing."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.foundation.installer.plan import make_plan
from cornerstone.foundation.installer.plan_text import lines
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.contracts.facts import Contents, Disk, Facts, Installed, Partition, PciDevice, Signature
from cornerstone.model.contracts.manifest import HYPERVISOR, Entry
from cornerstone.model.contracts.node import NodeConfig, erase_token
from cornerstone.model.rules.fitness import boot_disks
from cornerstone.model.site.file import read_site

MACHINES = Path(__file__).resolve().parents[1] / "machines"
SPEC = importlib.util.spec_from_file_location("golden", MACHINES / "golden.py")
golden = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(golden)

GIB = 1 << 30
BASE = golden.machine("dell-r940")
HBA, AHCI, SECOND = "0000:18:00.0", "0000:00:17.0", "0000:99:00.0"
BOOT = Disk("sdz", 480 * GIB, "BOOT-1", model="DOM", transport="sata", controller=AHCI)
DATA = tuple(Disk(f"sd{name}", 2000 * GIB, f"HDD-{name}", "naa.5000c500" + 2 * name, transport="sas", controller=HBA)
             for name in "ab")
SOMEBODYS = Contents(signatures=(Signature("ext4", "photos"),), fingerprint="sha256:1")
OURS = Contents(installed=Installed("node-a", "ANON940", "older"), signatures=(Signature("gpt"),))


def machine(*disks: Disk, **changes) -> Facts:
    pci = (*(device for device in BASE.pci if device.address != AHCI), PciDevice(AHCI, "0106", "8086", "a1d2", group=5))
    return replace(BASE, disks=disks or (BOOT, *DATA), pci=pci, **changes)


def plan_for(facts=None, cornerstone=None, reinstall="", top=None, manifest=golden.MANIFEST, **node):
    """The plan for a machine and a site of one node; cornerstone: the node's own key, top: the site's."""
    choice = {"boot_disk": {"serial": "BOOT-1"}} if cornerstone is None else cornerstone
    site = {"cvm_gateway": "10.20.0.1", "cvm_netmask": "255.255.255.0", "hypervisor_gateway": "10.20.0.1",
            "hypervisor_netmask": "255.255.255.0", "nos_package": None, "hypervisor_iso": {},
            "blocks": [{"block_id": "B", "nodes": [{
                "node_position": "A", "hypervisor_hostname": "node-a", "hypervisor_ip": "10.20.0.11",
                "cvm_ip": "10.20.0.21", "hypervisor": "kvm", "node_serial": "ANON940", "cornerstone": choice,
                **node}]}]}
    if top:
        site["cornerstone"] = top
    return make_plan(facts or machine(), read_site(json.dumps(site).encode()), manifest, reinstall)


def test_one_boot_disk_and_a_whole_controller():
    plan = plan_for()
    assert plan.refusals == []
    assert (plan.boot_disk, plan.data_disks) == (BOOT, DATA)
    assert [(entry.device.address, entry.disks) for entry in plan.passed] == [(HBA, DATA)]
    assert plan.scsi == ()
    config = NodeConfig.from_json(plan.config.to_json())
    assert config == plan.config
    assert (config.boot_disk, config.cvm.passthrough) == ("BOOT-1", (HBA,))
    assert [(disk.serial, disk.wwn, disk.size) for disk in config.cvm.disks] == [
        (disk.serial, disk.wwn, disk.size) for disk in DATA]
    assert (config.hypervisor.address, config.cvm.address) == ("10.20.0.11/24", "10.20.0.21/24")
    assert config.cvm.name == "NTNX-B-A-CVM"


def test_the_state_partition_takes_what_is_left():
    plan = plan_for()
    assert plan.layout.root_a.size == golden.NEEDS.root_slot
    assert plan.layout.state.offset + plan.layout.state.size > BOOT.size - (2 << 20)


def test_sizes_of_the_site_win_over_the_profile_s():
    plan = plan_for(cvm_gb_ram=12, cvm_num_vcpus=4)
    assert (plan.config.cvm.memory, plan.config.cvm.vcpus) == (12 * GIB, 4)


@pytest.mark.parametrize(("cores", "threads", "vcpus"), [(10, 128, 10), (16, 128, 12), (4, 128, 8), (16, 6, 6)])
def test_cpus_are_those_of_the_controllers_numa_node_when_nobody_says(cores, threads, vcpus):
    numa = tuple(replace(node, cores=cores if node.id == 2 else 1) for node in BASE.cpu.numa)
    facts = machine(cpu=replace(BASE.cpu, threads=threads, numa=numa))
    near = tuple(replace(device, numa=2) if device.address == HBA else device for device in facts.pci)
    plan = plan_for(replace(facts, pci=near))
    assert (plan.config.cvm.vcpus, plan.needs.cvm_vcpus) == (vcpus, vcpus)


def test_cpus_of_the_profile_win_over_the_machines():
    fixed = golden.MANIFEST.profile | {"cvm": golden.MANIFEST.profile["cvm"] | {"vcpus": 9}}
    assert plan_for(manifest=replace(golden.MANIFEST, profile=fixed)).config.cvm.vcpus == 9


REFUSED = {
    "two disks could be it": (dict(cornerstone={}), "disk.boot-choice",
                              "3 disks could be the boot disk, exactly one must:"),
    "none matches": (dict(cornerstone={"boot_disk": {"serial": "OTHER"}}), "disk.boot-choice",
                     "no disk matches boot_disk of the site"),
    "two match": (dict(cornerstone={"boot_disk": {"min_gb": 1}}), "disk.boot-choice",
                  "3 disks match boot_disk of the site, exactly one must:"),
    "no serial": (dict(facts=machine(replace(BOOT, serial=""), *DATA),
                       cornerstone={"boot_disk": {"model": "DOM"}}), "disk.boot-choice", "has no serial"),
    "the medium": (dict(facts=machine(boot_medium="sdz")), "disk.boot-choice", "the medium"),
    "excluded": (dict(cornerstone={"boot_disk": {"model": "DOM"}}, exlude_boot_serial="BOOT-1"), "disk.boot-choice",
                 "is excluded by exlude_boot_serial"),
    "too small": (dict(facts=machine(replace(BOOT, size=8 * GIB), *DATA)), "disk.boot-choice", "has 8.0 GiB, below"),
    "4096-byte blocks": (dict(facts=machine(replace(BOOT, logical_block=4096), *DATA)), "disk.boot-choice",
                         "has blocks of 4096 bytes"),
    "two paths": (dict(facts=machine(replace(BOOT, wwn="naa.b"), replace(BOOT, name="sdy", wwn="naa.b"), *DATA)),
                  "disk.boot-choice", "is seen by more than one path"),
    "somebody's data on the boot disk": (dict(facts=machine(replace(BOOT, contents=SOMEBODYS), *DATA)),
                                         "disk.not-empty", "serial BOOT-1 isn't empty: ext4"),
    "somebody's data on a data disk": (dict(facts=machine(BOOT, replace(DATA[0], contents=SOMEBODYS), DATA[1])),
                                       "disk.not-empty", "serial HDD-a isn't empty: ext4"),
    "a token for another disk": (dict(facts=machine(replace(BOOT, contents=SOMEBODYS), *DATA),
                                      cornerstone={"boot_disk": {"serial": "BOOT-1"},
                                                   "erase_tokens": {"BOOT-1": erase_token("HDD-a")}}),
                                 "disk.token", "is for another disk"),
    "installed": (dict(facts=machine(replace(BOOT, contents=OURS), *DATA)), "disk.installed",
                  "is the boot disk of node-a, which is installed already"),
    "installed, wrong token": (dict(facts=machine(replace(BOOT, contents=OURS), *DATA), reinstall="nonsense",
                                    top={"reinstall_token": "right-one"}), "node.reinstall", "isn't the site's"),
    "a root that doesn't fit": (dict(manifest=replace(golden.MANIFEST, entries=(Entry(HYPERVISOR, 3 * GIB, ""),))),
                                "layer.fit", "has 3072 MiB and doesn't fit a root slot of 2048 MiB"),
    "too little memory": (dict(facts=machine(memory=4 * GIB)), "hw.memory", "4.0 GiB, below 22.0"),
    "no data disk matches": (dict(cornerstone={"boot_disk": {"serial": "BOOT-1"}, "data_disks": [{"serial": "X"}]}),
                             "disk.data-choice", "no disk matches data_disks of the site (serial X)"),
    "passthrough of another": (dict(cornerstone={"boot_disk": {"serial": "BOOT-1"}, "passthrough": ["0000:99:00.0"]}),
                               "disk.passthrough", "names 0000:99:00.0, which has no data disk"),
}


@pytest.mark.parametrize(("given", "rule", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(given, rule, words):
    plan = plan_for(**given)
    found = [refusal for refusal in plan.refusals if refusal.id == rule]
    assert found, plan.refusals
    assert words in found[0].message and found[0].hint
    assert plan.layout is None and plan.config is None
    assert words.partition("\n")[0] in "\n".join(lines(plan))
    with pytest.raises(CornerstoneError) as caught:
        plan.check()
    assert caught.value.code is Code.REFUSED


ALLOWED = {
    "the disk's own token": dict(facts=machine(replace(BOOT, contents=SOMEBODYS), *DATA), cornerstone={
        "boot_disk": {"serial": "BOOT-1"}, "erase_tokens": {"BOOT-1": replace(BOOT, contents=SOMEBODYS).token}}),
    "an imaging that was cut off": dict(facts=machine(replace(BOOT, contents=replace(SOMEBODYS, unfinished=True)),
                                                      *DATA)),
    "installed, and asked for again": dict(facts=machine(replace(BOOT, contents=OURS), *DATA), reinstall="right-one",
                                           top={"reinstall_token": "right-one"}),
    "the only one that is fit": dict(cornerstone={}, facts=machine(BOOT, *(replace(disk, size=20 * GIB)
                                                                           for disk in DATA))),
}


@pytest.mark.parametrize("given", ALLOWED.values(), ids=ALLOWED.keys())
def test_allowed(given):
    plan = plan_for(**given)
    plan.check()
    assert plan.boot_disk.serial == "BOOT-1"


def test_a_data_disk_s_token_travels_to_the_cvm_as_leave_to_erase_it():
    full = replace(DATA[0], contents=SOMEBODYS)
    tokens = {disk.serial: disk.token for disk in (full, DATA[1])}
    plan = plan_for(machine(BOOT, full, DATA[1]), {"boot_disk": {"serial": "BOOT-1"}, "erase_tokens": tokens})
    plan.check()
    config = NodeConfig.from_json(plan.config.to_json())
    # a token for a disk that was empty when somebody looked is none for what comes onto it later
    assert [(disk.serial, disk.contents) for disk in config.cvm.disks] == [("HDD-a", "sha256:1"), ("HDD-b", "")]


def test_a_data_disk_of_an_installed_node_needs_its_own_token():
    facts = machine(replace(BOOT, contents=OURS), replace(DATA[0], contents=SOMEBODYS), DATA[1])
    plan = plan_for(facts, reinstall="right-one", top={"reinstall_token": "right-one"})
    assert [refusal.id for refusal in plan.refusals] == ["disk.not-empty"]


def test_scsi_instead_of_passthrough_is_a_choice_of_the_site():
    bare = replace(machine(), pci=tuple(replace(d, group=None) for d in machine().pci))
    assert "hw.iommu" in [refusal.id for refusal in plan_for(bare).refusals]
    plan = plan_for(bare, {"boot_disk": {"serial": "BOOT-1"}, "passthrough": "scsi"})
    plan.check()
    assert plan.passed == () and [disk for disk, _ in plan.scsi] == list(DATA)
    assert plan.config.cvm.scsi == ("HDD-a", "HDD-b")
    assert any(warning.startswith("hw.iommu") for warning in plan.warnings)


def test_a_disk_beside_the_boot_disk_goes_singly_and_says_why():
    plan = plan_for(machine(BOOT, replace(DATA[0], controller=AHCI), DATA[1]))
    plan.check()
    assert [(disk.name, why) for disk, why in plan.scsi] == [("sda", "is the boot disk's controller")]
    assert [entry.device.address for entry in plan.passed] == [HBA]
    assert any("sda: the CVM gets raw SCSI devices" in warning for warning in plan.warnings)


def test_what_is_passed_along_unasked_is_said():
    plan = plan_for(cornerstone={"boot_disk": {"serial": "BOOT-1"}, "data_disks": [{"serial": "HDD-a"}]})
    plan.check()
    assert [disk.serial for disk in plan.config.cvm.disks] == ["HDD-a"]
    assert any("the CVM sees sdb too, and leaves them alone" in warning for warning in plan.warnings)


@pytest.mark.parametrize(("node", "rule"), [({"node_serial": "OTHER"}, "node.identity"),
                                            ({"image_now": False}, "node.image")])
def test_a_machine_that_is_no_node_to_image(node, rule):
    with pytest.raises(CornerstoneError, match=rule) as caught:
        plan_for(**node)
    assert caught.value.code is Code.REFUSED


def test_tokens_differ_by_disk():
    assert erase_token("A") != erase_token("B") and len(erase_token("A")) == 12


# disks that can be taken for one another

HUB = tuple(Disk(name, 2000 * GIB, "0000", wwn, transport="sas", controller=HBA, contents=contents)
            for name, wwn, contents in (("sda", "naa.5000000000000001", SOMEBODYS),
                                        ("sdb", "naa.5000000000000002", Contents(signatures=(Signature("gpt"),)))))
BY_WWN = {"boot_disk": {"serial": "BOOT-1"}, "data_disks": [{"wwn": HUB[1].wwn}]}


def refusals(plan, rule) -> str:
    return "\n".join(refusal.message for refusal in plan.refusals if refusal.id == rule)


@pytest.mark.parametrize("passthrough", ["auto", "scsi"])
@pytest.mark.parametrize("token", [erase_token("0000"), HUB[1].token], ids=["by serial", "its own"])
def test_d1_d2_a_chosen_disk_whose_serial_another_has_is_refused_by_name(token, passthrough):
    plan = plan_for(machine(BOOT, *HUB), {**BY_WWN, "erase_tokens": {"0000": token}, "passthrough": passthrough})
    assert "sdb unknown model, 2000.0 GiB, serial 0000, naa.5000000000000002, has the serial of sda" in refusals(
        plan, "disk.ambiguous")
    assert plan.config is None


def test_d1_a_boot_disk_whose_serial_another_has_is_refused():
    other = replace(BOOT, name="sdy", wwn="naa.50000002", size=BOOT.size * 2)
    plan = plan_for(machine(replace(BOOT, wwn="naa.50000001"), other, *DATA),
                    {"boot_disk": {"wwn": "naa.50000001"}})
    assert "sdz DOM, 480.0 GiB, serial BOOT-1, naa.50000001, has the serial of sdy (naa.50000002)" in refusals(
        plan, "disk.ambiguous")


@pytest.mark.parametrize("name", golden.names())
def test_rule_and_plan_say_the_same_of_boot_disks(name):
    """A disk that the rule names as a candidate is one that the plan takes when the site names it."""
    facts = golden.machine(name)
    candidates = boot_disks(facts, golden.NEEDS)
    for disk in facts.disks:
        if disk.wwn or disk.serial:
            choice = {"serial": disk.serial} if disk.serial else {"wwn": disk.wwn}
            chosen = json.loads(json.dumps({"boot_disk": choice}))
            said = golden.plan(facts, chosen)
            assert (f"Boot disk  {disk}\n" in said) == (disk in candidates), (disk.name, said)


def test_two_disks_of_one_serial_are_no_candidates_beside_one_of_its_own():
    facts = machine(BOOT, *HUB)
    assert boot_disks(facts, golden.NEEDS) == (BOOT,)
    assert plan_for(facts, {}).boot_disk == BOOT


@pytest.mark.parametrize(("change", "words"), [
    (dict(wwn=""), "can't be told from sdb (no WWN)"),
    (dict(contents=SOMEBODYS), "can't be told from sdb (naa.5000c500aa), and what is on them differs"),
], ids=["no WWN", "paths that hold other contents"])
def test_d1_d7_two_that_cannot_be_told_apart_are_refused(change, words):
    one = replace(DATA[0], **{name: value for name, value in change.items() if name == "wwn"})
    plan = plan_for(machine(BOOT, one, replace(one, name="sdb", **change)))
    assert words in refusals(plan, "disk.ambiguous")


def test_d1_disks_of_one_wwn_and_two_serials_are_two_disks():
    shared = tuple(replace(disk, wwn="naa.50000000") for disk in DATA)
    assert machine(BOOT, *shared).multipath() == ()
    plan = plan_for(machine(BOOT, *shared))
    plan.check()
    assert [disk.serial for disk in plan.config.cvm.disks] == ["HDD-a", "HDD-b"]
    plan = plan_for(machine(BOOT, *shared), {"boot_disk": {"serial": "BOOT-1"},
                                             "data_disks": [{"wwn": "naa.50000000"}]})
    assert "names one disk (wwn naa.50000000), and 2 match" in refusals(plan, "disk.ambiguous")


def test_d7_a_data_disk_with_the_wwn_of_the_boot_disk_may_be_a_path_to_it():
    """An array's disk may tell the serial of the controller at which a path ends."""
    boot, disk = (replace(each, wwn="naa.600a0b80000f1234") for each in (BOOT, DATA[0]))
    chosen = {"boot_disk": {"serial": boot.serial}}
    plan = plan_for(machine(boot, disk, DATA[1]), chosen)
    assert f"has the WWN of the boot disk {boot}" in refusals(plan, "disk.ambiguous")
    plan = plan_for(machine(boot, disk, DATA[1]), chosen | {"data_disks": [{"serial": DATA[1].serial}]})
    plan.check()


def test_d3_a_token_is_good_for_one_disk():
    plan = plan_for(machine(BOOT, *HUB), {"boot_disk": {"serial": "BOOT-1"},
                                          "erase_tokens": {"0000": erase_token("0000")}})
    assert refusals(plan, "disk.token").count("is for another disk") == 2
    plan = plan_for(machine(BOOT, *HUB), {"boot_disk": {"serial": "BOOT-1"}, "erase_tokens": {"0000": HUB[0].token}})
    assert refusals(plan, "disk.token").startswith("the site's token for sdb ")


@pytest.mark.parametrize("passthrough", ["auto", "scsi"])
def test_d7_a_disk_that_is_seen_by_two_paths_is_one_data_disk(passthrough):
    paths = [replace(DATA[number % 2], name=name, controller=controller) for number, (name, controller) in
             enumerate((("sda", HBA), ("sdb", HBA), ("sdc", SECOND), ("sdd", SECOND)))]
    facts = machine(BOOT, *paths)
    facts = replace(facts, pci=(*facts.pci, PciDevice(SECOND, "0107", "1000", "0097", "mpt3sas", group=99)))
    plan = plan_for(facts, {"boot_disk": {"serial": "BOOT-1"}, "passthrough": passthrough})
    plan.check()
    assert [disk.serial for disk in plan.config.cvm.disks] == ["HDD-a", "HDD-b"]
    assert plan.config.cvm.scsi == (("HDD-a", "HDD-b") if passthrough == "scsi" else ())
    assert [entry.device.address for entry in plan.passed] == ([] if passthrough == "scsi" else [HBA, SECOND])


def test_d7_a_disk_with_a_path_that_stays_with_the_host_is_passed_by_the_other_and_says_so():
    paths = (DATA[0], replace(DATA[0], name="sdb", controller=AHCI))
    plan = plan_for(machine(BOOT, *paths))
    plan.check()
    assert ([entry.device.address for entry in plan.passed], plan.scsi) == ([HBA], ())
    assert [disk.serial for disk in plan.config.cvm.disks] == ["HDD-a"]
    assert "sda: the host goes on seeing it as sdb, and must leave it alone" in plan.warnings


OSD = Contents(signatures=(Signature("ceph_bluestore", "6d0b5d0c-1111-4222-8333-2f2f6a0d8a11", "4a2c7a3e-6d0b"),),
               fingerprint="osd:4a2c7a3e-6d0b")


@pytest.mark.parametrize(("then", "now"), [
    (SOMEBODYS, OSD), (SOMEBODYS, Contents(signatures=(Signature("ceph_bluestore"),))), (OSD, SOMEBODYS),
    (SOMEBODYS, replace(SOMEBODYS, fingerprint="sha256:2")), (OSD, replace(OSD, fingerprint="osd:5b2c7a3e-6d0b")),
    (SOMEBODYS, replace(SOMEBODYS, signatures=(Signature("ext4", "wedding"),))),
    (Contents(partitions=(Partition(1, 1),)), Contents(partitions=(Partition(1, 1, uuid="other"),))),
    (Contents(), SOMEBODYS),
], ids=["an OSD", "an OSD of a record", "an OSD's", "other bytes", "another OSD", "another label", "another partition",
        "empty"])
@pytest.mark.parametrize("which", [BOOT, DATA[0]], ids=["boot", "data"])
def test_d9_a_token_is_void_once_the_contents_are_others(which, then, now):
    found = replace(which, contents=now)
    facts = machine(*(found if disk == which else disk for disk in (BOOT, *DATA)))
    site = {"boot_disk": {"serial": "BOOT-1"}, "erase_tokens": {which.serial: replace(which, contents=then).token}}
    plan = plan_for(facts, site)
    assert [refusal.id for refusal in plan.refusals] == ["disk.token"]
    assert found.token in plan.refusals[0].hint
    plan_for(facts, {**site, "erase_tokens": {which.serial: found.token}}).check()


def test_d9_the_token_of_an_osd_is_of_another_kind_and_says_what_it_costs():
    plan = plan_for(machine(BOOT, replace(DATA[0], contents=OSD), DATA[1]))
    assert "isn't empty: a Ceph OSD 4a2c7a3e-6d0b of cluster 6d0b5d0c" in refusals(plan, "disk.not-empty")
    assert '{"HDD-a": "ceph-osd-' in plan.refusals[0].hint and "may be nowhere else" in plan.refusals[0].hint


def test_a_record_without_a_fingerprint_is_planned_and_never_erased():
    full = replace(DATA[0], contents=Contents(signatures=(Signature("ext4"),)))
    plan = plan_for(machine(BOOT, full, DATA[1]), {"boot_disk": {"serial": "BOOT-1"},
                                                   "erase_tokens": {full.serial: full.token}})
    plan.check()
    assert [disk.contents for disk in plan.config.cvm.disks] == ["", ""]


# what can't be passed through, or can't be served

@pytest.mark.parametrize(("bridge", "passed"), [
    (PciDevice("0000:00:1f.0", "0601", "8086", "1d41", "lpc_ich", group=9), False),
    (PciDevice("0000:00:1f.0", "0601", "8086", "1d41", "", group=9), True),
    (PciDevice("0000:00:00.0", "0600", "8086", "1d41", "skx_uncore", group=9), False),
    (PciDevice("0000:00:1c.0", "0604", "8086", "1d41", "pcieport", group=9), True),
    (PciDevice("0000:00:1c.0", "0604", "8086", "1d41", "", group=9), True),
    (PciDevice("0000:00:1c.0", "0604", "8086", "1d41", "i10nm_edac", group=9), False),
    (PciDevice("0000:00:1f.3", "0c05", "8086", "1d22", "i801_smbus", group=9), False),
    (PciDevice("0000:00:1c.0", "0604", "8086", "1d41", "pcieport", group=9, direct=True), False),
    (PciDevice("0000:00:1c.0", "0604", "8086", "1d41", "pcieport", group=9, direct=False), True),
])
def test_d31_only_what_vfio_leaves_to_the_host_may_share_the_group(bridge, passed):
    sata = PciDevice("0000:00:1f.2", "0106", "8086", "1d02", "ahci", group=9)
    facts = machine(BOOT, *(replace(disk, transport="sata", controller=sata.address) for disk in DATA))
    plan = plan_for(replace(facts, pci=(*(each for each in facts.pci if each.address not in (
        bridge.address, sata.address)), bridge, sata)), {"boot_disk": {"serial": "BOOT-1"}})
    assert [entry.device.address for entry in plan.passed] == ([sata.address] if passed else [])
    assert bool(plan.scsi) != passed
    if not passed:
        [said] = [warning for warning in plan.warnings if "the CVM gets raw SCSI devices" in warning]
        assert "RMRR" in said if bridge.direct else bridge.address in said


@pytest.mark.parametrize(("count", "gib", "outcome"), [
    (12, 20, "warning"), (10, 20, "ok"), (17, 20, "warning"), (18, 20, "refused"), (24, 20, "refused"),
    (24, 26, "warning"), (24, 40, "ok"), (60, 20, "refused"),
    # of a lab
    (2, 4, "warning"), (3, 4, "refused"), (1, 4, "ok"),
])
def test_d27_the_memory_of_the_cvm_carries_the_number_of_its_disks(count, gib, outcome):
    disks = [replace(DATA[0], name=f"sd{number}", serial=f"HDD-{number}", wwn=f"naa.{number}")
             for number in range(count)]
    plan = plan_for(machine(BOOT, *disks), cvm_gb_ram=gib)
    refused = [refusal for refusal in plan.refusals if refusal.id == "hw.osd-memory"]
    warned = [warning for warning in plan.warnings if warning.startswith("hw.osd-cache")]
    assert (bool(refused), bool(warned)) == (outcome == "refused", outcome != "ok")
    assert all("cvm_gb_ram" in refusal.hint for refusal in refused)
    # those that are left alone need none
    few = {"boot_disk": {"serial": "BOOT-1"}, "data_disks": [{"serial": "HDD-0"}]}
    plan_for(machine(BOOT, *disks), few, cvm_gb_ram=gib).check()


@pytest.mark.parametrize(("kind", "driver", "fit"), [
    ("0104", "mpi3mr", False), ("0104", "arcmsr", False), ("0107", "mpi3mr", False), ("0107", "mpt3sas", True),
    ("0104", "megaraid_sas", True), ("0104", "ahci", True), ("0104", "vmd", True), ("0107", "isci", True),
    ("0107", "mvsas", True), ("0104", "", True),
])
def test_d8_a_disk_that_cannot_be_told_from_a_volume_holds_no_data(kind, driver, fit):
    facts = machine(BOOT, *(replace(disk, transport="scsi") for disk in DATA))
    facts = replace(facts, pci=tuple(replace(each, kind=kind, driver=driver) if each.address == HBA else each
                                     for each in facts.pci))
    plan = plan_for(facts)
    assert bool(plan.data_disks) == fit
    assert any(f"with driver {driver} shows sda, sdb" in warning for warning in plan.warnings) != fit


def test_m20_bays_that_call_their_disks_removable_dont_refuse_them():
    plan = plan_for(machine(replace(BOOT, removable=True), *(replace(disk, removable=True) for disk in DATA)))
    plan.check()
    plan = plan_for(machine(replace(BOOT, removable=True, transport=""), *DATA))
    assert "is removable" in refusals(plan, "disk.boot-choice")


def test_m21_nvme_disks_that_go_singly_are_block_devices():
    behind = tuple(replace(disk, name=f"nvme{number}n1", transport="nvme", controller=f"10000:0{number}:00.0")
                   for number, disk in enumerate(DATA))
    facts = machine(BOOT, *behind)
    facts = replace(facts, pci=(*facts.pci, *(PciDevice(disk.controller, "0108", "8086", "0a54", "nvme", group=90)
                                              for disk in behind)))
    plan = plan_for(facts, {"boot_disk": {"serial": "BOOT-1"}})
    said = "\n".join(lines(plan))
    assert "the CVM gets block devices" in said and "storage pool, as a block device" in said
    assert "SCSI" not in said

"""Mutated facts, node.json and disks through the plan and the CVM's checks: no error but ours, no plan that harms.

20,000 mutations, the same in every run.
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cornerstone.cvm import disks
from cornerstone.foundation.installer.plan import Plan, make_plan
from cornerstone.foundation.installer.plan_text import lines
from cornerstone.lib.error import CornerstoneError
from cornerstone.model.contracts.facts import Contents, Disk, Facts, Installed, Partition, Signature
from cornerstone.model.contracts.node import NodeConfig, erase_token
from cornerstone.model.site.file import read_site
from test_plan import BOOT, DATA, GIB, HBA, OSD, SOMEBODYS, golden, machine, plan_for

MUTATIONS = 20_000
NAMES = ["sda", "sdb", "sdc", "sdz"]
# few of each, so that they meet
SERIALS = ["HDD-a", "HDD-b", "BOOT-1", "0000", "", "\\x81", "S" * 200]
WWNS = ["naa.5000c500aa", "naa.5000c500bb", "naa.0", "eui.1", ""]
CONTENTS = [Contents(), SOMEBODYS, OSD, Contents(readable=False), Contents(fingerprint="sha256:9"),
            replace(SOMEBODYS, unfinished=True), Contents(installed=Installed("n", "s", "i")),
            Contents(partitions=(Partition(1, 1, "x", "0x83", "u", (Signature("xfs", "\x1b[2J", "u"),)),)),
            Contents(signatures=(Signature("gpt", "M\ufffdller"), Signature("ceph_bluestore")))]
SITES = [
    {"boot_disk": {"serial": "BOOT-1"}}, {}, {"boot_disk": {"min_gb": 1}}, {"boot_disk": {"serial": "0000"}},
    {"boot_disk": {"serial": "BOOT-1"}, "passthrough": "scsi"}, {"boot_disk": {"wwn": "naa.5000c500aa"}},
    {"boot_disk": {"serial": "BOOT-1"}, "passthrough": [HBA]},
    {"boot_disk": {"serial": "BOOT-1"}, "data_disks": [{"wwn": "naa.5000c500bb"}]},
    {"boot_disk": {"serial": "BOOT-1"}, "data_disks": [{"serial": "0000"}, {"min_gb": 1}]},
]


def site_text(choice: dict) -> dict:
    return {"cvm_gateway": "10.20.0.1", "cvm_netmask": "255.255.255.0", "hypervisor_gateway": "10.20.0.1",
            "hypervisor_netmask": "255.255.255.0", "nos_package": None, "hypervisor_iso": {},
            "blocks": [{"block_id": "B", "nodes": [{
                "node_position": "A", "hypervisor_hostname": "node-a", "hypervisor_ip": "10.20.0.11",
                "cvm_ip": "10.20.0.21", "hypervisor": "kvm", "node_serial": "ANON940", "cornerstone": choice}]}]}


def some_disk(chance: random.Random, disk: Disk) -> Disk:
    """The disk with some of what it says changed for what others say too."""
    changes: dict[str, list[Any]] = {
        "name": NAMES, "serial": SERIALS, "wwn": WWNS, "contents": CONTENTS, "removable": [True, False],
        "size": [0, 1, 480 * GIB, 2000 * GIB, 1 << 63], "transport": ["", "sas", "sata", "usb", "raid", "nvme", "scsi"],
        "controller": ["", HBA, BOOT.controller, "0000:99:00.0", "10000:01:00.0"], "model": ["", "DOM", "\\x00"],
        "logical_block": [512, 4096], "read_only": [True, False], "sequence": [None, 0, 7]}
    names = chance.sample(list(changes), chance.choice((0, 0, 0, 1, 1, 2, 4)))
    return replace(disk, **{name: chance.choice(changes[name]) for name in names})


def some_machine(chance: random.Random) -> Facts:
    base = chance.choice(((), (BOOT,), (BOOT, *DATA), (BOOT, *DATA)))
    found = tuple(some_disk(chance, disk) for disk in (*base, *chance.choices(DATA, k=chance.choice((0, 0, 0, 1)))))
    facts = machine(*found)
    facts = replace(facts, disks=found, boot_medium=chance.choice(["", "", *NAMES]),
                    memory=chance.choice((0, 128 * GIB, 128 * GIB)))
    pci = tuple(replace(device, **{name: value for name, value in (
        ("group", chance.choice((None, 1, 9))), ("kind", chance.choice(("0104", "0107", "0601", "0200"))),
        ("driver", chance.choice(("", "mpi3mr", "ahci", "lpc_ich", "pcieport"))),
        ("direct", chance.choice((None, True, False)))) if chance.random() < 0.005}) for device in facts.pci)
    return replace(facts, pci=pci)


def require_harmless(plan: Plan, facts: Facts, tokens: dict[str, str]) -> None:
    """What holds of every plan that isn't refused."""
    boot, planned = plan.boot_disk, plan.config.cvm.disks
    serials = [disk.serial for disk in planned]
    assert boot.serial and boot.serial not in serials and boot not in plan.data_disks
    assert len(set(serials)) == len(serials), "each disk once"
    for disk in (boot, *plan.data_disks):
        assert disk.name != facts.boot_medium
        # whoever else has its serial is a path to it: the same in all that it says and holds
        others = [other for other in facts.disks if other.serial == disk.serial]
        assert all((other.wwn, other.size, other.model, other.contents) ==
                   (disk.wwn, disk.size, disk.model, disk.contents) for other in others)
        assert len(others) == 1 or disk.wwn
        holds = disk.contents
        if holds.signatures or holds.partitions or holds.fingerprint:
            assert tokens.get(disk.serial) == disk.token or holds.unfinished or (disk == boot and holds.installed)
    for entry, disk in zip(planned, plan.data_disks, strict=True):
        assert not entry.contents or entry.contents == disk.contents.fingerprint
        assert disk.size >= 5 * GIB and disk.contents.readable
    paths = facts.paths(boot)
    for entry in plan.passed:
        assert not set(paths) & set(entry.disks) and entry.device.address != boot.controller
        group = facts.iommu_group(entry.device.group)
        assert not any(other.driver == "lpc_ich" or other.kind == "0200" for other in group if other != entry.device)
    assert not {entry.device.address for entry in plan.passed} & {disk.controller for disk, _ in plan.scsi}


def test_no_machine_leads_to_a_plan_that_harms():
    chance, outcomes = random.Random(1), {"made": 0, "refused": 0}
    sites = [(choice, read_site(json.dumps(site_text(choice)).encode())) for choice in SITES]
    for _ in range(MUTATIONS // 2):
        facts = some_machine(chance)
        tokens = {disk.serial: chance.choice((disk.token, disk.token, erase_token(disk.serial), "0123456789ab"))
                  for disk in facts.disks if 0 < len(disk.serial) < 64 and chance.random() < 0.7}
        _, site = chance.choice(sites)
        node = replace(site.nodes[0], erase_tokens=tuple(sorted(tokens.items())))
        site = replace(site, blocks=(replace(site.blocks[0], nodes=(node,)),),
                       reinstall_token=chance.choice(("", "again")))
        try:
            plan = make_plan(facts, site, golden.MANIFEST, chance.choice(("", "", "again")))
            "\n".join(lines(plan)).encode()
            plan.check()
        except CornerstoneError as error:
            assert error.hint
            outcomes["refused"] += 1
            continue
        outcomes["made"] += 1
        require_harmless(plan, facts, tokens)
    assert min(outcomes.values()) > 500, outcomes


VALUES = (None, True, 0, -1, 1 << 70, 1.5, "", "0000", "\ud800", "\x1b[2J", "x" * 5000, [], {}, [[]], {"a": 1},
          float("nan"))


def places(data: Any, path: tuple = ()) -> list[tuple]:
    """The place of every value in a document."""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


def mutate(chance: random.Random, text: str, where: list[tuple]) -> str:
    """Put values of chance into some places of a JSON text, or take what is there out."""
    data = json.loads(text)
    for *path, last in chance.choices(where, k=chance.choice((1, 1, 2, 5))):
        at = data
        # a place may be gone by what was done before
        with contextlib.suppress(KeyError, IndexError, TypeError):
            for key in path:
                at = at[key]
            if chance.random() < 0.2:
                del at[last]
            else:
                # its own: what is put in twice, and then into itself, is a circle
                at[last] = copy.deepcopy(chance.choice(VALUES))
    return json.dumps(data)


@pytest.fixture(scope="module")
def whole():
    """The smallest documents that have everything: facts of three disks, and the node.json of their plan."""
    facts = machine(BOOT, replace(DATA[0], contents=SOMEBODYS), DATA[1])
    facts = replace(facts, pci=tuple(device for device in facts.pci if device.address in (HBA, BOOT.controller)),
                    nics=facts.nics[:1], cpu=replace(facts.cpu, numa=facts.cpu.numa[:1]), source="")
    tokens = {disk.serial: disk.token for disk in facts.disks[1:2]}
    plan = plan_for(facts, {"boot_disk": {"serial": "BOOT-1"}, "erase_tokens": tokens})
    plan.check()
    return [(text, places(json.loads(text))[1:]) for text in (facts.to_json(), plan.config.to_json())]


def test_no_facts_end_the_plan(whole):
    chance, site = random.Random(2), read_site(json.dumps(site_text(SITES[0])).encode())
    read = 0
    for _ in range(MUTATIONS // 4):
        text = mutate(chance, *whole[0])
        try:
            facts = Facts.from_json(text)
            read += 1
            plan = make_plan(facts, site, golden.MANIFEST)
            lines(plan)
            plan.check()
        except CornerstoneError:
            continue
        require_harmless(plan, facts, {})
    assert read > 500


def test_no_node_json_ends_the_cvms_checks(whole):
    chance, read = random.Random(3), 0
    there = [disks.Disk(serial, Path("/dev/sda"), size, *rest) for serial in ("HDD-a", "HDD-b", "0000")
             for size in (0, 2000 * GIB) for rest in ((), ("", "ext4", "", "sha256:1"), ("", "", "Input/output error"),
                                                      ("4a2c7a3e", "a BlueStore OSD", "", "osd:4a2c7a3e"))]
    for _ in range(MUTATIONS // 3):
        text = mutate(chance, *whole[1])
        try:
            config = NodeConfig.from_json(text)
        except CornerstoneError:
            continue
        read += 1
        found = chance.sample(there, 3)
        problems = disks.check(config.cvm.disks, found, ("4a2c7a3e",) if chance.random() < 0.5 else ())
        assert all(isinstance(problem, str) for problem in problems)
    assert read > 500

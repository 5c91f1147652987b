"""The recorded machines: each is of the current schema, has a source and nobody's identity, and its golden verdicts."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from cornerstone.model.contracts.facts import Facts
from cornerstone.model.contracts.requirements import Requirements
from cornerstone.model.profile.profile import load_profile
from cornerstone.model.rules.registry import REGISTRY

ROOT = Path(__file__).resolve().parents[2]
MACHINES = ROOT / "tests" / "machines"
SPEC = importlib.util.spec_from_file_location("golden", MACHINES / "golden.py")
golden = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(golden)


@pytest.mark.parametrize("name", golden.names())
def test_the_file_is_of_the_schema(name):
    facts = golden.machine(name)
    assert Facts.from_json(facts.to_json()) == facts


@pytest.mark.parametrize("name", golden.names())
def test_it_has_a_source_and_nobody_s_identity(name):
    facts = golden.machine(name)
    assert facts.source
    # addresses that belong to no vendor: locally administered, or QEMU's own
    macs = [nic.mac for nic in facts.nics] + [facts.bmc.mac]
    assert [mac for mac in macs if mac and not mac.startswith(("02:00:00:00:", "52:54:00:"))] == []
    serials = [facts.dmi.serial, facts.dmi.chassis_serial, *(disk.serial for disk in facts.disks)]
    assert [s for s in serials if s and not re.match(r"ANON|QEMU|BLOCK|(NVME|DOM|SSD|HDD|DUAL|BOOT|VOL)-", s)] == []


@pytest.mark.parametrize("name", golden.names())
def test_the_verdicts_are_the_golden_ones(name):
    """After a change that is meant: .venv/bin/python tests/machines/golden.py"""
    assert golden.verdicts(name) == (MACHINES / "golden" / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", golden.names())
def test_the_plans_are_the_golden_ones(name):
    """After a change that is meant: .venv/bin/python tests/machines/golden.py"""
    assert golden.plans(name) == (MACHINES / "plans" / f"{name}.txt").read_text()


@pytest.mark.parametrize("folder", ["golden", "plans"])
def test_every_golden_file_has_its_machine(folder):
    assert sorted(path.stem for path in (MACHINES / folder).iterdir()) == golden.names()


def test_the_golden_needs_are_the_default_profile_s():
    needs = Requirements.of(load_profile("aos-6.8", ROOT).resolved(), golden.NEEDS.epoch)
    assert needs == golden.NEEDS


def test_every_rule_is_met_by_some_machine_and_not_by_another():
    """A rule that no recorded machine breaks is seen to break in test_hardware_rules.py only."""
    broken = {line.split()[1] for name in golden.names() for line in golden.verdicts(name).splitlines()
              if not line.startswith("ok ")}
    met = {line.split()[1] for name in golden.names() for line in golden.verdicts(name).splitlines()
           if line.startswith("ok ")}
    rules = {rule.id for rule in REGISTRY.rules("machine")}
    assert met == rules
    assert rules - broken == {"hw.cores", "hw.osd-memory", "hw.osd-cache", "hw.firmware", "hw.interrupt-remapping",
                              "hw.tpm", "hw.nic"}

"""What is current is neither made nor touched, and `why` names what isn't."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from build_plans import Told, plan_of, touch
from cornerstone.factory.build import build as build_module
from cornerstone.factory.build.build import is_current, iso_path, put_iso, recall, remember
from cornerstone.factory.build.plan import Plan
from cornerstone.factory.evidence import evidence
from cornerstone.factory.store.layers import Layer, Store


@pytest.fixture
def built(workspace) -> tuple[Plan, Path]:
    plan = plan_of(workspace, Layer("root", {"lock": "1"}, touch))
    target = iso_path(workspace, plan.profile)
    target.parent.mkdir(parents=True)
    target.write_bytes(b"an iso")
    remember(plan, target, {"made_by": evidence._made_by(), "files": {}}, {})
    return plan, target


def test_current(built):
    plan, target = built
    assert is_current(plan, target)
    assert sorted(p.name for p in target.parent.iterdir()) == ["build.json", target.name]


@pytest.mark.parametrize("change", [
    lambda target: target.unlink(),
    lambda target: target.write_bytes(b"an ISO, longer"),
    lambda target: os.utime(target, (1, 1)),
    lambda target: target.with_name("build.json").unlink(),
    lambda target: target.with_name("build.json").write_text('{"iso": '),
], ids=["gone", "size", "time", "no record", "damaged record"])
def test_no_longer_current(built, change):
    plan, target = built
    change(target)
    assert not is_current(plan, target)


@pytest.mark.parametrize("content", ["[]", "7", '"x"'])
def test_record_of_another_shape_is_none(built, content):
    plan, target = built
    target.with_name("build.json").write_text(content)
    assert not is_current(plan, target)


def test_other_inputs_are_not_current(built):
    plan, target = built
    assert not is_current(replace(plan, iso_inputs={**plan.iso_inputs, "code": "2"}), target)
    assert recall(target)["layers"] == {"root": {"lock": "1"}}


def test_why_names_what_changed(workspace, built, monkeypatch):
    plan, target = built
    Store(workspace.layers).make(plan.layers["root"])
    monkeypatch.setattr(build_module, "make_plan", lambda *_: plan)
    assert build_module.why(workspace, plan.profile) == [("root", True, []), ("iso", True, [])]

    now = plan_of(workspace, Layer("root", {"lock": "2"}, touch))
    monkeypatch.setattr(build_module, "make_plan", lambda *_: now)
    assert build_module.why(workspace, plan.profile) == [("root", False, ["lock"]), ("iso", False, ["layer root"])]

    target.with_name("build.json").unlink()
    assert build_module.why(workspace, plan.profile) == [("root", False, ["never built"]),
                                                         ("iso", False, ["never built"])]


def test_an_iso_that_is_current_costs_nothing(workspace, built, monkeypatch):
    plan, target = built
    monkeypatch.setattr(build_module, "check_privilege", lambda: None)
    monkeypatch.setattr(build_module, "make_plan", lambda *_: plan)
    monkeypatch.setattr(build_module, "make_layers", lambda *_: 1 / 0)
    told = Told()
    assert build_module.build(workspace, plan.profile, told) == target
    assert told == [("iso", "cached")]


def test_an_iso_that_another_build_has_made_meanwhile_is_taken(workspace, built, monkeypatch):
    plan, target = built
    (target.parent / f".{target.name}.7").write_text("half an ISO of a killed build")
    monkeypatch.setattr(build_module, "write_iso", lambda *_: 1 / 0)
    told = Told()
    put_iso(plan, Store(workspace.layers), target, workspace.temporary, told)
    assert told == [("iso", "cached")]
    assert sorted(path.name for path in target.parent.iterdir()) == ["build.json", target.name]

"""A layer's key covers the code that makes it, all of it and no other, as computed from its maker."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from cornerstone.factory.build import plan
from cornerstone.factory.evidence import evidence
from cornerstone.factory.payload import package_tree, root
from cornerstone.factory.settings import Workspace
from cornerstone.factory.signing.signing import signing_key
from cornerstone.factory.store.code import PREFIX, ROOMS, SOURCE, code_inputs, combined, module_of
from cornerstone.factory.store.layers import Layer, changed_inputs
from cornerstone.model.profile.profile import Profile, load_profile

ROOT = Path(__file__).resolve().parents[2]
CONSTANT = "\nADDED = 1\n"


class Changed(Workspace):
    """The checkout, with the code of another folder."""

    source = property(lambda self: self.code)
    code: Path


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Changed:
    """This checkout with a copy of its code, which tests change, and a cache of its own."""
    monkeypatch.setenv("CORNERSTONE_CACHE", str(tmp_path / "cache"))
    copied = tmp_path / "src"
    shutil.copytree(SOURCE, copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(plan, "code_inputs", functools.partial(code_inputs, source=copied))
    found = Changed(ROOT)
    object.__setattr__(found, "code", copied)
    return found


@functools.cache
def profile() -> Profile:
    return load_profile("aos-6.8", ROOT)


def planned_with(workspace: Changed) -> plan.Plan:
    return plan.make_plan(workspace, profile(), signing_key(workspace.cache))


def keys(workspace: Changed) -> tuple[dict[str, str], dict[str, set[str]]]:
    """The key of each layer and of the ISO, and the modules among the inputs of each."""
    planned = planned_with(workspace)
    inputs = {name: layer.all_inputs() for name, layer in planned.layers.items()} | {"iso": planned.iso_inputs}
    return ({name: layer.key for name, layer in planned.layers.items()} | {"iso": json.dumps(dict(planned.iso_inputs))},
            {name: {text.removeprefix(PREFIX).removeprefix(ROOMS) for text in found
                    if text.startswith((PREFIX, ROOMS))} for name, found in inputs.items()})


def test_a_constant_in_any_module_that_a_maker_reaches_moves_the_key_and_why_names_the_module(workspace):
    before = planned_with(workspace)
    _, modules = keys(workspace)
    reached = set().union(*modules.values())
    assert {"lib/process.py", "factory/payload/root.py", "model/disk/slot_disk.py",
            "model/rules/hardware.py"} <= reached
    for name in reached:
        with (workspace.source / "cornerstone" / name).open("a") as file:
            file.write(CONSTANT)
    after = planned_with(workspace)
    for name, layer in after.layers.items():
        named = changed_inputs(layer, before.layers[name].all_inputs())
        assert {text.removeprefix(PREFIX).removeprefix(ROOMS) for text in named
                if text.startswith((PREFIX, ROOMS))} == modules[name], name
        assert not modules[name] or layer.key != before.layers[name].key
    assert {name for name in modules["iso"] if after.iso_inputs[PREFIX + name] == before.iso_inputs[PREFIX + name]} \
        == set()


@pytest.mark.parametrize("name", ["lib/fat.py", "factory/payload/rooms.py", "factory/payload/package_tree.py",
                                  "factory/iso/mastering.py", "model/disk/slot_disk.py", "lib/error.py",
                                  "foundation/installer/plan.py", "cvm/node.py"])
def test_a_constant_in_one_module_moves_what_is_made_with_it_and_nothing_else(workspace, name):
    layers = planned_with(workspace).layers.values()
    before, modules = keys(workspace)
    with (workspace.source / "cornerstone" / name).open("a") as file:
        file.write(CONSTANT)
    moved = {layer for layer, key in keys(workspace)[0].items() if key != before[layer]}
    made_with = {layer for layer, names in modules.items() if name in names}
    assert made_with
    assert moved == following(layers, made_with) | {"iso"}


def following(layers: Iterable[Layer], moved: set[str]) -> set[str]:
    for layer in layers:  # needed ones come first
        if moved & {needed.name for needed in layer.needs}:
            moved.add(layer.name)
    return moved


def test_other_words_in_all_other_modules_move_no_key(workspace):
    before, modules = keys(workspace)
    reached = set().union(*modules.values())
    rest = [path for path in sorted(workspace.source.rglob("*.py"))
            if path.relative_to(workspace.source / "cornerstone").as_posix() not in reached]
    assert {"build.py", "plan.py", "release.py", "lock.py", "verify.py"} <= {path.name for path in rest}
    for path in rest:
        path.write_text(path.read_text().replace("the ", "that ") + "# other words\n")
    assert keys(workspace) == (before, modules)


@pytest.mark.parametrize("layer", ["hypervisor-packages", "cvm-packages"])
def test_the_packages_are_installed_anew_for_no_element_and_no_room(workspace, layer):
    _, modules = keys(workspace)
    assert not {"factory/packages/elements.py", "factory/payload/rooms.py", "factory/payload/root.py",
                "factory/packages/lock.py"} & modules[layer]
    assert {"factory/payload/package_tree.py", "factory/packages/repository.py",
            "factory/contained.py"} <= modules[layer]


def test_a_rule_on_releases_is_in_no_root_and_on_no_iso(workspace):
    _, modules = keys(workspace)
    assert not any("model/rules/release.py" in names for names in modules.values())
    assert "code model/rules/release.py" not in code_inputs(evidence.write)


@pytest.mark.parametrize("maker", [root.build_root, package_tree.install_packages, evidence.write],
                         ids=lambda maker: maker.__module__.rpartition(".")[2])
def test_what_python_really_loads_is_in_the_closure(maker):
    said = subprocess.run([sys.executable, "-c", f"import sys, {maker.__module__}\n"
                           "print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('cornerstone')))"],
                          capture_output=True, text=True, check=True, env={"PYTHONPATH": str(SOURCE)}).stdout.split()
    assert {f"{PREFIX}{Path(path).relative_to(SOURCE / 'cornerstone')}" for path in said} <= code_inputs(maker).keys()


def test_the_sum_of_some_inputs_is_that_of_their_names_and_values():
    one = {"code a.py": "1", "code b.py": "2", "rooms c.py": "3"}
    assert combined(one) == combined({**one, "rooms c.py": "4", "profile": "x"})
    assert len({combined(one), combined({**one, "code b.py": "3"}), combined({"code a.py": "1"}),
                combined(one, ROOMS)}) == 4


def test_a_maker_is_known_by_its_module_even_where_it_is_wrapped():
    assert module_of(evidence.write) == SOURCE / "cornerstone/factory/evidence/evidence.py"
    assert module_of(plan.additions.laid) == SOURCE / "cornerstone/factory/payload/additions.py"

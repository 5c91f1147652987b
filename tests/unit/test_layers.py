"""The layer store: keys that follow the inputs, and never half a layer."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.factory.layers import RECORD, Layer, Store, changed_inputs


def fill(folder: Path, needed: dict[str, Path]) -> None:
    (folder / "content").write_text("made from " + " ".join(sorted(needed)))


BASE = Layer("root", {"lock": "1", "elements": "2"}, fill)


@pytest.fixture
def store(tmp_path) -> Store:
    (tmp_path / "layers").mkdir()
    return Store(tmp_path / "layers")


def all_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("other", [
    replace(BASE, name="boot"),
    replace(BASE, inputs={"lock": "1", "elements": "3"}),
    replace(BASE, inputs={"lock": "1"}),
    replace(BASE, inputs={"lock": "1", "elements": "2", "tool": ""}),
    replace(BASE, inputs={"lock": "2", "elements": "1"}),
    replace(BASE, inputs={"lock": '1", "elements": "2'}),
    replace(BASE, needs=(Layer("lock", {}, fill),)),
], ids=["name", "value", "one less", "one more", "swapped", "quoting", "need"])
def test_key_changes_with(other):
    assert other.key != BASE.key


@pytest.mark.parametrize("same", [
    replace(BASE, inputs={"elements": "2", "lock": "1"}),
    replace(BASE, make=lambda folder, needed: None),
], ids=["order", "the function object"])
def test_key_does_not_change_with(same):
    assert same.key == BASE.key


def test_order_of_needs_does_not_matter():
    a, b = Layer("a", {}, fill), Layer("b", {}, fill)
    assert replace(BASE, needs=(a, b)).key == replace(BASE, needs=(b, a)).key


def test_keys_chain_over_two_steps():
    def chain(lock: str) -> Layer:
        root = replace(BASE, inputs={"lock": lock})
        return Layer("disk", {"size": "20"}, fill, (Layer("boot", {}, fill, (root,)),))
    assert chain("1").key == chain("1").key
    assert chain("1").key != chain("2").key


def test_made_layer_has_content_and_record(store, tmp_path):
    disk = Layer("disk", {"size": "20"}, fill, (BASE,))
    store.make(BASE)
    store.make(disk)
    assert store.has(BASE)
    assert store.has(disk)
    assert (store.path(disk) / "content").read_text() == "made from root"
    assert json.loads((store.path(disk) / RECORD).read_text()) == {
        "name": "disk", "inputs": {"size": "20", "layer root": BASE.key}}
    assert [path.name for path in (tmp_path / "layers").iterdir() if path.name.startswith(".")] == []


def test_a_layer_is_given_the_folders_of_its_needs(store):
    seen = {}
    store.make(BASE)
    store.make(Layer("disk", {}, lambda folder, needed: seen.update(needed), (BASE,)))
    assert seen == {"root": store.path(BASE)}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_broken_off_half_way_nothing_is_left(store, tmp_path, error):
    def make(folder: Path, needed: dict[str, Path]) -> None:
        fill(folder, needed)
        (folder / "sub").mkdir()
        raise error
    with pytest.raises(error):
        store.make(replace(BASE, make=make))
    assert not store.has(BASE)
    assert all_below(tmp_path / "layers") == []


def test_is_not_there_while_it_is_made(store):
    def make(folder: Path, needed: dict[str, Path]) -> None:
        fill(folder, needed)
        assert not store.has(BASE)
        assert not store.path(BASE).exists()
    store.make(replace(BASE, make=make))
    assert store.has(BASE)


def test_what_a_killed_build_left_at_its_place_is_replaced(store):
    store.path(BASE).mkdir()
    (store.path(BASE) / "half").touch()
    assert not store.has(BASE)
    store.make(BASE)
    assert all_below(store.path(BASE)) == ["content", RECORD]


def test_two_keys_of_one_name_live_side_by_side(store):
    other = replace(BASE, inputs={"lock": "9"})
    store.make(BASE)
    store.make(other)
    assert store.has(BASE)
    assert store.has(other)


@pytest.mark.parametrize(("earlier", "names"), [
    (None, ["never built"]),
    (BASE.all_inputs(), []),
    ({"lock": "1", "elements": "old"}, ["elements"]),
    ({"lock": "1", "gone": "x"}, ["elements", "gone"]),
])
def test_why(earlier, names):
    assert changed_inputs(BASE, earlier) == names


def test_prune_removes_what_was_used_longest_ago(store, tmp_path):
    layers = [Layer(name, {}, lambda folder, needed: (folder / "content").write_bytes(bytes(1 << 20)))
              for name in ("oldest", "older", "new", "kept")]
    for age, layer in enumerate(reversed(layers)):
        store.make(layer)
        os.utime(store.path(layer) / RECORD, (1000 - age, 1000 - age))
    kept = layers[3]
    os.utime(store.path(kept) / RECORD, (1, 1))
    store.used([layers[0]])

    removed = store.prune([kept], (2 << 20) + (1 << 19))

    assert removed == [store.path(layer).name for layer in layers[1:3]]
    assert store.has(layers[0]) and store.has(kept)
    assert sorted(path.name for path in (tmp_path / "layers").iterdir()) == sorted(
        store.path(layer).name for layer in (layers[0], kept))
    assert store.prune([kept], 2 << 30) == []


def test_prune_keeps_what_a_build_just_used_even_over_the_limit(store):
    store.make(BASE)
    assert store.prune([BASE], 0) == []
    assert store.has(BASE)

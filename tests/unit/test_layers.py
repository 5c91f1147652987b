"""The layer store: keys that follow the inputs, and never half a layer."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cornerstone.factory.signing.signing import SoftwareKey
from cornerstone.factory.store.layers import RECORD, Layer, Store, changed_inputs
from cornerstone.lib import process
from cornerstone.lib.error import Code, CornerstoneError


def fill(folder: Path, needed: dict[str, Path]) -> None:
    (folder / "content").write_text("made from " + " ".join(sorted(needed)))


BASE = Layer("root", {"lock": "1", "elements": "2"}, fill)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "layers", tmp_path / "new")


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
    content = (store.path(disk) / "content").read_bytes()
    assert json.loads((store.path(disk) / RECORD).read_text()) == {
        "version": 1, "name": "disk", "inputs": {"size": "20", "layer root": BASE.key},
        "files": {"content": [len(content), hashlib.sha256(content).hexdigest()]}}
    assert list((tmp_path / "new").iterdir()) == []


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
    assert all_below(tmp_path / "layers") == all_below(tmp_path / "new") == []


def test_is_not_there_while_it_is_made(store):
    def make(folder: Path, needed: dict[str, Path]) -> None:
        fill(folder, needed)
        assert not store.has(BASE)
        assert not store.path(BASE).exists()
    store.make(replace(BASE, make=make))
    assert store.has(BASE)


def test_what_a_killed_build_left_at_its_place_is_replaced(store):
    store.path(BASE).mkdir(parents=True)
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


DAMAGES = {
    "content isn't what was made": lambda folder: (folder / "content").write_text("made from ROOT"),
    "content is missing": lambda folder: (folder / "content").unlink(),
    "can't be read: Expecting value": lambda folder: (folder / RECORD).write_text(""),
    "can't be read: 'files'": lambda folder: (folder / RECORD).write_text("{}"),
    "can't be read: list indices": lambda folder: (folder / RECORD).write_text("[]"),
}


@pytest.mark.parametrize(("said", "harm"), DAMAGES.items(), ids=DAMAGES)
def test_damage_is_named(store, tmp_path, said, harm):
    store.make(BASE)
    other = Store(tmp_path / "layers", tmp_path / "other")
    assert other.damage(BASE) == ""
    harm(store.path(BASE))
    assert other.damage(BASE).startswith(said)
    other.discard(BASE, print)
    assert not other.has(BASE)
    assert all_below(tmp_path / "other") == []


def test_what_another_build_has_mended_is_not_discarded(store, tmp_path):
    store.make(BASE)
    Store(tmp_path / "layers", tmp_path / "other").discard(BASE, print)
    assert store.has(BASE)


def test_who_makes_a_layer_has_it_alone(store, tmp_path):
    other = Store(tmp_path / "layers", tmp_path / "other")
    assert not store.hold(BASE, print)
    waited = []

    def waiting(who: str) -> None:
        waited.append(who)
        store.make(BASE)
        store.release()

    assert other.hold(BASE, waiting)
    assert waited == [f"another build (process {os.getpid()})"]
    assert store.hold(BASE, print), "those who use it share it"


def sized(name: str, mib: int = 1) -> Layer:
    return Layer(name, {}, lambda folder, needed: (folder / "content").write_bytes(bytes(mib << 20)))


def test_prune_removes_what_was_used_longest_ago(store, tmp_path):
    layers = [sized(name) for name in ("oldest", "older", "new", "kept")]
    for age, layer in enumerate(reversed(layers)):
        store.make(layer)
        os.utime(store.path(layer) / RECORD, (1000 - age, 1000 - age))
    kept = layers[3]
    os.utime(store.path(kept) / RECORD, (1, 1))
    store.used([layers[0]])
    assert store.hold(kept, print)

    removed = store.prune((2 << 20) + (1 << 19))

    assert removed == [store.path(layer).name for layer in layers[1:3]]
    assert store.has(layers[0]) and store.has(kept)
    assert sorted(path.name for path in (tmp_path / "layers").iterdir() if path.is_dir()) == sorted(
        store.path(layer).name for layer in (layers[0], kept))
    assert all_below(tmp_path / "new") == []
    assert store.prune(2 << 30) == []


def test_prune_leaves_what_another_build_uses(store, tmp_path):
    store.make(BASE)
    other = Store(tmp_path / "layers", tmp_path / "other")
    assert other.hold(BASE, print)
    assert store.prune(0) == []
    other.release()
    assert store.prune(0) == [store.path(BASE).name]
    assert all_below(tmp_path / "layers") == []


KEY = SoftwareKey(Ed25519PrivateKey.generate(), "release")
NOBODY = "nobody with our key made it"


@pytest.fixture
def sealing(tmp_path) -> Store:
    return Store(tmp_path / "layers", tmp_path / "new", KEY)


def again(tmp_path, key=KEY) -> Store:
    """The store as the next build sees it."""
    return Store(tmp_path / "layers", tmp_path / "new", key)


def plant(store, content=b"EVIL", **record):
    """What somebody puts into a store who knows the layer's key, but not the build's."""
    folder = store.path(BASE)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "content").write_bytes(content)
    (folder / RECORD).write_text(json.dumps({
        "name": BASE.name, "inputs": BASE.all_inputs(),
        "files": {"content": [len(content), hashlib.sha256(content).hexdigest()]}, **record}))


def test_a6_a_layer_that_was_made_here_is_taken(sealing, tmp_path):
    sealing.make(BASE)
    assert again(tmp_path).damage(BASE) == ""
    assert again(tmp_path).contents(BASE) == {}, "nothing was read yet"
    store = again(tmp_path)
    assert store.damage(BASE) == ""
    content = (store.path(BASE) / "content").read_bytes()
    assert store.contents(BASE) == {store.path(BASE) / "content": (len(content), hashlib.sha256(content).hexdigest())}


@pytest.mark.parametrize("record", [{}, {"seal": ""}, {"seal": "00" * 64}, {"seal": 7}],
                         ids=["none", "empty", "wrong", "no text"])
def test_a6_a_layer_that_somebody_put_there_is_not_taken(sealing, record):
    plant(sealing, **record)
    assert sealing.has(BASE)
    assert sealing.damage(BASE).startswith(NOBODY)


def test_a6_a_layer_of_another_key_is_not_taken(tmp_path):
    again(tmp_path, SoftwareKey(Ed25519PrivateKey.generate(), "release")).make(BASE)
    assert again(tmp_path).damage(BASE).startswith(NOBODY)


def test_a6_a_sealed_layer_is_not_taken_for_another(sealing, tmp_path):
    """An older one, with its seal, in the place of the one that is wanted."""
    older = replace(BASE, inputs={"lock": "0", "elements": "2"})
    sealing.make(older)
    sealing.path(older).rename(sealing.path(BASE))
    assert again(tmp_path).damage(BASE) == f"{NOBODY}: its record is another layer's"


@pytest.mark.parametrize("change", [
    lambda folder: (folder / "content").write_text("EVIL"),
    lambda folder: (folder / "more").write_text("EVIL"),
    lambda folder: ((folder / "content").rename(folder.parent / "aside"),
                    (folder / "content").symlink_to(folder.parent / "aside"))], ids=["changed", "more", "link"])
def test_a6_a_changed_layer_is_not_taken(sealing, tmp_path, change):
    sealing.make(BASE)
    change(sealing.path(BASE))
    assert again(tmp_path).damage(BASE)


def test_a6_layers_that_are_made_at_once_are_sealed_one_after_another(tmp_path):
    """A token takes one login at a time."""
    entered, overlap = threading.Barrier(2), []

    class Token:
        kind, busy = "release", False

        def sign(self, content: bytes) -> bytes:
            overlap.append(self.busy)
            self.busy = True
            signature = KEY.sign(content)
            os.sched_yield()
            self.busy = False
            return signature

        def public_pem(self) -> bytes:
            return KEY.public_pem()

    store = Store(tmp_path / "layers", tmp_path / "new", Token())
    layers = [Layer(name, {}, lambda folder, needed: (fill(folder, needed), entered.wait(60))) for name in ("a", "b")]
    threads = [threading.Thread(target=store.make, args=(layer,)) for layer in layers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlap == [False, False]
    assert [again(tmp_path).damage(layer) for layer in layers] == ["", ""]


def test_a6_what_is_made_is_its_owner_s_to_write(sealing):
    before = os.umask(0)
    try:
        sealing.make(BASE)
    finally:
        os.umask(before)
    folder = sealing.path(BASE)
    assert [path.name for path in (folder, *folder.iterdir()) if path.stat().st_mode & 0o022] == []


def test_disk_full_leaves_nothing_half_and_the_next_with_room_succeeds(tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", cache], check=True)
    try:
        store = Store(cache / "layers", cache / "tmp")
        tree = tmp_path / "tree"
        tree.mkdir()
        (tree / "content").write_bytes(os.urandom(4 << 20))

        def pack(folder: Path, needed: dict[str, Path]) -> None:
            process.run(["mksquashfs", tree, folder / "root.squashfs", "-no-progress"], log=tmp_path / "log")

        root = Layer("root", {}, pack)
        with pytest.raises(CornerstoneError, match="the disk is full: mksquashfs failed") as caught:
            store.make(root)
        assert caught.value.code is Code.MACHINE
        assert "CORNERSTONE_CACHE" in caught.value.hint
        assert all_below(cache) == ["layers", "tmp"]
        subprocess.run(["mount", "-o", "remount,size=32m", cache], check=True)
        store.make(root)
        assert store.has(root)
    finally:
        subprocess.run(["umount", cache], check=True)


def test_a_layer_whose_record_is_of_a_newer_version_is_damaged_so_it_is_made_anew(store, tmp_path):
    store.make(BASE)
    path = store.path(BASE) / RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))
    # one that hasn't made it itself
    found = Store(tmp_path / "layers").damage(BASE)
    assert found == "layer.json has version 2, and this release reads up to 1"

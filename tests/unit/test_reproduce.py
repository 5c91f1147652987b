"""Comparing two builds: what differs is named, from the first layer on."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cornerstone.factory.build import reproduce
from cornerstone.factory.build.reproduce import _explain, copy_checkout
from cornerstone.factory.store.layers import Layer, Store


def layer(name: str, content: str, inputs: str = "1", needs: tuple[Layer, ...] = ()) -> Layer:
    def make(folder: Path, needed: dict[str, Path]) -> None:
        (folder / f"{name}.txt").write_text(content)
    return Layer(name, {"input": inputs}, make, needs)


@pytest.fixture
def stores(tmp_path) -> tuple[Store, Store]:
    return Store(tmp_path / "here"), Store(tmp_path / "there")


def explained(stores, ours: list[Layer], theirs: list[Layer], scratch: Path) -> list[str]:
    for store, layers in zip(stores, (ours, theirs), strict=True):
        for one in layers:
            store.make(one)
    return _explain(ours, *stores, scratch)


def test_first_layer_that_differs_is_named(stores, tmp_path):
    ours = [layer("root", "same"), layer("disk", "one"), layer("boot", "one")]
    theirs = [layer("root", "same"), layer("disk", "two"), layer("boot", "two")]
    assert explained(stores, ours, theirs, tmp_path)[0] == "layer disk: disk.txt differs"


def test_a_key_that_depends_on_the_surroundings_is_named_with_its_input(stores, tmp_path):
    assert explained(stores, [layer("root", "same", "utc")], [layer("root", "same", "cet")], tmp_path) == [
        "layer root: its key differs by input"]


def test_equal_layers_leave_mastering(stores, tmp_path):
    assert explained(stores, [layer("root", "same")], [layer("root", "same")], tmp_path) == []
    same = {"iso": {"code": "1", "pycdlib": "2"}}
    assert reproduce._explain_mastering(same, same).endswith("the fault is in mastering or in netboot")
    assert reproduce._explain_mastering(same, {"iso": {"code": "3", "pycdlib": "2"}}).endswith("other inputs: code")


def test_files_inside_a_root_are_named(stores, tmp_path):
    def root(content: str) -> Layer:
        def make(folder: Path, needed: dict[str, Path]) -> None:
            tree = tmp_path / f"tree {content}"
            (tree / "etc").mkdir(parents=True)
            (tree / "etc/hostid").write_text(content)
            (tree / "etc/same").write_text("same")
            subprocess.run(["mksquashfs", tree, folder / "root.squashfs", "-quiet", "-no-progress", "-all-root",
                            "-all-time", "0"], check=True, capture_output=True)
        return Layer("root", {}, make)

    head, *inside = explained(stores, [root("ours")], [root("theirs")], tmp_path / "tree ours")
    assert head == "layer root: root.squashfs differs"
    assert any("etc/hostid" in line for line in inside)
    assert not any("etc/same" in line for line in inside)


def stub(folder: Path, script: str, monkeypatch) -> None:
    """A diffoscope that does what script says."""
    (folder / "bin").mkdir()
    (folder / "bin/diffoscope").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin/diffoscope").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}/bin:{os.environ['PATH']}")


def test_diffoscope_says_how_a_file_differs_when_it_is_installed(stores, tmp_path, monkeypatch):
    stub(tmp_path, 'for last; do before=$now; now=$last; done; echo "$(cat "$before") became $(cat "$now")"; exit 1',
         monkeypatch)
    assert explained(stores, [layer("disk", "one")], [layer("disk", "two")], tmp_path) == [
        "layer disk: disk.txt differs", "    one became two"]


@pytest.mark.skipif(shutil.which("diffoscope") is None, reason="diffoscope isn't installed")
def test_the_real_diffoscope(stores, tmp_path):
    lines = explained(stores, [layer("disk", "one\n")], [layer("disk", "two\n")], tmp_path)
    assert [line.strip() for line in lines if line.strip() in ("-one", "+two", "│ -one", "│ +two")]


@pytest.mark.parametrize(("script", "last"), [
    ("seq 1000; exit 1", "    … and 940 more lines"),
    ("echo some; exec sleep 60", "    diffoscope didn't come to an end within 1 s"),
], ids=["long", "slow"])
def test_diffoscope_is_bounded(stores, tmp_path, monkeypatch, script, last):
    monkeypatch.setattr(reproduce, "DIFFOSCOPE_SECONDS", 1)
    stub(tmp_path, script, monkeypatch)
    lines = explained(stores, [layer("disk", "one")], [layer("disk", "two")], tmp_path)
    assert lines[-1] == last
    assert len(lines) <= 62


def test_large_files_are_not_given_to_diffoscope(stores, tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "DIFFOSCOPE_MIB", 0)
    stub(tmp_path, "echo asked", monkeypatch)
    assert explained(stores, [layer("disk", "one")], [layer("disk", "two")], tmp_path)[1:] == [
        "    larger than 0 MiB: not given to diffoscope"]


def test_without_diffoscope_it_is_named(stores, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "diffoscope" in explained(stores, [layer("disk", "one")], [layer("disk", "two")], tmp_path)[1]


def test_checkout_is_copied_as_git_knows_it(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["git", "init", "-q", root], check=True)
    (root / ".gitignore").write_text("/output\n")
    (root / "output").write_text("a product")
    (root / "plain").write_text("text")
    (root / "plain").chmod(0o664)
    (root / "bin").mkdir()
    (root / "bin/tool").write_text("#!/bin/sh\n")
    (root / "bin/tool").chmod(0o755)
    (root / "link").symlink_to("plain")

    copy_checkout(root, tmp_path / "copy")

    copy = tmp_path / "copy"
    assert sorted(path.name for path in copy.iterdir()) == [".gitignore", "bin", "link", "plain"]
    assert oct((copy / "plain").stat().st_mode)[-3:] == "600"
    assert oct((copy / "bin/tool").stat().st_mode)[-3:] == "700"
    assert (copy / "link").is_symlink()

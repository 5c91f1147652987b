"""The build's own logic: one at a time, the graph, what fails or is interrupted."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from build_plans import MIB, Told, package, plan_of, profile, touch
from cornerstone.factory.build import build as build_module
from cornerstone.factory.build.build import check_space, fetch_packages, make_layer, make_layers, step
from cornerstone.factory.packages.pool import pooled
from cornerstone.factory.settings import Workspace
from cornerstone.factory.signing.signing import SoftwareKey
from cornerstone.factory.store.layers import Layer, Store
from cornerstone.lib import process
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.event import Event
from cornerstone.lib.progress import by_percent, tell_bytes


def is_gone(pid_file: Path) -> bool:
    """Whether a process ends within two seconds; one that has ended and that nobody has asked for counts."""
    stat = Path(f"/proc/{pid_file.read_text().strip()}/stat")
    for _ in range(200):
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


# one at a time

def test_privilege_is_asked_for_first(workspace, monkeypatch):
    monkeypatch.setattr(build_module.os, "geteuid", lambda: 1000)
    with pytest.raises(CornerstoneError, match="a build needs root") as caught:
        build_module.build(workspace, profile(), Told())
    assert caught.value.code is Code.MACHINE
    assert not workspace.cache.exists()


# steps and space

def test_step_tells_its_end_and_its_time():
    told = []
    with step(told.append, "iso"):
        pass
    assert [(event.step, event.state) for event in told] == [("iso", "started"), ("iso", "done")]
    assert told[1].data["seconds"] >= 0


@pytest.mark.parametrize("error", [CornerstoneError("what\nmore", "hint"), KeyboardInterrupt(), SystemExit(3)],
                         ids=lambda error: type(error).__name__)
def test_step_tells_its_failure(error):
    told = []
    with pytest.raises(type(error)), step(told.append, "iso"):
        raise error
    assert (told[-1].step, told[-1].state) == ("iso", "failed")
    assert "\n" not in told[-1].message


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(("make", "in_pool", "needed"), [
    ((), True, 1024 + 2 * 100), ((), False, 1024 + 3 * 100), (("cvm",), True, 1024 + 8 * 100),
    (("cvm",), False, 1024 + 9 * 100), (("cvm-disk",), True, 1024 + 2 * 100),
])
def test_space(workspace, monkeypatch, make, in_pool, needed):
    deb = package("big", 100 * MIB)
    if in_pool:
        at = pooled(workspace.pool, deb)
        at.parent.mkdir(parents=True)
        with at.open("wb") as out:
            out.truncate(deb.size)
    workspace.cache.mkdir(parents=True, exist_ok=True)
    plan = plan_of(workspace, packages=(deb,))
    to_make = [Layer(name, {}, touch) for name in make]
    monkeypatch.setattr(build_module.shutil, "disk_usage", lambda path: Usage(0, 0, needed * MIB))
    check_space(workspace, plan, to_make)
    monkeypatch.setattr(build_module.shutil, "disk_usage", lambda path: Usage(0, 0, needed * MIB - 1))
    with pytest.raises(CornerstoneError) as caught:
        check_space(workspace, plan, to_make)
    assert caught.value.message == \
        f"{workspace.cache} has {needed - 1} MiB free, this build needs about {needed} MiB"
    assert "CORNERSTONE_CACHE" in caught.value.hint
    assert caught.value.code is Code.MACHINE


def test_space_for_the_iso(workspace, monkeypatch):
    workspace.cache.mkdir(parents=True)
    monkeypatch.setattr(build_module.shutil, "disk_usage",
                        lambda path: Usage(0, 0, 0 if Path(path) == workspace.output else 1 << 50))
    with pytest.raises(CornerstoneError, match="free"):
        check_space(workspace, plan_of(workspace, packages=(package("big", MIB),)), [])


@pytest.mark.parametrize(("make", "asks"), [(("cvm",), True), (("cvm-disk", "hypervisor"), False), ((), False)])
def test_packages_are_fetched_for_the_roots_that_will_be_made(workspace, monkeypatch, make, asks):
    asked, told = [], Told()
    monkeypatch.setattr(build_module.provide, "provide", lambda workspace, locks, *_: asked.extend(locks))
    workspace.temporary.mkdir(parents=True)
    plan = plan_of(workspace, packages=(package("big", 100),))
    fetch_packages(workspace, plan, [Layer(name, {}, touch) for name in make], told)
    assert asked == ([plan.locks["cvm"]] if asks else [])
    assert told == ([("packages", "started"), ("packages", "done")] if asks else [])


# the graph

def test_layers_are_made_after_what_they_need(workspace, store):
    order = []

    def make(folder: Path, needed: dict[str, Path]) -> None:
        assert all((path / "made").exists() for path in needed.values())
        order.append(folder.name.split("-")[0])
        touch(folder, needed)

    root = Layer("root", {}, make)
    boot = Layer("boot", {}, make, (root,))
    other = Layer("other", {}, make)
    disk = Layer("disk", {}, make, (root, boot))
    told = Told()
    make_layers(plan_of(workspace, disk, boot, root, other), store, told)
    assert sorted(order) == ["boot", "disk", "other", "root"]
    assert order.index("root") < order.index("boot") < order.index("disk")
    assert sorted(told) == sorted((name, state) for name in order for state in ("started", "done"))


def test_what_is_there_is_not_made(workspace, store):
    def never(folder: Path, needed: dict[str, Path]) -> None:
        raise AssertionError("it is there already")
    root = Layer("root", {}, touch)
    store.make(root)
    told = Told()
    make_layers(plan_of(workspace, replace(root, make=never), Layer("disk", {}, touch, (root,))), store, told)
    assert told == [("root", "cached"), ("disk", "started"), ("disk", "done")]


def test_a_damaged_layer_is_made_again_and_that_is_told(workspace, store):
    root = Layer("root", {}, lambda folder, needed: (folder / "made").write_text("whole"))
    boot = Layer("boot", {}, touch, (root,))
    make_layers(plan_of(workspace, root, boot), store, Told())
    store.release()
    (store.path(root) / "made").write_text("wrong")
    told = []
    make_layers(plan_of(workspace, root, boot), Store(workspace.layers), told.append)
    assert [(event.step, event.state, event.message) for event in told] == [
        ("root", "warning", "damaged in the store: made isn't what was made; it is made again"),
        ("root", "started", ""), ("root", "done", ""), ("boot", "cached", "")]
    assert (store.path(root) / "made").read_text() == "whole"


def test_two_builds_make_a_layer_once(workspace):
    """Two builds of one cache, each with its own store object, as two processes have."""
    began, go_on, made, told = threading.Event(), threading.Event(), [], []

    def slow(folder: Path, needed: dict[str, Path]) -> None:
        began.set()
        assert go_on.wait(10)
        made.append(folder)

    def second(event: Event) -> None:
        told.append((event.state, event.message))
        if event.state == "waiting":
            go_on.set()

    root = Layer("root", {}, slow)
    first = threading.Thread(target=make_layer, args=(root, Store(workspace.layers, workspace.temporary), Told()))
    first.start()
    assert began.wait(10)
    make_layer(root, Store(workspace.layers, workspace.temporary), second)
    first.join()
    assert len(made) == 1
    assert told == [("waiting", f"another build (process {os.getpid()}) has it in hand"), ("cached", "")]


def test_who_waits_for_another_build_can_be_ended(workspace):
    root, other = Layer("root", {}, touch), Store(workspace.layers)
    assert not other.hold(root, print), "another build makes it, and goes on making it"

    def interrupt(event: Event) -> None:
        if event.state == "waiting":
            process.end_all()

    with process.ending_together(), pytest.raises(CornerstoneError, match="not started"):
        make_layer(root, Store(workspace.layers), interrupt)
    other.release()


def test_two_are_made_at_a_time(workspace, store):
    together = threading.Barrier(2, timeout=5)

    def make(folder: Path, needed: dict[str, Path]) -> None:
        together.wait()
    make_layers(plan_of(workspace, Layer("a", {}, make), Layer("b", {}, make)), store, Told())
    assert not together.broken


def test_the_first_failure_ends_the_rest_and_is_the_one_that_is_told(workspace, store, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "GRACE_SECONDS", 2)
    pid = tmp_path / "pid"

    def slow(folder: Path, needed: dict[str, Path]) -> None:
        process.run(["sh", "-c", 'sleep 30 & echo $! >"$1"; wait', "-", pid], log=tmp_path / "slow.log")

    def bad(folder: Path, needed: dict[str, Path]) -> None:
        while not pid.exists() or not pid.read_text():
            time.sleep(0.01)
        process.run(["sh", "-c", "echo the cause; exit 3"], log=tmp_path / "bad.log")

    first, told = Layer("bad", {}, bad), Told()
    begun = time.monotonic()
    with pytest.raises(CornerstoneError, match="the cause"):
        make_layers(plan_of(workspace, first, Layer("slow", {}, slow), Layer("later", {}, touch, (first,))), store,
                    told)
    assert time.monotonic() - begun < 20
    assert is_gone(pid)
    assert ("later", "started") not in told
    assert {("bad", "failed"), ("slow", "failed")} <= set(told)
    assert {path.suffix for path in workspace.layers.iterdir()} <= {".lock"}, "no half layer"


def test_after_a_failure_no_new_command_starts(workspace, store, tmp_path):
    failed = threading.Event()

    def slow(folder: Path, needed: dict[str, Path]) -> None:
        failed.wait(5)
        time.sleep(0.2)
        process.run(["touch", tmp_path / "started late"], log=tmp_path / "slow.log")

    def bad(folder: Path, needed: dict[str, Path]) -> None:
        failed.set()
        raise CornerstoneError("the cause")

    with pytest.raises(CornerstoneError, match="the cause"):
        make_layers(plan_of(workspace, Layer("bad", {}, bad), Layer("slow", {}, slow)), store, Told())
    assert not (tmp_path / "started late").exists()


def test_an_interrupt_ends_what_runs(workspace, store, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "GRACE_SECONDS", 2)
    started = tmp_path / "pid"

    def slow(folder: Path, needed: dict[str, Path]) -> None:
        process.run(["sh", "-c", 'echo $$ >"$1"; exec sleep 30', "-", started], log=tmp_path / "slow.log")

    def interrupt(*arguments, **options):
        while not started.exists() or not started.read_text():
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(build_module, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_layers(plan_of(workspace, Layer("slow", {}, slow)), store, Told())
    assert is_gone(started)
    assert {path.suffix for path in workspace.layers.iterdir()} <= {".lock"}


# progress

@pytest.mark.parametrize("total", [0, 1, 99, 100, 12_345])
def test_progress_is_told_once_a_percent_and_never_goes_back(total):
    told = []
    progress = tell_bytes(told.append, "build", "iso")
    for done in [*range(total + 1), total // 2, total]:
        progress(done, total)
    percents = [event.data["percent"] for event in told]
    assert percents == sorted(set(percents))
    assert len(percents) <= 101
    assert percents[-1] == (100 if total else 0)
    assert {event.state for event in told} == {"progress"}


def test_progress_is_told_once_in_so_many_percent():
    told = []
    progress = by_percent(lambda percent, done, total: told.append((percent, done, total)), every=25)
    for done in range(201):
        progress(done, 200)
    assert told == [(24, 48, 200), (49, 98, 200), (74, 148, 200), (99, 198, 200)]


# what others could have put there

def test_a6_a_planted_layer_is_made_anew_with_a_warning(workspace):
    plan = plan_of(workspace, root := Layer("root", {}, lambda folder, needed: (folder / "x").write_bytes(b"good")))
    planted = Store(workspace.layers).path(root)
    planted.mkdir(parents=True)
    (planted / "x").write_bytes(b"EVIL")
    (planted / "layer.json").write_text(json.dumps({
        "name": "root", "inputs": {}, "files": {"x": [4, hashlib.sha256(b"EVIL").hexdigest()]}}))
    told = Told()
    store = Store(workspace.layers, workspace.temporary, plan.key)
    make_layers(plan, store, told)
    assert told == [("root", "warning"), ("root", "started"), ("root", "done")]
    assert (planted / "x").read_bytes() == b"good"
    assert store.contents(root) == {planted / "x": (4, hashlib.sha256(b"good").hexdigest())}


@pytest.mark.parametrize("place", ["cache", "layers", "pool", "output"])
def test_a6_a_release_build_trusts_no_folder_that_others_may_write(monkeypatch, place):
    with tempfile.TemporaryDirectory() as above:
        # others may enter it, unlike pytest's folders
        Path(above).chmod(0o755)
        workspace = Workspace(Path(above, "checkout"))
        development = plan_of(workspace)
        release = replace(development, key=SoftwareKey(Ed25519PrivateKey.generate(), "release"))
        monkeypatch.setattr(build_module, "check_privilege", lambda: None)
        monkeypatch.setattr(build_module, "make_plan", lambda *_: release)
        monkeypatch.setattr(build_module, "is_current", lambda *_: 1 / 0)
        folder = getattr(workspace, place)
        folder.mkdir(parents=True, exist_ok=True)
        with pytest.raises(ZeroDivisionError):
            build_module.build(workspace, profile(), Told())
        folder.chmod(0o777)
        with pytest.raises(CornerstoneError, match=f"others may write in {folder},") as caught:
            build_module.build(workspace, profile(), Told())
        assert caught.value.code is Code.MACHINE
        monkeypatch.setattr(build_module, "make_plan", lambda *_: development)
        with pytest.raises(ZeroDivisionError):
            build_module.build(workspace, profile(), Told())

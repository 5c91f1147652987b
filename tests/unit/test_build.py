"""The build's own logic: one at a time, the graph, what is current, the old ISO that stays until the new is whole."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import subprocess
import threading
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cornerstone.factory import build as build_module
from cornerstone.factory import evidence, iso, process
from cornerstone.factory.build import (
    check_space,
    fetch_packages,
    is_current,
    iso_path,
    make_layer,
    make_layers,
    put_iso,
    recall,
    remember,
    step,
    write_iso,
)
from cornerstone.factory.iso_image import Image
from cornerstone.factory.layers import Layer, Store
from cornerstone.factory.lock import Lock, LockedPackage
from cornerstone.factory.plan import Plan
from cornerstone.factory.pool import pooled
from cornerstone.factory.settings import Workspace
from cornerstone.factory.signing import SoftwareKey, check_signature, signing_key
from cornerstone.model.error import Code, CornerstoneError
from cornerstone.model.event import Event
from cornerstone.model.manifest import CVM, HYPERVISOR, NAME, SIGNATURE_NAME, SITE_AREA, Manifest
from cornerstone.model.profile import Profile, load_profile

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    monkeypatch.delenv("CORNERSTONE_CACHE", raising=False)
    monkeypatch.delenv("CORNERSTONE_SIGNING_KEY", raising=False)
    return Workspace(tmp_path / "checkout")


@pytest.fixture
def store(workspace) -> Store:
    return Store(workspace.layers, workspace.temporary)


def package(name: str, size: int) -> LockedPackage:
    return LockedPackage("main", name, "1", "all", size, name.encode().hex().ljust(64, "0"), f"pool/{name}.deb")


@functools.cache
def profile() -> Profile:
    return load_profile("aos-6.8", ROOT)


def plan_of(workspace: Workspace, *layers: Layer, packages: tuple[LockedPackage, ...] = ()) -> Plan:
    locks = {"cvm": Lock("cvm", "trixie", 1_800_000_000, (), packages)}
    return Plan(profile(), signing_key(workspace.cache), locks,
                {layer.name: layer for layer in layers}, {"code": "1", **{f"layer {n.name}": n.key for n in layers}})


def touch(folder: Path, needed: dict[str, Path]) -> None:
    (folder / "made").touch()


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


class Told(list):
    """A listener: (step, state) of everything but progress."""

    def __call__(self, event: Event) -> None:
        if event.state != "progress":
            self.append((event.step, event.state))


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
    monkeypatch.setattr(build_module.packages, "provide", lambda workspace, locks, *_: asked.extend(locks))
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


# what is current

@pytest.fixture
def built(workspace) -> tuple[Plan, Path]:
    plan = plan_of(workspace, Layer("root", {"lock": "1"}, touch))
    target = iso_path(workspace, plan.profile)
    target.parent.mkdir(parents=True)
    target.write_bytes(b"an iso")
    remember(plan, target, {"made_by": evidence._made_by(), "files": {}})
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


# progress

@pytest.mark.parametrize("total", [0, 1, 99, 100, 12_345])
def test_progress_is_told_once_a_percent_and_never_goes_back(total):
    told = []
    progress = build_module._throttled(told.append, "iso")
    for done in [*range(total + 1), total // 2, total]:
        progress(done, total)
    percents = [event.data["percent"] for event in told]
    assert percents == sorted(set(percents))
    assert len(percents) <= 101
    assert percents[-1] == (100 if total else 0)
    assert {event.state for event in told} == {"progress"}


# the ISO

@pytest.fixture
def layers(tmp_path) -> dict[str, Path]:
    """The folders of all layers, with small files in them."""
    contents = {"hypervisor": ["hypervisor.squashfs"], "cvm-disk": ["cvm.qcow2"], "first-boot": ["first-boot.sh"],
                "efi-image": ["efi.img"],
                "hypervisor-boot": ["vmlinuz", "initrd.img", "cd.img", "shimx64.efi", "gcdx64.efi", "mmx64.efi",
                                    "boot_hybrid.img"]}
    chance = random.Random(8)
    for layer, names in contents.items():
        for name in names:
            path = tmp_path / "layers" / layer / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(chance.randbytes({"efi.img": MIB, "boot_hybrid.img": 512}.get(name, 9000)))
    return {layer: tmp_path / "layers" / layer for layer in contents}


def test_iso_is_written_with_its_papers(workspace, layers, tmp_path):
    plan, target = plan_of(workspace, packages=(package("jq", 7),)), tmp_path / "out" / "foundation-x.iso"
    write_iso(plan, layers, target, tmp_path / "work", Told())
    folder = target.parent
    manifest = Manifest.from_bytes((folder / NAME).read_bytes())
    assert iso.read_back(target, manifest) == []
    check_signature((folder / "manifest.pem").read_bytes(), (folder / NAME).read_bytes(),
                    (folder / SIGNATURE_NAME).read_bytes(), NAME)
    assert manifest.profile == plan.profile.resolved()
    assert (manifest.key, manifest.epoch) == ("development", 1_800_000_000)
    assert {HYPERVISOR, CVM, "boot/grub/grub.cfg", f".disk/{manifest.identity}"} <= {e.path for e in manifest.entries}
    assert not {SITE_AREA, NAME, SIGNATURE_NAME} & {e.path for e in manifest.entries}, "what may change isn't signed"
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("kind", ["development", "release"])
def test_the_boot_menu_names_a_development_key_and_no_other(workspace, layers, tmp_path, kind):
    key, target = SoftwareKey(Ed25519PrivateKey.generate(), kind), tmp_path / "out" / "foundation-x.iso"
    write_iso(replace(plan_of(workspace), key=key), layers, target, tmp_path / "work", Told())
    with contextlib.closing(Image(target)) as image:
        menu = image.content("boot/grub/grub.cfg").decode()
    title = 'menuentry "Foundation: aos-6.8 (reference payload, development-signed)"'
    assert (title in menu) == ("development-signed" in menu) == (kind == "development")
    assert f"- {kind}-signed: signed with the {kind} key" in (target.parent / "report.md").read_text()


def test_what_is_missing_beside_a_current_iso_is_written_anew(workspace, layers, tmp_path):
    plan = plan_of(workspace, packages=(package("jq", 7),))
    target = iso_path(workspace, plan.profile)
    remember(plan, target, write_iso(plan, layers, target, tmp_path / "work", Told()))
    before, told = {path.name: path.read_bytes() for path in target.parent.iterdir()}, Told()
    build_module.mend_evidence(plan, target, told)
    assert told == []
    target.with_name("SHA256SUMS").unlink()
    target.with_name("provenance.intoto.json").write_bytes(b"{}")
    build_module.mend_evidence(plan, target, told)
    assert told == [("evidence", "started"), ("evidence", "done")]
    after = {path.name: path.read_bytes() for path in target.parent.iterdir()}
    assert {name for name in before if before[name] != after.get(name)} == {"build.json"}
    assert is_current(plan, target)
    build_module.mend_evidence(plan, target, told)
    assert len(told) == 2


def test_report_says_what_is_in_it(workspace, layers, tmp_path):
    plan, target = plan_of(workspace, packages=(package("jq", 7),)), tmp_path / "out" / "foundation-x.iso"
    write_iso(plan, layers, target, tmp_path / "work", Told())
    record = json.loads((target.parent / "report.json").read_text())
    assert record["iso"]["file"] == target.name
    assert record["iso"]["size"] == target.stat().st_size
    assert record["iso"]["sha256"] == subprocess.run(["sha256sum", target], capture_output=True, text=True,
                                                     check=True).stdout.split()[0]
    assert record["packages"] == {"cvm": [{"name": "jq", "version": "1"}]}
    text = (target.parent / "report.md").read_text()
    for words in (record["iso"]["sha256"], "not Nutanix software", HYPERVISOR, "- jq 1"):
        assert words in text


def test_equal_plans_give_equal_isos_whose_identity_follows_the_inputs(workspace, layers, tmp_path):
    plan = plan_of(workspace)
    for name, now in (("a", plan), ("b", plan), ("c", replace(plan, iso_inputs={"code": "2"}))):
        write_iso(now, layers, tmp_path / name / "x.iso", tmp_path / f"work {name}", Told())
    a, b, c = ((tmp_path / name / "x.iso").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_a_root_larger_than_its_slot_is_refused(workspace, layers, tmp_path):
    plan = plan_of(workspace)
    small = replace(plan.profile, hypervisor=replace(plan.profile.hypervisor, root_slot=1))
    with pytest.raises(CornerstoneError, match="doesn't fit a root slot") as caught:
        write_iso(replace(plan, profile=small), layers, tmp_path / "x.iso", tmp_path / "work", Told())
    assert ".hypervisor.root_slot" in caught.value.hint
    assert not (tmp_path / "x.iso").exists()


@pytest.mark.parametrize("fault", ["read back", "mastering", "evidence", "interrupt"])
def test_the_old_iso_stays_until_the_new_one_is_whole(workspace, layers, tmp_path, monkeypatch, fault):
    target = tmp_path / "out" / "foundation-x.iso"
    target.parent.mkdir()
    target.write_bytes(b"the old one")

    def fail(*arguments, **options):
        raise {"interrupt": KeyboardInterrupt}.get(fault, OSError)(28, "No space left on device")
    if fault == "read back":
        monkeypatch.setattr(iso, "read_back", lambda *_: ["layer cvm.qcow2 does not match the manifest"])
    elif fault == "evidence":
        monkeypatch.setattr(build_module.evidence, "write", fail)
    else:
        monkeypatch.setattr(iso, "master", fail)
    with pytest.raises((CornerstoneError, OSError, KeyboardInterrupt)) as caught:
        write_iso(plan_of(workspace), layers, target, tmp_path / "work", Told())
    if fault == "read back":
        assert caught.value.message == "the ISO read back wrong: layer cvm.qcow2 does not match the manifest"
        assert caught.value.code is Code.VERIFY
    assert target.read_bytes() == b"the old one"
    assert [p.name for p in target.parent.iterdir()] == [target.name]

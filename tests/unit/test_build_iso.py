"""The ISO and its papers; the old one stays until the new one is whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from build_plans import MIB, Told, package, plan_of
from cornerstone.customize.iso_image import Image
from cornerstone.factory.build import build as build_module
from cornerstone.factory.build.build import is_current, iso_path, remember, write_iso
from cornerstone.factory.iso import mastering
from cornerstone.factory.signing import signing
from cornerstone.factory.signing.signing import SoftwareKey, check_signature
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.contracts.manifest import CVM, HYPERVISOR, NAME, SIGNATURE_NAME, SITE_AREA, Manifest
from cornerstone.model.contracts.site_area import pack


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
    assert mastering.read_back(target, manifest) == []
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


def test_m3_the_boot_menu_does_not_search_for_a_mark_that_is_rarely_there(workspace, layers, tmp_path):
    """GRUB's `search` calls it an error to find nothing, and that would be the first line of each boot."""
    target = tmp_path / "out" / "foundation-x.iso"
    write_iso(plan_of(workspace), layers, target, tmp_path / "work", Told())
    with contextlib.closing(Image(target)) as image:
        menu = image.content("boot/grub/grub.cfg").decode()
    searches = [line.split()[-1] for line in menu.splitlines() if line.strip().startswith("search ")]
    assert [path.startswith("/.disk/") for path in searches] == [True]
    assert "cornerstone/installed" in menu


def test_what_is_missing_beside_a_current_iso_is_written_anew(workspace, layers, tmp_path):
    plan = plan_of(workspace, packages=(package("jq", 7),))
    target = iso_path(workspace, plan.profile)
    remember(plan, target, write_iso(plan, layers, target, tmp_path / "work", Told()), {})
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


@pytest.fixture
def attacked(workspace, layers, tmp_path):
    """A built ISO, its plan, and the attack of somebody who may write there but hasn't the key."""
    plan = plan_of(workspace, packages=(package("jq", 7),))
    target = iso_path(workspace, plan.profile)
    remember(plan, target, write_iso(plan, layers, target, tmp_path / "work", Told()), {})

    def attack(*, record: bool = True, at: str = HYPERVISOR) -> None:
        before = target.stat()
        with contextlib.closing(Image(target)) as image:
            place = image.place(at).start
        with target.open("r+b") as file:
            file.seek(place)
            file.write(b"EVIL")
        os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
        if record:
            path = target.with_name("build.json")
            content = json.loads(path.read_text())
            content["evidence"]["sha256"] = hashlib.sha256(target.read_bytes()).hexdigest()
            path.write_text(json.dumps(content))
        target.with_name("report.md").unlink()
    return plan, target, attack


def nothing_is_signed_over(target, sums):
    assert target.with_name("SHA256SUMS").read_bytes() == sums
    assert not target.with_name("report.md").exists()


@pytest.mark.parametrize("record", [True, False], ids=["record too", "ISO alone"])
def test_a5_a_changed_iso_gets_no_signature(attacked, record):
    plan, target, attack = attacked
    sums = target.with_name("SHA256SUMS").read_bytes()
    attack(record=record)
    assert is_current(plan, target), "it looks as it was left"
    told = Told()
    assert not build_module.mend_evidence(plan, target, told)
    assert ("iso", "warning") in told
    nothing_is_signed_over(target, sums)
    assert not is_current(plan, target), "it is made again"


def test_a5_a_commit_of_somebody_s_own_is_not_signed(attacked):
    """The provenance's source comes from the record, too."""
    plan, target, _ = attacked
    path = target.with_name("build.json")
    content = json.loads(path.read_text())
    content["evidence"]["source"] = {"name": "source", "digest": {"gitCommit": "f" * 40}}
    path.write_text(json.dumps(content))
    target.with_name("report.md").unlink()
    assert not build_module.mend_evidence(plan, target, Told())


def test_a5_a_record_that_another_key_sealed_is_none(attacked, workspace):
    plan, target, _ = attacked
    record = json.loads(target.with_name("build.json").read_text())
    other = SoftwareKey(Ed25519PrivateKey.generate(), "development")
    target.with_name("build.json").write_text(json.dumps(signing.sealed(record, build_module.SEALED, other)))
    target.with_name("report.md").unlink()
    assert not build_module.mend_evidence(plan, target, Told())


def test_a5_a_seal_of_a_layer_seals_no_build(attacked):
    plan, target, _ = attacked
    record = json.loads(target.with_name("build.json").read_text())
    assert not signing.is_sealed(signing.sealed(record, "layer", plan.key), "build", plan.key.public_pem())
    assert signing.is_sealed(signing.sealed(record, "build", plan.key), "build", plan.key.public_pem())


def test_a5_a_customised_iso_is_told_apart_and_not_built_away(attacked):
    """The site area isn't signed, so a site is no change; one that was changed elsewhere, too, is an error."""
    plan, target, attack = attacked
    before = target.stat()
    with contextlib.closing(Image(target)) as image:
        place = image.place(SITE_AREA)
    with target.open("r+b") as file:
        file.seek(place.start)
        file.write(pack(b"{}", place.size))
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    target.with_name("report.md").unlink()
    assert build_module.mend_evidence(plan, target, Told())
    assert target.with_name("report.md").exists()
    attack()
    with pytest.raises(CornerstoneError, match="isn't known|isn't the ISO|no record") as caught:
        build_module.mend_evidence(plan, target, Told())
    assert caught.value.code is Code.VERIFY
    assert target.exists()


@pytest.mark.parametrize("name", ["hypervisor/hypervisor.squashfs", "hypervisor-boot/vmlinuz",
                                  "hypervisor-boot/cd.img", "hypervisor-boot/boot_hybrid.img"])
def test_a7_what_is_signed_is_what_the_store_has_read(workspace, layers, tmp_path, name):
    contents = {path: (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
                for folder in layers.values() for path in folder.iterdir()}
    path, target = tmp_path / "layers" / name, tmp_path / "x.iso"
    write_iso(plan_of(workspace), layers, target, tmp_path / "work", Told(), contents)
    target.unlink()
    content = path.read_bytes()
    path.write_bytes(b"EVIL" + content[4:])
    with pytest.raises(CornerstoneError, match=f"{path.name} was changed while the ISO was made") as caught:
        write_iso(plan_of(workspace), layers, target, tmp_path / "work", Told(), contents)
    assert caught.value.code is Code.VERIFY
    assert not target.exists()


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
        monkeypatch.setattr(mastering, "read_back", lambda *_: ["layer cvm.qcow2 does not match the manifest"])
    elif fault == "evidence":
        monkeypatch.setattr(build_module.evidence, "write", fail)
    else:
        monkeypatch.setattr(mastering, "master", fail)
    with pytest.raises((CornerstoneError, OSError, KeyboardInterrupt)) as caught:
        write_iso(plan_of(workspace), layers, target, tmp_path / "work", Told())
    if fault == "read back":
        assert caught.value.message == "the ISO read back wrong: layer cvm.qcow2 does not match the manifest"
        assert caught.value.code is Code.VERIFY
    assert target.read_bytes() == b"the old one"
    assert [p.name for p in target.parent.iterdir()] == [target.name]

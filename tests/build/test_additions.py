"""A profile with a package, files and kernel arguments of its own, locked, built and read back for real."""

from __future__ import annotations

import contextlib
import json

import pytest

from cornerstone.customize.iso_image import Image
from cornerstone.factory.build.build import build
from cornerstone.factory.build.plan import make_plan
from cornerstone.factory.build.reproduce import copy_checkout
from cornerstone.factory.diff import diff_isos
from cornerstone.factory.diff.packages import STATUS, versions
from cornerstone.factory.inspection.roots import copy_disk
from cornerstone.factory.inspection.tree import read_tree
from cornerstone.factory.packages.lock import read_lock, update_locks
from cornerstone.factory.settings import Workspace
from cornerstone.factory.signing.signing import signing_key
from cornerstone.factory.verify.boot_checks import fat
from cornerstone.factory.verify.verify import verify_iso
from cornerstone.lib.error import CornerstoneError
from cornerstone.model.contracts.manifest import CVM, HYPERVISOR
from cornerstone.model.profile.profile import load_profile

pytestmark = pytest.mark.nightly

PROFILE = """extends: aos-6.8
hypervisor:
  extra:
    packages: [tree]
    files: added
    replace: [etc/logrotate.conf]
    kernel_arguments: [pci=noaer, cpuidle.off=1]
cvm:
  extra:
    kernel_arguments: [cpuidle.off=1]
"""


@pytest.fixture
def checkout(iso, tmp_path, request, monkeypatch) -> Workspace:
    """A copy of the checkout with a profile of its own, the cache that the tier shares, and the CVM's root in it."""
    root = request.config.rootpath
    monkeypatch.setenv("CORNERSTONE_CACHE", str(Workspace(root).cache))
    copy_checkout(root, tmp_path / "checkout")
    added = tmp_path / "checkout/profiles/added"
    (added / "usr/bin").mkdir(parents=True)
    (added / "etc/site.d").mkdir(parents=True)
    (added / "usr/bin/show-node").write_text("#!/bin/sh\nexec tree /etc/site.d\n")
    (added / "usr/bin/show-node").chmod(0o700)
    (added / "usr/bin/node").symlink_to("show-node")
    (added / "etc/site.d/words").write_text("of this site\n")
    (added / "etc/site.d/words").chmod(0o666)
    (added / "etc/logrotate.conf").write_text("weekly\nrotate 8\ncreate\ninclude /etc/logrotate.d\n")
    (tmp_path / "checkout/profiles/mine.yaml").write_text(PROFILE)
    return Workspace(tmp_path / "checkout")


def test_additions_are_locked_built_and_told(iso, checkout, tmp_path, capsys):
    events = []
    before = load_profile("mine", checkout.root)
    with pytest.raises(CornerstoneError, match="mine-hypervisor.lock is missing") as caught:
        build(checkout, before, events.append)
    assert caught.value.hint == "run: ./invoke lock --profile mine"
    said = update_locks(checkout, "trixie", again=False, profile=before)
    assert said[0].startswith("mine-hypervisor.lock: ") and said[1] == "trixie-cvm.lock: fits, nothing to do"

    # first with a file that a package has, which is refused once the root's packages are there
    taken = checkout.root / "profiles/added/usr/bin/tree"
    taken.write_text("#!/bin/sh\n")
    with pytest.raises(CornerstoneError) as caught:
        build(checkout, load_profile("mine", checkout.root), events.append)
    assert caught.value.message == ("files of .hypervisor.extra don't fit the hypervisor root: "
                                    "usr/bin/tree is there already, from the package tree")
    taken.unlink()

    profile = load_profile("mine", checkout.root)
    made = build(checkout, profile, events.append)
    done = {event.step for event in events if event.state == "done"}
    # the CVM's root is the one that is there, and its disk may be, from an earlier run
    assert {"hypervisor", "iso"} <= done and not done & {"cvm", "cvm-boot"}

    plan = make_plan(checkout, profile, signing_key(checkout.cache))
    lock = read_lock(checkout.locks, "hypervisor", "trixie", profile)
    tree_version = {package.name: package.version for package in lock.packages}["tree"]
    with contextlib.closing(Image(made)) as image:
        extra = image.manifest.profile["hypervisor"]["extra"]
        menu = image.content("boot/grub/grub.cfg").decode()
        place, disk_place = (image.rock_ridge.files[path] for path in (HYPERVISOR, CVM))
    assert extra == {"packages": ["tree"], "files": profile.hypervisor.extra.files.sha256,
                     "replace": ["etc/logrotate.conf"], "kernel_arguments": ["pci=noaer", "cpuidle.off=1"]}
    assert " audit=0 pci=noaer cpuidle.off=1 $kernel_arguments" in menu

    with contextlib.closing(read_tree(made, place.start, tmp_path)) as root:
        for path, mode in (("usr/bin/show-node", 0o755), ("etc/site.d/words", 0o644), ("etc/logrotate.conf", 0o644)):
            file = root.files[path]
            assert (path, file.kind, file.mode, file.uid, file.gid) == (path, "file", mode, 0, 0)
            assert root.read(path) == (checkout.root / "profiles/added" / path).read_bytes()
        assert root.link("usr/bin/node") == "show-node"
        assert root.is_file("usr/bin/tree") and root.files["etc/site.d"].mode == 0o755
        assert versions({STATUS: root.read(STATUS)})["tree"] == tree_version

    bill = json.loads(made.with_name("sbom-hypervisor.cdx.json").read_bytes())["components"]
    assert {part["name"]: part["version"] for part in bill if "purl" in part}["tree"] == tree_version
    files = {part["name"]: part["hashes"][0]["content"] for part in bill if part["type"] == "file" and "hashes" in part}
    assert files == {entry.path: entry.content for entry in profile.hypervisor.extra.files.entries
                     if entry.kind != "link"}
    assert plan.layers["hypervisor"].inputs["extra files"] == profile.hypervisor.extra.files.sha256

    disk = copy_disk(made, disk_place, tmp_path / "cvm.raw")
    slots = fat(disk.path, disk.partition("esp").start, "mtype", "::/boot/grub/grub.cfg").decode()
    assert slots.count(" systemd.show_status=error cpuidle.off=1\n") == 2
    disk.path.unlink()

    capsys.readouterr()
    assert verify_iso(made) == 0
    capsys.readouterr()
    diff_isos(iso, made, tmp_path / "diff", format="json", files=True)
    found = json.loads(capsys.readouterr().out)
    assert {change["name"] for change in found["manifest"]} >= {f"profile.hypervisor.extra.{key}" for key in extra}
    packages = {package["name"]: package for root in found["roots"] if root["name"] == "hypervisor"
                for package in root["packages"]}
    assert packages["tree"]["state"] == "added"
    assert {"usr/bin/show-node", "etc/site.d/words"} <= {file["path"] for file in packages[""]["files"]}

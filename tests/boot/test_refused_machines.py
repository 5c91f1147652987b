"""Refusals that need a machine, or an ISO, of their own: no IOMMU, disks of one serial behind an HBA, a disk that is
swapped while the text screen waits, a layer that doesn't fit. Nothing is written.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from cornerstone.customize.customize import customize
from cornerstone.customize.iso_image import Image
from cornerstone.factory.settings import Workspace
from cornerstone.factory.signing.signing import signing_key
from cornerstone.lab.boot import follow
from cornerstone.lab.hotplug import plug, pull
from cornerstone.lab.install import TO_INSTALLED, Run, started
from cornerstone.lab.shape import DiskShape, load_shape
from cornerstone.lab.verdict import Goal, Judge, Leg, Limits, Verdict
from cornerstone.model.contracts.manifest import NAME, SIGNATURE_NAME
from refused import refused, written_to

ROOT = Path(__file__).resolve().parents[2]


def refusal(run: Run) -> Verdict:
    """How a run's machine ends, and that nothing was written."""
    try:
        with started(run, (TO_INSTALLED,)) as outcome:
            names = [disk.name for disk in run.shape.disks]
            assert written_to(outcome.running, *names) == dict.fromkeys(names, 0)
            return outcome.verdict
    finally:
        run.remove_secrets()


def test_no_iommu(iso, site_file, runs):
    shape = load_shape("one-node").model_copy(update={"iommu": False})
    run = Run.prepare(runs / "no-iommu", shape, site_file.read_bytes(), lambda site, to: customize(iso, site, to),
                      "uefi", "usb")
    # no controller can be passed through then: what follows from it is told beside it
    refused(refusal(run), "plan", r"hw\.iommu: the firmware offers no IOMMU; also hw\.passthrough: "
            r"0000:00:1f\.2 \[8086:2922\] has no IOMMU group; 0000:01:00\.0 \[1af4:1048\] has no IOMMU group")


@pytest.mark.nightly
def test_d1_an_hba_whose_disks_share_a_serial(iso, site_file, runs):
    """The site names one of the two by its WWN; behind the HBA the CVM would have to go by the serial."""
    site = json.loads(site_file.read_bytes())
    site["blocks"][0]["nodes"][0]["cornerstone"]["data_disks"] = [{"wwn": "naa.5000c5001ab10002"}]
    run = Run.prepare(runs / "twins", load_shape("twins"), json.dumps(site).encode(),
                      lambda site, to: customize(iso, site, to), "uefi", "cd")
    refused(refusal(run), "plan", r"disk\.ambiguous: sd[a-z] LAB SSD, 8\.0 GiB, serial 0000, naa\.5000c5001ab10002, "
            r"has the serial of sd[a-z] \(naa\.5000c5001ab10001\)")


# Enter for the default; the last, which confirms all, comes after the swap
ANSWERS = ("", "", "10.20.0.1/24", "", "10.20.0.11", "", "LAB-1-BOOT", "", "", "", "", "")


@pytest.mark.nightly
def test_d4_a_disk_swapped_while_the_text_screen_waits(iso, site_file, runs, tmp_path):
    """The new one has the old one's serial, size and place, and somebody's file system."""
    shape = load_shape("cage")
    cage, other = shape.controllers
    boot = DiskShape(name="boot", size="32 GiB", serial="LAB-1-BOOT")
    shape = shape.model_copy(update={"controllers": (cage.model_copy(update={"disks": (boot,)}), other)})
    run = Run.prepare(runs / "swapped", shape, site_file.read_bytes(), lambda _, to: shutil.copyfile(iso, to),
                      "uefi", "cd")

    def until(goal: Goal) -> Verdict:
        judge = Judge("uefi", (Leg((goal,)),), Limits.of(outcome.verdict.accel), time.monotonic())
        follow(outcome.running, judge)
        return judge.verdict("cd", outcome.verdict.accel, time.monotonic(), run.folder)
    try:
        with started(run, (Leg((Goal("foundation", "screen", "waiting", name="asks"),)),)) as outcome:
            outcome.check()
            outcome.running.type("".join(f"{answer}\r" for answer in ANSWERS))
            assert until(Goal(console=re.compile("Type yes to go on"), name="answered")).ok
            # docs/foundation.png is the upper left of this
            outcome.running.save_picture(run.folder / "screen.png")
            pull(outcome.running, "boot")
            plug(outcome.running, "hba0", "new", full_image(tmp_path / "new.qcow2"), serial="LAB-1-BOOT")
            outcome.running.type("yes\r")
            verdict = until(Goal("foundation", "image", "started", name="writes"))
            assert written_to(outcome.running, "data", "new") == {"data": 0, "new": 0}
    finally:
        run.remove_secrets()
    # without a site nobody has given the CVM less memory than the profile does
    refused(verdict, "plan", r"hw\.memory: .*; also disk\.not-empty: sd[a-z] .*serial LAB-1-BOOT isn't empty: ext4")


def full_image(path: Path) -> Path:
    """A disk of 32 GiB with a file system."""
    raw = path.with_suffix(".raw")
    with raw.open("wb") as file:
        file.truncate(32 << 30)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "photos", raw], check=True)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, path], check=True)
    raw.unlink()
    return path


@pytest.fixture
def narrow_iso(iso, tmp_path):
    """An ISO whose profile has root slots of 256 MiB, signed: the factory makes none whose layers don't fit."""
    copy = tmp_path / "narrow.iso"
    shutil.copyfile(iso, copy)
    image = Image(iso)
    places, manifest = [image.place(path) for path in (NAME, SIGNATURE_NAME)], image.content(NAME)
    image.close()
    wide, narrow = b'"hypervisor": {"root_slot": 2147483648}', b'"hypervisor": {"root_slot":  268435456}'
    assert manifest.count(wide) == 1
    manifest = manifest.replace(wide, narrow)
    key = signing_key(Workspace(ROOT).cache)
    with copy.open("r+b") as file:
        for place, content in zip(places, (manifest, key.sign(manifest)), strict=True):
            file.seek(place.start)
            file.write(content)
    yield copy
    copy.unlink()


def test_a_layer_that_does_not_fit(narrow_iso, site_file, runs):
    run = Run.prepare(runs / "narrow", load_shape("one-node"), site_file.read_bytes(),
                      lambda site, to: customize(narrow_iso, site, to), "secureboot", "cd")
    refused(refusal(run), "plan",
            r"layer\.fit: hypervisor\.squashfs has \d+ MiB and doesn't fit a root slot of 256 MiB")

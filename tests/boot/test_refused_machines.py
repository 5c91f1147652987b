"""Refusals that need a machine, or an ISO, of their own: no IOMMU, and a layer that doesn't fit. Nothing is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cornerstone.factory.customize import customize
from cornerstone.factory.iso_image import Image
from cornerstone.factory.settings import Workspace
from cornerstone.factory.signing import signing_key
from cornerstone.lab.install import TO_INSTALLED, Run, started
from cornerstone.lab.shape import load_shape
from cornerstone.lab.verdict import Verdict
from cornerstone.model.manifest import NAME, SIGNATURE_NAME
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

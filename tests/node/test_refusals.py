"""What a machine refuses to become a node for: each time one exact reason, by its id, and nothing is written.

One machine runs through all cases that only differ in disks and site: the tests put disks and a volume with the site
into it while it runs, and press Enter, upon which it looks again.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cornerstone.factory.customize import customize
from cornerstone.factory.iso_image import Image
from cornerstone.factory.settings import Workspace
from cornerstone.factory.signing import signing_key
from cornerstone.lab.boot import follow
from cornerstone.lab.hotplug import plug, unplug
from cornerstone.lab.install import TO_INSTALLED, Run, started
from cornerstone.lab.network import resolver
from cornerstone.lab.running import RunningMachine
from cornerstone.lab.shape import load_shape
from cornerstone.lab.verdict import Goal, Judge, Leg, Limits, Verdict
from cornerstone.model.error import Code
from cornerstone.model.manifest import NAME, SIGNATURE_NAME

GIB = 1 << 30
WRITES = Leg((Goal("foundation", "image", "started", name="writes"),))


@dataclass(frozen=True)
class Disk:
    """What is put in: its size, its serial, and whether somebody's file system is on it."""

    serial: str = "LAB-1-BOOT"
    size: int = 32 * GIB
    full: bool = False


@dataclass(frozen=True)
class Case:
    """node, extra: what the site says otherwise, of the node and below its key cornerstone."""

    says: str
    step: str = "plan"
    disks: tuple[Disk, ...] = (Disk(),)
    node: dict = field(default_factory=dict)
    extra: dict = field(default_factory=dict)
    block: str = "LAB"


# Each is the whole of what Foundation says: a second refusal beside it fails the test.
CASES = {
    "two candidates": Case(r"disk\.boot-choice: 2 disks could be the boot disk, exactly one must:"
                           r"\n  sd[a-z] .*serial B-1\n  sd[a-z] .*serial B-2",
                           disks=(Disk("B-1"), Disk("B-2")), extra={"boot_disk": None}),
    "somebody's data": Case(r"disk\.not-empty: sd[a-z] .*serial LAB-1-BOOT isn't empty: ext4",
                            disks=(Disk(full=True),)),
    "no serial": Case(r"hw\.boot-disk: no disk is fit: .*sd[a-z] has no serial.*", disks=(Disk(""),),
                      extra={"boot_disk": None}),
    "too little memory": Case(r"hw\.memory: 7\.\d GiB, below 22\.0: 20\.0 for the Controller VM and 2\.0 for the host",
                              node={"cvm_gb_ram": 20}),
    "unknown serial": Case(r"node\.identity: no node of the site matches this machine \(serial LAB-1; .*",
                           node={"node_serial": "OTHER"}, block="OTHER"),
    "duplicate address": Case(r"address\.duplicate: lab-1's hypervisor address 10\.20\.0\.2 is in use by "
                              r"52:55:0a:14:00:02, heard on \w+", step="address",
                              node={"hypervisor_ip": "10.20.0.2"}),
    "wrong token": Case(r"disk\.token: the site's token for sd[a-z] .*serial LAB-1-BOOT is for another disk",
                        disks=(Disk(full=True),), extra={"erase_tokens": {"LAB-1-BOOT": "0123456789ab"}}),
    "a disk that is too small": Case(r"hw\.boot-disk: no disk is fit: .*sd[a-z] has 16\.0 GiB, below 26\.3.*",
                                     disks=(Disk(size=16 * GIB),), extra={"boot_disk": None}),
}


def refused(verdict: Verdict, step: str, says: str) -> None:
    """The machine has refused, at that step, for that reason and no other."""
    assert not verdict.ok and verdict.reason == "guest-failed", verdict.sentence
    assert re.fullmatch(rf"foundation/{step} failed: {says}", verdict.sentence), verdict.sentence
    assert "; also " not in verdict.sentence
    assert verdict.hint and verdict.code == Code.REFUSED


def site_of(case: Case, site_file: Path) -> dict:
    site = json.loads(site_file.read_bytes())
    site["blocks"][0]["block_id"] = case.block
    node = site["blocks"][0]["nodes"][0]
    node.update(case.node)
    extra = node["cornerstone"] | case.extra
    node["cornerstone"] = {name: value for name, value in extra.items() if value is not None}
    return site


def site_volume(folder: Path, site: dict) -> Path:
    """A FAT volume with a site file, as somebody brings it on a stick."""
    raw, image = folder / "site.raw", folder / "site.qcow2"
    (folder / "site.json").write_text(json.dumps(site))
    raw.unlink(missing_ok=True)
    subprocess.run(["mkfs.vfat", "-C", "-n", "FOUND-SITE", raw, "1024"], check=True, capture_output=True)
    subprocess.run(["mcopy", "-i", raw, folder / "site.json", "::site.json"], check=True)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, image], check=True)
    return image


def disk_image(path: Path, disk: Disk) -> Path:
    if disk.full:
        raw = path.with_suffix(".raw")
        with raw.open("wb") as file:
            file.truncate(disk.size)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "photos", raw], check=True)
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, path], check=True)
        raw.unlink()
    else:
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(disk.size)], check=True)
    return path


def written_to(running: RunningMachine, *disks: str) -> dict[str, int]:
    """How many bytes each disk was written, by its name."""
    told = {each["device"] or each["node-name"]: each["stats"]["wr_bytes"] for each in running.ask("query-blockstats")}
    return {name: told[name] for name in disks}


@pytest.fixture(scope="module")
def machine(iso, site_file, runs):
    """A machine without a disk to boot from: it has refused for that, and may look again."""
    run = Run.prepare(runs / "refusals", load_shape("cage"), site_file.read_bytes(),
                      lambda site, to: customize(iso, site, to), "uefi", "cd")
    try:
        with started(run, (TO_INSTALLED,)) as outcome:
            yield outcome
    finally:
        run.remove_secrets()


def test_a_machine_without_a_boot_disk(machine):
    assert re.match(r"foundation/plan failed: hw\.boot-disk: no disk is fit", machine.verdict.sentence)
    assert machine.verdict.code == Code.REFUSED


@pytest.mark.parametrize("name", CASES)
def test_refused(machine, site_file, name, tmp_path):
    case, running = CASES[name], machine.running
    plug(running, "hba0", "site", site_volume(tmp_path, site_of(case, site_file)), serial="SITE")
    for number, disk in enumerate(case.disks, 1):
        plug(running, "hba0", f"disk{number}", disk_image(tmp_path / f"{number}.qcow2", disk), serial=disk.serial,
             place=number)
    running.type("\r")
    judge = Judge("uefi", (WRITES,), Limits.of(machine.verdict.accel), time.monotonic())
    follow(running, judge)
    verdict = judge.verdict("cd", machine.verdict.accel, time.monotonic(), machine.run.folder)
    plugged = ["site", *(f"disk{number}" for number, _ in enumerate(case.disks, 1))]
    written = written_to(running, "data", *plugged)
    for name in plugged:
        unplug(running, name)
    refused(verdict, case.step, case.says)
    assert written == dict.fromkeys(["data", *plugged], 0)


def test_the_duplicate_is_the_address_at_which_the_network_answers(machine):
    assert str(resolver(machine.run.site, machine.run.node)) == CASES["duplicate address"].node["hypervisor_ip"]


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
    verdict = refusal(run)
    # no controller can be passed through then: what follows from it is told beside it
    assert re.fullmatch(r"foundation/plan failed: hw\.iommu: the firmware offers no IOMMU; also hw\.passthrough: "
                        r"0000:\S+ \[1af4:1048\] has no IOMMU group", verdict.sentence), verdict.sentence
    assert verdict.hint and verdict.code == Code.REFUSED


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
    key = signing_key(Workspace(Path(__file__).resolve().parents[2]).cache)
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

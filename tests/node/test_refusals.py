"""What a machine refuses to become a node for: each time one exact reason, by its id, and nothing is written.

One machine runs through all cases that only differ in disks and site: the tests put disks and a volume with the site
into it while it runs, and press Enter, upon which it looks again.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cornerstone.factory.customize import customize
from cornerstone.lab.boot import follow
from cornerstone.lab.hotplug import plug, unplug
from cornerstone.lab.install import TO_INSTALLED, Run, started
from cornerstone.lab.network import resolver
from cornerstone.lab.shape import load_shape
from cornerstone.lab.verdict import Goal, Judge, Leg, Limits
from cornerstone.model.error import Code

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


CASES = {
    "two candidates": Case(r"disk\.boot-choice: 2 disks could be the boot disk, exactly one must:.*B-1.*B-2",
                           disks=(Disk("B-1"), Disk("B-2")), extra={"boot_disk": None}),
    "somebody's data": Case(r"disk\.not-empty: .*LAB-1-BOOT.*isn't empty: .*ext4", disks=(Disk(full=True),)),
    "no serial": Case(r"hw\.boot-disk: no disk is fit: .*has no serial", disks=(Disk(""),)),
    "unknown serial": Case(r"node\.identity: no node of the site matches this machine \(serial LAB-1;",
                           node={"node_serial": "OTHER"}, block="OTHER"),
    "duplicate address": Case(r"10\.20\.0\.2\b.*52:55:0a:14:00:02", step="address",
                              node={"hypervisor_ip": "10.20.0.2"}),
    "wrong token": Case(r"disk\.token: the site's token for .*LAB-1-BOOT.* is for another disk",
                        disks=(Disk(full=True),), extra={"erase_tokens": {"LAB-1-BOOT": "0123456789ab"}}),
    "a layer that doesn't fit": Case(r"hw\.boot-disk: no disk is fit: .*has 16\.0 GiB, below 26\.3",
                                     disks=(Disk(size=16 * GIB),)),
}


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


@pytest.fixture(scope="module")
def machine(iso, site_file, runs):
    """A machine without a disk to boot from: it has refused for that, and may look again."""
    run = Run.prepare(runs / "refusals", load_shape("cage"), site_file.read_bytes(),
                      lambda site, to: customize(iso, site, to), "bios", "cd")
    try:
        with started(run, (TO_INSTALLED,)) as outcome:
            yield outcome
    finally:
        run.remove_secrets()


def test_a_machine_without_a_boot_disk(machine):
    verdict = machine.verdict
    assert not verdict.ok
    assert re.search(r"foundation/plan failed: hw\.boot-disk: no disk is fit", verdict.sentence)
    assert verdict.code == Code.REFUSED


@pytest.mark.parametrize("name", CASES)
def test_refused(machine, site_file, name, tmp_path):
    case, running = CASES[name], machine.running
    plug(running, "hba0", "site", site_volume(tmp_path, site_of(case, site_file)), serial="SITE")
    for number, disk in enumerate(case.disks, 1):
        plug(running, "hba0", f"disk{number}", disk_image(tmp_path / f"{number}.qcow2", disk), serial=disk.serial,
             place=number)
    running.type("\r")
    judge = Judge("bios", (WRITES,), Limits.of(machine.verdict.accel), time.monotonic())
    follow(running, judge)
    verdict = judge.verdict("cd", machine.verdict.accel, time.monotonic(), machine.run.folder)
    written = {each["device"]: each["stats"]["wr_bytes"] for each in running.ask("query-blockstats")}
    for plugged in ["site", *(f"disk{number}" for number, _ in enumerate(case.disks, 1))]:
        unplug(running, plugged)
    assert not verdict.ok and verdict.reason == "guest-failed", verdict.sentence
    assert re.search(rf"^foundation/{case.step} failed: {case.says}", verdict.sentence, re.S), verdict.sentence
    assert verdict.hint and verdict.code == Code.REFUSED
    assert set(written.values()) == {0}


def test_the_duplicate_is_the_address_at_which_the_network_answers(machine):
    assert str(resolver(machine.run.site, machine.run.node)) == CASES["duplicate address"].node["hypervisor_ip"]


def test_a_machine_that_lacks_nearly_everything_is_told_all_of_it(iso, site_file, runs):
    run = Run.prepare(runs / "nothing-right", load_shape("nothing-right"), site_file.read_bytes(),
                      lambda site, to: customize(iso, site, to), "uefi", "usb")
    try:
        with started(run, (TO_INSTALLED,)) as outcome:
            verdict = outcome.verdict
    finally:
        run.remove_secrets()
    assert not verdict.ok and verdict.reason == "guest-failed", verdict.sentence
    assert verdict.sentence.startswith("foundation/plan failed: ")
    for says in (r"hw\.iommu: the firmware offers no IOMMU", r"hw\.cores: 1 thread, below 2",
                 r"hw\.memory: 2\.\d GiB, below 6\.0", r"hw\.boot-disk: no disk is fit: .*has no serial",
                 r"hw\.nic: there is none"):
        assert re.search(says, verdict.sentence, re.S), says
    assert verdict.code == Code.REFUSED

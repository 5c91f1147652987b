"""What a machine refuses to become a node for: each time one exact reason, by its id, and nothing is written.

One machine runs through all cases that only differ in disks and site: the tests put disks and a disc with the site into
it while it runs, and press Enter, upon which it looks again. Its ISO has no site, as two different ones are refused.
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

from cornerstone.lab.boot import follow
from cornerstone.lab.hotplug import plug, pull, unplug
from cornerstone.lab.install import TO_INSTALLED, Run, started
from cornerstone.lab.network import resolver
from cornerstone.lab.shape import DiskShape, load_shape
from cornerstone.lab.verdict import Goal, Judge, Leg, Limits
from cornerstone.lib.error import Code
from refused import hear_out, prompts, refused, written_to

GIB = 1 << 30
WRITES = Leg((Goal("foundation", "image", "started", name="writes"),))


@dataclass(frozen=True)
class Disk:
    """What is put in: its size, its serial and WWN, and whether somebody's file system is on it."""

    serial: str = "LAB-1-BOOT"
    size: int = 32 * GIB
    full: bool = False
    wwn: str = ""


@dataclass(frozen=True)
class Case:
    """node, extra: what the site says otherwise, of the node and below its key cornerstone."""

    says: str
    step: str = "plan"
    disks: tuple[Disk, ...] = (Disk(),)
    node: dict = field(default_factory=dict)
    extra: dict = field(default_factory=dict)
    block: str = "LAB"


# of the disks that are there beside the one that is meant
NO_DISK = r"hw\.boot-disk: no disk is fit: (?:sd[a-z] has [08]\.0 GiB, below 26\.3; )*sd[a-z] "
OTHERS = r"(?:; sd[a-z] has [08]\.0 GiB, below 26\.3)*"
WWN = r"(?:no WWN|naa\.5000c5001ab1000a)"
TWIN = (rf"disk\.ambiguous: sd[a-z] QEMU HARDDISK, [89]\.0 GiB, serial LAB-1-DATA, {WWN}, has the serial of sd[a-z] "
        rf"\({WWN}\)")
# Each is the whole of what Foundation says: a second refusal beside it fails the test.
CASES = {
    "two candidates": Case(r"disk\.boot-choice: 2 disks could be the boot disk, exactly one must:"
                           r"\n  sd[a-z] .*serial B-1\n  sd[a-z] .*serial B-2",
                           disks=(Disk("B-1"), Disk("B-2")), extra={"boot_disk": None}),
    "somebody's data": Case(r"disk\.not-empty: sd[a-z] .*serial LAB-1-BOOT isn't empty: ext4",
                            disks=(Disk(full=True),)),
    "no serial": Case(NO_DISK + "has no serial" + OTHERS, disks=(Disk(""),), extra={"boot_disk": None}),
    "too little memory": Case(r"hw\.memory: 7\.\d GiB, below 22\.0: 20\.0 for the Controller VM and 2\.0 for the host",
                              node={"cvm_gb_ram": 20}),
    "unknown serial": Case(r"node\.identity: no node of the site matches this machine \(serial LAB-1; block LAB; "
                           r"position A; MACs 52:54:00:4c:00:01\):\n  lab-1 \(block OTHER, position A, serial OTHER\)",
                           node={"node_serial": "OTHER"}, block="OTHER"),
    "duplicate address": Case(r"address\.duplicate: lab-1's hypervisor address 10\.20\.0\.2 is in use by "
                              r"52:55:0a:14:00:02, heard on \w+", step="address",
                              node={"hypervisor_ip": "10.20.0.2"}),
    "wrong token": Case(r"disk\.token: the site's token for sd[a-z] .*serial LAB-1-BOOT is for another disk or other "
                        r"contents than ext4",
                        disks=(Disk(full=True),), extra={"erase_tokens": {"LAB-1-BOOT": "0123456789ab"}}),
    "one serial for two disks": Case(f"{TWIN}; also {TWIN}",
                                     disks=(Disk(), Disk("LAB-1-DATA", 9 * GIB, wwn="0x5000c5001ab1000a"))),
    "a disk that is too small": Case(NO_DISK + r"has 16\.0 GiB, below 26\.3" + OTHERS,
                                     disks=(Disk(size=16 * GIB),), extra={"boot_disk": None}),
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
    """A FAT volume with a site file, as somebody brings it."""
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
def machine(iso, site_file, runs, tmp_path_factory):
    """A machine without a disk to boot from: it has refused for that, and may look again. Its drive is out by then."""
    shape = load_shape("cage")
    cage, other = shape.controllers
    disc = DiskShape(name="disc", size="1 MiB", optical=True)
    shape = shape.model_copy(update={"controllers": (cage.model_copy(update={"disks": (disc,)}), other)})
    run = Run.prepare(runs / "refusals", shape, site_file.read_bytes(), lambda _, to: shutil.copyfile(iso, to),
                      "uefi", "cd")
    shutil.copyfile(site_volume(tmp_path_factory.mktemp("disc"), json.loads(run.site_file.read_bytes())),
                    run.image("disc"))
    try:
        with started(run, (TO_INSTALLED,)) as outcome:
            assert outcome.verdict.reason == "guest-failed", outcome.verdict.sentence
            hear_out(outcome.running, 1)
            pull(outcome.running, "disc")
            yield outcome
    finally:
        run.remove_secrets()


def test_a_machine_without_a_boot_disk(machine):
    assert re.match(r"foundation/plan failed: hw\.boot-disk: no disk is fit", machine.verdict.sentence)
    assert machine.verdict.code == Code.REFUSED


@pytest.mark.parametrize("name", CASES)
def test_refused(machine, site_file, name, tmp_path):
    case, running = CASES[name], machine.running
    plug(running, "hba0", "site", site_volume(tmp_path, site_of(case, site_file)), optical=True)
    for number, disk in enumerate(case.disks, 1):
        plug(running, "hba0", f"disk{number}", disk_image(tmp_path / f"{number}.qcow2", disk), serial=disk.serial,
             wwn=disk.wwn, place=number)
    before = prompts(running)
    running.type("\r")
    judge = Judge("uefi", (WRITES,), Limits.of(machine.verdict.accel), time.monotonic())
    follow(running, judge)
    verdict = judge.verdict("cd", machine.verdict.accel, time.monotonic(), machine.run.folder)
    hear_out(running, before + 1)
    plugged = ["site", *(f"disk{number}" for number, _ in enumerate(case.disks, 1))]
    written = written_to(running, "data", *plugged)
    for name in plugged:
        unplug(running, name)
    refused(verdict, case.step, case.says)
    assert written == dict.fromkeys(["data", *plugged], 0)


def test_the_duplicate_is_the_address_at_which_the_network_answers(machine):
    assert str(resolver(machine.run.site, machine.run.node)) == CASES["duplicate address"].node["hypervisor_ip"]

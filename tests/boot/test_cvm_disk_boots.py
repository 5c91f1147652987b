"""The CVM's disk boots by itself from root slot A, with BIOS and with UEFI, up to its login, as who it is told to be.

node.json and the bootstrap secret reach it as they do from the hypervisor: the one through SMBIOS, the other through
QEMU's fw_cfg. With its data disks there, it becomes a cluster of one by itself.
"""

from __future__ import annotations

import base64
import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pycdlib
import pytest

from cornerstone.lab.boot import boot, follow
from cornerstone.lab.machine import Disk
from cornerstone.lab.verdict import Goal, Judge, Leg, Limits
from cornerstone.model.contracts.manifest import CVM
from cornerstone.model.contracts.node import DataDisk, NodeConfig
from cornerstone.model.disk.slot_disk import GRUB_CONFIGS, MIB, layout

SECRET = base64.b64encode(b"bootstrap-secret-of-this-test").decode()
MEMORY_MIB = 4096
DATA_DISK = 20 << 30
NODE = Path(__file__).resolve().parents[1] / "data/nodes/passthrough.json"
# what the CVM's console shows before a login, with the addresses that its interfaces have
ISSUE = re.compile(r"NTNX-22SM6D010001-A-CVM: eth0 10\.20\.0\.31, eth1 192\.168\.5\.2")


def credentials(folder: Path, config: str = NODE.read_text()) -> tuple[str, ...]:
    """QEMU's words for them. Another credential, systemd's own, has the console show the secret: so it has arrived."""
    (folder / "secret").write_text(f"{SECRET}\n")
    show = "C /etc/issue.d/05-test.issue - - - - /run/credentials/@system/cornerstone.bootstrap-secret"
    node = base64.b64encode(config.encode()).decode()
    return ("-smbios", f"type=11,value=io.systemd.credential.binary:cornerstone.node={node}",
            "-smbios", f"type=11,value=io.systemd.credential:tmpfiles.extra={show}",
            "-fw_cfg", f"name=opt/io.systemd.credentials/cornerstone.bootstrap-secret,file={folder / 'secret'}")


def card(number: int) -> tuple[str, ...]:
    """A network card with a link, and nobody there but QEMU."""
    return ("-netdev", f"user,id=net{number},restrict=on", "-device", f"virtio-net-pci,netdev=net{number}")


@pytest.fixture(scope="module", params=["iso", pytest.param("older_iso", marks=pytest.mark.nightly)])
def cvm_disk(request, tmp_path_factory):
    """The disk as it is on the ISO, unpacked to the raw disk that a machine sees."""
    folder = tmp_path_factory.mktemp("cvm")
    packed, raw = folder / "cvm.qcow2", folder / "cvm.raw"
    reader = pycdlib.PyCdlib()
    reader.open(str(request.getfixturevalue(request.param)))
    reader.get_file_from_iso(str(packed), rr_path=f"/{CVM}")
    reader.close()
    subprocess.run(["qemu-img", "convert", "-O", "raw", packed, raw], check=True)
    packed.unlink()
    yield raw
    raw.unlink()


@pytest.fixture(scope="module")
def waiting_disk(cvm_disk, tmp_path_factory):
    """The same disk with a menu that waits for somebody."""
    disk = tmp_path_factory.mktemp("waiting") / "cvm.raw"
    subprocess.run(["cp", "--sparse=always", cvm_disk, disk], check=True)
    at = ("-i", f"{disk}@@{layout('any', disk.stat().st_size, MIB).esp.offset}")
    for path in GRUB_CONFIGS:
        config = subprocess.run(["mtype", *at, f"::/{path}"], capture_output=True, check=True).stdout
        assert b"set timeout=1\n" in config
        subprocess.run(["mcopy", "-o", *at, "-", f"::/{path}"], check=True,
                       input=config.replace(b"set timeout=1\n", b"set timeout=-1\n"))
    yield disk
    disk.unlink()


@pytest.mark.parametrize("key", ["e", "c"])
@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_a30_nobody_edits_a_start_or_gets_a_command_line(waiting_disk, firmware, key, logs):
    def touch(running):
        running.type(key)
        judge = Judge(firmware, (Leg((Goal(console=re.compile("Enter username")),)),), Limits(60, 60),
                      time.monotonic())
        follow(running, judge)
        asked = judge.verdict("disk", "tcg", time.monotonic(), logs)
        assert asked.ok, asked.sentence
    verdict = boot(waiting_disk, firmware=firmware, media="disk", log_dir=logs, until=re.compile("Slot A"), look=touch)
    assert verdict.ok, f"{verdict.sentence}; see {verdict.console_log}"


@pytest.mark.parametrize("firmware", ["bios", "secureboot"])
def test_boots_to_its_login_as_who_it_is_told_to_be(cvm_disk, firmware, logs, tmp_path):
    verdict = boot(cvm_disk, firmware=firmware, media="disk", log_dir=logs, until=ISSUE,
                   extra=(*credentials(tmp_path), *card(0), *card(1)))
    assert verdict.ok, f"{verdict.sentence}; see {verdict.console_log}"
    assert SECRET in Path(verdict.console_log).read_text(errors="replace")


# the newer suite's does so in the tier `node`
@pytest.mark.parametrize("cvm_disk", ["older_iso"], indirect=True)
def test_becomes_a_cluster_of_one(cvm_disk, logs, tmp_path, capsys):
    disks = [Disk(tmp_path / serial, serial, "scsi") for serial in ("DATA-1", "DATA-2")]
    for disk in disks:
        with disk.path.open("wb") as file:
            file.truncate(DATA_DISK)
    config = NodeConfig.from_json(NODE.read_text())
    config = replace(
        config, cluster=replace(config.cluster, members=("10.20.0.31",), redundancy_factor=2),
        cvm=replace(config.cvm, memory=MEMORY_MIB << 20,
                           disks=tuple(DataDisk(disk.serial, "", DATA_DISK) for disk in disks)))
    told = []
    verdict = boot(cvm_disk, firmware="uefi", media="disk", memory_mib=MEMORY_MIB, log_dir=logs, disks=tuple(disks),
                   until=re.compile("genesis: ready done"), listener=told.append,
                   extra=(*credentials(tmp_path, config.to_json()), *card(0), *card(1)))
    assert verdict.ok, f"{verdict.sentence}; see {verdict.console_log}"
    took = {event.step: event.data["seconds"] for event in told if event.stage == "genesis" and event.state == "done"}
    assert {"disks", "membership", "engine", "pool", "container", "ready"} <= took.keys()
    with capsys.disabled():
        print(f"\n  ready {verdict.seconds:.0f} s after power-on; seconds by state: {took}")

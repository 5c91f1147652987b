"""What is discovered of a machine, from trees of files as the kernel shows them, and of disks, from real images."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cornerstone.foundation.installer import __main__ as live
from cornerstone.foundation.installer.discover import bmc, discover
from cornerstone.foundation.installer.discover.contents import EDGE, installed, probe, signatures
from cornerstone.foundation.installer.discover.cpu import read_cpu
from cornerstone.foundation.installer.discover.disks import disk_of, read_disks
from cornerstone.foundation.installer.discover.dmi import read_dmi
from cornerstone.foundation.installer.discover.firmware import SECURE_BOOT, read_firmware
from cornerstone.foundation.installer.discover.network import read_nics
from cornerstone.foundation.installer.discover.pci import read_pci
from cornerstone.foundation.installer.rows import rows, summary
from cornerstone.foundation.installer.telling import keep_facts
from cornerstone.model.contracts.facts import (
    Bmc,
    Clock,
    Contents,
    Cpu,
    Disk,
    Dmi,
    Facts,
    Firmware,
    Installed,
    Nic,
    NumaNode,
    PciDevice,
    Signature,
)
from cornerstone.model.disk.identity import BLUESTORE
from machine_tree import HBA, SERVER, Link, cpuinfo, pci, tree

ROOT = Path(__file__).resolve().parents[2]
UUID, NODE_ID = "6d0b5d0c-1111-4222-8333-2f2f6a0d8a11", "4a2c7a3e-6d0b-4d0c-9a51-3f2f6a0d8a11"
needs_e2fs = pytest.mark.skipif(not shutil.which("debugfs"), reason="needs e2fsprogs")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Facts:
    return discover(tree(tmp_path_factory.mktemp("server"), SERVER), medium="/dev/sr0", source="a test")


def test_identity_and_size(server):
    assert server.dmi == Dmi("Example Inc.", "Node 1", "SN123")
    assert (server.memory, server.clock.rtc, server.iommu_table, server.source) == (32 << 30, 7, "DMAR", "a test")
    assert server.firmware.version == "1.2"
    assert server.bmc == Bmc()


def test_cpu_and_numa(server):
    cpu = server.cpu
    assert (cpu.model, cpu.sockets, cpu.cores, cpu.threads, cpu.virtualisation) == (
        "Example CPU @ 2.4 GHz", 2, 4, 8, "vmx")
    assert cpu.numa == (NumaNode(0, "0-3", 2, 16 << 30), NumaNode(1, "4-7", 2, 16 << 30))


def test_pci_tree(server):
    assert server.pci_device("0000:01:00.0") == PciDevice("0000:01:00.0", "0107", "1000", "0097", "mpt3sas", 1, 1,
                                                          "0000:00:01.0")
    assert server.pci_device("0000:00:00.0") == PciDevice("0000:00:00.0", "0600", "8086", "2020", group=0)
    assert len(server.pci) == 4


def test_disks_and_nothing_else(server):
    unreadable = Contents(readable=False)
    assert server.disks == (
        Disk("sda", 7814037168 * 512, "ZC1-77", "naa.5000c50000000001", "SEAGATE", "ST4000NM0025", "sas",
             "0000:01:00.0", 512, 4096, True, contents=unreadable),
        Disk("sdb", 125045424 * 512, "", "", "ATA", "SATADOM-SH", "sata", "0000:00:1f.2", contents=unreadable))


def test_interfaces(server):
    assert server.nics == (
        Nic("eno1", "52:54:00:00:00:01", "52:54:00:00:00:01", "e1000e", "0000:00:19.0", False, 1, True, 10000),
        Nic("eno2", "52:54:00:00:00:02"), Nic("usb0", "52:54:00:00:00:03", usb=True, link=False))


def test_a_wireless_card_is_no_network_card(tmp_path):
    """It is of type Ethernet too, and nothing here joins a wireless network or can make it a port of br0."""
    cards = {f"sys/class/net/{name}/{file}": content for name in ("enp3s0", "wlp4s0")
             for file, content in (("type", "1"), ("address", "52:54:00:00:00:01"), ("device", None))}
    sys_ = tree(tmp_path, {**cards, "sys/class/net/wlp4s0/phy80211": None}) / "sys"
    assert [nic.name for nic in read_nics(sys_)] == ["enp3s0"]


def test_rows(server):
    told = dict(rows(server))
    assert told["Machine"] == "Example Inc. Node 1, serial SN123"
    assert told["CPU"] == "Example CPU @ 2.4 GHz, 8 threads, virtualisation vmx, 3 IOMMU groups"
    assert (told["Memory"], told["BMC"], told["Firmware"]) == ("32.0 GiB", "none", "BIOS")
    assert told["Disks"].startswith("sda ST4000NM0025, 3726.0 GiB, serial ZC1-77; sdb SATADOM-SH, 59.6 GiB, no serial")
    assert told["Network"].startswith("eno1 52:54:00:00:00:01 (e1000e), link up; eno2 52:54:00:00:00:02 (no driver), "
                                      "link unknown; usb0 52:54:00:00:00:03 (no driver), link down")
    assert summary(server) == {"firmware": "bios", "secure_boot": False, "memory": 32 << 30, "threads": 8,
                               "virtualisation": "vmx", "disks": 2, "nics": 3}


def test_a_machine_that_tells_nothing(tmp_path):
    facts = discover(tmp_path)
    told = dict(rows(facts))
    assert told["Disks"] == told["Network"] == told["BMC"] == "none"
    assert told["Machine"].endswith(", no serial")
    assert facts == Facts.from_json(facts.to_json())


def test_this_machine_by_the_command():
    """Whatever it is: the recorder prints facts that can be read again."""
    done = subprocess.run([sys.executable, "-m", "cornerstone.foundation.installer", "discover"], capture_output=True,
                          check=True, env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    facts = Facts.from_json(done.stdout)
    assert facts.memory > 0
    assert facts.cpu.threads > 0


def test_another_subcommand_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        live.command(["disco"])
    assert caught.value.code == 2
    assert "discover, plan" in capsys.readouterr().err.replace("'", "")


def test_facts_are_kept(tmp_path, server):
    port = tmp_path / "port"
    keep_facts(server, tmp_path / "run" / "facts.json", port)
    assert not port.exists()
    port.touch()
    keep_facts(server, tmp_path / "run" / "facts.json", port)
    assert Facts.load(tmp_path / "run" / "facts.json") == server == Facts.load(port)


# identity

@pytest.mark.parametrize("text", ["To Be Filled By O.E.M.", "Default string", "0123456789", "00000000", "", "None",
                                  "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"])
def test_placeholders_are_no_identity(tmp_path, text):
    assert read_dmi(tree(tmp_path, {"class/dmi/id/product_serial": text, "class/dmi/id/product_uuid": text})) == Dmi()


def board(location: int, *strings: bytes) -> bytes:
    return bytes([2, 15, 0, 0, 1, 0, 0, 0, 0, 0, location, 0, 0, 10, 0]) + b"".join(s + b"\0" for s in strings) + b"\0"


BIOS_STRUCTURE = bytes([0, 4, 0, 0]) + b"Vendor\0\0"


@pytest.mark.parametrize(("table", "position"), [
    (BIOS_STRUCTURE + board(2, b"Board", b"B"), "B"),
    (board(0, b"Board") + board(1, b"C "), "C"),
    (board(1, b"Default string"), ""),
    (board(3, b"one"), ""),
    (BIOS_STRUCTURE, ""), (b"", ""), (board(1, b"A")[:9], ""), (bytes([2, 0, 0, 0]), ""),
])
def test_position_in_the_chassis(tmp_path, table, position):
    assert read_dmi(tree(tmp_path, {"firmware/dmi/tables/DMI": table})).position == position


# firmware

EFI = f"firmware/efi/efivars/{SECURE_BOOT}"


@pytest.mark.parametrize(("files", "mode", "secure_boot", "tpm"), [
    ({}, "bios", False, ""),
    ({"firmware/efi": None}, "uefi", False, ""),
    ({EFI: b"\6\0\0\0\1"}, "uefi", True, ""),
    ({EFI: b"\6\0\0\0\0"}, "uefi", False, ""),
    ({EFI: b"\1\1"}, "uefi", False, ""),
    ({"class/tpm/tpm0/tpm_version_major": "2"}, "bios", False, "2.0"),
    ({"class/tpm/tpm0/tpm_version_major": "1"}, "bios", False, "1.2"),
])
def test_firmware(tmp_path, files, mode, secure_boot, tpm):
    firmware = read_firmware(tree(tmp_path, files))
    assert (firmware.mode, firmware.secure_boot, firmware.tpm) == (mode, secure_boot, tpm)


# CPU

@pytest.mark.parametrize(("flag", "log", "expected", "disabled"), [
    ("vmx", "", "vmx", False), ("svm", "", "svm", False), ("avx", "", "", False),
    ("avx", "6,1,0,-;x86/cpu: VMX (outside TXT) disabled by BIOS", "", True),
    ("avx", "6,1,0,-;x86/cpu: SVM disabled (by BIOS) in MSR_VM_CR", "", True),
    ("svm", "3,1,0,-;kvm: disabled by bios", "svm", True),
    ("vmx", "6,1,0,-;ACPI: thermal disabled by BIOS", "vmx", False),
])
def test_virtualisation(tmp_path, flag, log, expected, disabled):
    cpu = read_cpu(tree(tmp_path, {"dev/kmsg": log}), cpuinfo(2, 1, flag))
    assert (cpu.virtualisation, cpu.virtualisation_disabled) == (expected, disabled)


def test_a_cpu_that_shows_no_flags_at_all_does_not_tell(tmp_path):
    assert read_cpu(tmp_path, "processor : 0\nmodel name : x\n").virtualisation is None
    assert read_cpu(tmp_path, "").virtualisation is None


def test_firmware_tables_that_are_not_shown_tell_nothing(tmp_path):
    assert discover(tree(tmp_path / "one", {"sys/firmware/efi/x": ""})).iommu_table is None
    assert discover(tree(tmp_path / "two", {"sys/firmware/acpi/tables/FACP": ""})).iommu_table == ""


def test_numa_nodes_with_interleaved_threads(tmp_path):
    node = "sys/devices/system/node"
    found = read_cpu(tree(tmp_path, {f"{node}/node{n}/cpulist": text for n, text in
                                     {0: "0-1,4-5", 1: "2-3,6-7", 10: "", 2: ""}.items()}), cpuinfo(8, 1, "vmx")).numa
    assert [(each.id, each.cpus, each.cores) for each in found] == [
        (0, "0-1,4-5", 2), (1, "2-3,6-7", 2), (2, "", 0), (10, "", 0)]


# disks

def one_disk(tmp_path, name: str, where: str, files: dict, driver: str = "") -> Disk:
    """The only disk of a machine with an HBA; files are relative to the disk's device."""
    device = f"{HBA}/{where}"
    root = tree(tmp_path, {
        **pci("0000:01:00.0", "0107", "1000:0097", driver, 1, 1, "0000:00:01.0/"),
        f"sys/block/{name}": Link(f"{device}/block/{name}"), f"{device}/block/{name}/size": "2048",
        f"{device}/block/{name}/device": Link(device), **{f"{device}/{path}": text for path, text in files.items()}})
    (disk,) = read_disks(root / "sys", read_pci(root / "sys"))
    assert disk.controller == "0000:01:00.0"
    return disk


SCSI = "host0/target0:{0}:0/0:{0}:0:0"


@pytest.mark.parametrize(("where", "driver", "files", "expected"), [
    (SCSI.format(0), "megaraid_sas", {"scsi_level": "6"}, "scsi"),
    (SCSI.format(0), "megaraid_sas", {"vendor": "ATA"}, "sata"),
    (SCSI.format(2), "megaraid_sas", {"vendor": "DELL"}, "raid"),
    (SCSI.format(1), "mpt3sas", {"vendor": "LSI"}, "raid"),
    (SCSI.format(2), "mpt3sas", {}, ""),
    (SCSI.format(0), "smartpqi", {"raid_level": "RAID 1(+0)"}, "raid"),
    (SCSI.format(0), "hpsa", {"raid_level": "N/A", "scsi_level": "6"}, "scsi"),
    ("host0/port-0:0/end_device-0:0/target0:0:0/0:0:0:0", "mpt3sas", {"vendor": "ATA"}, "sata"),
    ("usb1/1-1/1-1:1.0/host0/target0:0:0/0:0:0:0", "xhci_hcd", {"vendor": "ATA"}, "usb"),
])
def test_transport(tmp_path, where, driver, files, expected):
    assert one_disk(tmp_path, "sda", where, files, driver).transport == expected


def test_nvme_disk(tmp_path):
    disk = one_disk(tmp_path, "nvme0n1", "nvme/nvme0", {"serial": "S4-1   ", "model": "Fast Disk"})
    assert (disk.serial, disk.model, disk.transport) == ("S4-1", "Fast Disk", "nvme")


def test_nvme_disk_that_could_have_several_paths(tmp_path):
    subsystem = "sys/devices/virtual/nvme-subsystem/nvme-subsys0"
    root = tree(tmp_path, {
        f"{subsystem}/subsystem": Link("sys/class/nvme-subsystem"), f"{subsystem}/serial": "S4-2",
        f"{subsystem}/nvme3": Link(f"{HBA}/nvme/nvme3"), f"{subsystem}/nvme0n1/size": "2048",
        f"{subsystem}/nvme0n1/wwid": "eui.01", f"{subsystem}/nvme0n1/device": Link(subsystem),
        "sys/block/nvme0n1": Link(f"{subsystem}/nvme0n1")})
    (disk,) = read_disks(root / "sys", ())
    assert (disk.controller, disk.serial, disk.wwn, disk.transport) == ("0000:01:00.0", "S4-2", "eui.01", "nvme")


def test_usb_disk_has_the_serial_of_its_plug(tmp_path):
    files = {"../../../../idVendor": "0781", "../../../../serial": "STICK1"}
    assert one_disk(tmp_path, "sda", "usb1/1-1/1-1:1.0/host0/target0:0:0/0:0:0:0", files).serial == "STICK1"


@pytest.mark.parametrize(("device", "expected"), [("/dev/sdb1", "sdb"), ("/dev/sdb", "sdb"), ("/dev/sr0", "sr0")])
def test_disk_of_the_medium(tmp_path, device, expected):
    disk = "devices/a/block/sdb"
    sysfs = tree(tmp_path, {f"{disk}/sdb1/partition": "1", "class/block/sdb1": Link(f"{disk}/sdb1"),
                            "class/block/sdb": Link(disk)})
    assert disk_of(sysfs, device) == expected


# contents

def image(path: Path, size: int = 64 << 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    return path


def run(*words: str | Path, **options) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True, **options)


def probed(root: Path) -> Contents:
    return probe([Disk("sda", 1)], root)[0].contents


def test_an_empty_disk(tmp_path):
    image(tmp_path / "dev/sda")
    assert probed(tmp_path) == Contents()
    assert probed(tmp_path).empty


def test_a_disk_that_can_not_be_read(tmp_path):
    assert probed(tmp_path) == Contents(readable=False)


def test_bytes_that_nobody_knows_are_data(tmp_path):
    with image(tmp_path / "dev/sda").open("r+b") as disk:
        disk.seek(EDGE - 1)
        disk.write(b"x")
    assert probed(tmp_path).signatures == (Signature("data"),)


@needs_e2fs
def test_signatures_of_disk_and_partitions(tmp_path):
    disk = image(tmp_path / "dev/sda")
    run("sfdisk", disk, input="label: gpt\nsize=16MiB,type=U,name=esp\ntype=L,name=data\n")
    run("mke2fs", "-t", "ext4", "-L", "mine", "-U", UUID, image(tmp_path / "dev/sda2"))
    udev = "E:ID_PART_ENTRY_TYPE=c12a7328-f81f-11d2-ba4b-00a0c93ec93b\nE:ID_PART_ENTRY_NAME=EFI\\x20System"
    tree(tmp_path, {
        "sys/block/sda/sda2/partition": "2", "sys/block/sda/sda2/size": "96256", "sys/block/sda/sda2/dev": "8:2",
        "sys/block/sda/sda1/partition": "1", "sys/block/sda/sda1/size": "32768", "sys/block/sda/sda1/dev": "8:1",
        "sys/block/sda/queue/rotational": "1", "run/udev/data/b8:1": udev})
    assert not probed(tmp_path).readable, "a partition without a node in /dev"
    image(tmp_path / "dev/sda1")
    contents = probed(tmp_path)
    assert [s.type for s in contents.signatures] == ["gpt", "PMBR"]
    esp, data = contents.partitions
    assert (esp.number, esp.size, esp.name, esp.kind[:8], esp.signatures) == (1, 16 << 20, "EFI System", "c12a7328", ())
    assert data.signatures == (Signature("ext4", "mine", UUID),)
    assert str(contents) == "gpt, PMBR with 2 partitions (ext4)"


def test_every_signature_is_found_where_two_contradict(tmp_path):
    disk = image(tmp_path / "disk")
    run("mkswap", disk)
    with disk.open("r+b") as file:
        # an LVM2 label, as lvm2's format_text/layout.h has it
        file.seek(512)
        file.write(b"LABELONE" + (1).to_bytes(8, "little") + bytes(8) + b"LVM2 001" + b"u" * 32)
    assert {signature.type for signature in signatures([disk])["disk"]} >= {"swap"}


def state_partition(path: Path, node: str | None) -> Path:
    folder = path.parent / "content"
    tree(folder, {"var/upper/lib/cornerstone/node.json": node} if node is not None else {"empty": None})
    run("mke2fs", "-t", "ext4", "-d", folder, image(path))
    return path


NODE = {"hypervisor": {"hostname": "NTNX-B1-A"}, "serial": "SN1", "identity": "1c7a"}


@needs_e2fs
@pytest.mark.parametrize(("node", "expected"), [
    (json.dumps(NODE), Installed("NTNX-B1-A", "SN1", "1c7a")),
    (json.dumps({"hypervisor": {"hostname": "h"}}), Installed("h")),
    ("{", None), ("[]", None), ("{}", None), (None, None),
])
def test_an_installed_node_is_known_by_its_node_json(tmp_path, node, expected):
    assert installed(state_partition(tmp_path / "state", node)) == expected


@needs_e2fs
@pytest.mark.parametrize(("names", "ours"), [(("root-a", "state"), True), (("other", "state"), False),
                                             (("root-a", "other"), False)])
def test_only_a_disk_of_our_layout_is_asked_for_a_node(tmp_path, names, ours):
    image(tmp_path / "dev/sda")
    image(tmp_path / "dev/sda1")
    state_partition(tmp_path / "dev/sda2", json.dumps(NODE))
    tree(tmp_path, {f"sys/block/sda/sda{n}/{key}": text for n in (1, 2)
                    for key, text in {"partition": str(n), "dev": f"8:{n}", "size": "1"}.items()}
         | {f"run/udev/data/b8:{n}": f"E:ID_PART_ENTRY_NAME={name}" for n, name in enumerate(names, 1)})
    assert (probed(tmp_path).installed is not None) == ours


# bytes from disks and hardware

@needs_e2fs
@pytest.mark.parametrize(("kind", "label", "seen"), [
    ("ext4", b"M\xfcller", "M\ufffdller"), ("ext4", b"photos\n2024", "photos"), ("ext4", b'a"b\\c\x1b[2J', 'a"b\\c'),
    ("ext4", "Müller".encode(), "Müller"), ("ext4", b"\xff\xfe\xfd", "\ufffd"), ("vfat", b"M\x81LLER     ", None),
    ("vfat", b"A\nB\x07       ", None), ("swap", b"\xe9t\xe9", "\ufffdt\ufffd"),
])
def test_m22_a_label_in_any_encoding_is_read(tmp_path, kind, label, seen):
    disk = image(tmp_path / "dev/sda")
    run(*{"ext4": ("mke2fs", "-q", "-t", "ext4", "-F"), "vfat": ("mkfs.vfat",), "swap": ("mkswap", "-q")}[kind], disk)
    at = {"ext4": 1024 + 0x78, "vfat": 43, "swap": 1024 + 28}[kind]
    with disk.open("r+b") as file:
        file.seek(at)
        file.write(label + b"\0" * (kind != "vfat"))
    contents = probed(tmp_path)
    [found] = [each for each in contents.signatures if each.type == kind]
    assert contents.readable and contents.fingerprint
    assert found.label.isprintable() and (seen is None or seen in found.label)
    facts = Facts(Dmi(), Firmware("bios"), Cpu("x", 1, 1, 1), 1, Clock(0), disks=(Disk("sda", 1, contents=contents),))
    assert Facts.from_json(facts.to_json()) == facts


@needs_e2fs
def test_m22_a_node_json_of_somebody_s_making_is_shown_as_it_can_be(tmp_path):
    node = '{"hypervisor": {"hostname": "a\\ud800\\u001b[2Jb"}, "serial": 7, "identity": null}'
    assert installed(state_partition(tmp_path / "state", node)) == Installed("a\\xd800\\x1b[2Jb", "7", "None")


def test_m22_partition_names_are_whatever_bytes_they_are(tmp_path):
    image(tmp_path / "dev/sda")
    image(tmp_path / "dev/sda1")
    udev = b"E:ID_PART_ENTRY_NAME=Gr\\xc3\\xbcn\\x0a\\xff\xe2\x80\xa8x\nE:ID_PART_ENTRY_TYPE=\xff\n"
    tree(tmp_path, {"sys/block/sda/sda1/partition": "1", "sys/block/sda/sda1/size": "9" * 5000,
                    "sys/block/sda/sda1/dev": "8:1", "run/udev/data/b8:1": udev})
    [partition] = probed(tmp_path).partitions
    assert (partition.name, partition.kind, partition.size) == ("Grün\\x0a\ufffd\\x2028x", "\ufffd", 0)


def test_d9_an_osd_is_known_with_its_cluster(tmp_path):
    with image(tmp_path / "dev/sda").open("r+b") as disk:
        disk.write(BLUESTORE + UUID.encode() + b"\n" + bytes(40) + b"ceph_fsid\x24\0\0\0" + NODE_ID.encode())
    contents = probed(tmp_path)
    assert contents.signatures == (Signature("ceph_bluestore", NODE_ID, UUID),)
    assert (contents.fingerprint, str(contents)) == (f"osd:{UUID}", f"a Ceph OSD {UUID} of cluster {NODE_ID}")


@pytest.mark.parametrize(("driver", "files", "expected"), [
    ("hpsa", {"scsi_level": "6"}, "raid"), ("smartpqi", {"raid_level": "N/A", "scsi_level": "6"}, "scsi"),
    ("aacraid", {"scsi_level": "6"}, "raid"), ("mptsas", {"scsi_level": "6"}, "scsi"),
    ("mpi3mr", {"scsi_level": "6"}, "scsi"),
])
def test_d8_a_volume_is_told_as_its_driver_tells_it(tmp_path, driver, files, expected):
    assert one_disk(tmp_path, "sda", SCSI.format(0), files, driver).transport == expected


@pytest.mark.parametrize(("regions", "direct"), [
    ("0x00000000fee00000 0x00000000feefffff msi", False), (None, None),
    ("0x00000000000e0000 0x00000000000effff direct\n0x00000000fee00000 0x00000000feefffff msi", True),
    ("0x0000000000000000 0x0000000000ffffff direct-relaxable\n", False), ("\xff\n \n", False),
])
def test_d31_memory_that_firmware_keeps_is_seen(tmp_path, regions, direct):
    root = tree(tmp_path, pci("0000:01:00.0", "0107", "1000:0097", "mpt3sas", 1))
    if regions is not None:
        tree(tmp_path, {"sys/kernel/iommu_groups/1/reserved_regions": regions})
    [device] = read_pci(root / "sys")
    assert device.direct is direct


@pytest.mark.parametrize(("interrupts", "remapped"), [
    ("           CPU0\n  0:         10  IR-IO-APIC   2-edge      timer", True),
    (" 28:    0  IR-PCI-MSIX-0000:00:01.0   0-edge      virtio0", True),
    ("  0:         10   IO-APIC   2-edge      timer", False), ("", None), (None, None),
])
def test_d31_whether_interrupts_are_remapped(tmp_path, interrupts, remapped):
    root = tree(tmp_path, {} if interrupts is None else {"proc/interrupts": interrupts})
    assert discover(root).interrupt_remapping is remapped


TOOLS = """#!/bin/sh
cat "$0.says"
"""


def test_m22_no_bytes_of_hardware_end_discovery(tmp_path, monkeypatch):
    """Every file of a machine, and every tool's output, is bytes of chance."""
    chance = random.Random(22)
    root = tree(tmp_path / "machine", SERVER | {
        "dev/ipmi0": "", "dev/kmsg": "", "sys/firmware/dmi/tables/DMI": "",
        "sys/kernel/iommu_groups/1/reserved_regions": "",
        "sys/class/dmi/id/product_uuid": "", f"sys/firmware/efi/efivars/{SECURE_BOOT}": "", f"{HBA}/reset_method": "",
        "dev/sda": bytes(EDGE), "dev/sdb": bytes(EDGE), "sys/block/sda/sda1/partition": "1",
        "sys/block/sda/sda1/dev": "8:1", "run/udev/data/b8:1": "", "dev/sda1": ""})
    changed = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name in ("wipefs", "debugfs", "ipmitool"):
        (bin_folder / name).write_text(TOOLS)
        (bin_folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}:/usr/bin:/bin")
    words = (b"9" * 5000, b"MemTotal: ", b" kB\n", b"E:ID_PART_ENTRY_NAME=", b"processor\t: ", b"0-99,", b"\n", b": ",
             b'{"signatures":[{"device":"sda","type":', b'{"hypervisor":{"hostname":', b'"\\ud800"', b"]}", b"\x81",
             b"\xff\xfe", b"\xe2\x80\xa8", b"\0\0", b"IP Address : ")
    assert len(changed) > 60
    for _ in range(25):
        for path in (*changed, *(bin_folder / f"{name}.says" for name in ("wipefs", "debugfs", "ipmitool"))):
            path.write_bytes(b"".join(chance.choice((chance.choice(words), chance.randbytes(chance.randrange(20))))
                                      for _ in range(chance.randrange(6))))
        facts = discover(root)
        assert Facts.from_json(facts.to_json()) == facts
        for _, text in rows(facts):
            text.encode()
            assert text.isprintable()
        summary(facts)


# BMC

LAN = """Set in Progress         : Set Complete
Auth Type Support       : NONE MD5 PASSWORD
Auth Type Enable        : Callback : MD5
                        : User     : MD5
IP Address Source       : Static Address
IP Address              : {address}
Subnet Mask             : 255.255.255.0
MAC Address             : 02:00:00:00:00:0a
Default Gateway IP      : 0.0.0.0
"""
MC = "Device ID                 : 32\nManufacturer ID           : 10876\nManufacturer Name         : Supermicro\n"


@pytest.mark.parametrize(("lan", "mc", "expected"), [
    (LAN.format(address="192.0.2.7"), MC, Bmc(True, "Supermicro", "192.0.2.7", "255.255.255.0", "",
                                             "02:00:00:00:00:0a")),
    (LAN.format(address="0.0.0.0"), "", Bmc(True, "", "", "255.255.255.0", "", "02:00:00:00:00:0a")),
    ("", "Manufacturer Name         : Unknown (0x7)\n", Bmc(True)),
    ("", "", Bmc(True)),
])
def test_bmc(tmp_path, monkeypatch, lan, mc, expected):
    monkeypatch.setattr(bmc, "_ipmitool", lambda *words: {"lan": lan, "mc": mc}[words[0]])
    assert bmc.read_bmc(tree(tmp_path, {"dev/ipmi0": ""})) == expected


def test_a_bmc_without_the_tool(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bmc.read_bmc(tree(tmp_path, {"dev/ipmi0": ""})) == Bmc(True)

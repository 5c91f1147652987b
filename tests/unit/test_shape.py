"""Machine shapes: every file of ours makes a machine that QEMU accepts, and a wrong one is told with its line."""

import subprocess
from pathlib import Path

import pytest

from cornerstone.lab.accel import Accel
from cornerstone.lab.machine import Machine
from cornerstone.lab.shape import SHAPES, Shape, load_shape, shape_names
from cornerstone.lib.error import CornerstoneError

GOOD = """\
description: a test
memory: 2 GiB
identity: {serial: T-1}
controllers:
  - kind: sata
    disks:
      - {name: boot, size: 8 GiB, serial: B-1, model: SATADOM}
  - kind: virtio-scsi
    disks:
      - {name: data, size: 1 GiB, wwn: "0x5000c50000000001", model: LAB SSD}
nics:
  - {mac: "52:54:00:00:00:01"}
  - {mac: "52:54:00:00:00:02", model: e1000e}
"""


def shape(tmp_path, text=GOOD) -> Shape:
    path = tmp_path / "t.yaml"
    path.write_text(text)
    return load_shape(str(path))


def words(found: Shape, network: str = "") -> str:
    return " ".join(found.words({disk.name: Path("/d") / disk.name for disk in found.disks}, network))


def test_a_machine_is_what_its_shape_says(tmp_path):
    text = words(shape(tmp_path), "user,net=10.20.0.0/24")
    assert "-smbios type=1,manufacturer=QEMU,product=Cornerstone-Lab,serial=T-1 " in text
    assert "type=2" not in text and "type=3" not in text and "ipmi" not in text
    assert "-device ide-hd,bus=ide.1,drive=boot,bootindex=1,serial=B-1,model=SATADOM " in text
    assert ("-device pcie-root-port,id=rp1,bus=pcie.0,chassis=1,slot=1 "
            "-device virtio-scsi-pci,id=hba1,bus=rp1,disable-legacy=on,iommu_platform=on "
            "-device scsi-hd,id=data,bus=hba1.0,scsi-id=0,drive=data,bootindex=2,wwn=0x5000c50000000001,"
            "product=LAB SSD "
            ) in text
    assert "-netdev user,net=10.20.0.0/24,id=net0 " in text
    assert "-netdev user,restrict=on,id=net1 " in text
    assert "-device e1000e,id=nic1,netdev=net1,mac=52:54:00:00:00:02,bus=rp3" in text


def test_a_disc_is_in_a_drive(tmp_path):
    text = words(shape(tmp_path, GOOD.replace("name: data,", "name: data, optical: true,")))
    assert "-device scsi-cd,id=data,bus=hba1.0,scsi-id=0,drive=data," in text and "scsi-hd" not in text


def test_without_an_iommu_virtio_needs_no_translation(tmp_path):
    assert "iommu_platform" not in words(shape(tmp_path, GOOD + "iommu: false\n"))


@pytest.mark.parametrize(("old", "new", "says"), [
    ("memory: 2 GiB", "memory: 2 GB", "t.yaml:2: .memory: '2 GB' isn't a size"),
    ("kind: sata", "kind: floppy", "t.yaml:5: .controllers[0].kind: 'floppy' isn't one of"),
    ("name: data", "name: boot", "the disk name boot is there twice"),
    ("52:54:00:00:00:02", "52:54:00:00:00:01", "the MAC 52:54:00:00:00:01 is there twice"),
    (", serial: B-1", "", "t.yaml:5: .controllers[0]: the sata disk boot has no serial"),
    ("serial: B-1", "serial: a serial that is far too long", "doesn't fit"),
    ("kind: virtio-scsi", "kind: nvme", "the nvme disk data has no serial"),
    ("kind: virtio-scsi", "kind: virtio-blk", "a virtio-blk disk tells neither wwn nor model"),
    ("kind: virtio-scsi\n    disks:\n      - {", "kind: sata\n    disks:\n      - {serial: D-1, ",
     "there are two sata controllers"),
    ("name: boot,", "name: boot, optical: true,", "the sata disk boot is optical"),
    ("disks:", "disk:", "unknown key"),
])
def test_a_wrong_shape_is_told_with_its_line(tmp_path, old, new, says):
    with pytest.raises(CornerstoneError) as refused:
        shape(tmp_path, GOOD.replace(old, new, 1))
    assert says in refused.value.message
    assert refused.value.hint


def test_an_unknown_shape_names_the_nearest():
    with pytest.raises(CornerstoneError, match="there is no machine shape 'one-nod'") as refused:
        load_shape("one-nod")
    assert refused.value.hint == "did you mean one-node?"


@pytest.mark.parametrize("name", shape_names())
def test_qemu_builds_every_shape(name, tmp_path):
    found = load_shape(name)
    images = {disk.name: tmp_path / disk.name for disk in found.disks}
    for disk in found.disks:
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", images[disk.name], str(disk.size)], check=True)
    core = Machine(Accel("tcg", ""), memory_mib=256, cpus=found.cpus, iommu=found.iommu)
    argv = [word for word in core._core() if word]
    # Built and asked to quit before its first instruction.
    done = subprocess.run([core.binary, "-nodefaults", "-display", "none", "-S", *argv, *found.words(images),
                           "-qmp", "stdio"], capture_output=True, text=True, timeout=60, check=False,
                          input='{"execute": "qmp_capabilities"}{"execute": "quit"}')
    assert done.returncode == 0, done.stderr


def test_the_shape_in_the_documentation_is_one_of_ours():
    shown = (Path(__file__).parents[2] / "docs" / "lab.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    assert shown and shown in (SHAPES / "one-node.yaml").read_text()

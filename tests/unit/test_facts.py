"""Facts: to JSON and back, errors that name the place, the exported schema, and what is derived."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.lib.error import CornerstoneError
from cornerstone.model.contracts.facts import (
    Clock,
    Contents,
    Cpu,
    Disk,
    Dmi,
    Facts,
    Firmware,
    Nic,
    Partition,
    PciDevice,
    Signature,
    schema_text,
)

ROOT = Path(__file__).resolve().parents[2]

SMALL = Facts(
    dmi=Dmi("Example Inc.", "Node 1", "SN1"), firmware=Firmware("uefi", tpm="2.0"),
    cpu=Cpu("Example CPU", 1, 4, 8, "vmx"), memory=32 << 30, clock=Clock(1795333787, 1795333790),
    nics=(Nic("eno1", "52:54:00:00:00:01", link=None, speed=None),),
    disks=(Disk("sda", 1 << 40, "S1", contents=Contents(True, (Signature("gpt"),), (
        Partition(1, 1 << 30, signatures=(Signature("vfat"),)), Partition(2, 1 << 39)))),),
    pci=(PciDevice("0000:00:00.0", "0600", "8086", "2020", group=0), PciDevice("0000:01:00.0", "0107", "1000", "0097")))


def test_json_and_back():
    assert Facts.from_json(SMALL.to_json()) == SMALL


def test_what_has_a_default_may_be_left_out():
    data = json.loads(SMALL.to_json())
    data["disks"] = [{"name": "sda", "size": 1}]
    del data["bmc"], data["source"]
    assert Facts.from_json(json.dumps(data)).disks == (Disk("sda", 1),)


def changed(path, value):
    """The small machine's JSON with one value set, or removed for ...; path: keys and indices."""
    data = json.loads(SMALL.to_json())
    *outer, last = path
    at = data
    for key in outer:
        at = at[key]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return json.dumps(data)


@pytest.mark.parametrize(("text", "message"), [
    ("{", "m.json isn't JSON: Expecting property name"),
    ("[]", "m.json: . has to be an object, not []"),
    (changed(["schema"], 3), "m.json has version 3, and this release reads up to 2"),
    (changed(["memory"], ...), "m.json: .memory is missing"),
    (changed(["memory"], "32 GiB"), "m.json: .memory has to be a whole number, not '32 GiB'"),
    (changed(["memory"], True), "m.json: .memory has to be a whole number, not True"),
    (changed(["memory"], 1.5), "m.json: .memory has to be a whole number, not 1.5"),
    (changed(["memory"], None), "m.json: .memory has to be a whole number, not None"),
    (changed(["disks", 0, "size"], "big"), "m.json: .disks[0].size has to be a whole number, not 'big'"),
    (changed(["disks", 0, "contents", "partitions", 1, "number"], ...),
     "m.json: .disks[0].contents.partitions[1].number is missing"),
    (changed(["disks"], {}), "m.json: .disks has to be a list, not {}"),
    (changed(["dmi"], []), "m.json: .dmi has to be an object, not []"),
    (changed(["nics", 0, "link"], "up"), "m.json: .nics[0].link has to be true or false, not 'up'"),
    (changed(["dmi", "serial"], 7), "m.json: .dmi.serial has to be text, not 7"),
])
def test_what_is_wrong_is_named_with_its_place(text, message):
    with pytest.raises(CornerstoneError) as caught:
        Facts.from_json(text, "m.json")
    assert caught.value.message.startswith(message)
    assert caught.value.hint


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(CornerstoneError, match="can't be read: No such file"):
        Facts.load(tmp_path / "none.json")


def test_the_exported_schema_is_the_module_s():
    assert (ROOT / "docs" / "facts.schema.json").read_text() == schema_text()


@pytest.mark.parametrize(("contents", "empty", "text"), [
    (Contents(), True, "empty"),
    (Contents(readable=False), False, "unreadable"),
    (Contents(signatures=(Signature("data"),)), False, "data"),
    (Contents(signatures=(Signature("dos"), Signature("iso9660"))), False, "dos, iso9660"),
    (SMALL.disks[0].contents, False, "gpt with 2 partitions (vfat)"),
    (Contents(partitions=(Partition(1, 1),)), False, "with 1 partition"),
])
def test_contents(contents, empty, text):
    assert (contents.empty, str(contents)) == (empty, text)


@pytest.mark.parametrize(("disks", "expected"), [
    ([("sda", "naa.1", "S1"), ("sdb", "naa.1", "S1"), ("sdc", "naa.2", "S1")], [["sda", "sdb"]]),
    # without a WWN nothing tells two paths from two disks of one serial
    ([("sda", "", "S1"), ("sdb", "", "S1"), ("sdc", "", "S2")], []),
    ([("sda", "naa.1", "S1"), ("sdb", "naa.1", "S2")], []),
    ([("sda", "", ""), ("sdb", "", "")], []),
    ([("sda", "naa.1", "S1"), ("sdb", "naa.2", "S1")], []),
])
def test_paths_to_the_same_disk(disks, expected):
    facts = replace(SMALL, disks=tuple(Disk(name, 1, serial, wwn) for name, wwn, serial in disks))
    assert [[disk.name for disk in paths] for paths in facts.multipath()] == expected


def test_d1_a_lookalike_has_the_serial_and_is_no_path():
    disks = tuple(Disk(name, 1, serial, wwn) for name, wwn, serial in (
        ("sda", "naa.1", "S1"), ("sdb", "naa.1", "S1"), ("sdc", "naa.2", "S1"), ("sdd", "", ""), ("sde", "", "")))
    facts = replace(SMALL, disks=disks)
    assert facts.paths(disks[1]) == disks[:2]
    assert facts.lookalikes(disks[0]) == (disks[2],)
    assert facts.lookalikes(disks[2]) == disks[:2]
    assert facts.lookalikes(disks[3]) == ()
    other = replace(disks[1], contents=Contents(signatures=(Signature("ext4"),)))
    assert replace(facts, disks=(disks[0], other)).multipath() == ()


@pytest.mark.parametrize(("contents", "text"), [
    (Contents(fingerprint="sha256:1"), "data"),
    (Contents(signatures=(Signature("ceph_bluestore"),)), "a Ceph OSD"),
    (Contents(fingerprint="osd:1"), "a Ceph OSD 1"),
    (Contents(signatures=(Signature("LVM2_member"), Signature("ceph_bluestore", "C", "1"))),
     "a Ceph OSD 1 of cluster C"),
    (Contents(partitions=(Partition(1, 1, kind="4fbd7e29-9d25-41b8-afd0-062c0ceff05d"),)), "a Ceph OSD"),
])
def test_d9_what_may_not_go_by_mistake_is_named(contents, text):
    assert str(contents) == text and not contents.empty
    assert (contents.osd is not None) == ("OSD" in text)


def test_an_iommu_is_at_work_when_a_device_has_a_group():
    assert SMALL.iommu
    assert not replace(SMALL, pci=SMALL.pci[1:]).iommu
    assert SMALL.iommu_group(0) == SMALL.pci[:1]


def test_disks_and_their_controller():
    facts = replace(SMALL, disks=(Disk("sda", 1, controller="0000:01:00.0"), Disk("sdb", 1)))
    assert facts.disks_of("0000:01:00.0") == facts.disks[:1]
    assert facts.pci_device("0000:01:00.0") is facts.pci[1]
    assert facts.pci_device("") is None

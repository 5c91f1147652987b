"""The manifest: its bytes, its masks, and the words for what differs."""

from __future__ import annotations

import hashlib
import io
import json
import random

import pytest

from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.contracts import manifest as manifest_module
from cornerstone.model.contracts.manifest import Entry, Manifest, difference, digest, entry_of

PROFILE = {"name": "aos-6.8", "description": 'with "quotes", "path": "layers/x", ümlaut', "aos": "6.8",
           "ahv": "20230302.100173", "payload": "reference", "hypervisor": {"root_slot": 1},
           "cvm": {"memory": 1, "vcpus": None, "disk": 1, "root_slot": 1}}
ENTRIES = (Entry("boot/bios.img", 5, "a" * 64, ((8, 56), (2548, 8))), Entry("layers/hypervisor.squashfs", 7, "b" * 64),
           Entry("layers/cvm.qcow2", 0, "c" * 64))
MANIFEST = Manifest("1c7a3a3e-6d0b-5d0c-9a51-3f2f6a0d8a11", PROFILE, "development", 1_800_000_000, ENTRIES, 262144)


@pytest.mark.parametrize("entries", [ENTRIES, ENTRIES[:1], ()], ids=len)
def test_round_trip(entries):
    manifest = Manifest(MANIFEST.identity, PROFILE, "release", 1, entries, 5)
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    assert manifest.to_bytes() == manifest.to_bytes()


def test_it_is_json_with_a_line_for_each_file():
    content = MANIFEST.to_bytes().decode("ascii")
    record = json.loads(content)
    assert record["schema"] == 2
    assert record["profile"] == PROFILE
    assert record["signed_with"] == "development key"
    assert record["site_area"] == {"path": "site.area", "size": 262144}
    assert [line for line in content.splitlines() if line.startswith('{"path": ')] == [
        '{"path": "boot/bios.img", "size": 5, "sha256": "' + "a" * 64 + '", "masked": [[8, 56], [2548, 8]]},',
        '{"path": "layers/hypervisor.squashfs", "size": 7, "sha256": "' + "b" * 64 + '"},',
        '{"path": "layers/cvm.qcow2", "size": 0, "sha256": "' + "c" * 64 + '"}']
    assert content.endswith("\n")


def changed(**changes: object) -> bytes:
    record = json.loads(MANIFEST.to_bytes()) | changes
    return json.dumps({key: value for key, value in record.items() if value is not None}).encode()


@pytest.mark.parametrize(("content", "reason"), [
    (b"", "Expecting value"), (b"{", "Expecting"), (b"\xff\xfe", ""), (b"[]", ""), (b"7", ""), (b"{}", "schema"),
    (MANIFEST.to_bytes()[:-20], ""),
    (changed(identity=None), "identity"),
    (changed(files=None), "files"), (changed(files=[{"path": "x", "size": 1}]), "sha256"), (changed(files=7), ""),
    (changed(signed_with=7), ""), (changed(site_area=None), "site_area"), (changed(site_area=7), ""),
])
def test_what_is_no_manifest(content, reason):
    with pytest.raises(CornerstoneError) as caught:
        Manifest.from_bytes(content, "the medium's manifest")
    assert caught.value.message.startswith("the medium's manifest: not a Foundation manifest: ")
    assert reason in caught.value.message
    assert caught.value.code is Code.VERIFY
    assert "write it anew" in caught.value.hint


def with_arguments(value: object) -> bytes:
    return changed(profile=PROFILE | {"hypervisor": {"root_slot": 1, "extra": {
        "packages": ["tree"], "kernel_arguments": value}}})


def test_kernel_arguments_are_the_profiles_or_none():
    assert Manifest.from_bytes(MANIFEST.to_bytes()).kernel_arguments == ()
    assert Manifest.from_bytes(with_arguments(["pci=noaer", "nosmt"])).kernel_arguments == ("pci=noaer", "nosmt")


@pytest.mark.parametrize("value", ["nosmt", 7, [7], None, {"a": "b"}, [["nosmt"]]])
def test_kernel_arguments_of_another_form_are_no_manifest(value):
    with pytest.raises(CornerstoneError, match=r"not a Foundation manifest: .*hypervisor\.extra\.kernel_arguments"):
        Manifest.from_bytes(with_arguments(value))


def test_entry():
    assert MANIFEST.entry("layers/cvm.qcow2") is ENTRIES[2]
    with pytest.raises(CornerstoneError, match="layers/none") as caught:
        MANIFEST.entry("layers/none")
    assert caught.value.code is Code.VERIFY


@pytest.mark.parametrize(("path", "name"), [("layers/cvm.qcow2", "cvm.qcow2"), ("boot/vmlinuz", "boot/vmlinuz")])
def test_name_that_people_know(path, name):
    assert Entry(path, 0, "").layer == name


CHUNK = 64
CONTENT = random.Random(7).randbytes(10 * CHUNK + 17)


@pytest.mark.parametrize("masked", [
    (), ((0, 1),), ((0, CHUNK),), ((CHUNK - 1, 2),), ((CHUNK - 3, CHUNK + 6),), ((5, 4 * CHUNK),), ((CHUNK, CHUNK),),
    ((1, 2), (CHUNK - 1, 1), (CHUNK, 1), (9 * CHUNK + 60, 30)), ((len(CONTENT) - 1, 1),), ((len(CONTENT) - 1, 100),),
    ((len(CONTENT), 8),), ((0, len(CONTENT)),), ((10, 20), (15, 20)), ((3, 0),),
])
def test_masked_ranges_count_as_zeros_across_chunks(monkeypatch, masked):
    monkeypatch.setattr(manifest_module, "CHUNK", CHUNK)
    expected = bytearray(CONTENT)
    for offset, length in masked:
        span = expected[offset:offset + length]
        expected[offset:offset + length] = bytes(len(span))
    seen = []
    assert digest(io.BytesIO(CONTENT), masked, seen.append) == (len(CONTENT), hashlib.sha256(expected).hexdigest())
    assert seen == [*range(CHUNK, len(CONTENT), CHUNK), len(CONTENT)]


def test_digest_of_nothing():
    assert digest(io.BytesIO()) == (0, hashlib.sha256().hexdigest())


def test_entry_of_a_file(tmp_path):
    (tmp_path / "x").write_bytes(b"abcdef")
    assert entry_of("boot/x", tmp_path / "x", ((1, 2),)) == Entry(
        "boot/x", 6, hashlib.sha256(b"a\0\0def").hexdigest(), ((1, 2),))


@pytest.mark.parametrize(("size", "sha256", "words"), [
    (7, "b" * 64, ""),
    (7, "a" * 64, "layer hypervisor.squashfs does not match the manifest"),
    (6, "b" * 64, "layer hypervisor.squashfs has 6 bytes, the manifest says 7"),
])
def test_difference(size, sha256, words):
    assert difference(ENTRIES[1], size, sha256) == words

"""`invoke verify` on the evidence beside a small ISO: whole it passes, and tampering of each kind is named."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cornerstone.customize.iso_image import Image
from cornerstone.factory.evidence import provenance
from cornerstone.factory.evidence.evidence import BOMS, KEY_NAME, LISTED, SUMS, SUMS_SIGNATURE
from cornerstone.factory.iso.iso_checks import CHECKS, Finding, Subject, run_checks
from cornerstone.factory.signing.signing import SoftwareKey
from cornerstone.factory.verify import verify
from cornerstone.lib.error import Code
from cornerstone.model.contracts import site_area
from cornerstone.model.contracts.manifest import CVM, NAME, SIGNATURE_NAME, SITE_AREA
from small_iso import KEY, PLAN, SITE_AREA_SIZE, Workshop

EVIDENCE = {check_id for check_id in CHECKS if check_id in ("evidence", "evidence-manifest", "provenance", "sboms",
                                                           "report")}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    workshop = Workshop(tmp_path_factory.mktemp("workshop"))
    iso = workshop.master()
    workshop.certify(iso)
    return {name: iso.with_name(name).read_bytes() for name in (iso.name, *LISTED, SUMS, SUMS_SIGNATURE)}


def whole(iso: Path) -> bool:
    """Whether every check passes but that of the folder netboot, which isn't beside these ISOs."""
    return all(finding.passed for check_id, finding in findings(iso).items() if check_id != "netboot")


@pytest.fixture
def iso(files, tmp_path) -> Path:
    """An ISO of one's own with its evidence beside it, and the maker's key elsewhere."""
    folder = tmp_path / "output"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (tmp_path / "maker.pem").write_bytes(KEY.public_pem())
    return folder / "tiny.iso"


def findings(iso: Path) -> dict[str, Finding]:
    subject = Subject(iso, KEY.public_pem())
    try:
        return {finding.check.id: finding for finding in run_checks(subject)}
    finally:
        subject.close()


def refused(iso: Path, capsys, key: Path | None = None) -> list[str]:
    """What `verify` says is wrong while it ends with exit code 6: (check, words)."""
    assert verify.verify_iso(iso, key or iso.parents[1] / "maker.pem") == Code.VERIFY == 6
    printed = capsys.readouterr().out
    assert "the roots inside were not looked at" in printed
    return [" ".join(line.split()[1:]) for line in printed.splitlines() if line.startswith("✗")]


def write_at(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def place(iso: Path, name: str) -> int:
    with contextlib.closing(Image(iso)) as image:
        return image.place(name).start


def signed_anew(iso: Path, name: str, content: bytes) -> None:
    """Change a side file as the maker could: with checksums and signature to match."""
    (iso.parent / name).write_bytes(content)
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}" if line.endswith(f"  {name}") else line
             for line in iso.with_name(SUMS).read_text().splitlines()]
    sums = "".join(f"{line}\n" for line in lines).encode()
    iso.with_name(SUMS).write_bytes(sums)
    iso.with_name(SUMS_SIGNATURE).write_bytes(KEY.sign(sums))


def test_whole_evidence_passes(iso):
    assert whole(iso)
    assert len(EVIDENCE) == 5


@pytest.mark.parametrize("name", LISTED)
def test_a_changed_side_file_is_refused_by_its_name(iso, capsys, name):
    content = bytearray((iso.parent / name).read_bytes())
    content[len(content) // 2] ^= 1
    (iso.parent / name).write_bytes(content)
    assert refused(iso, capsys) == [f"evidence {name} does not match SHA256SUMS"]


@pytest.mark.parametrize("name", LISTED)
def test_a_missing_side_file_is_refused_by_its_name(iso, capsys, name):
    (iso.parent / name).unlink()
    assert refused(iso, capsys) == [f"evidence {name} isn't there, and SHA256SUMS lists it"]


def test_a_changed_layer_is_refused(iso, capsys):
    write_at(iso, place(iso, CVM) + 5, b"?")
    assert refused(iso, capsys) == ["layers layer cvm.qcow2 does not match the manifest"]


def test_a_changed_manifest_on_the_iso_is_refused(iso, capsys):
    at = iso.read_bytes().index(b'"epoch": 1795')
    write_at(iso, at, b'"epoch": 1796')
    assert refused(iso, capsys) == ["signature manifest.json isn't signed by this key"]


def test_a_byte_that_no_other_check_looks_at_is_seen_by_the_checksum(iso, capsys):
    # the volume's application id
    write_at(iso, 16 * 2048 + 574, b"X")
    assert refused(iso, capsys) == ["evidence tiny.iso isn't the ISO that SHA256SUMS lists"]


def test_changed_checksums_are_refused(iso, capsys):
    sums = iso.with_name(SUMS)
    sums.write_bytes(sums.read_bytes().replace(b"0", b"1", 1))
    assert refused(iso, capsys) == ["evidence SHA256SUMS isn't signed by this key"]


def test_checksums_without_signature_are_refused(iso, capsys):
    iso.with_name(SUMS_SIGNATURE).unlink()
    assert refused(iso, capsys) == ["evidence SHA256SUMS.sig isn't there, so nobody vouches for SHA256SUMS"]


def test_evidence_without_checksums_is_refused(iso, capsys):
    """Else whoever changes a bill of materials would only have to take the checksums away."""
    iso.with_name(SUMS).unlink()
    assert refused(iso, capsys) == [
        "evidence SHA256SUMS isn't there, so nothing vouches for SHA256SUMS.sig, report.json, report.md, "
        "sbom-hypervisor.cdx.json, sbom-cvm.cdx.json, sbom-iso.cdx.json"]


def test_another_key_is_refused(iso, capsys, tmp_path):
    other = tmp_path / "other.pem"
    other.write_bytes(SoftwareKey(Ed25519PrivateKey.generate(), "release").public_pem())
    assert refused(iso, capsys, other) == ["signature manifest.json isn't signed by this key"]


def test_a_customised_iso_still_verifies(iso):
    write_at(iso, place(iso, SITE_AREA), site_area.pack(b"x" * 3000, SITE_AREA_SIZE))
    assert whole(iso)


def test_a_renamed_iso_still_verifies(iso):
    renamed = iso.rename(iso.with_name("rack-7.iso"))
    assert whole(renamed)


def test_an_iso_alone_is_verified_and_what_is_absent_is_said(iso, capsys):
    for path in iso.parent.iterdir():
        if path != iso:
            path.unlink()
    found = findings(iso)
    assert {check_id for check_id, finding in found.items() if finding.absent} == {*EVIDENCE, "netboot"}
    assert all(finding.passed or finding.absent for finding in found.values())
    subject = Subject(iso, KEY.public_pem())
    told = list(verify.told(subject, print))
    assert "evidence" in capsys.readouterr().out
    said = "\n".join(verify.trust(told, subject))
    assert said.startswith("development-signed: ")
    for name in (SUMS, NAME, provenance.NAME, *BOMS[:1], "report.json"):
        assert f"{name} isn't beside the ISO" in said
    count, absent = len(CHECKS), len(EVIDENCE) + 1
    assert f"{count - absent} of {count} checks passed, {absent} not looked at" in verify.summary(told, 1)


def test_provenance_alone_vouches_for_itself(iso):
    for path in iso.parent.iterdir():
        if path.name not in (iso.name, provenance.NAME):
            path.unlink()
    found = findings(iso)
    assert found["provenance"].passed
    assert {check_id for check_id, finding in found.items() if finding.absent} == \
        {*EVIDENCE, "netboot"} - {"provenance"}
    record = json.loads(iso.with_name(provenance.NAME).read_bytes())
    record["signatures"][0]["sig"] = "A" * 86 + "=="
    iso.with_name(provenance.NAME).write_text(json.dumps(record))
    assert findings(iso)["provenance"].wrong == ("provenance.intoto.json isn't signed by this key",)


def test_a_manifest_beside_without_its_signature_is_refused(iso, capsys):
    for path in iso.parent.iterdir():
        if path.name not in (iso.name, NAME):
            path.unlink()
    assert refused(iso, capsys) == ["evidence-manifest manifest.json.sig isn't beside the ISO, where manifest.json is"]


def changed(content: bytes, change) -> bytes:
    record = json.loads(content)
    change(record)
    return json.dumps(record).encode()


@pytest.mark.parametrize(("name", "change", "words"), [
    (BOMS[0], lambda bill: bill["components"].pop(), "sboms sbom-iso.cdx.json links to another sbom-hyper"),
    (BOMS[1], lambda bill: bill.update(components=[]), "sboms sbom-iso.cdx.json links to another sbom-cvm.cdx.json"),
    (BOMS[2], lambda bill: bill["components"].pop(), "sboms sbom-iso.cdx.json "),
    (BOMS[2], lambda bill: bill["metadata"]["properties"].clear(), "sboms sbom-iso.cdx.json names another identity"),
    (BOMS[2], lambda bill: bill.pop("components"), "sboms a file beside the ISO isn't of the form"),
    ("report.json", lambda report: report["iso"].update(sha256=""), "report report.json is about another ISO"),
    ("report.json", lambda report: report["packages"]["cvm"].pop(), "report report.json lists other packages of"),
    ("report.json", lambda report: report.update(signed="release-signed"), "report report.json names another profile"),
])
def test_signed_evidence_that_contradicts_the_iso_is_refused(iso, capsys, name, change, words):
    signed_anew(iso, name, changed((iso.parent / name).read_bytes(), change))
    assert refused(iso, capsys)[0].startswith(words)


@pytest.mark.parametrize(("change", "words"), [
    (lambda said: said["subject"][0]["digest"].update(sha256="0" * 64), "names another ISO"),
    (lambda said: said["predicate"]["buildDefinition"]["externalParameters"]["profile"].update(aos="7.0"),
     "names another profile"),
    (lambda said: said["predicate"]["buildDefinition"]["resolvedDependencies"][-1]["digest"].update(sha256="0"),
     "names another layer"),
    (lambda said: said["predicate"].clear(), "isn't of the form"),
    (lambda said: said.update(predicateType="other"), "is no in-toto statement"),
])
def test_signed_provenance_that_contradicts_the_iso_is_refused(iso, capsys, change, words):
    said = provenance.opened(iso.with_name(provenance.NAME).read_bytes(), KEY.public_pem())
    change(said)
    signed_anew(iso, provenance.NAME, provenance.envelope(said, PLAN.key))
    (line,) = refused(iso, capsys)
    assert line.startswith("provenance ")
    assert words in line


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"no JSON", b'{"payload": "%"}', b"\xff"])
def test_provenance_that_is_none_is_refused(iso, capsys, content):
    signed_anew(iso, provenance.NAME, content)
    (line,) = refused(iso, capsys)
    assert line.startswith("provenance ")


def test_checksums_of_something_else_are_refused(iso, capsys):
    sums = b"0" * 64 + b"  other.iso\n"
    iso.with_name(SUMS).write_bytes(sums)
    iso.with_name(SUMS_SIGNATURE).write_bytes(KEY.sign(sums))
    assert refused(iso, capsys) == [
        "evidence SHA256SUMS doesn't list one ISO and the files that belong beside it"]


def test_the_key_beside_is_the_default(iso, capsys):
    iso.with_name(SIGNATURE_NAME).unlink()
    assert verify.verify_iso(iso) == Code.VERIFY
    assert f"key  {iso.with_name(KEY_NAME)}" in capsys.readouterr().out

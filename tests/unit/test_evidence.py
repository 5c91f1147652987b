"""The evidence beside an ISO: what is in each file, that standard tools take it, and how a build mends it."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from cornerstone.factory.evidence import evidence, provenance, sbom
from cornerstone.factory.evidence.evidence import BOMS, LISTED, SUMS, SUMS_SIGNATURE
from cornerstone.factory.signing.signing import SoftwareKey
from cornerstone.model.contracts.manifest import HYPERVISOR, NAME, SIGNATURE_NAME, SITE_AREA, Manifest
from cornerstone.model.profile.additions import Additions, Entry, Tree
from small_iso import IDENTITY, LOCKS, PLAN, PROFILE, Workshop

ROOT = Path(__file__).resolve().parents[2]
GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, dict]:
    """A folder with an ISO and its evidence, not to be changed; and the record of the evidence."""
    workshop = Workshop(tmp_path_factory.mktemp("workshop"))
    iso = workshop.master()
    folder = tmp_path_factory.mktemp("output")
    return folder, evidence.write(iso.replace(folder / "tiny.iso"), PLAN, folder / "tiny.iso")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".iso"}


def bill(folder: Path, name: str) -> dict:
    return json.loads((folder / name).read_bytes())


def sha256sum(path: Path) -> str:
    return subprocess.run(["sha256sum", path], check=True, capture_output=True, text=True).stdout.split()[0]


def test_every_file_is_there_and_sha256sum_agrees(made):
    folder, record = made
    assert {path.name for path in folder.iterdir()} == {"tiny.iso", *LISTED, SUMS, SUMS_SIGNATURE}
    assert set(record["files"]) == {*LISTED, SUMS, SUMS_SIGNATURE}
    done = subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=folder, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == len(LISTED) + 1


def test_equal_inputs_give_equal_bytes_at_any_time_and_place(made, tmp_path):
    folder, record = made
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "tiny.iso"
    copy.write_bytes((folder / "tiny.iso").read_bytes())
    code = ("import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import small_iso\n"
            "from dataclasses import replace; from cryptography.hazmat.primitives.asymmetric.ed25519 import *\n"
            "from cornerstone.factory.evidence import evidence\n"
            "from cornerstone.factory.signing.signing import SoftwareKey\n"
            "key = SoftwareKey(Ed25519PrivateKey.from_private_bytes(bytes(32)), 'development')\n"
            "iso = Path(sys.argv[2]); evidence.write(iso, replace(small_iso.PLAN, key=key), iso)")
    read = []
    for zone, seed, mask in (("Asia/Kathmandu", "1", "077"), ("UTC", "2", "022")):
        elsewhere = ["unshare", "--uts", "sh", "-c", f'hostname {seed}; "$@"', "-"] if os.geteuid() == 0 else []
        subprocess.run([*elsewhere, "sh", "-c", f'umask {mask}; exec "$@"', "-", sys.executable, "-c", code,
                        str(Path(__file__).parent), copy], check=True,
                       env={**os.environ, "TZ": zone, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT / "src")})
        read.append(contents(copy.parent))
    assert read[0] == read[1]
    assert read[0].keys() == contents(folder).keys()


@pytest.mark.parametrize("name", BOMS)
def test_a_bill_is_valid_by_the_schema_that_the_library_ships(made, name):
    text = (made[0] / name).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.replace('"components"', '"parts"')) is not None


@pytest.mark.parametrize("root", LOCKS)
def test_a_root_s_bill_names_every_locked_package(made, root):
    record = bill(made[0], f"sbom-{root}.cdx.json")
    found = {(part["name"], part["version"], part["hashes"][0]["content"], part["purl"])
             for part in record["components"] if "purl" in part}
    assert {part[:3] for part in found} == {(p.name, p.version, p.sha256) for p in LOCKS[root].packages}
    assert "pkg:deb/debian/jq@1.7.1-6?arch=amd64&distro=trixie" in {part[3] for part in found}
    own = next(part for part in record["components"] if part["name"] == "cornerstone")
    assert own["properties"] == [{"name": "cornerstone:elements", "value": "6" * 64}]


@pytest.mark.parametrize("name", BOMS)
def test_a_bill_says_what_it_is_about_and_by_which_key(made, name):
    said = {each["name"].removeprefix("cornerstone:"): each["value"]
            for each in bill(made[0], name)["metadata"]["properties"]}
    assert said == {"identity": IDENTITY, "profile": "tiny", "aos": PROFILE["aos"], "ahv": PROFILE["ahv"],
                    "payload": "reference: an open stack, not Nutanix software", "signed": "development-signed"}


def test_no_file_claims_to_hold_nutanix_software(made):
    for name, content in contents(made[0]).items():
        rest = re.sub(rb"not Nutanix software", b"", content)
        assert b"nutanix" not in rest.lower(), name


def test_the_iso_s_bill_has_every_file_and_links_the_roots(made):
    folder, _ = made
    record = bill(folder, "sbom-iso.cdx.json")
    files = {part["name"]: part["hashes"][0]["content"] for part in record["components"] if part["type"] == "file"}
    listing = subprocess.run(["xorriso", "-osirrox", "on", "-indev", folder / "tiny.iso", "-extract", "/",
                              folder / "unpacked"], capture_output=True, text=True, check=False)
    try:
        on_iso = {str(path.relative_to(folder / "unpacked")): sha256sum(path)
                  for path in (folder / "unpacked").rglob("*") if path.is_file()}
    finally:
        subprocess.run(["chmod", "-R", "u+w", folder / "unpacked"], check=True)
        subprocess.run(["rm", "-r", folder / "unpacked"], check=True)
    assert files == on_iso, listing.stderr
    assert {HYPERVISOR, SITE_AREA, SIGNATURE_NAME, "boot/boot.cat"} <= files.keys()
    links = [link for part in record["components"] for link in part.get("externalReferences", ())]
    assert {(link["type"], link["url"], link["hashes"][0]["content"]) for link in links} == {
        ("bom", name, sha256sum(folder / name)) for name in BOMS[:-1]}


def test_a_bill_names_the_files_that_a_profile_lays_over_its_root_and_no_others(made):
    tree = Tree(Path("added"), (Entry("etc/a", "file", "a" * 64), Entry("usr/bin/b", "link", "c")))
    plain = PLAN.profile
    added = replace(PLAN, profile=replace(plain, hypervisor=replace(plain.hypervisor, extra=Additions(files=tree))))
    manifest = Manifest.from_bytes((made[0] / NAME).read_bytes())
    bills = {}
    for root, lock in LOCKS.items():
        content = sbom.root_bom(added, lock, manifest)
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(content.decode()) is None
        bills[root] = [part for part in json.loads(content)["components"] if part["type"] == "file"]
    assert bills["cvm"] == [] and sbom.root_bom(added, LOCKS["cvm"], manifest) == \
        (made[0] / "sbom-cvm.cdx.json").read_bytes()
    assert [part["name"] for part in bills["hypervisor"]] == ["etc/a", "usr/bin/b"]
    assert bills["hypervisor"][0]["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert bills["hypervisor"][1]["properties"] == [{"name": "cornerstone:link", "value": "c"}]


def test_provenance_names_what_went_in(made):
    said = provenance.opened((made[0] / provenance.NAME).read_bytes(), PLAN.key.public_pem())
    assert said["subject"] == [{"name": "tiny.iso", "digest": {"sha256": sha256sum(made[0] / "tiny.iso")}}]
    definition = said["predicate"]["buildDefinition"]
    assert definition["externalParameters"] == {"profile": PROFILE}
    assert definition["internalParameters"]["signed"] == "development-signed"
    found = {each["name"]: each for each in definition["resolvedDependencies"]}
    assert found["lock of cvm"]["digest"] == {"sha256": "5" * 64}
    assert found["layer hypervisor"]["uri"].endswith(PLAN.layers["hypervisor"].key)
    assert set(found["layer hypervisor"]["digest"]) == {"sha256"}
    assert all(each.keys() & {"uri", "digest", "content"} for each in found.values())
    text = json.dumps(said)
    assert str(ROOT) not in text and "/tmp" not in text


def checkout(folder: Path) -> Path:
    folder.mkdir()
    (folder / "file").write_text("one\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*GIT, *words], cwd=folder, check=True)
    return folder


def test_the_source_is_the_commit_and_says_when_files_differ(tmp_path):
    root = checkout(tmp_path / "checkout")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, check=True, capture_output=True, text=True)
    clean = provenance.source(root)
    assert clean["digest"] == {"gitCommit": commit.stdout.strip()}
    assert clean["annotations"] == {"dirty": False}
    (root / "file").write_text("two\n")
    assert provenance.source(root) == {**clean, "annotations": {"dirty": True}}
    (root / "file").write_text("one\n")
    (root / "unknown").touch()
    assert provenance.source(root)["annotations"] == {"dirty": True}


def test_a_copy_without_git_has_no_commit_even_inside_a_checkout(tmp_path):
    inner = checkout(tmp_path / "checkout") / "output" / "copy"
    inner.mkdir(parents=True)
    assert provenance.source(inner) == {**provenance.SOURCE, "annotations": {"commit": "unknown: not a git checkout"}}
    (inner / ".git").mkdir()
    assert provenance.source(inner)["annotations"] == {"commit": "unknown: git can't read this checkout"}


def test_another_user_s_checkout_is_read(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can give a checkout away")
    root = checkout(tmp_path / "checkout")
    subprocess.run(["chown", "-R", "65534", root], check=True)
    assert "digest" in provenance.source(root)


# how a build mends it

@pytest.fixture
def kept(made, tmp_path) -> tuple[Path, dict]:
    """An ISO of one's own with its evidence, and the record of it."""
    target = tmp_path / "out" / "tiny.iso"
    target.parent.mkdir()
    target.write_bytes((made[0] / "tiny.iso").read_bytes())
    return target, evidence.write(target, PLAN, target)


def test_what_was_made_is_current(kept):
    assert evidence.is_current(*kept)


@pytest.mark.parametrize("record", [None, {}, {"made_by": "another release", "files": {}}])
def test_without_a_record_it_is_not_current(kept, record):
    assert not evidence.is_current(kept[0], record)


@pytest.mark.parametrize("name", [*LISTED, SUMS, SUMS_SIGNATURE])
@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(path.read_bytes() + b" "),
                                    lambda path: os.utime(path, (1, 1))], ids=["gone", "longer", "time"])
def test_a_missing_or_changed_file_is_seen_and_mended(kept, monkeypatch, name, change):
    target, record = kept
    before = contents(target.parent)
    change(target.with_name(name))
    assert not evidence.is_current(target, record)
    # the commit has moved on since, and what the ISO was made from has not
    monkeypatch.setattr(provenance, "source", lambda root: pytest.fail("the source is the one of the ISO's making"))
    again = evidence.write(target, PLAN, target, record)
    assert evidence.is_current(target, again)
    assert contents(target.parent) == before


def test_a_failure_leaves_the_old_files(kept):
    target, record = kept
    before = contents(target.parent)

    class Failing(SoftwareKey):
        def sign(self, content: bytes) -> bytes:
            raise OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space"):
        evidence.write(target, replace(PLAN, key=Failing(Ed25519PrivateKey.generate(), "release")), target, record)
    assert contents(target.parent) == before


# the page

def test_the_commands_of_the_page_work_with_standard_tools_alone(made, tmp_path):
    """Each block of docs/evidence.md, in the folder with the ISO; and it fails when the files were changed."""
    page = (ROOT / "docs" / "evidence.md").read_text().replace("foundation-aos-6.8.iso", "tiny.iso")
    blocks = [block for block in re.findall(r"```sh\n(.*?)```", page, re.S) if "invoke" not in block]
    assert len(blocks) == 3

    def run(block: str, folder: Path) -> int:
        return subprocess.run(["bash", "-e", "-o", "pipefail", "-c", block], cwd=folder, capture_output=True,
                              check=False).returncode

    for name, content in contents(made[0]).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "tiny.iso").write_bytes((made[0] / "tiny.iso").read_bytes())
    (tmp_path / "maker.pem").write_bytes(PLAN.key.public_pem())
    assert [run(block, tmp_path) for block in blocks] == [0, 0, 0]
    with (tmp_path / SUMS).open("ab") as file:
        file.write(b"0" * 64 + b"  other\n")
    (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes().replace(b"6.8", b"7.0"))
    record = json.loads((tmp_path / provenance.NAME).read_bytes())
    record["payload"] = base64.b64encode(b"{}").decode()
    (tmp_path / provenance.NAME).write_text(json.dumps(record))
    assert [bool(run(block, tmp_path)) for block in blocks] == [True, True, True]


def test_the_page_names_every_file():
    page = (ROOT / "docs" / "evidence.md").read_text()
    assert [name for name in (*LISTED, SUMS, SUMS_SIGNATURE) if f"`{name}`" not in page] == []

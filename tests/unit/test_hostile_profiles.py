"""Profiles and catalogues as nobody should write them: refused with their place, soon, and in printable words."""

import shutil
import time
from pathlib import Path

import pytest

from cornerstone.lib import yaml_document
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.catalogue.catalogue import load_catalogue
from cornerstone.model.catalogue.version import AhvVersion, AosVersion
from cornerstone.model.profile.profile import load_profile
from cornerstone.model.rules.registry import Outcome
from cornerstone.model.rules.release import check_profile
from test_matrix import TODAY

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def catalogue():
    return load_catalogue(ROOT)


@pytest.fixture
def project(tmp_path):
    (tmp_path / "profiles").mkdir()
    shutil.copytree(ROOT / "versions", tmp_path / "versions")
    shutil.copy(ROOT / "profiles" / "base.yaml", tmp_path / "profiles")
    return tmp_path


@pytest.fixture
def load(project, catalogue):
    def call(text: str):
        (project / "profiles" / "mine.yaml").write_text(
            f'extends: base\naos: "6.8"\nahv: "20230302.100173"\n{text}\n', encoding="utf-8", errors="surrogatepass")
        return load_profile("mine", project, catalogue)
    return call


@pytest.fixture
def refused(load):
    def call(text: str) -> CornerstoneError:
        with pytest.raises(CornerstoneError) as caught:
            load(text)
        assert caught.value.code is Code.INPUT and caught.value.hint
        said = str(caught.value)
        assert said.encode() and all(line.isprintable() for line in said.split("\n"))
        assert len(said) < 1500
        return caught.value
    return call


@pytest.mark.parametrize(("written", "hint"), [
    ("010", "write 8 or 10, "), ("0x10", "write 16, "), ("1_0", "write 10, "), ("0b11", "write 3 or 0b11"),
    ("1:30", "write 90, "), ("+8", "write 8, "), ("0o10", None), ("-010", "write -8"), ("08", None),
])
def test_a_number_is_what_it_shows_t34(refused, written, hint):
    error = refused(f"cvm: {{vcpus: {written}}}")
    assert error.message.startswith("profiles/mine.yaml:4: .cvm.vcpus: ")
    if hint:
        assert error.hint.startswith(hint.split(" or 0b")[0])


@pytest.mark.parametrize("written", ["yes", "on", "off", "NO", "True", "FALSE"])
def test_a_truth_value_is_true_or_false_t34(refused, written):
    error = refused(f"abstract: {written}")
    assert error.message == f"profiles/mine.yaml:4: .abstract: '{written}' is a truth value to YAML"
    assert error.hint.startswith("write true or false")


def test_the_plain_spelling_is_taken_t34(load):
    assert load("cvm: {vcpus: 10}").cvm.vcpus == 10
    assert load("description: 'yes'").description == "yes"


@pytest.mark.parametrize("value", [
    "!!timestamp x", "!!timestamp 2024-01-01", "!!int x", "!!int ''", "!!float x", "!!bool x", "!!null x", "!!binary x",
    "!!omap [a: 1]", "!!pairs [a: 1]", "!!set {a}", "!!python/name:os.system x", "!foo x", "!!map x", "!!seq x",
    "!!str [a]", "!!map [a]", "!!timestamp {a: 1}", "!!int [1]", "!!float .inf", ".inf", ".nan", "1e400", "6.",
])
@pytest.mark.parametrize("key", ["description", "aos", "cvm", "novel"])
def test_a_tag_is_refused_with_its_line_t30(load, key, value, project):
    text = f'extends: base\n{key}: {value}\n'
    (project / "profiles" / "other.yaml").write_text(text)
    with pytest.raises(CornerstoneError) as caught:
        load_profile("other", project)
    assert caught.value.message.startswith("profiles/other.yaml:")


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + ".yaml", "x/" * 3000, "\0", "a\0.yaml", "\ud800", "\x1b[2J"])
def test_a_name_of_any_length_is_no_profile_t31(name, refused):
    with pytest.raises(CornerstoneError) as caught:
        load_profile(name, ROOT)
    assert "there is no profile" in caught.value.message
    assert str(caught.value).encode()
    assert all(line.isprintable() for line in str(caught.value).split("\n"))


def test_extends_of_any_length_is_no_profile_t31(project, catalogue):
    (project / "profiles" / "mine.yaml").write_text(f"extends: {'x' * 300}\n")
    with pytest.raises(CornerstoneError, match=r"^profiles/mine\.yaml:1: \.extends: there is no profile 'xxx"):
        load_profile("mine", project, catalogue)


@pytest.mark.parametrize(("written", "problem"), [
    (r'"\e[31mred\nline2"', "has characters that don't print"), (r'"a\u202eb"', "has characters that don't print"),
    ("|\n  two\n  lines", "has characters that don't print"), ("x" * 201, "has 201 characters"), ("' '", "is empty"),
])
def test_a_description_is_one_printable_line_t38(refused, written, problem):
    error = refused(f"description: {written}")
    assert error.message.startswith("profiles/mine.yaml:4: .description: ") and problem in error.message


def test_a_description_of_two_hundred_characters_t38(load):
    assert load(f"description: {'ö' * 200}").description == "ö" * 200


@pytest.mark.parametrize("text", [
    r'"\e[2J": 1', r'cvm: {"\u202e": 1}', f"{'k' * 100_000}: 1", f"payload: {'p' * 100_000}",
    r'machine: {tpm: "\x9b"}', f"cvm: {{disk: {'9' * 90_000}}}", r'reference: {suite: "\e[2J"}'])
def test_what_is_quoted_does_nothing_to_a_terminal_t38(refused, text):
    refused(text)


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10))


@pytest.mark.parametrize("text", [
    BOMB, "x" * (yaml_document.MOST + 1), "- a\n" * 100_000, "[" * 100_000, "a: " + "{b: " * 50_000, "? " * 100_000,
    "\n".join(f"k{number}: 1" for number in range(60_000))],
    ids=["aliases", "size", "list", "lists", "objects", "question marks", "keys"])
def test_a_hostile_profile_is_refused_soon_t32(project, text):
    (project / "profiles" / "mine.yaml").write_text(text)
    begun = time.process_time()
    with pytest.raises(CornerstoneError) as caught:
        load_profile("mine", project)
    assert time.process_time() - begun < 10
    assert caught.value.message.startswith("profiles/mine.yaml:") and len(str(caught.value)) < 1500


@pytest.mark.parametrize(("text", "rule", "bound"), [
    ("cvm: {memory: 9999999 TiB}", "cvm.sizing", "4194304"),
    ("cvm: {memory: 5 TiB}", "cvm.sizing", "4194304"),
    ("cvm: {disk: 9999999 TiB}", "cvm.sizing", "16777216"),
    ("cvm: {root_slot: 1 MiB}", "cvm.sizing", "512"),
    ("cvm: {root_slot: 65 GiB, disk: 200 GiB}", "cvm.sizing", "65536"),
    ("hypervisor: {root_slot: 1 MiB}", "hypervisor.root-slot", "512"),
    ("hypervisor: {root_slot: 9999999 TiB}", "hypervisor.root-slot", "65536"),
])
def test_sizes_have_bounds_t33(load, catalogue, text, rule, bound):
    violated = [verdict for verdict in check_profile(load(text), catalogue, today=TODAY)
                if verdict.outcome is Outcome.VIOLATED and verdict.severity == "error"]
    assert [verdict.rule.id for verdict in violated] == [rule]
    assert bound in violated[0].message


@pytest.mark.parametrize(("old", "new", "where"), [
    ("iso: AHV-DVD-x86_64-el8.nutanix.", "iso: AHV-DVD-x86_64-el8.nutanxi.", ".iso: "),
    ("name: AHV-DVD-x86_64-el8.nutanix.", "name: AHV-DVD-x86_64-el8.nutanxi.", ".name: "),
])
def test_a_wrong_file_name_has_its_place_t14(project, old, new, where):
    path = project / "versions" / "ahv.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    line = text[:text.index(old)].count("\n") + 1
    with pytest.raises(CornerstoneError) as caught:
        load_catalogue(project)
    assert caught.value.message.startswith(f"versions/ahv.yaml:{line}: .")
    assert where in caught.value.message and caught.value.hint


@pytest.mark.parametrize("text", ["AOſ 6.8", "AHV 20230302.100173\u2028", "6.8" * 10_000, "AHV ١٠.٣"])
def test_a_release_is_written_in_ascii_t53(text):
    for kind in (AosVersion, AhvVersion):
        with pytest.raises(CornerstoneError) as caught:
            kind.parse(text.replace("\u2028", "ſ"))
        assert len(caught.value.message) < 200

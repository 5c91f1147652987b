"""Profiles: the good load as recorded, the bad are refused with the text beside them."""

import json
import random
import re
import shutil
from pathlib import Path

import pytest

from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.catalogue.catalogue import load_catalogue
from cornerstone.model.profile.fields import format_size, parse_size
from cornerstone.model.profile.profile import load_profile, profile_names, schema_text

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data" / "profiles"
GIB = 1024 ** 3
SHIPPED = {
    "aos-6.5": ("6.5.3.6", "20220304.423", "bookworm"), "aos-6.7": ("6.7", "20230302.207", "bookworm"),
    "aos-6.8": ("6.8", "20230302.100173", "trixie"), "aos-6.8.1": ("6.8.1", "20230302.101026", "trixie"),
    "aos-6.10": ("6.10", "20230302.102001", "trixie"), "aos-7.0": ("7.0", "10.0", "trixie"),
    "aos-7.3": ("7.3", "10.3", "trixie"), "aos-7.5": ("7.5", "11.0", "trixie"), "aos-7.6": ("7.6", "11.2", "trixie"),
}


@pytest.fixture(scope="module")
def catalogue():
    return load_catalogue(ROOT)


@pytest.fixture
def project(tmp_path):
    """A root with the real catalogue and base profile; write profiles into its profiles/."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "versions").symlink_to(ROOT / "versions")
    shutil.copy(ROOT / "profiles" / "base.yaml", tmp_path / "profiles")
    return tmp_path


def test_what_is_shipped_in_release_order():
    assert [name for name in profile_names(ROOT) if name in SHIPPED] == list(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_each_shipped_profile_loads(name, catalogue):
    profile = load_profile(name, ROOT, catalogue)
    assert (profile.name, profile.payload, profile.inherits) == (name, "reference", ("base",))
    assert (profile.aos, profile.ahv, profile.reference.suite) == SHIPPED[name]
    assert profile.hypervisor.root_slot == 2 * GIB
    sizes = profile.cvm
    assert (sizes.memory, sizes.vcpus, sizes.disk, sizes.root_slot) == (20 * GIB, None, 20 * GIB, 2 * GIB)


@pytest.mark.parametrize("path", sorted((ROOT / "profiles").glob("*.yaml")), ids=lambda path: path.name)
def test_each_profile_file_names_its_schema_first(path):
    assert path.read_text().splitlines()[0] == "# yaml-language-server: $schema=schema.json"


@pytest.mark.parametrize("path", sorted((DATA / "good").glob("*.yaml")), ids=lambda path: path.stem)
def test_good_profiles_resolve_as_recorded(path, catalogue):
    resolved = load_profile(str(path), ROOT, catalogue).resolved()
    assert resolved == json.loads(path.with_suffix(".json").read_text())
    assert list(resolved) == ["name", "inherits", "description", "aos", "ahv", "payload", "reference", "hypervisor",
                              "cvm", "machine"]


@pytest.mark.parametrize("path", sorted((DATA / "bad").glob("*.yaml")), ids=lambda path: path.stem)
def test_bad_profiles_are_refused_with_the_text_beside_them(path, catalogue):
    with pytest.raises(CornerstoneError) as caught:
        load_profile(str(path), ROOT, catalogue)
    assert str(caught.value) + "\n" == path.with_suffix(".txt").read_text()
    assert caught.value.code is Code.INPUT and caught.value.hint


def test_there_are_golden_profiles_at_all():
    assert len(list((DATA / "bad").glob("*.yaml"))) > 30 and len(list((DATA / "good").glob("*.yaml"))) >= 3


@pytest.mark.parametrize(("name", "hint"), [
    ("aos-6.9", "did you mean aos-6"), ("aos-68", "did you mean aos-6.8"), ("xyz", "known profiles: aos-6.5, "),
    ("../aos-6.8", None), ("", "known profiles: "), ("..", "known profiles: "), ("nothing.yaml", None),
])
def test_an_unknown_profile_is_refused_with_a_hint(name, hint):
    with pytest.raises(CornerstoneError) as caught:
        load_profile(name, ROOT)
    assert "there is no profile" in caught.value.message
    assert (hint or "give a file, or a name: aos-6.5") in caught.value.hint


def test_a_profile_by_path_is_the_profile_by_name(catalogue):
    assert load_profile(str(ROOT / "profiles" / "aos-6.8.yaml"), ROOT, catalogue) == load_profile(
        "aos-6.8", ROOT, catalogue)


def test_an_abstract_profile_is_neither_listed_nor_built(catalogue):
    assert "base" not in profile_names(ROOT)
    with pytest.raises(CornerstoneError, match="only for others to extend"):
        load_profile("base", ROOT, catalogue)


def test_abstract_isnt_inherited(project, catalogue):
    (project / "profiles" / "mine.yaml").write_text('extends: base\naos: "6.8"\nahv: "20230302.100173"\n')
    assert load_profile("mine", project, catalogue).description == ""
    assert profile_names(project) == ["mine"]


def test_a_malformed_profile_is_still_listed(project):
    (project / "profiles" / "broken.yaml").write_text("a: [")
    assert profile_names(project) == ["broken"]


def test_an_error_in_a_parent_names_the_parent(project, catalogue):
    (project / "profiles" / "middle.yaml").write_text('extends: base\naos: "6.88"\n')
    (project / "profiles" / "mine.yaml").write_text('extends: middle\nahv: "20230302.100173"\n')
    with pytest.raises(CornerstoneError, match=r"^profiles/middle\.yaml:2: \.aos: the catalogue has no AOS 6\.88"):
        load_profile("mine", project, catalogue)


def test_a_path_outside_the_root_is_named_as_given(tmp_path, catalogue):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: base\naos: 1\n")
    with pytest.raises(CornerstoneError) as caught:
        load_profile(str(path), ROOT, catalogue)
    assert caught.value.message.startswith(f"{path}:2: .aos: ")


def test_a_directory_is_no_profile(project, catalogue):
    (project / "profiles" / "mine.yaml").mkdir()
    with pytest.raises(CornerstoneError):
        load_profile("mine", project, catalogue)


def test_resolved_is_json_and_stable(catalogue):
    first, second = (load_profile("aos-6.8", ROOT, catalogue).resolved() for _ in range(2))
    assert json.dumps(first) == json.dumps(second)
    assert json.loads(json.dumps(first)) == first


def test_lines_are_for_people(catalogue):
    lines = load_profile("aos-6.8", ROOT, catalogue).lines()
    assert ".aos = 6.8" in lines and ".cvm.memory = 20 GiB" in lines and ".cvm.disk = 20 GiB" in lines


def test_the_committed_schema_is_the_export(catalogue):
    assert (ROOT / "profiles" / "schema.json").read_text() == schema_text(catalogue), "write it anew: docs/profiles.md"


def test_the_schema_refuses_what_the_loader_refuses(catalogue):
    schema = json.loads(schema_text(catalogue))
    assert schema["additionalProperties"] is False
    assert "6.10" in schema["properties"]["aos"]["enum"] and "6.9" not in schema["properties"]["aos"]["enum"]
    assert "20230302.100173" in schema["properties"]["ahv"]["enum"]
    assert '"null"' not in json.dumps(schema)
    memory = schema["$defs"]["CvmFile"]["properties"]["memory"]
    assert re.fullmatch(memory["pattern"], "20 GiB") and not re.fullmatch(memory["pattern"], "20 GB")


@pytest.mark.parametrize(("text", "size"), [("1 MiB", 1024 ** 2), ("512 MiB", 512 * 1024 ** 2), ("20 GiB", 20 * GIB),
                                            ("2TiB", 2048 * GIB)])
def test_sizes(text, size):
    assert parse_size(text) == size
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize("text", ["", "20", "GiB", "0 GiB", "-1 GiB", "1.5 GiB", "20 GB", "20 gib", "20  GiB",
                                  "20 GiB ", "٢ GiB", 20, None, [], 2.0])
def test_what_is_no_size(text):
    with pytest.raises(Exception, match="isn't a size"):
        parse_size(text)


@pytest.mark.parametrize(("size", "text"), [(2048 * GIB, "2 TiB"), (3 * GIB, "3 GiB"), (1536 * 1024 ** 2, "1536 MiB"),
                                            (1000, "1000 B")])
def test_sizes_for_people(size, text):
    assert format_size(size) == text


DAMAGE = ("", ":", "\n", "\t", "{", "]", "- ", '"', "&a ", "*a", "!!set ", "é", "\0", "0x", "~", "? ", "<<: ", "|",
          "9" * 5000)


@pytest.mark.parametrize("seed", list(range(150)))
def test_a_damaged_profile_loads_or_is_refused_in_one_way(seed, project, catalogue):
    """Random damage to a good file: nothing but a CornerstoneError that names the file may come out."""
    chance = random.Random(seed)
    text = list((DATA / "good" / "small.yaml").read_text() + "reference:\n  suite: trixie\n")
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(text))
        text[at:at + chance.randint(0, 4)] = chance.choice(DAMAGE)
    path = project / "profiles" / "small.yaml"
    path.write_text("".join(text))
    try:
        load_profile("small", project, catalogue)
    except CornerstoneError as error:
        assert error.message.startswith("profiles/small.yaml:") and error.hint


@pytest.mark.parametrize("text", [
    "!!set {aos, ahv}", "!!timestamp x: y", "a: !!timestamp 2024-99-99", "a: !!binary '?'", "[" * 5000,
    "aos: " + "{a: " * 3000, "aos: !!python/object:os.system x", "vcpus: " + "9" * 6000,
])
def test_hostile_yaml_is_refused(text, project, catalogue):
    (project / "profiles" / "small.yaml").write_text(text)
    with pytest.raises(CornerstoneError, match=r"^profiles/small\.yaml:"):
        load_profile("small", project, catalogue)

"""The matrix: what it says, in which format, and with which exit code."""

import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from cornerstone.factory.matrix import FORMATS, run_matrix
from cornerstone.lib.error import CornerstoneError
from cornerstone.model.profile.profile import profile_names
from cornerstone.model.rules.registry import REGISTRY

ROOT = Path(__file__).resolve().parents[2]
TODAY = datetime.date(2026, 11, 22)


@pytest.fixture
def project(tmp_path):
    """A root with the real catalogue and only the base profile."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "versions").symlink_to(ROOT / "versions")
    shutil.copy(ROOT / "profiles" / "base.yaml", tmp_path / "profiles")
    return tmp_path


def write(project, name, aos, ahv, more=""):
    (project / "profiles" / f"{name}.yaml").write_text(f'extends: base\naos: "{aos}"\nahv: "{ahv}"\n{more}')


def code(root, **options):
    return run_matrix(root, today=options.pop("today", TODAY), **options)[1]


def findings(root) -> list[str]:
    """The severities of all findings, counted in another format than the one under test."""
    rows = json.loads(run_matrix(root, format="json", today=TODAY)[0])["rows"]
    return [verdict["severity"] for row in rows for verdict in row["verdicts"] if verdict["severity"]]


def test_t56_the_page_names_each_other_place_of_a_new_profile():
    page = (ROOT / "docs" / "catalogue.md").read_text()
    assert "`Jenkinsfile`" in page and "./invoke schema" in page


def test_t56_a_new_profile_by_the_documents_leaves_the_tests_green(tmp_path):
    for folder in ("tests/unit", "tests/data/profiles", "profiles", "src/cornerstone/model"):
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("versions", "pyproject.toml", "invoke", "requirements.lock", "debian-packages.txt", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "profiles" / "aos-6.10.1.yaml").write_text(
        '# yaml-language-server: $schema=schema.json\nextends: base\naos: "6.10.1"\nahv: "20230302.103003"\n')
    jenkins = (ROOT / "Jenkinsfile").read_text()
    (tmp_path / "Jenkinsfile").write_text(jenkins.replace("'aos-6.10',", "'aos-6.10', 'aos-6.10.1',"))
    tests = ["test_matrix.py", "test_profile.py",
             "test_jenkins.py::test_a_cell_for_each_profile"]
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not t56",
                           *(f"tests/unit/{name}" for name in tests)], cwd=tmp_path, capture_output=True, text=True,
                          check=False, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    assert done.returncode == 0, done.stdout[-3000:]
    assert "aos-6.10.1" in done.stdout or " passed" in done.stdout


@pytest.mark.parametrize(("aos", "ahv", "said"), [
    ("6.7", "20230302.103003", "20230302.103003 is of the branch 20230302.10xxxx, and that belongs to AOS 6.8, 6.10;"),
    ("6.8", "20230302.207", "AHV 20230302.207 belongs to AOS 6.7;"),
    ("6.5", "20230302.99999", "is of the line 20230302, and that belongs to AOS 6.7, 6.8, 6.10;"),
])
def test_t53_what_belongs_to_a_train_is_the_build_its_branch_or_its_line(aos, ahv, said):
    assert said in run_matrix(ROOT, aos=aos, ahv=ahv, today=TODAY)[0]


@pytest.mark.parametrize("aos", ["AO\u017f 6.8", "aos 6.8\u0660", "\u0041\u004f\u017f-6.8"])
def test_t53_letters_that_only_look_like_ours_are_refused(aos):
    with pytest.raises(CornerstoneError):
        run_matrix(ROOT, aos=aos, ahv="20230302.100173", today=TODAY)


def test_what_is_shipped_passes_today():
    text, exit_code = run_matrix(ROOT, today=TODAY)
    assert exit_code == 0
    found = findings(ROOT)
    assert text.splitlines()[-1] == (f"{len(profile_names(ROOT))} profiles on 2026-11-22: errors 0, warnings "
                                     f"{found.count('warning')}, notes {found.count('info')}; passed")
    assert found.count("warning") >= 5
    for name in profile_names(ROOT):
        assert f"\n{name} " in text
    assert "aos-6.8: warning aos.end-of-support: support for AOS 6.8 ended on 2025-08-31\n    hint: " in text


def test_strict_fails_on_the_ends_of_support_and_only_then(project):
    assert code(ROOT, strict=True) == 1
    write(project, "current", "7.6", "11.2")
    assert code(project, strict=True) == 0
    assert code(project, strict=True, today=datetime.date(2028, 8, 1)) == 1
    assert code(project, strict=False, today=datetime.date(2028, 8, 1)) == 0


@pytest.mark.parametrize(("aos", "ahv", "more", "expected"), [
    ("7.6", "11.2", "", 0),
    ("6.8", "20230302.207", "", 1),                                   # across lines
    ("7.5", "11.2", "", 1),
    ("7.5", "11.0.1", "", 0),                                         # unknown: a warning
    ("7.6", "11.2", "cvm: {memory: 1 GiB}\n", 1),
])
def test_exit_code_of_profiles(project, aos, ahv, more, expected):
    write(project, "mine", aos, ahv, more)
    assert code(project) == expected


@pytest.mark.parametrize("form", FORMATS)
def test_exit_code_is_the_same_in_every_format(project, form):
    write(project, "mine", "7.6", "11.2")
    assert code(project, format=form) == 0
    write(project, "mine", "7.5", "11.2")
    assert code(project, format=form) == 1


def test_one_bad_profile_fails_the_whole(project):
    write(project, "good", "7.6", "11.2")
    write(project, "bad", "6.8", "20230302.207")
    text, exit_code = run_matrix(project, today=TODAY)
    assert exit_code == 1
    assert "bad: error pair.same-line: AHV 20230302.207 belongs to AOS 6.7;" in text
    assert text.rstrip().endswith("; 1 failed")


def test_unknown_pairs_of_profiles_fail_under_strict_only(project):
    write(project, "near", "7.5", "11.0.1")
    text, exit_code = run_matrix(project, today=TODAY)
    assert exit_code == 0 and "near: warning pair.known: unknown: no source pairs AOS 7.5 with AHV 11.0.1" in text
    assert code(project, strict=True) == 1


@pytest.mark.parametrize(("aos", "ahv", "answer", "expected"), [
    ("6.8", "20230302.100173", "compatible", 0),
    ("AOS 6.8", "AHV-DVD-x86_64-el8.nutanix.20230302.100173.iso", "compatible", 0),
    ("6.8", "20230302.207", "incompatible", 1), ("6.5", "10.0", "incompatible", 1),
    ("6.8", "20230302.102001", "unknown", 1), ("6.9", "10.0", "unknown", 1), ("7.5.1.8", "11.0.1.3", "unknown", 1),
])
def test_a_pair_passes_only_when_compatible(aos, ahv, answer, expected):
    text, exit_code = run_matrix(ROOT, aos=aos, ahv=ahv, today=TODAY)
    assert exit_code == expected
    assert text.splitlines()[0].endswith(f": {answer}")


@pytest.mark.parametrize("form", FORMATS)
def test_an_unknown_pair_fails_in_every_format(form):
    text, exit_code = run_matrix(ROOT, format=form, aos="6.8", ahv="20230302.102001", today=TODAY)
    assert exit_code == 1 and "unknown" in text


def test_a_pair_needs_no_profile(tmp_path):
    (tmp_path / "versions").symlink_to(ROOT / "versions")
    assert code(tmp_path, aos="6.8", ahv="20230302.100173") == 0


def test_a_pair_answer_names_its_reason_and_evidence():
    text, _ = run_matrix(ROOT, aos="6.8", ahv="20230302.100173", today=TODAY)
    assert text.startswith("AOS 6.8 with AHV 20230302.100173: compatible\n")
    assert "nutanix, grade A: The Nutanix Bible" in text


@pytest.mark.parametrize("options", [
    {"aos": "6.8"}, {"ahv": "11.2"}, {"aos": "latest", "ahv": "11.2"}, {"aos": "6.8", "ahv": "9.1"},
    {"aos": "", "ahv": ""}, {"format": "jsn"}, {"format": "html"},
])
def test_bad_arguments_are_refused_with_a_hint(options):
    with pytest.raises(CornerstoneError) as caught:
        run_matrix(ROOT, today=TODAY, **options)
    assert caught.value.hint


def test_no_profiles_is_no_pass(project):
    with pytest.raises(CornerstoneError, match="there are no profiles"):
        run_matrix(project, today=TODAY)


@pytest.mark.parametrize("form", FORMATS)
def test_a_malformed_profile_is_a_row_among_the_others_t42(project, form):
    write(project, "good", "7.6", "11.2")
    write(project, "typo", "7.6", "11.2", "cvmm: {}\n")
    write(project, "aos-6.9", "7.6", "11.2")
    (project / "profiles" / "aos-6.9.yaml").write_text("extends: base\naos: 6.10\n")
    text, exit_code = run_matrix(project, format=form, today=TODAY)
    assert exit_code == 2
    for part in ("good", "11.2", "typo", "malformed", "profiles/typo.yaml:4: .cvmm: unknown key",
                 "profiles/aos-6.9.yaml:2: .aos: ", "did you mean cvm?"):
        assert part in text or form == "junit" and part == "11.2"


@pytest.mark.parametrize("options", [{}, {"aos": "6.8", "ahv": "20230302.100173"}])
def test_a_malformed_catalogue_is_a_whole_report_t42(project, options):
    (project / "versions").unlink()
    shutil.copytree(ROOT / "versions", project / "versions")
    with (project / "versions" / "ahv.yaml").open("a") as file:
        file.write("wrong: 1\n")
    write(project, "good", "7.6", "11.2")
    text, exit_code = run_matrix(project, format="junit", today=TODAY, **options)
    assert exit_code == 2
    (suite,) = require_junit_10(text)
    assert suite.find("testcase/failure").get("message").startswith("versions/ahv.yaml:")


def test_json():
    report = json.loads(run_matrix(ROOT, format="json", today=TODAY)[0])
    assert (report["v"], report["today"], report["strict"], report["failed"]) == (1, "2026-11-22", False, False)
    assert [row["name"] for row in report["rows"]] == profile_names(ROOT)
    row = report["rows"][2]
    assert (row["name"], row["aos"], row["ahv"], row["suite"]) == ("aos-6.8", "6.8", "20230302.100173", "trixie")
    assert row["pair"]["answer"] == "compatible" and row["pair"]["evidence"][0]["grade"] == "A"
    assert [verdict["rule"] for verdict in row["verdicts"]] == [rule.id for rule in REGISTRY.rules("pair", "profile")]
    support = next(verdict for verdict in row["verdicts"] if verdict["rule"] == "aos.end-of-support")
    assert (support["outcome"], support["severity"], support["level"]) == ("violated", "warning", "warning")


REQUIRED = {"testsuites": set(), "testsuite": {"name", "tests", "failures", "errors"}, "testcase": {"name"},
            "failure": set(), "error": set(), "skipped": set(), "system-out": set(), "system-err": set()}
ALLOWED = {"testsuites": {"name", "time", "tests", "failures", "errors"},
           "testsuite": {"name", "tests", "failures", "errors", "group", "time", "skipped", "timestamp", "hostname",
                         "id", "package", "file", "log", "url"},
           "testcase": {"name", "time", "classname", "group"}, "failure": {"type", "message"},
           "error": {"type", "message"}, "skipped": {"type", "message"}, "system-out": set(), "system-err": set()}
INNER = {"testsuites": {"testsuite"}, "testsuite": {"testsuite", "testcase", "system-out", "system-err"},
         "testcase": {"skipped", "error", "failure", "system-out", "system-err"}}
SUREFIRE_TIME = re.compile(r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]{0,3})?")


def require_junit_10(text: str) -> ET.Element:
    """The report, held against what junit-10.xsd of Jenkins' xUnit plugin requires and allows; it is in no package."""
    top = ET.fromstring(text)
    assert top.tag == "testsuites"
    for element in top.iter():
        assert REQUIRED[element.tag] <= set(element.keys()) <= ALLOWED[element.tag], element.attrib
        assert {inner.tag for inner in element} <= INNER.get(element.tag, set())
        assert element.tag not in INNER or not (element.text or "").strip()
        if element.tag in ("testsuites", "testsuite"):
            assert SUREFIRE_TIME.fullmatch(element.get("time"))
            for attribute, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
                assert element.get(attribute) == str(len(list(element.iter(tag))))
    return top


@pytest.mark.parametrize("options", [{}, {"strict": True}, {"aos": "6.8", "ahv": "20230302.102001"},
                                     {"aos": "6.8", "ahv": "20230302.100173", "strict": True}], ids=str)
def test_junit_is_valid_by_the_schema_of_its_readers_t40(options):
    for suite in require_junit_10(run_matrix(ROOT, format="junit", today=TODAY, **options)[0]):
        assert datetime.datetime.fromisoformat(suite.get("timestamp"))
        assert suite.get("hostname")


def test_junit_of_a_malformed_profile_is_valid_t40(project):
    write(project, "typo", "7.6", "11.2", 'description: "\\e[2J"\n')
    (suite,) = require_junit_10(run_matrix(project, format="junit", today=TODAY)[0])
    assert suite.find("testcase/failure").get("type") == "malformed"


def test_a_class_name_has_one_dot_t41():
    top = ET.fromstring(run_matrix(ROOT, format="junit", today=TODAY)[0])
    names = {case.get("classname") for case in top.iter("testcase")}
    assert "matrix.aos-6_8_1" in names
    assert len(names) == len(profile_names(ROOT))
    top = ET.fromstring(run_matrix(ROOT, format="junit", today=TODAY, aos="6.8", ahv="20230302.100173")[0])
    names |= {case.get("classname") for case in top.iter("testcase")}
    assert all(name.count(".") == 1 for name in names)


@pytest.mark.parametrize("strict", [False, True])
def test_junit(strict):
    failures = findings(ROOT).count("warning") if strict else 0
    suites = ET.fromstring(run_matrix(ROOT, format="junit", strict=strict, today=TODAY)[0])
    assert [suite.get("name") for suite in suites] == profile_names(ROOT)
    assert sum(int(suite.get("failures")) for suite in suites) == len(list(suites.iter("failure"))) == failures
    for suite in suites:
        assert int(suite.get("tests")) == len(suite) == len(REGISTRY.rules("pair", "profile"))
        assert int(suite.get("skipped")) == len(list(suite.iter("skipped")))


def test_junit_of_a_pair_that_isnt_compatible_fails():
    text, _ = run_matrix(ROOT, format="junit", aos="6.8", ahv="20230302.102001", today=TODAY)
    suites = ET.fromstring(text)
    failure = suites.find("./testsuite/testcase[@name='answer']/failure")
    assert failure.get("type") == "unknown" and suites[0].get("failures") == "1"


def test_markdown_is_a_table_with_as_many_cells_in_each_row():
    text, _ = run_matrix(ROOT, format="markdown", today=TODAY)
    for block in text.strip().split("\n\n")[:2]:
        assert len({line.count("|") for line in block.splitlines()}) == 1
    assert "| aos-6.10 | 6.10 | 20230302.102001 | trixie | compatible | nutanix (A) | 0 | 1 | 3 |" in text


def test_piped_output_is_plain():
    assert "\x1b" not in run_matrix(ROOT, today=TODAY)[0]


def test_a_terminal_gets_colour_and_its_own_width(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    text, _ = run_matrix(ROOT, today=TODAY)
    assert "\x1b[" in text

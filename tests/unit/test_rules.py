"""The rules: each is seen to pass, to be violated and to be unknown where it can be; the registry and its table."""

import ast
import dataclasses
import datetime
import sys
from pathlib import Path
from typing import get_args

import pytest

from cornerstone.factory.store.closure import closure
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.catalogue.catalogue import load_catalogue
from cornerstone.model.catalogue.version import AhvVersion, AosVersion
from cornerstone.model.profile.fields import ReferenceFile
from cornerstone.model.profile.profile import load_profile
from cornerstone.model.rules import hardware  # noqa: F401 (its rules are checked here too)
from cornerstone.model.rules.registry import REGISTRY, Level, Outcome, Registry, Result, Rule, Verdict
from cornerstone.model.rules.release import SUITES, check_pair, check_profile, require_profile

ROOT = Path(__file__).resolve().parents[2]
TODAY = datetime.date(2026, 11, 22)
GIB = 1024 ** 3


@pytest.fixture(scope="module")
def catalogue():
    return load_catalogue(ROOT)


@pytest.fixture(scope="module")
def profile(catalogue):
    return load_profile("aos-6.8", ROOT, catalogue)


def outcome(verdicts, rule_id):
    return next(verdict for verdict in verdicts if verdict.rule.id == rule_id).outcome


@pytest.mark.parametrize(("rule_id", "aos", "ahv", "expected"), [
    ("aos.release-known", "6.8", "20230302.100173", "ok"),
    ("aos.release-known", "6.8.2", "20230302.100173", "violated"),
    ("ahv.build-known", "6.8", "20230302.100173", "ok"),
    ("ahv.build-known", "6.8", "20230302.10015", "violated"),
    ("pair.same-line", "6.8", "20230302.102001", "ok"),
    ("pair.same-line", "6.8", "20230302.207", "violated"),
    ("pair.same-line", "6.5", "10.0", "violated"),
    ("pair.same-line", "6.0", "20201105.2244", "unknown"),
    ("pair.known", "6.8", "20230302.100173", "ok"),
    ("pair.known", "6.8", "20230302.102001", "unknown"),
    ("pair.known", "6.8", "20230302.207", "unknown"),
    ("pair.minimum", "6.10", "20230302.102001", "ok"),
    ("pair.minimum", "6.10", "20230302.101026", "violated"),
    ("pair.minimum", "6.5.6", "20220304.342", "violated"),
    ("pair.minimum", "6.5.2", "20220304.342", "ok"),
    ("pair.minimum", "7.3", "20230302.103003", "violated"),
    ("pair.minimum", "6.8", "20230302.207", "unknown"),
    ("aos.end-of-support", "7.0", "10.0", "ok"),
    ("aos.end-of-support", "6.10", "20230302.102001", "violated"),
    ("aos.end-of-support", "5.17.1", "20190916.189", "unknown"),
    ("aos.end-of-support", "9.9", "11.2", "unknown"),
    ("aos.end-of-maintenance", "7.5", "11.0", "ok"),
    ("aos.end-of-maintenance", "7.3", "10.3", "violated"),
    ("aos.end-of-maintenance", "5.19.2", "20201105.1161", "unknown"),
    ("ahv.delivery-agreed", "6.8.1", "20230302.101026", "ok"),
    ("ahv.delivery-agreed", "6.10", "20230302.102001", "unknown"),
    ("ahv.delivery-agreed", "4.5", "20160601.20", "unknown"),
    ("foundation.tested", "6.8.1", "20230302.101026", "ok"),
    ("foundation.tested", "6.7", "20230302.207", "unknown"),
    ("upgrade.hop-known", "6.10", "20230302.102001", "ok"),
    ("upgrade.hop-known", "6.5.6.6", "20220304.511", "ok"),
    ("upgrade.hop-known", "7.0", "10.0", "unknown"),
])
def test_pair_rules(catalogue, rule_id, aos, ahv, expected):
    verdicts = check_pair(AosVersion.parse(aos), AhvVersion.parse(ahv), catalogue, today=TODAY)
    assert outcome(verdicts, rule_id) == expected


@pytest.mark.parametrize(("day", "expected"), [("2025-08-31", "ok"), ("2025-09-01", "violated")])
def test_the_last_day_of_support_is_supported(catalogue, profile, day, expected):
    verdicts = check_profile(profile, catalogue, today=datetime.date.fromisoformat(day))
    assert outcome(verdicts, "aos.end-of-support") == expected


@pytest.mark.parametrize(("change", "expected"), [
    ({}, "ok"), ({"memory": 2 * GIB}, "ok"), ({"memory": 2 * GIB - 1}, "violated"), ({"vcpus": 2}, "ok"),
    ({"vcpus": 1}, "violated"), ({"disk": 5 * GIB}, "ok"), ({"disk": 5 * GIB - 1}, "violated"),
    ({"root_slot": 10 * GIB}, "violated"),
])
def test_controller_sizing(catalogue, profile, change, expected):
    sizes = dataclasses.replace(profile.cvm, **change)
    verdicts = check_profile(dataclasses.replace(profile, cvm=sizes), catalogue, today=TODAY)
    assert outcome(verdicts, "cvm.sizing") == expected


@pytest.mark.parametrize(("suite", "expected"), [("bookworm", "ok"), ("trixie", "ok"), ("bullseye", "violated")])
def test_suite(catalogue, profile, suite, expected):
    changed = dataclasses.replace(profile, reference=dataclasses.replace(profile.reference, suite=suite))
    assert outcome(check_profile(changed, catalogue, today=TODAY), "suite.supported") == expected


def test_the_profile_accepts_just_the_suites_of_the_rule():
    assert get_args(get_args(ReferenceFile.model_fields["suite"].annotation)[0]) == SUITES


def test_a_pair_runs_the_pair_rules_only(catalogue, profile):
    pair = check_pair(AosVersion.parse("6.8"), AhvVersion.parse("20230302.100173"), catalogue, today=TODAY)
    whole = check_profile(profile, catalogue, today=TODAY)
    assert {verdict.rule.scope for verdict in pair} == {"pair"}
    assert [verdict.rule for verdict in whole] == list(REGISTRY.rules("pair", "profile"))


def test_the_build_refuses_an_error_and_lets_a_warning_pass(catalogue, profile):
    assert require_profile(profile, catalogue, today=TODAY) == check_profile(profile, catalogue, today=TODAY)
    with pytest.raises(CornerstoneError) as caught:
        require_profile(dataclasses.replace(profile, ahv="20230302.207"), catalogue, today=TODAY)
    assert caught.value.message.startswith("profile aos-6.8: pair.same-line: ") and caught.value.hint
    assert caught.value.code is Code.INPUT


@pytest.mark.parametrize(("level", "result", "severity"), [
    (Level.ERROR, Outcome.OK, None), (Level.ERROR, Outcome.VIOLATED, Level.ERROR),
    (Level.ERROR, Outcome.UNKNOWN, Level.WARNING), (Level.WARNING, Outcome.VIOLATED, Level.WARNING),
    (Level.WARNING, Outcome.UNKNOWN, Level.WARNING), (Level.INFO, Outcome.VIOLATED, Level.INFO),
    (Level.INFO, Outcome.UNKNOWN, Level.INFO), (Level.INFO, Outcome.OK, None),
])
def test_severity(level, result, severity):
    assert Verdict(Rule("a.b", level, "pair", "", "", Result.ok), result, "").severity is severity


def test_a_registry_serves_other_scopes_and_refuses_an_id_twice():
    registry = Registry()

    @registry.rule("disk.one", Level.ERROR, "hardware", "name one disk")
    def one_disk(facts):
        """Exactly one disk matches."""
        return Result.ok("sda") if facts == ["sda"] else Result.violated(f"{len(facts)} disks")

    assert registry.rules("hardware")[0].sentence == "Exactly one disk matches."
    assert registry.check(["sda"], "hardware")[0].severity is None
    assert registry.check([], "hardware")[0].severity is Level.ERROR
    assert registry.check([], "pair") == ()
    with pytest.raises(ValueError, match=r"disk\.one"):
        registry.rule("disk.one", Level.INFO, "hardware", "")(one_disk)


@pytest.mark.parametrize("rule", REGISTRY.rules(), ids=lambda rule: rule.id)
def test_each_rule_has_one_sentence_and_a_hint(rule):
    assert rule.sentence.endswith(".") and "\n" not in rule.sentence and rule.sentence.count(". ") == 0
    assert rule.hint and not rule.hint.endswith(".")
    area, _, name = rule.id.partition(".")
    assert area.isalpha() and name.replace("-", "").isalpha() and rule.id == rule.id.lower()


def test_the_table_in_the_docs_is_the_registry():
    page = (ROOT / "docs" / "catalogue.md").read_text()
    table = page.split("<!-- rules:")[1].split("|---|---|---|---|\n")[1]
    assert table.splitlines() == [f"| `{rule.id}` | {rule.level} | {rule.sentence} | {rule.hint} |"
                                  for rule in REGISTRY.rules("pair", "profile")]


def test_the_examples_in_the_docs_are_files():
    page = (ROOT / "docs" / "profiles.md").read_text()
    data = ROOT / "tests" / "data" / "profiles"
    for name in ("small", "extra"):
        assert f"```yaml\n{(data / 'good' / f'{name}.yaml').read_text()}```" in page
    for name in ("unknown-inner-key", "extra-argument-root"):
        assert f"```text\n{(data / 'bad' / f'{name}.txt').read_text()}```" in page


@pytest.mark.parametrize("module", ["catalogue/version", "catalogue/release", "catalogue/pair", "contracts/facts",
                                    "contracts/requirements", "rules/fitness",
                                    "rules/__init__", "rules/registry", "rules/release", "rules/hardware"])
def test_what_runs_on_the_machine_imports_the_standard_library_only(module):
    """Nor does anything that it imports."""
    for path in closure(ROOT / "src", {ROOT / "src" / "cornerstone" / "model" / f"{module}.py"}):
        tree = ast.parse(path.read_text())
        guarded = {id(node) for block in ast.walk(tree) if isinstance(block, ast.If)
                   and ast.unparse(block.test) == "TYPE_CHECKING" for node in ast.walk(block)}
        names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module for node in ast.walk(tree)
                  if isinstance(node, ast.ImportFrom) and id(node) not in guarded]
        assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names | {"cornerstone"}, path

"""Every test that docs/data-path.md names exists, where it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/data-path.md").read_text()
# where a name stands for itself
DEFAULT = "tests/unit/test_fencing.py"
FILES = sorted(set(re.findall(r"tests/[\w/-]+\.py", PAGE)))
NAMES = sorted({(file or DEFAULT, name) for file, name in
                re.findall(r"`(?:(tests/[\w/-]+\.py)::)?(test_\w+)`", PAGE)})
ENDINGS = [(file, ending) for file, endings in re.findall(r"`(tests/[\w/-]+\.py)` whose names end in ([^.]+)\.", PAGE)
           for ending in re.findall(r"`(\w+)`", endings)]


def names_in(file: str) -> list[str]:
    return re.findall(r"^def (test_\w+)\(", (ROOT / file).read_text(), re.MULTILINE)


def test_names_are_found():
    assert f"the test is in `{DEFAULT}`" in PAGE
    assert FILES and NAMES and ENDINGS
    # no other way of writing one, which nobody would check
    words = set(re.findall(r"\btest_\w+", re.sub(r"tests/[\w/-]+\.py", "", PAGE)))
    assert words == {name for _, name in NAMES}


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_named_has_tests(file):
    assert names_in(file) or "RuleBasedStateMachine" in (ROOT / file).read_text()


@pytest.mark.parametrize(("file", "name"), NAMES)
def test_a_test_that_is_named_exists(file, name):
    assert name in names_in(file)


@pytest.mark.parametrize(("file", "ending"), ENDINGS)
def test_tests_exist_whose_names_end_so(file, ending):
    assert any(name.endswith(ending) for name in names_in(file))

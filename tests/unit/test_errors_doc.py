"""docs/errors.md and the code's exit codes are one table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cornerstone.lib.error import Code, CornerstoneError

DOC = Path(__file__).resolve().parents[2] / "docs" / "errors.md"
ROWS = re.findall(r"^\| (\d+) \| `?(\w+)`? \| (.+?) \| (.+?) \|$", DOC.read_text(), re.M)


def test_table_has_every_code_and_no_other():
    documented = [(int(number), name) for number, name, _, _ in ROWS]
    assert documented == [(0, "ok"), *((int(code), code.name.lower()) for code in Code)]


@pytest.mark.parametrize(("name", "meaning", "mend"), [row[1:] for row in ROWS])
def test_each_row_says_something(name, meaning, mend):
    assert len(meaning.split()) >= 3
    assert mend.strip()


def test_error_shows_its_hint():
    error = CornerstoneError("what is wrong", "how to mend it", Code.STEP)
    assert str(error) == "what is wrong\n  hint: how to mend it"
    assert (error.message, error.hint, error.code) == ("what is wrong", "how to mend it", Code.STEP)


def test_error_without_hint():
    assert str(CornerstoneError("what is wrong")) == "what is wrong"
    assert CornerstoneError("x").code is Code.INPUT


@pytest.mark.parametrize("code", Code)
def test_codes_fit_an_exit_status_and_no_shell_means_them(code):
    assert 0 < code < 256
    assert code not in (126, 127)

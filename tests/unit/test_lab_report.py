"""The report of a lab's run: where its time went, and how each check ended."""

from __future__ import annotations

import subprocess

import pytest

from cornerstone.lab.report import Checks, write
from cornerstone.lab.timeline import Timeline

CHECKS = """
import time
import pytest

@pytest.fixture(scope="module")
def slow():
    time.sleep(0.2)

@pytest.fixture
def broken():
    raise ValueError

def test_waits(slow): pass
def test_is_quick(slow): pass
def test_fails(): raise ValueError
def test_cannot_begin(broken): pass
def test_is_left_out(): pytest.skip("not here")
"""


def test_checks_are_told_with_what_they_waited_for(tmp_path):
    (tmp_path / "test_some.py").write_text(CHECKS)
    checks = Checks()
    pytest.main(["--quiet", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path)], [checks])
    assert [(name, outcome) for name, _, outcome in checks.ran] == [
        ("test_waits", "passed"), ("test_is_quick", "passed"), ("test_fails", "failed"),
        ("test_cannot_begin", "failed"), ("test_is_left_out", "skipped")]
    assert checks.ran[0][1] >= 0.2 > checks.ran[1][1]


def test_a_report_names_the_longest_steps_and_leaves_open_what_a_member_did_not_reach(tmp_path):
    one, other = Timeline(0.0, {"a/x started": 1.0, "a/x done": 100.4, "genesis/ready done": 107.0,
                                "later/z done": 300.0}), Timeline(0.0)
    write(tmp_path / "report.md", "A run", {"profile": "p"}, {"node-1": one, "node-2": other},
          Checks([("test_it", 61.2, "passed")]))
    said = (tmp_path / "report.md").read_text()
    assert said.startswith("# A run\n\n| | |\n|---|---|\n| profile | p |\n")
    assert "| stage | node-1 | node-2 |\n|---|---:|---:|\n| a/x | 100 |  |\n| genesis/ready | 107 |  |\n" in said
    assert "longest steps of node-1: a/x (100 s), genesis/ready (7 s)\n" in said
    assert said.endswith("| test_it | 61 | passed |\n")
    assert subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True,
                          check=True).stdout.splitlines()[0] in said

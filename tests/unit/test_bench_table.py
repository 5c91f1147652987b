"""A benchmark's findings as tables and as data."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from cornerstone.factory.bench.measure import Usage
from cornerstone.factory.bench.table import Check, Figure, Result, markdown, number, record, seconds, show

MIB = 1 << 20
RUNS = (Usage(90.0, 160.0, 100 * MIB), Usage(110.0, 180.0, 120 * MIB), Usage(96.04, 170.0, 110 * MIB))
RESULTS = [
    Result("cold", (Figure("cold", "ours", RUNS), Figure("cold", "floor", RUNS[:1], "a | b")),
           (Check("cold", "ours by the floor", 1.016, 1.2, "×", note="floor"),)),
    Result("no-op", (), (Check("no-op", "whole process", 0.81, 0.7, "s"),)),
    Result("mkosi", left_out="not installed: apt-get install mkosi"),
    Result("stock", failed="disk-image-create failed\n  whole log: x"),
]
MACHINE = {"CPU": "one, 2 cores", "commit": "abc"}


@pytest.mark.parametrize(("check", "met"), [
    (Check("c", "", 1.2, 1.2, "×"), True), (Check("c", "", 1.21, 1.2, "×"), False),
    (Check("c", "", 0.8, 0.8, "×", at_least=True), True), (Check("c", "", 0.79, 0.8, "×", at_least=True), False),
], ids=["at most, equal", "at most, above", "at least, equal", "at least, below"])
def test_a_target_is_met_up_to_its_limit(check, met):
    assert check.met is met


def test_markdown_is_the_machine_and_two_tables():
    assert markdown(MACHINE, RESULTS) == r"""- CPU: one, 2 cores
- commit: abc

| case | figure | value | target | met | note |
| --- | --- | --- | --- | --- | --- |
| cold | ours by the floor | 1.02 × | ≤ 1.2 × | yes | floor |
| no-op | whole process | 0.81 s | ≤ 0.7 s | no | |

| case | what | runs | wall | CPU | memory | note |
| --- | --- | --- | --- | --- | --- | --- |
| cold | ours | 3 | 96.0 s | 170 s | 120 MiB | |
| cold | floor | 1 | 90.0 s | 160 s | 100 MiB | a \| b |
| mkosi | not measured | | | | | not installed: apt-get install mkosi |
| stock | failed | | | | | disk-image-create failed |
"""


def test_without_checks_there_is_no_table_of_them():
    assert "target" not in markdown(MACHINE, RESULTS[2:])


def test_record_has_every_run_and_goes_through_json():
    content = json.loads(json.dumps(record(MACHINE, RESULTS)))
    cold, no_op, mkosi, stock = content["results"]
    assert content["machine"] == MACHINE
    assert [run["wall"] for run in cold["figures"][0]["runs"]] == [90.0, 110.0, 96.04]
    assert [cold["checks"][0]["met"], no_op["checks"][0]["met"]] == [True, False]
    assert mkosi["left_out"] and stock["failed"]


def test_what_is_shown_has_every_row():
    out = io.StringIO()
    show(Console(file=out, width=200), RESULTS)
    said = out.getvalue()
    for words in ("ours by the floor", "1.02 ×", "≤ 1.2 ×", "96.0 s", "not installed", "failed"):
        assert words in said


@pytest.mark.parametrize(("value", "text"), [(0.2512, "0.25 s"), (9.994, "9.99 s"), (12.34, "12.3 s"),
                                             (254.4, "254 s")])
def test_seconds(value, text):
    assert seconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (1.0, "1"), (1.2, "1.2"), (1.016, "1.02"), (300, "300")])
def test_number(value, text):
    assert number(value) == text

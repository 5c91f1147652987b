"""The records of decisions: each has its parts, their numbers are whole, and the index says what they say."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs/decisions"
FILES = sorted(path for path in FOLDER.iterdir() if path.name != "README.md")

NAME = re.compile(r"(\d{4})(-[a-z0-9]+)+\.md")
LINK = r"\[(\d{4})\]\((\d{4}-[a-z0-9-]+\.md)\)"
RECORD = re.compile(r"# (?P<number>\d{4})\. (?P<title>[^\n]+[^\n.])\n\n"
                    r"- Date: (?P<date>\d{4}-\d\d-\d\d)\n- Status: (?P<status>[^\n]+)\n\n"
                    r"## Context\n\n(?P<context>.+)\n\n## Decision\n\n(?P<decision>.+)\n\n"
                    r"## Consequences\n\n(?P<consequences>.+)\n", re.DOTALL)
STATUS = re.compile(rf"(Accepted|Superseded by {LINK})(\. (Supersedes|Amends|Amended by) {LINK})*")
RELATION = re.compile(rf"(Supersede[sd]|Amends|Amended)(?: by)? {LINK}")
OPPOSITE = {"Supersedes": "Superseded", "Superseded": "Supersedes", "Amends": "Amended", "Amended": "Amends"}


class Record(NamedTuple):
    file: str
    number: str
    title: str
    date: datetime.date
    status: str

    def relations(self) -> list[tuple[str, str]]:
        """Each as (word, file of the other record)."""
        return [(word, file) for word, number, file in RELATION.findall(self.status) if file.startswith(number)]


def parse(file: str, text: str) -> Record:
    found = RECORD.fullmatch(text)
    assert found, f"{file} doesn't have title, date, status, context, decision and consequences: see CONTRIBUTING.md"
    assert all(len(re.findall(rf"^## {part}$", text, re.MULTILINE)) == 1
               for part in ("Context", "Decision", "Consequences")), f"{file} has a part twice"
    return Record(file, found["number"], found["title"], datetime.date.fromisoformat(found["date"]), found["status"])


RECORDS = {path.name: parse(path.name, path.read_text()) for path in FILES}


def test_numbers_have_no_gaps_and_follow_the_dates():
    assert all(NAME.fullmatch(path.name) for path in FILES)
    numbers = [record.number for record in RECORDS.values()]
    assert numbers == [f"{number:04}" for number in range(1, len(FILES) + 1)]
    assert numbers == [file[:4] for file in RECORDS]
    dates = [record.date for record in RECORDS.values()]
    assert dates == sorted(dates)


def test_no_two_decisions_have_one_title():
    titles = [record.title for record in RECORDS.values()]
    assert len(titles) == len(set(titles))


def test_the_index_says_what_the_records_say():
    rows = [line for line in (FOLDER / "README.md").read_text().splitlines() if re.match(r"\| \[?\d", line)]
    assert rows == [f"| [{number}]({file}) | {title} | {date} | {status} |"
                    for file, number, title, date, status in RECORDS.values()]


@pytest.mark.parametrize("file", RECORDS)
def test_a_status_is_known_and_what_it_names_says_the_opposite(file):
    record = RECORDS[file]
    assert STATUS.fullmatch(record.status)
    # every link of the status is a relation, and its number that of its file
    assert len(record.relations()) == record.status.count("](")
    for word, other in record.relations():
        assert (OPPOSITE[word], file) in RECORDS[other].relations()
        assert (other < file) == (word in ("Supersedes", "Amends")), "a later decision changes an earlier one"


@pytest.mark.parametrize("file", [*RECORDS, "README.md"])
def test_links_of_the_records_lead_to_files(file):
    for target in re.findall(r"\]\(([^)#]+)", (FOLDER / file).read_text()):
        assert (FOLDER / target).is_file(), target


def test_a_record_without_a_part_is_refused():
    text = FILES[0].read_text()
    assert parse("0001-x.md", text).number == "0001"
    for part in ("- Date: ", "- Status: ", "## Context\n\n", "## Decision\n\n", "## Consequences\n\n"):
        with pytest.raises(AssertionError, match=r"0001-x\.md doesn't have"):
            parse("0001-x.md", text.replace(part, ""))


def test_contributing_says_how_to_record_one():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    (template,) = re.findall(r"```markdown\n(.*?)```", page, re.DOTALL)
    assert parse("the template of CONTRIBUTING.md", template).status == "Accepted"

"""The catalogue: what versions/ holds, that it agrees with itself, and what happens when it doesn't."""

import datetime
import re
import shutil
from pathlib import Path

import pytest

from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.catalogue.catalogue import load_catalogue
from cornerstone.model.catalogue.pair import Answer, answer_pair
from cornerstone.model.catalogue.version import AhvVersion, AosVersion

ROOT = Path(__file__).resolve().parents[2]
FILES = ("aos", "ahv", "pairings", "foundation", "upgrades")


@pytest.fixture(scope="module")
def catalogue():
    return load_catalogue(ROOT)


@pytest.fixture
def copy(tmp_path):
    """A root with a copy of versions/ that a test may spoil: edit(file, old, new)."""
    (tmp_path / "versions").mkdir()
    for name in FILES:
        shutil.copy(ROOT / "versions" / f"{name}.yaml", tmp_path / "versions")

    def edit(name: str, old: str, new: str) -> Path:
        path = tmp_path / "versions" / f"{name}.yaml"
        text = path.read_text()
        assert old in text, f"the test's own text isn't in {name}.yaml"
        path.write_text(text.replace(old, new, 1))
        return tmp_path

    return edit


def pair(catalogue, aos, ahv):
    return answer_pair(catalogue, AosVersion.parse(aos), AhvVersion.parse(ahv))


@pytest.mark.parametrize(("train", "ga", "maintenance", "support", "latest"), [
    ("5.15", "2020-03-31", "2021-08-31", "2022-05-31", "5.15.7"),
    ("6.5", "2022-07-25", "2024-10-31", "2025-06-30", "6.5.6.7"),
    ("6.8", "2024-05-15", "2025-05-31", "2025-08-31", "6.8.1.9"),
    ("6.10", "2024-10-07", "2026-01-31", "2026-10-31", "6.10.1.14"),
    ("7.0", "2024-12-04", "2026-03-31", "2026-12-31", "7.0.1.15"),
    ("7.6", "2026-07-27", "2027-10-31", "2028-07-31", "7.6.0.10"),
])
def test_dates_of_trains(catalogue, train, ga, maintenance, support, latest):
    row = catalogue.train(AosVersion.parse(f"{train}.1"))
    assert [str(row.ga), str(row.maintenance_end), str(row.support_end)] == [ga, maintenance, support]
    assert str(row.latest) == latest


def test_every_train_has_its_first_release_on_its_date(catalogue):
    for train in catalogue.trains:
        assert catalogue.release(AosVersion.parse(train.name)).date == train.ga


def test_releases_of_a_maintenance_line_come_in_the_order_of_their_dates(catalogue):
    """6.8.1.5 came after 6.8.1: a date that was typed wrong breaks this. 5.15 is known to do so."""
    lines = {}
    for release in sorted(catalogue.releases, key=lambda row: row.version):
        if release.date and release.version.train != "5.15":
            lines.setdefault((release.version.parts + (0,))[:3], []).append(release.date)
    assert all(dates == sorted(dates) for dates in lines.values())


def test_tracks_that_are_only_inferred_are_left_out(catalogue):
    assert {train.name: train.track for train in catalogue.trains if train.track} == {
        "5.15": "LTS", "5.20": "LTS", "6.5": "LTS", "6.8": "eSTS", "6.10": "LTS",
        "7.0": "NCI", "7.3": "NCI", "7.5": "NCI", "7.6": "NCI"}


def test_every_row_has_a_source(catalogue):
    for rows in (catalogue.trains, catalogue.releases, catalogue.lines, catalogue.builds, catalogue.pairings,
                 catalogue.minimums, catalogue.deliveries, catalogue.foundations, catalogue.hops):
        assert rows
        for row in rows:
            assert row.provenance.sources and all(row.provenance.sources)
            assert row.provenance.grade in ("A", "B")


@pytest.mark.parametrize("made_up", ["20230302.10015", "20230302.20001", "20240401.10016", "6.10.1.2"])
def test_made_up_numbers_stay_out(made_up):
    for name in FILES:
        assert not re.search(rf"{re.escape(made_up)}(?![0-9.])", (ROOT / "versions" / f"{name}.yaml").read_text())


def test_the_pair_from_seed_data_is_no_pairing(catalogue):
    assert pair(catalogue, "6.5.2", "20220304.242").answer is Answer.UNKNOWN


def test_the_known_builds_of_20230302(catalogue):
    assert [build.version.parts[1] for build in catalogue.builds if build.version.line == "20230302"] == [
        207, 216, 1011, 2008, 2010, 2014, 2024, 3002, 100173, 100187, 101026, 101035, 101046, 102001, 102005,
        103003, 103014]


def test_el_base_where_it_is_sourced(catalogue):
    assert {line.name: line.el for line in catalogue.lines} == {
        "20160601": None, "20190308": 7, "20190916": 7, "20201105": 7, "20220304": 7, "20230302": 8,
        "10.0": None, "10.3": 8, "11.0": 9, "11.2": None}


@pytest.mark.parametrize(("aos", "source"), [("4.5", None), ("6.5.2", "bundled"), ("6.7.1.8", "bundled"),
                                             ("6.8", "separate_iso"), ("7.6", "separate_iso")])
def test_delivery(catalogue, aos, source):
    delivery = catalogue.delivery(AosVersion.parse(aos))
    assert (delivery.ahv_source if delivery else None) == source


def test_upgrades(catalogue):
    assert catalogue.upgrade_order == ("prism_central", "aos", "ahv")
    assert [(str(hop.from_aos), str(hop.to_aos), str(hop.to_ahv)) for hop in catalogue.hops] == [
        ("6.5.6.6", "6.10", "20230302.102001")]


def test_branches_tell_trains_apart(catalogue):
    """The inferred branch rule, held against the evidence: what it is for is to part 6.5 from 6.6 and 6.7 from 6.8."""
    trains = {}
    for pairing in catalogue.pairings:
        trains.setdefault(pairing.ahv.branch, set()).add(pairing.aos.train)
    assert trains == {
        "20201105.xxxx": {"5.19", "5.20"}, "20201105.3xxxx": {"6.1"}, "20220304.xxxx": {"6.5"},
        "20220304.1xxxx": {"6.6"}, "20230302.xxxx": {"6.7"}, "20230302.10xxxx": {"6.8", "6.10"},
        "10.0": {"7.0"}, "10.3": {"7.3"}, "11.0": {"7.5"}, "11.2": {"7.6"}}


@pytest.mark.parametrize(("aos", "ahv"), [
    ("6.5.3.6", "20220304.423"), ("6.7", "20230302.207"), ("6.8", "el8.nutanix.20230302.100173"),
    ("6.8.0.0", "AHV-20230302.100173"), ("6.8.1", "20230302.101026"), ("6.10", "20230302.102001"), ("7.0", "10.0"),
    ("7.3.1.6", "AHV-DVD-x86_64-10.3.1.5-20.iso"), ("7.5.1", "11.0.1"), ("7.6", "AHV 11.2"),
])
def test_sourced_pairs_are_compatible(catalogue, aos, ahv):
    answer = pair(catalogue, aos, ahv)
    assert answer.answer is Answer.COMPATIBLE
    assert len(answer.evidence) == 1 and answer.evidence[0].provenance.sources[0] in answer.reason


@pytest.mark.parametrize(("aos", "ahv", "belongs"), [
    ("6.8", "20230302.207", "6.7"), ("6.7", "20230302.100173", "6.8, 6.10"), ("6.5", "10.0", "7.0"),
    ("6.5.2", "20220304.10013", "6.6"), ("6.6", "20220304.342", "6.5"), ("7.5", "11.2", "7.6"),
    ("7.3", "10.0.1", "7.0"), ("6.5", "20230302.99999", "6.7, 6.8, 6.10"),
])
def test_pairs_across_lines_are_incompatible(catalogue, aos, ahv, belongs):
    answer = pair(catalogue, aos, ahv)
    assert answer.answer is Answer.INCOMPATIBLE
    assert f"belongs to AOS {belongs};" in answer.reason and answer.evidence


@pytest.mark.parametrize(("aos", "ahv", "reason"), [
    ("6.8", "20230302.102001", "sources pair it with AHV 20230302.100173"),    # same branch, another release's build
    ("6.10", "20230302.102005", "sources pair it with AHV 20230302.102001"),   # a later build, no AOS found for it
    ("6.8", "20230302.100999", "has seen AHV 20230302.100999"),
    ("6.8.9", "20230302.100173", "no AOS 6.8.9"),
    ("6.9", "20230302.100173", "no AOS train 6.9"),
    ("6.0", "10.0", "no source pairs"),                                        # no pairing names the train at all
    ("6.5.4", "20220304.439", "no source pairs"),                              # a stated minimum is no pairing
    ("7.5.1.8", "11.0.1.3", "is weak"), ("6.1.2", "20201105.30007", "is weak"),
])
def test_all_else_is_unknown(catalogue, aos, ahv, reason):
    answer = pair(catalogue, aos, ahv)
    assert answer.answer is Answer.UNKNOWN and reason in answer.reason


def test_every_strong_pairing_is_the_only_pass(catalogue):
    """Over all releases and builds: compatible exactly for the rows, so that no neighbour slips in."""
    passed = {(release.version, build.version) for release in catalogue.releases for build in catalogue.builds
              if answer_pair(catalogue, release.version, build.version).answer is Answer.COMPATIBLE}
    assert passed == {(row.aos, row.ahv) for row in catalogue.pairings if not row.weak}


@pytest.mark.parametrize(("name", "old", "new", "message"), [
    ("pairings", 'aos: "5.19.2"', 'aos: "5.19.9"', ".pairings[0].aos: '5.19.9' isn't in the catalogue"),
    ("pairings", 'ahv: "20201105.1161"', 'ahv: "20201105.1162"', ".pairings[0].ahv: '20201105.1162' isn't in"),
    ("pairings", 'ahv: "20201105.1161"', 'ahv: "el7.nutanix.20201105.1161"', "isn't the shortest spelling"),
    ("pairings", "source: bootcamp", "source: bootcmp", ".source: unknown source 'bootcmp'"),
    ("pairings", "grade: B, evidence: reported, source: bootcamp", "grade: A, evidence: reported, source: bootcamp",
     ".evidence: 'reported' doesn't go with grade A"),
    ("pairings", "grade: B, evidence: reported, source: bootcamp", "grade: C, evidence: reported, source: bootcamp",
     ".grade: 'C' isn't one of"),
    ("pairings", "weak: true", "weak: maybe", ".weak: 'maybe' isn't true or false"),
    ("pairings", "  accops:", "  nobody: \"unused\"\n  accops:", ".sources.nobody: no row uses this source"),
    ("aos", "date: 2020-06-08", "date: 2020-06-31", ".releases[1].date: '2020-06-31' isn't a date"),
    ("aos", "date: 2020-06-08", "date: 8.6.2020", ".releases[1].date: '8.6.2020' isn't a date"),
    ("aos", 'release: "6.10"', "release: 6.10", ".release: '6.10' isn't text"),
    ("aos", 'release: "6.10.1"', 'release: "6.9.1"', "'6.9' isn't in the catalogue"),
    ("aos", 'latest: "5.15.7"', 'latest: "5.15.8"', ".trains[0].latest: '5.15.8' isn't in the catalogue"),
    ("aos", "maintenance_end: 2021-08-31", "maintenance_end: 2019-08-31", "the dates of 5.15 aren't in order"),
    ("aos", "track: LTS", "trak: LTS", ".trains[0].trak: unknown key"),
    ("aos", 'release: "5.11.1.1"', 'release: "5.11.1.2"', "reads as 5.11.1.1"),
    ("ahv", 'line: "20190308", scheme: date-build', 'line: "20190308", scheme: date', ".scheme: 'date' isn't one of"),
    ("ahv", 'line: "11.2", scheme: dotted', 'line: "11.2", scheme: date-build', "isn't of scheme date-build"),
    ("ahv", "iso: AHV-DVD-x86_64-10.3.0.1-24.iso", "iso: AHV-DVD-x86_64-10.3.0.2-24.iso", "isn't the ISO of 10.3.0.1"),
    ("ahv", "el: 9", 'el: "9"', ".el: '9' isn't a whole number"),
    ("foundation", '"6.7.1.7"', '"6.7.1.77"', ".releases[0].tested_with[0]: '6.7.1.77' isn't in the catalogue"),
    ("foundation", "seen: 2025-02,", "seen: spring,", ".seen: 'spring' doesn't fit"),
    ("upgrades", 'to: "6.10"', 'to: "6.11"', ".hops[0].to: '6.11' isn't in the catalogue"),
    ("upgrades", 'from: "6.5.6.6"', 'frm: "6.5.6.6"', ".hops[0]"),
])
def test_a_wrong_row_is_named_with_its_line(copy, name, old, new, message):
    root = copy(name, old, new)
    with pytest.raises(CornerstoneError) as caught:
        load_catalogue(root)
    assert message in caught.value.message and caught.value.hint and caught.value.code is Code.INPUT
    label, line = re.match(r"versions/(\w+)\.yaml:(\d+): ", caught.value.message).groups()
    lines = (root / "versions" / f"{name}.yaml").read_text().splitlines()
    spoilt = next(index for index, text in enumerate(lines, 1) if new.splitlines()[0] in text)
    assert label == name and spoilt - 1 <= int(line) <= spoilt  # a row may begin on the line before


@pytest.mark.parametrize(("old", "new", "message"), [
    ('aos: "6.5.2.5"', 'aos: "6.5.2"', "a second row for AOS 6.5.2 with AHV 20220304.342"),
    ("  accops:", "  acops:", "unknown source 'accops'"),
])
def test_an_error_names_the_row_that_refers(copy, old, new, message):
    with pytest.raises(CornerstoneError, match=r"^versions/pairings\.yaml:\d+: ") as caught:
        load_catalogue(copy("pairings", old, new))
    assert message in caught.value.message


def test_a_missing_file_is_named(copy, tmp_path):
    copy("aos", "sources:", "sources:")
    (tmp_path / "versions" / "upgrades.yaml").unlink()
    with pytest.raises(CornerstoneError, match=r"versions/upgrades\.yaml: can't be read"):
        load_catalogue(tmp_path)


def test_what_was_true_when_it_was_written(catalogue):
    """7.0 is the oldest train still supported on 2026-11-22."""
    today = datetime.date(2026, 11, 22)
    assert [train.name for train in catalogue.trains if train.support_end and train.support_end >= today] == [
        "7.0", "7.3", "7.5", "7.6"]


@pytest.mark.parametrize(("old", "new", "place"), [
    ("iso: AHV-DVD-x86_64-el8.nutanix.20230302.101026.iso", "iso: AHV-DVD-x86_64-el8.nutanxi.20230302.101026.iso",
     ".builds[{}].iso: "),
    ("iso: AHV-DVD-x86_64-10.3.0.1-24.iso", "iso: AHV-DVD-x86_64-3.0.1.iso", ".builds[{}].iso: "),
])
def test_t14_a_wrong_file_name_is_told_with_file_and_line(copy, old, new, place):
    text = (ROOT / "versions" / "ahv.yaml").read_text()
    line = text[:text.index(old)].count("\n") + 1
    with pytest.raises(CornerstoneError) as caught:
        load_catalogue(copy("ahv", old, new))
    assert re.match(rf"versions/ahv\.yaml:{line}: " + re.escape(place).replace(r"\{\}", "[0-9]+"), caught.value.message)


def test_t14_a_wrong_example_of_a_file_name_is_told_with_file_and_line(copy):
    text = (ROOT / "versions" / "ahv.yaml").read_text()
    old = re.search(r"name: (\S+?)[,}]", text[text.index("file_names:"):])[1]
    with pytest.raises(CornerstoneError, match=r"versions/ahv\.yaml:[0-9]+: \.file_names\[[0-9]+\]\.examples"):
        load_catalogue(copy("ahv", f"name: {old}", "name: nothing-at-all"))

"""The catalogue of volumes: groups and disks, their LUNs, and what is no name or size."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cornerstone.cvm.iscsi_target import catalogue as catalogue_module
from cornerstone.cvm.iscsi_target.catalogue import (
    LARGEST,
    LUN_NUMBERS,
    MOST_LUNS,
    Catalogue,
    Disk,
    Released,
    VolumeGroup,
    size_of,
)
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.serde import to_record


def disk(index: int, lun: int) -> Disk:
    return Disk(index, lun, f"volume-{lun}", f"serial-{lun}", 1 << 30)


def catalogue(**groups: list[tuple[int, int]]) -> Catalogue:
    return Catalogue(tuple(VolumeGroup(name, tuple(disk(*each) for each in disks)) for name, disks in groups.items()))


def test_what_is_kept_is_read_again():
    kept = catalogue(a=[(0, 0), (1, 2)], b=[])
    assert Catalogue.from_json(kept.to_json()) == kept
    full = replace(kept, next_lun=9, released=(Released(3, 4),), generation=5)
    assert to_record(Catalogue.from_json(full.to_json())) == to_record(full)


@pytest.mark.parametrize("text", [
    b"", b"{", b"[]", b"[" * 100_000, b"\xff", b'{"groups": [{"name": 1}]}', b'{"more": 1}', b"{}",
    b'{"groups": 1, "version": 2}', b'{"groups": [1], "version": 2}', b'{"groups": [{"disks": 1}], "version": 2}',
    b'{"groups": [], "version": "2"}', b'{"groups": [], "version": true}'])
def test_what_is_no_catalogue_is_refused(text):
    with pytest.raises(CornerstoneError, match="catalogue of volumes"):
        Catalogue.from_json(text)


@pytest.mark.parametrize("groups, expected", [
    ({"a": []}, (0, 0)),
    ({"a": [(0, 0)]}, (1, 1)),
    ({"a": [(1, 1)]}, (0, 2)),
    ({"a": [], "b": [(0, 0), (1, 2)]}, (0, 3)),
])
def test_a_disk_gets_the_lowest_free_index_and_a_lun_behind_all(groups, expected):
    assert catalogue(**groups).next_disk("a") == expected


def test_there_is_a_last_lun():
    full = catalogue(a=[(number, number) for number in range(MOST_LUNS)])
    with pytest.raises(CornerstoneError, match="the most that its target takes"):
        full.next_disk("a")


def test_d17_lun_numbers_only_grow():
    kept = Catalogue().with_group("old")
    kept = kept.with_disk("old", Disk(*kept.next_disk("old"), "i", "s", 1 << 30))
    kept = kept.without_group("old").with_group("new")
    assert kept.next_disk("new") == (0, 1)
    assert Catalogue.from_json(kept.to_json()).next_disk("new") == (0, 1)


def test_d17_a_group_made_anew_gets_another_lun():
    kept = Catalogue()
    for lun in range(3):
        kept = kept.with_group("a")
        assert kept.next_disk("a") == (0, lun)
        kept = kept.with_disk("a", disk(0, lun)).without_group("a")


def test_d17_a_catalogue_of_an_older_release_goes_on_behind_its_highest_lun():
    old = (b'{"groups":[{"name":"a","disks":[{"index":0,"lun":7,"image":"i","serial":"s","size":1073741824}]},'
           b'{"name":"b","disks":[]}]}')
    kept = Catalogue.from_json(old)
    assert kept.next_disk("b") == (0, 8)
    assert kept.without_group("a").next_disk("b") == (0, 8)


def at_the_last_number() -> Catalogue:
    """LUN 0 was released at generation 5, LUN 1 is in use, the last number is next."""
    return replace(catalogue(a=[(0, 1)], b=[]), next_lun=LUN_NUMBERS - 1, released=(Released(0, 5),), generation=9)


def test_d17_a_released_number_is_given_again_only_when_every_host_has_let_go_of_it():
    kept = at_the_last_number()
    assert kept.next_disk("b") == (0, LUN_NUMBERS - 1)
    kept = kept.with_disk("b", disk(0, LUN_NUMBERS - 1))
    assert kept.next_disk("b") == (1, 2), "0 is in quarantine, 1 in use"
    assert kept.confirmed(4).next_disk("b") == (1, 2)
    assert kept.confirmed(5).next_disk("b") == (1, 0)


def test_d17_what_is_deleted_goes_into_quarantine_until_it_is_not_offered_any_more():
    kept = at_the_last_number().without_group("a")
    assert kept.generation == 10
    assert kept.released == (Released(0, 5), Released(1, 10))
    assert kept.confirmed(9).released == (Released(1, 10),)
    assert kept.confirmed(10).released == ()


def test_d17_with_every_number_in_quarantine_no_disk_is_made():
    kept = replace(at_the_last_number(), released=tuple(Released(lun, 5) for lun in range(LUN_NUMBERS)))
    with pytest.raises(CornerstoneError, match="may still be that of a deleted volume"):
        kept.next_disk("b")


def test_a_newer_release_may_add_fields_and_its_next_version_is_refused():
    told = json.loads(catalogue(a=[(0, 0)]).to_json())
    for record in (told, told["groups"][0], told["groups"][0]["disks"][0]):
        record["new"] = 1
    assert Catalogue.from_json(json.dumps(told).encode()) == catalogue(a=[(0, 0)])
    told["version"] += 1
    with pytest.raises(CornerstoneError, match="has version 3, and this release reads up to 2") as refused:
        Catalogue.from_json(json.dumps(told).encode())
    assert refused.value.code == Code.REFUSED


@given(st.lists(st.sampled_from(["add", "delete", "answer"]), max_size=60), st.integers(0, 5))
def test_d17_no_number_is_given_while_the_host_may_know_it(steps, which):
    """With six numbers and one host, which answers now and then and else misses all offers."""
    kept, known, answered = Catalogue(), set(), -1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue_module, "LUN_NUMBERS", 6)
        for number, step in enumerate(steps):
            kept = kept.confirmed(answered)
            if step == "add":
                kept = kept.with_group(f"g{number}")
                with contextlib.suppress(CornerstoneError):
                    index, lun = kept.next_disk(f"g{number}")
                    assert lun not in known
                    kept = kept.with_disk(f"g{number}", disk(index, lun))
            elif step == "delete" and kept.groups:
                kept = kept.without_group(kept.groups[which % len(kept.groups)].name)
            elif step == "answer":
                known, answered = set(), kept.generation
            known |= {each.lun for each in kept.disks()}


def test_disks_of_a_group_are_in_order():
    grown = catalogue(a=[(0, 0), (2, 2)], b=[]).with_disk("a", disk(1, 5))
    assert [each.index for each in grown.group("a").disks] == [0, 1, 2]
    assert grown.group("b").disks == ()


def test_a_group_goes_with_its_disks():
    assert catalogue(a=[(0, 0)], b=[(0, 1)]).without_group("a") == catalogue(b=[(0, 1)])


@pytest.mark.parametrize("name", ["", "a b", "-a", ".a", "a/b", "ä", "a" * 65, "a\nb"])
def test_a_bad_name_is_refused(name):
    with pytest.raises(CornerstoneError, match="can't be a volume group's name"):
        Catalogue().with_group(name)


def test_a_second_group_of_a_name_is_refused():
    with pytest.raises(CornerstoneError, match="there is a volume group a already"):
        catalogue(a=[]).with_group("a")


def test_an_unknown_group_is_named_with_those_that_there_are():
    with pytest.raises(CornerstoneError, match="no volume group 'c'; there are a, b"):
        catalogue(a=[], b=[]).group("c")


@pytest.mark.parametrize("text, size", [("64M", 64 << 20), ("10G", 10 << 30), ("64T", LARGEST)])
def test_sizes(text, size):
    assert size_of(text) == size


@pytest.mark.parametrize("text", ["", "10", "10g", "G", "0G", "-1G", "1.5G", "63M", "65T", "10GB", " 10G", "010G",
                                  "9" * 30 + "G"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(CornerstoneError, match="isn't a size"):
        size_of(text)

"""The catalogue of volumes: groups and disks, their LUNs, and what is no name or size."""

from __future__ import annotations

import pytest

from cornerstone.controller.data_services.catalogue import LARGEST, MOST_LUNS, Catalogue, Disk, VolumeGroup, size_of
from cornerstone.model.error import CornerstoneError


def disk(index: int, lun: int) -> Disk:
    return Disk(index, lun, f"volume-{lun}", f"serial-{lun}", 1 << 30)


def catalogue(**groups: list[tuple[int, int]]) -> Catalogue:
    return Catalogue(tuple(VolumeGroup(name, tuple(disk(*each) for each in disks)) for name, disks in groups.items()))


def test_what_is_kept_is_read_again():
    kept = catalogue(a=[(0, 0), (1, 2)], b=[])
    assert Catalogue.from_json(kept.to_json()) == kept


def test_nothing_kept_is_an_empty_one():
    assert Catalogue.from_json(b"") == Catalogue()


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"groups": [{"name": 1}]}', b'{"groups": [], "more": 1}'])
def test_what_is_no_catalogue_is_refused(text):
    with pytest.raises(CornerstoneError, match="catalogue of volumes"):
        Catalogue.from_json(text)


@pytest.mark.parametrize("groups, expected", [
    ({"a": []}, (0, 0)),
    ({"a": [(0, 0)]}, (1, 1)),
    ({"a": [(1, 1)]}, (0, 0)),
    ({"a": [], "b": [(0, 0), (1, 2)]}, (0, 1)),
])
def test_a_disk_gets_the_lowest_free_index_and_lun(groups, expected):
    assert catalogue(**groups).next_disk("a") == expected


def test_there_is_a_last_lun():
    full = catalogue(a=[(number, number) for number in range(MOST_LUNS)])
    with pytest.raises(CornerstoneError, match="the most that its target takes"):
        full.next_disk("a")


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

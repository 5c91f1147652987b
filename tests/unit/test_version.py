"""Versions: every spelling is one value, and the order is the releases' order."""

import itertools
import random

import pytest

from cornerstone.lib.error import CornerstoneError
from cornerstone.model.catalogue.version import AhvVersion, AosVersion, IncomparableError

# In the order of their release numbers; neighbours that a comparison of text would swap are in it.
AOS_ORDER = ["5.20.5.1", "6.0", "6.5", "6.5.0.1", "6.5.1", "6.5.6.7", "6.8", "6.8.0.1", "6.8.1", "6.8.1.9", "6.10",
             "6.10.0.5", "6.10.1", "6.10.1.5", "6.10.1.14", "7.0", "7.3.1.18", "7.6.0.6", "7.6.0.10"]
AHV_ORDER = ["20190916.231", "20201105.2312", "20220304.342", "20230302.207", "20230302.2014", "10.0", "10.0.1",
             "10.0.1.4", "10.3", "10.3.1.5", "11.0", "11.0.1.1", "11.2"]
COMMIT = "9e8a682578e7f8cd0558ead559f3d92408f35302"


@pytest.mark.parametrize(("lower", "higher"), list(itertools.combinations(AOS_ORDER, 2)))
def test_aos_orders_by_numbers(lower, higher):
    low, high = AosVersion.parse(lower), AosVersion.parse(higher)
    assert low < high and high > low and low <= high and high >= low and low != high


def test_aos_sorts_from_any_order():
    shuffled = [AosVersion.parse(text) for text in AOS_ORDER]
    random.Random(1).shuffle(shuffled)
    assert [str(version) for version in sorted(shuffled)] == AOS_ORDER


@pytest.mark.parametrize("spelling", ["6.10", "6.10.0", "6.10.0.0", "6.10.0.0.0", " 6.10 ", "AOS 6.10", "aos-6.10"])
def test_zeros_at_the_end_dont_count(spelling):
    version = AosVersion.parse(spelling)
    assert version == AosVersion.parse("6.10")
    assert hash(version) == hash(AosVersion.parse("6.10"))
    assert str(version) == "6.10"


def test_a_zero_inside_counts():
    assert AosVersion.parse("6.8.0.1") != AosVersion.parse("6.8.1")
    assert str(AosVersion.parse("7.0")) == "7.0"


@pytest.mark.parametrize(("spelling", "release"), [
    ("nutanix_installer_package-release-fraser-6.5-stable.tar", "6.5"),
    (f"nutanix_installer_package-release-ganges-7.3.1.6-stable-{COMMIT}-x86_64.tar.gz", "7.3.1.6"),
    ("nutanix_installer_package-release-euphrates-5.11.1.1-stable-x86_64.tar.gz", "5.11.1.1"),
    (f"el8.5-release-fraser-6.8-stable-{COMMIT}", "6.8"),
    ("el7.3-release-fraser-6.7.1-stable-104e66", "6.7.1"),
])
def test_aos_is_read_from_names(spelling, release):
    assert str(AosVersion.parse(spelling)) == release


@pytest.mark.parametrize(("release", "train"), [("6.8", "6.8"), ("6.10.1.5", "6.10"), ("7.0.1", "7.0")])
def test_train(release, train):
    assert AosVersion.parse(release).train == train


@pytest.mark.parametrize("garbage", [
    "", " ", "6", "6.", ".8", "6.8.", "6..8", "v6.8", "6.8-beta", "6.08", "-6.8", "6.8\n7", "6.8.1.2.3.4", "٦.٨",
    "latest", "20230302.100173", "nutanix_installer_package.tar.gz", "6,8", "6.8 7.0", "9999.1",
])
def test_garbage_is_no_aos(garbage):
    with pytest.raises(CornerstoneError) as caught:
        AosVersion.parse(garbage)
    assert repr(garbage) in caught.value.message and caught.value.hint


@pytest.mark.parametrize("spelling", [
    "20230302.100173", "el8.nutanix.20230302.100173", "AHV-20230302.100173", "AHV 20230302.100173",
    "Nutanix 20230302.100173", "AHV-DVD-x86_64-el8.nutanix.20230302.100173.iso", " 20230302.100173\n",
    "AHV-DVD-x86_64-el8.nutanix.20230302.100173.iso.iso", "ahv 20230302.100173", "Nutanix el8.nutanix.20230302.100173",
])
def test_all_spellings_are_one_build(spelling):
    version = AhvVersion.parse(spelling)
    assert version == AhvVersion((20230302, 100173))
    assert hash(version) == hash(AhvVersion.parse("20230302.100173"))
    assert str(version) == "20230302.100173"


@pytest.mark.parametrize(("spelling", "build"), [
    ("AHV 10.0.1.4", "10.0.1.4"), ("AHV-10.0.1", "10.0.1"), ("10.0.0.0", "10.0"), ("Nutanix 10.3.1.5", "10.3.1.5"),
    ("AHV-DVD-x86_64-10.3.1.5-20.iso", "10.3.1.5"), ("AHV-DVD-x86_64-11.0-1900.iso", "11.0"),
    ("AHV-DVD-x86_64-10.3.1.5.iso", "10.3.1.5"),
])
def test_dotted_spellings(spelling, build):
    assert str(AhvVersion.parse(spelling)) == build


@pytest.mark.parametrize("garbage", [
    "", "20230302", "20230302.", "20230302.x", "20231302.1", "20230231.207", "20230302.0", "20230302.10.1",
    "el8.20230302.1", "9.1", "8.0", "10", "10.3.1.5.6", "AHV", "ahv-dvd.iso", "AHV-DVD-x86_64-10.3.1.5-20.img",
    "10.3\n20230302.207",
])
def test_garbage_is_no_ahv(garbage):
    with pytest.raises(CornerstoneError) as caught:
        AhvVersion.parse(garbage)
    assert repr(garbage) in caught.value.message and caught.value.hint


@pytest.mark.parametrize(("lower", "higher"), list(itertools.combinations(AHV_ORDER, 2)))
def test_ahv_orders_by_scheme_then_line_then_build(lower, higher):
    low, high = AhvVersion.parse(lower), AhvVersion.parse(higher)
    assert low.comparable(high) and high.comparable(low)
    assert low < high and high > low and low <= high and high >= low


@pytest.mark.parametrize(("one", "other"), [
    ("20220304.10013", "20220304.342"),      # AOS 6.6 and 6.5.2
    ("20230302.2014", "20230302.100173"),    # AOS 6.7.1.7 and 6.8
    ("20201105.30007", "20201105.2244"),     # AOS 6.1 and 5.20.3
])
def test_builds_of_two_branches_dont_compare(one, other):
    first, second = AhvVersion.parse(one), AhvVersion.parse(other)
    assert not first.comparable(second) and not second.comparable(first)
    assert first != second
    for compare in (lambda: first < second, lambda: first > second, lambda: first <= second, lambda: first >= second,
                    lambda: sorted([first, second])):
        with pytest.raises(IncomparableError, match="different branches"):
            compare()
    assert len(sorted([first, second], key=lambda version: version.sort_key)) == 2


def test_builds_of_one_branch_compare():
    assert AhvVersion.parse("20230302.100173") < AhvVersion.parse("20230302.101026")
    assert AhvVersion.parse("20220304.342") < AhvVersion.parse("20220304.1000")


@pytest.mark.parametrize(("build", "scheme", "line", "branch"), [
    ("20230302.207", "date-build", "20230302", "20230302.xxxx"),
    ("20230302.100173", "date-build", "20230302", "20230302.10xxxx"),
    ("20220304.10013", "date-build", "20220304", "20220304.1xxxx"),
    ("10.3.1.5", "dotted", "10.3", "10.3"),
])
def test_line_and_branch(build, scheme, line, branch):
    version = AhvVersion.parse(build)
    assert (version.scheme, version.line, version.branch) == (scheme, line, branch)


def test_versions_of_two_kinds_are_never_equal():
    assert AosVersion.parse("10.3") != AhvVersion.parse("10.3")

"""A lease by monotonic clocks: two who want it, whose clocks and machines do as they like."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cornerstone.cvm.iscsi_target.addresses import FloatingAddress
from cornerstone.cvm.iscsi_target.lease import HeldByAnother, MonotonicLease
from cornerstone.lib.error import CornerstoneError

SECONDS = 15


class Text:
    """What the cluster keeps."""

    def __init__(self) -> None:
        self.text = ""
        self.away = False
        self.answers = True

    def read(self) -> str:
        if self.away:
            raise CornerstoneError("RADOS timed out")
        return self.text

    def swap(self, old: str, new: str) -> bool:
        if self.away:
            raise CornerstoneError("RADOS timed out")
        if self.text != old:
            return False
        self.text = new
        if not self.answers:
            raise CornerstoneError("RADOS timed out")
        return True


class Pair:
    def __init__(self) -> None:
        self.now, self.register = 0.0, Text()
        self.first, self.second = (MonotonicLease(self.register, name, SECONDS, lambda: self.now)
                                   for name in ("10.20.0.31 a", "10.20.0.32 b"))


@pytest.fixture
def pair():
    return Pair()


def test_who_renews_it_keeps_it(pair):
    for _ in range(20):
        assert pair.first.renew() and not pair.second.renew()
        pair.now += 4


def test_another_has_it_when_it_has_seen_no_renewal_for_as_long_as_it_lasts(pair):
    assert pair.first.renew()
    pair.now = 1000
    assert not pair.second.renew(), "it may have been renewed just now"
    pair.now += SECONDS - 1
    assert not pair.second.renew()
    pair.now += 1
    assert pair.second.renew()
    with pytest.raises(HeldByAnother):
        pair.first.renew()
    assert not pair.first.renew()


def test_who_ends_it_lets_another_have_it_at_once(pair):
    assert pair.first.renew()
    pair.second.end()
    assert not pair.second.renew()
    pair.first.end()
    assert pair.second.renew()


def test_a_renewal_without_an_answer_is_not_taken_for_another_s(pair):
    assert pair.first.renew()
    pair.register.answers = False
    assert not pair.first.renew()
    pair.register.answers = True
    assert pair.first.renew()


def test_a_cluster_that_can_not_be_asked_gives_nothing(pair):
    pair.register.away = True
    assert not pair.first.renew()
    pair.first.end()


class Standing:
    """Two floating addresses on one register. A machine that stands has no clock either."""

    def __init__(self) -> None:
        self.register = Text()
        self.clocks = [0.0, 500.0]
        self.now = 0.0
        self.had = [-1000.0, -1000.0]
        self.addresses = [FloatingAddress(
            "10.20.0.31", "eth0", MonotonicLease(self.register, f"10.20.0.3{number} x", SECONDS,
                                                 lambda number=number: self.clocks[number]),
            lambda: None, lambda event: None, lambda *words: None, lambda number=number: self.clocks[number])
            for number in (0, 1)]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20), st.booleans()), max_size=60))
@settings(derandomize=True, max_examples=300, deadline=None)
def test_two_machines_that_run_never_have_an_address_at_once(steps):
    world = Standing()
    for number, seconds, away in steps:
        world.clocks = [clock + seconds for clock in world.clocks]
        world.register.away = away
        world.addresses[number].tick()
        assert not all(address.held for address in world.addresses)


def test_who_stood_still_gives_the_address_up_with_its_first_look():
    world = Standing()
    world.addresses[0].tick()
    for _ in range(3):
        world.clocks[1] += SECONDS
        world.addresses[1].tick()
    assert world.addresses[0].held and world.addresses[1].held, "its clock stood, too"
    world.addresses[0].tick()
    assert not world.addresses[0].held

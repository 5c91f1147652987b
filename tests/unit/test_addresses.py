"""A floating address: held while the lease is renewed, and never longer than the lease, by the kernel's own clock."""

from __future__ import annotations

from cornerstone.cvm.iscsi_target.addresses import LEASE_SECONDS, MARGIN_SECONDS, RENEWALS, FloatingAddress

RENEW_SECONDS = LEASE_SECONDS / RENEWALS


class World:
    """A clock, a lease that is given or not and takes its time, and what was run."""

    seconds = LEASE_SECONDS

    def __init__(self) -> None:
        self.now, self.free, self.takes = 1000.0, True, 0.0
        self.ran: list[str] = []
        self.changes: list[bool] = []
        self.address = FloatingAddress("10.20.0.31", "eth0", self, lambda: self.changes.append(self.address.held),
                                       lambda event: None, lambda *words: self.ran.append(" ".join(words)),
                                       lambda: self.now)

    def renew(self) -> bool:
        self.now += self.takes
        return self.free

    def end(self) -> None:
        self.ran.append("end")


def test_the_address_is_the_holder_s_for_less_than_the_lease():
    world = World()
    world.address.tick()
    assert world.ran[0] == ("ip address replace 10.20.0.31/32 dev eth0 valid_lft "
                            f"{LEASE_SECONDS - MARGIN_SECONDS} preferred_lft {LEASE_SECONDS - MARGIN_SECONDS}")
    assert world.ran[1].startswith("arping -U ")
    assert world.changes == [True]


def test_the_lease_counts_from_when_it_was_asked_for():
    world = World()
    world.takes = 5.0
    world.address.tick()
    assert f"valid_lft {LEASE_SECONDS - MARGIN_SECONDS - 5} " in world.ran[0]


def test_a_renewal_that_took_longer_than_the_lease_gives_nothing():
    world = World()
    world.takes = float(LEASE_SECONDS)
    world.address.tick()
    assert world.ran == [] and not world.address.held and world.changes == []


def test_neighbours_are_told_once():
    world = World()
    for _ in range(3):
        world.address.tick()
        world.now += RENEW_SECONDS
    assert len([words for words in world.ran if words.startswith("arping")]) == 1


def test_who_can_renew_no_more_has_it_until_its_own_end_and_not_after():
    world = World()
    world.address.tick()
    world.free = False
    world.now += RENEW_SECONDS
    world.ran.clear()
    world.address.tick()
    left = int(LEASE_SECONDS - MARGIN_SECONDS - RENEW_SECONDS)
    assert world.address.held and f"valid_lft {left} " in world.ran[0]
    world.now += left + 1
    world.ran.clear()
    world.address.tick()
    assert not world.address.held and world.ran == [] and world.changes == [True, False]


def test_another_s_address_is_not_touched():
    world = World()
    world.free = False
    world.address.tick()
    assert world.ran == [] and world.changes == []


def test_the_renewals_fit_into_a_lease_twice():
    assert 2 * RENEW_SECONDS < LEASE_SECONDS - MARGIN_SECONDS

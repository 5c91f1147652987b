"""From the target that is to the target that is wanted: what is done, in which order, and when nothing is."""

from __future__ import annotations

from itertools import product

import pytest

from cornerstone.cvm.iscsi_target.target import Lun, Step, Target, offer, steps, target_name
from cornerstone.model.contracts.iscsi import Initiator, Portal, device_name

FSID = "11111111-2222-3333-4444-555555555555"
NAME = target_name(FSID)
SERIALS = [f"{number}7159402-b3b2-567d-864b-1174ab0788cf" for number in range(3)]
LUN_0, LUN_1, LUN_2 = (Lun(number, serial) for number, serial in enumerate(SERIALS))
HOST_A, HOST_A_ANEW, HOST_B = Initiator("iqn.a", "one"), Initiator("iqn.a", "two"), Initiator("iqn.b", "one")


def target(portals=(), luns=(), initiators=()) -> Target:
    return Target(NAME, 1, frozenset(portals), frozenset(luns), frozenset(initiators))


WHOLE = target(["192.168.5.2", "10.20.0.21"], [LUN_0, LUN_1], [HOST_A, HOST_B])


def after(present: Target, done: list[Step]) -> Target:
    """What the steps make of it; each has to be possible when its turn comes."""
    things = set(present.portals | present.luns | present.initiators)
    for step in done:
        assert (step.what in things) == (step.verb == "remove"), step
        if step.verb == "add" and isinstance(step.what, Initiator):
            assert step.what.name not in {each.name for each in things if isinstance(each, Initiator)}
        if step.verb == "add" and isinstance(step.what, Lun):
            assert step.what.number not in {each.number for each in things if isinstance(each, Lun)}
        (things.add if step.verb == "add" else things.remove)(step.what)
    portals, luns, initiators = ([each for each in things if isinstance(each, kind)] for kind in (str, Lun, Initiator))
    return target(portals, luns, initiators)


STATES = {"empty": target(), "whole": WHOLE,
          "another LUN under the number": target(["10.20.0.21"], [Lun(0, SERIALS[2])], [HOST_B]),
          "another secret": target(["192.168.5.2"], [LUN_0, LUN_2], [HOST_A_ANEW])}


@pytest.mark.parametrize("present, wanted", list(product(STATES, STATES)))
def test_the_steps_lead_from_any_state_to_any_other(present, wanted):
    done = list(steps(STATES[present], STATES[wanted]))
    assert after(STATES[present], done) == STATES[wanted]
    assert (done == []) == (present == wanted)


def test_who_logs_in_finds_all_there_is():
    kinds = [type(step.what) for step in steps(target(), WHOLE)]
    assert kinds == [Lun, Lun, Initiator, Initiator, str, str]


def test_nobody_logs_in_to_what_is_going():
    kinds = [type(step.what) for step in steps(WHOLE, target())]
    assert kinds == [str, str, Initiator, Initiator, Lun, Lun]


def test_a_host_is_offered_its_own_cvm_inside_and_the_others_outside():
    made = offer(FSID, ("10.20.0.21", "10.20.0.22", "10.20.0.23"), "10.20.0.22", "192.168.5.2", SERIALS)
    assert made.portals == (Portal("10.20.0.21", 1), Portal("192.168.5.2", 2), Portal("10.20.0.23", 3))
    assert str(made.portals[1]) == "192.168.5.2:3260,2"
    assert made.target == "iqn.2024-07.internal.cornerstone:11111111-2222-3333-4444-555555555555"


def test_multipath_s_name_of_a_volume():
    """As seen with LIO of Linux 6.12."""
    assert device_name("e7159402-b3b2-567d-864b-1174ab0788cf") == "36001405e7159402b3b2567d864b1174a"

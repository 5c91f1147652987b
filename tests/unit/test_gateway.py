"""Which CVM serves a volume: what an ALUA state asks for, what a failure leaves, and what another CVM's wish does."""

from __future__ import annotations

import threading

import pytest

from cornerstone.cvm.iscsi_target.catalogue import Disk
from cornerstone.cvm.iscsi_target.gateway import Gateway, lun_of
from cornerstone.cvm.iscsi_target.target import ACTIVE, STANDBY
from cornerstone.lib.error import CornerstoneError

DISK = Disk(0, 3, "volume-a", "e7159402-b3b2-567d-864b-1174ab0788cf", 1 << 30)


class Cvm:
    """States, locks and device of one volume, which note what is done with them in one list."""

    def __init__(self, state: int, served: bool, owners: int = 0, serve_fails: bool = False,
                 lost: bool = False) -> None:
        self.now = state
        self.served = served
        self.owners = owners
        self.serve_fails = serve_fails
        self.is_lost = lost
        self.done: list[str] = []
        self.told: list[str] = []
        self.gateway = Gateway(self, self, lambda disk: self, lambda event: self.told.append(event.state))

    def state(self, lun) -> int:
        assert lun == lun_of(DISK)
        return self.now

    def set_state(self, lun, state: int) -> None:
        self.done.append({ACTIVE: "active", STANDBY: "standby"}[state])
        self.now = state

    def ask_for(self, disk) -> None:
        self.done.append("ask")

    def break_all(self, disk) -> int:
        self.done.append("break")
        return self.owners

    def lost(self, disk) -> bool:
        return self.is_lost

    def hold(self) -> None:
        self.done.append("hold")

    def serve(self) -> None:
        self.done.append("serve")
        if self.serve_fails:
            raise CornerstoneError("another client has it")
        self.served = True

    def close(self) -> None:
        self.done.append("close")
        self.served = False


@pytest.mark.parametrize("state, served, done", [
    (ACTIVE, False, ["hold", "ask", "break", "serve"]),
    (ACTIVE, True, []),
    (STANDBY, True, ["close"]),
    (STANDBY, False, ["close"]),
])
def test_what_an_initiator_asks_for_is_done(state, served, done):
    cvm = Cvm(state, served)
    cvm.gateway.look(DISK)
    assert cvm.done == done
    assert cvm.served == (state == ACTIVE)
    cvm.done.clear()
    cvm.gateway.look(DISK)
    assert cvm.done in ([], ["close"]), "a second look changes nothing"


def test_a_volume_that_cannot_be_had_is_refused_and_leaves_nothing_behind():
    """First no more commands are taken, then those that wait end: none may stay and be written later."""
    cvm = Cvm(ACTIVE, served=False, serve_fails=True)
    cvm.gateway.look(DISK)
    assert cvm.done == ["hold", "ask", "break", "serve", "standby", "close"]
    assert cvm.told == ["failed"]
    assert cvm.now == STANDBY


def test_the_old_holder_is_cut_off_before_anything_is_served():
    cvm = Cvm(ACTIVE, served=False, owners=1)
    cvm.gateway.look(DISK)
    assert cvm.done.index("break") < cvm.done.index("serve")


def test_a_volume_is_given_when_another_cvm_wants_it():
    cvm = Cvm(ACTIVE, served=True)
    cvm.gateway.release(DISK)
    assert cvm.done == ["standby", "close"]


def test_a_volume_that_is_not_served_here_is_nobody_s_to_ask_for():
    cvm = Cvm(STANDBY, served=False)
    cvm.gateway.release(DISK)
    assert cvm.done == []


@pytest.mark.parametrize("lost, done", [(True, ["standby", "close"]), (False, [])])
def test_what_was_taken_from_us_is_let_go(lost, done):
    cvm = Cvm(ACTIVE, served=True, lost=lost)
    cvm.gateway.check([DISK])
    assert cvm.done == done


def test_who_is_just_taking_a_volume_does_not_give_it():
    """Two CVMs that both take it must not wait for each other: the image's lock decides."""
    cvm = Cvm(ACTIVE, served=False)
    inside, go_on = threading.Event(), threading.Event()

    def ask_for(disk) -> None:
        inside.set()
        assert go_on.wait(30)
    cvm.ask_for = ask_for
    taking = threading.Thread(target=cvm.gateway.look, args=(DISK,))
    taking.start()
    assert inside.wait(30)
    cvm.gateway.release(DISK)
    assert "standby" not in cvm.done
    go_on.set()
    taking.join(30)
    assert cvm.served

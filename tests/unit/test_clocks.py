"""Which member's clock may lead, from what the clocks of all say; chronyd itself is in tests/engine/test_clocks.py."""

from __future__ import annotations

import socket
import struct
import threading
import time

import pytest

from cornerstone.cvm import clocks
from cornerstone.cvm.clocks import FOLLOW, FOLLOW_NOBODY, LEAD, Clock, closest_majority, read_clock, settle
from cornerstone.cvm.waiting import Waiting

NOW = 1_795_000_000.0
BUILT = NOW - 86400
TEN_YEARS = 315_360_000
MEMBERS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


@pytest.fixture
def settled(monkeypatch):
    """Settle the first member's clock, where the members' clocks are so many seconds off; None: no answer.

    served: by how much a time server's is off.
    """
    def run(*offs: float | None, synchronised: bool = False, served: float | None = None,
            follows: str = "") -> list[object]:
        did = []
        read = {address: None if off is None else Clock(NOW + off - time.monotonic(), synchronised, follows)
                for address, off in zip((*MEMBERS[:len(offs)], "ntp1"), (*offs, served), strict=True)}
        monkeypatch.setattr(clocks, "read_clock", lambda address, *_: read[address])
        try:
            did.append(settle(MEMBERS[0], MEMBERS[:len(offs)], ("ntp1",), BUILT, did.append,
                              lambda: did.append("restart")))
        except Waiting as waiting:
            did.append(waiting.message)
        return did
    return run


@pytest.mark.parametrize("offs", [
    (0, 0.1, TEN_YEARS), (0, 0.1, -TEN_YEARS), (0, 0.1, None), (0, 300, 0.1), (0, TEN_YEARS, 0.1), (0, 40, 0.1),
    (0, -TEN_YEARS), (0, 30)])
def test_d24_one_of_a_majority_that_agrees_leads(settled, offs):
    assert settled(*offs) == [LEAD, ""]


@pytest.mark.parametrize("off", [-TEN_YEARS, TEN_YEARS, -300, 300])
def test_d24_one_that_a_majority_disagrees_with_waits_for_theirs(settled, off):
    leading, waiting = settled(off, 0, 0.1)
    assert leading == FOLLOW
    assert waiting.startswith(
        f"this node's clock isn't the other members': {MEMBERS[1]} is {-off:+} s off {MEMBERS[0]}")
    # its chrony, which has followed once, would ignore so great a change
    assert settled(off, 0, 0.1, synchronised=True)[:2] == [FOLLOW, "restart"]


def test_d24_one_that_is_a_little_off_follows_and_goes_on(settled):
    assert settled(40, 0, 0.1) == [FOLLOW, ""]


@pytest.mark.parametrize("offs", [(0, TEN_YEARS), (0, 600, -600), (0, 600, None), (-TEN_YEARS, 600, 0)])
def test_d24_nobody_leads_where_no_majority_agrees(settled, offs):
    leading, waiting = settled(*offs)
    assert leading == FOLLOW
    assert waiting.startswith("no majority of the members' clocks agrees: ")


def test_d24_where_no_majority_agrees_chrony_starts_anew_when_there_is_a_time_server(settled):
    assert settled(0, 3600, synchronised=True, served=0)[:2] == [FOLLOW, "restart"]
    assert settled(0, 3600, synchronised=False, served=0)[1].startswith("no majority")
    assert settled(0, 3600, synchronised=True)[1].startswith("no majority")


def test_d24_a_time_server_that_differs_from_all_members_is_a_warning(settled):
    assert settled(0, 0, 0, synchronised=True, served=5) == [LEAD, ""]
    leading, warning = settled(0, 0, 0, synchronised=True, served=600)
    assert leading == LEAD and "ntp1 is +600 s off" in warning


@pytest.mark.parametrize(("offs", "follows", "ends"), [
    ((0, 0.1, 0), MEMBERS[2], False), ((0, 0.1, 0), "127.127.1.1", False), ((0, 0.1, None), "192.0.2.99", False),
    ((0, 0.1, 0.9), MEMBERS[2], False), ((0, 0.1, None), MEMBERS[1], False),
    ((0, 0.1, None), MEMBERS[2], True), ((0, 0.1, 300), MEMBERS[2], True), ((0, None, 0.1), MEMBERS[1], True)])
def test_d24_one_of_a_majority_no_longer_follows_a_member_that_is_gone_or_wrong(settled, offs, follows, ends):
    assert settled(*offs, synchronised=True, follows=follows) == [LEAD, *([FOLLOW_NOBODY] if ends else []), ""]


def test_d24_two_batteries_that_died_alike_are_no_majority(settled):
    assert settled(0, -TEN_YEARS, -TEN_YEARS) == [LEAD, ""]


def test_d24_without_a_majority_that_answers_nothing_changes(settled):
    assert settled(0, None, None) == [""]
    assert settled(0, None) == [""]


def test_a_chrony_that_does_not_answer_is_a_warning(settled):
    assert "chrony doesn't answer" in settled(None, 0, 0)[0]


def test_the_closest_majority():
    assert closest_majority([5, 0, 1, 500], 4) == (0, 5)
    assert closest_majority([0, 59, 61.5], 3) == (59, 61.5)
    assert closest_majority([0, 61], 2) is None
    assert closest_majority([], 3) is None


@pytest.mark.parametrize("at", [NOW, NOW - TEN_YEARS, NOW + TEN_YEARS])
def test_a_clock_is_read_also_beyond_2036_where_ntp_s_seconds_start_over(at, monkeypatch):
    def answer(server: socket.socket) -> None:
        asked, who = server.recvfrom(512)
        assert len(asked) == 48 and asked[0] == 0x23
        seconds = struct.pack(">II", int(at + 2_208_988_800) % (1 << 32), 1 << 31)
        server.sendto(bytes([0xE4, 11]) + bytes(10) + bytes([10, 20, 0, 21]) + bytes(24) + seconds, who)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        monkeypatch.setattr(clocks, "PORT", server.getsockname()[1])
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        clock = read_clock("127.0.0.1", "127.0.0.1", BUILT)
        thread.join()
    assert clock is not None and not clock.synchronised and clock.follows == "10.20.0.21"
    assert abs(clock.offset + time.monotonic() - at - 0.5) < 5


def test_an_answer_that_is_none_of_ntp_is_no_clock(monkeypatch):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        monkeypatch.setattr(clocks, "PORT", server.getsockname()[1])
        thread = threading.Thread(target=lambda: server.sendto(b"no", server.recvfrom(512)[1]))
        thread.start()
        assert read_clock("127.0.0.1", "127.0.0.1", BUILT) is None
        thread.join()

"""Whose clock the members follow while no time server answers: one of a majority that agrees, never one alone.

chrony's orphan mode has the member of the lowest address lead, whatever its clock says. So no member starts in it:
genesis reads the clocks of all members and lets this one lead, in orphan mode, while its clock is one of a majority's.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cornerstone.cvm.waiting import Waiting
from cornerstone.lib import command
from cornerstone.model.contracts import ports

PORT = ports.NTP
ANSWER_SECONDS = 2
# Between clocks that agree: of hosts whose own clocks ran for weeks without being set. More than this a running
# chrony doesn't change at once either (identity.py, maxchange).
TOLERANCE_SECONDS = 60
# From a majority's clocks: what chrony slews instead of setting the clock (identity.py, makestep).
SLEWED_SECONDS = 1
# RFC 5905: a client's request of version 4; where the server's answer has its transmit time; 1900 to 1970
_REQUEST = bytes([0b00_100_011]) + bytes(47)
_TRANSMIT = struct.Struct(">II")
_TRANSMIT_AT, _TO_UNIX, _ERA = 40, 2_208_988_800, 1 << 32
_UNSYNCHRONISED = 3
# its stratum; the IPv4 address of what a server of a stratum above 1 follows
_STRATUM_AT, _REFERENCE = 1, slice(12, 16)
_YEAR = 31_557_600
# what chronyd may be told at run time (chronyc(1), local)
LEAD, FOLLOW = ("local", "stratum", "10", "orphan"), ("local", "off")
# chronyc(1), reset: drop what was measured, and follow nobody
FOLLOW_NOBODY = ("reset", "sources")

Chronyc = Callable[[Sequence[str]], object]


@dataclass(frozen=True)
class Clock:
    """A member's clock. offset: its seconds since 1970 when this machine's monotonic clock was at 0.

    synchronised: it follows another, or leads. follows: the address of the one that it follows, "" for none.
    """

    offset: float
    synchronised: bool
    follows: str = ""


def read_clock(address: str, source: str, earliest: float) -> Clock | None:
    """Read the clock of the chronyd at address, asked from the address source; None when it doesn't answer in time.

    earliest: seconds since 1970. NTP's seconds start over every 136 years; they are taken for the ones from 50 years
    before that on.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(ANSWER_SECONDS)
        try:
            asking.bind((source, 0))
            asking.connect((address, PORT))
            asked = time.monotonic()
            asking.send(_REQUEST)
            answer = asking.recv(512)
        except OSError:
            return None
        half_way = (asked + time.monotonic()) / 2
    if len(answer) < len(_REQUEST):
        return None
    seconds, fraction = _TRANSMIT.unpack_from(answer, _TRANSMIT_AT)
    begin = earliest - 50 * _YEAR
    at = begin + (seconds - _TO_UNIX - begin) % _ERA + fraction / _ERA
    follows = socket.inet_ntoa(answer[_REFERENCE]) if answer[_STRATUM_AT] > 1 else ""
    return Clock(at - half_way, answer[0] >> 6 != _UNSYNCHRONISED, follows)


def closest_majority(offsets: Sequence[float], members: int) -> tuple[float, float] | None:
    """Return lowest and highest of those clocks of a majority of all members that are closest together.

    None when there is no majority whose clocks are within TOLERANCE_SECONDS.
    """
    count, sorted_offsets = members // 2 + 1, sorted(offsets)
    windows = [(sorted_offsets[at], sorted_offsets[at + count - 1])
               for at in range(len(sorted_offsets) - count + 1)]
    best = min(windows, key=lambda window: window[1] - window[0], default=None)
    return best if best and best[1] - best[0] <= TOLERANCE_SECONDS else None


def settle(me: str, members: Sequence[str], servers: Sequence[str], earliest: float,
           chronyc: Chronyc | None = None, restart: Callable[[], object] | None = None) -> str:
    """Let this member's clock lead, or follow, by what the clocks of a majority say; return a warning or "".

    servers: the site's time servers; earliest: seconds since 1970 before which no clock can be right. Raises Waiting
    while this clock isn't the majority's, and when no majority agrees though one answers.
    """
    chronyc, restart = chronyc or _chronyc, restart or _restart
    clocks = _read_clocks((*members, *servers), me, earliest)
    served = {server: clocks.pop(server) for server in servers if server in clocks}
    own = clocks.get(me)
    if own is None:
        return "chrony doesn't answer, so nothing keeps this node's clock; see: journalctl -u chrony"
    right = {address: clock for address, clock in clocks.items() if clock.offset + time.monotonic() >= earliest}
    # one that is known to be wrong has no vote
    voters = len(members) - len(clocks) + len(right)
    majority = closest_majority([clock.offset for clock in right.values()], voters)
    if majority is None:
        if len(clocks) <= len(members) // 2:
            # there is no cluster without a majority, and nobody to compare with
            return ""
        chronyc(FOLLOW)
        if served and own.synchronised:
            # as below: the servers may be right
            restart()
        raise Waiting(f"no majority of the members' clocks agrees: {_compare(me, clocks)}",
                      "set the clocks of the hosts, or give the site cvm_ntp_servers")
    low, high = majority
    if _agrees(own, low, high):
        chronyc(LEAD)
        if own.follows in members and not _agrees(clocks.get(own.follows), low, high):
            # For hours a chrony says that it follows one that is gone. When that one is back, with whatever clock, it
            # takes no time from those who seem to have it from it; so they lead themselves.
            chronyc(FOLLOW_NOBODY)
        return _compare_servers(own, served)
    chronyc(FOLLOW)
    if high - own.offset > TOLERANCE_SECONDS or own.offset - low > TOLERANCE_SECONDS:
        # A chrony that has followed once ignores so great a change, for it may be the other clock that is wrong; only
        # when it starts it takes any.
        if own.synchronised:
            restart()
        raise Waiting(f"this node's clock isn't the other members': {_compare(me, clocks)}",
                      "chrony sets it by theirs; see: chronyc sources")
    return ""


def _agrees(clock: Clock | None, low: float, high: float) -> bool:
    """Whether a clock answered and is so near to the majority's, from low to high, that chrony slews what is left."""
    return clock is not None and low - SLEWED_SECONDS <= clock.offset <= high + SLEWED_SECONDS


def _read_clocks(addresses: Sequence[str], me: str, earliest: float) -> dict[str, Clock]:
    with ThreadPoolExecutor(len(addresses)) as threads:
        answers = threads.map(lambda address: read_clock(address, me, earliest), addresses)
        return {address: clock for address, clock in zip(addresses, answers, strict=True) if clock}


def _compare_servers(own: Clock, served: Mapping[str, Clock]) -> str:
    """Return a warning of time servers that are further off than a running chrony follows; "" for none."""
    off = [f"{server} is {clock.offset - own.offset:+.0f} s off" for server, clock in served.items()
           if clock.synchronised and abs(clock.offset - own.offset) > TOLERANCE_SECONDS]
    return f"time servers differ from what the members agree on: {', '.join(off)}; if the servers are right, start " \
        "chrony anew on all members at once: systemctl restart chrony" if off else ""


def _compare(me: str, clocks: Mapping[str, Clock]) -> str:
    return ", ".join(f"{address} is {clock.offset - clocks[me].offset:+.0f} s off {me}"
                     for address, clock in clocks.items() if address != me)


def _chronyc(words: Sequence[str]) -> None:
    command.read(["chronyc", *words], hint="see: journalctl -u chrony")


def _restart() -> None:
    command.run(["systemctl", "restart", "chrony.service"])

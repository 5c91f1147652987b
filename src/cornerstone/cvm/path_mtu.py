"""Whether packets of this node's MTU get through to the other members: a switch with a smaller one drops them.

Small packets get through all the same, so members meet, and then stand still as soon as there is data. ICMP echoes with
DF set are sent, all sizes at once, and what comes back counts.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import socket
import struct
import time
from collections.abc import Collection, Mapping, Sequence

# for all that is sent of one size: any packet may be lost, and a busy machine is late
ANSWER_SECONDS = 2.0
COPIES = 4
# for the largest packets of many members at once
RECEIVE_BUFFER = 8 << 20
# every path of IPv4 carries it unbroken (RFC 791); whoever doesn't answer it isn't there
SMALLEST = 68
# sizes that are tried at once between one that passes and one that doesn't
STEPS = 24
HEADERS = 28  # IPv4 without options, ICMP
ECHO_REPLY, ECHO_REQUEST = 0, 8
# linux/in.h: DF is set, and what the kernel has learned of the path is left aside
IP_MTU_DISCOVER, IP_PMTUDISC_PROBE = 10, 3
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
SIOCGIFADDR, SIOCGIFMTU = 0x8915, 0x8921


def warnings(address: str, members: Sequence[str]) -> list[str]:
    """A sentence for each member to which packets of this node's MTU don't get through, and the size that does.

    A member that doesn't answer at all isn't named: there is nothing to be said of its path. Takes no longer than the
    answers, and where they are missing up to 10 s; needs CAP_NET_RAW and CAP_NET_ADMIN.
    """
    others = [member for member in members if member != address]
    if not others or (mtu := mtu_of(address)) <= SMALLEST:
        return []
    passed = probe(address, {other: (SMALLEST, mtu) for other in others})
    narrow = largest(address, {other: (SMALLEST, mtu) for other in others if passed[other] == {SMALLEST}})
    # once more: what was only late isn't narrow
    passed = probe(address, {other: (mtu,) for other in narrow})
    return [f"packets of {mtu} bytes, this node's MTU, don't get through from {address} to {other}, only such of up to "
            f"{size}; raise the MTU of the switches between them, or lower the site's mtu"
            for other, size in narrow.items() if not passed[other]]


def largest(address: str, between: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """The largest size that passes to each, between one that does and one that doesn't."""
    left = dict(between)
    while open_ := {other: sizes for other, sizes in left.items() if sizes[1] - sizes[0] > 1}:
        tried = {other: _steps(*sizes) for other, sizes in open_.items()}
        for other, passed in probe(address, tried).items():
            low = max(passed, default=left[other][0])
            left[other] = (low, min((size for size in tried[other] if size > low), default=left[other][1]))
    return {other: low for other, (low, _) in left.items()}


def probe(address: str, sizes: Mapping[str, Collection[int]]) -> dict[str, set[int]]:
    """Which sizes of packets come back from each address, asked from one of this node's; all at once."""
    passed: dict[str, set[int]] = {other: set() for other in sizes}
    ident = int.from_bytes(os.urandom(2), "big")
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as line:
        line.bind((address, 0))
        line.setsockopt(socket.SOL_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        line.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        for _ in range(COPIES):
            missing = {(other, size) for other, each in sizes.items() for size in each if size not in passed[other]}
            for other, size in missing:
                # an own link that is down: then nothing comes back
                with contextlib.suppress(OSError):
                    line.sendto(_echo(ident, size), (other, 0))
            end = time.monotonic() + ANSWER_SECONDS / COPIES
            while missing and (answer := _answer(line, ident, end)):
                missing.discard(answer)
                if answer[1] in sizes.get(answer[0], ()):
                    passed[answer[0]].add(answer[1])
            if not missing:
                break
    return passed


def mtu_of(address: str) -> int:
    """The MTU of the card that has an address; 0 when none has it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            request = array.array("b", struct.pack("16s24x", name.encode()))
            try:
                fcntl.ioctl(any_socket, SIOCGIFADDR, request)
                if socket.inet_ntoa(bytes(request)[20:24]) == address:
                    fcntl.ioctl(any_socket, SIOCGIFMTU, request)
                    return int(struct.unpack_from("=i", request, 16)[0])
            except OSError:
                continue
    return 0


def _steps(low: int, high: int) -> list[int]:
    """Sizes between two, without these, evenly spread."""
    count = min(STEPS, high - low - 1)
    return sorted({low + (high - low) * number // (count + 1) for number in range(1, count + 1)} - {low})


def _echo(ident: int, size: int) -> bytes:
    """An ICMP echo request for a packet of size bytes; its number is the size."""
    rest = struct.pack("!HH", ident, size) + bytes(size - HEADERS)
    total = sum(struct.unpack(f"!{len(rest) // 2}H", rest[:len(rest) // 2 * 2])) + (ECHO_REQUEST << 8)
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!BBH", ECHO_REQUEST, 0, ~(total + (total >> 16)) & 0xFFFF) + rest


def _answer(line: socket.socket, ident: int, end: float) -> tuple[str, int] | None:
    """Who answers next, with the size that was asked; None when nobody does until then."""
    while (left := end - time.monotonic()) > 0 and select.select([line], [], [], left)[0]:
        packet, (other, _) = line.recvfrom(65535)
        icmp = packet[(packet[0] & 0xF) * 4:]
        if len(icmp) >= 8:
            kind, _, _, its_ident, size = struct.unpack_from("!BBHHH", icmp)
            if (kind, its_ident) == (ECHO_REPLY, ident) and len(packet) == size:
                return other, size
    return None

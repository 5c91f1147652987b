"""A network between machines of the lab: an Ethernet switch of our own, whose cables can be pulled pair by pair.

Its ports are pairs of unix datagram sockets, a frame in each datagram (QEMU's -netdev dgram): no bridge, no root, and
nobody else on it. The way in for ssh is a port with QEMU's user network behind it, which lets nothing out.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from cornerstone.lab.machine import qemu, quoted
from cornerstone.lib.command import WITH_US
from cornerstone.lib.error import Code, CornerstoneError

LARGEST_FRAME = 65536
# Frames that a busy machine may leave lying, in bytes; more are lost, as on any switch.
BUFFER = 4 << 20
DOOR = "door"
_FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+(\S+)\s+(\d+)")
ANSWER_SECONDS = 60


class Switch:
    """While entered, a thread passes frames between its ports. folder: private, for the sockets; a short path."""

    def __init__(self, folder: Path, ports: tuple[str, ...]) -> None:
        self._folder = folder
        self._sockets: dict[str, socket.socket] = {}
        self._ports = ports
        self._home: dict[bytes, str] = {}
        self._cut: frozenset[frozenset[str]] = frozenset()
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._pass, name="switch")

    def netdev(self, port: str) -> str:
        """QEMU's -netdev value for what is plugged into a port, without an id."""
        end = self._folder / f"{port}.far"
        # what a machine that was killed left
        end.unlink(missing_ok=True)
        return (f"dgram,local.type=unix,local.path={quoted(end)},remote.type=unix,"
                f"remote.path={quoted(self._folder / port)}")

    def cut(self, one: str, other: str) -> None:
        """Nothing passes between two ports from now on; both still reach all others."""
        self._cut |= {frozenset((one, other))}

    def heal(self, one: str, other: str) -> None:
        """Join two ports again."""
        self._cut -= {frozenset((one, other))}

    def __enter__(self) -> Switch:
        for port in self._ports:
            end = self._sockets[port] = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            end.setblocking(False)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                end.setsockopt(socket.SOL_SOCKET, option, BUFFER)
            end.bind(str(self._folder / port))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        os.write(self._waker, b"\0")
        self._thread.join()
        for end in self._sockets.values():
            end.close()
        os.close(self._wake)
        os.close(self._waker)

    def _pass(self) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(self._wake, selectors.EVENT_READ)
            for port, end in self._sockets.items():
                ready.register(end, selectors.EVENT_READ, port)
            while True:
                for key, _ in ready.select():
                    if key.data is None:
                        return
                    with contextlib.suppress(OSError):
                        self._frame(key.data, self._sockets[key.data].recv(LARGEST_FRAME))

    def _frame(self, port: str, frame: bytes) -> None:
        target, source = frame[:6], frame[6:12]
        self._home[source] = port
        known = self._home.get(target)
        for other in (known,) if known else self._ports:
            if other != port and frozenset((port, other)) not in self._cut:
                # nothing is plugged in there, or it is too busy: a frame is lost
                with contextlib.suppress(OSError):
                    self._sockets[port].sendto(frame, str(self._folder / f"{other}.far"))


@contextlib.contextmanager
def door(switch: Switch, network: str, forwards: tuple[tuple[str, int], ...]) -> Iterator[tuple[int, ...]]:
    """QEMU's user network behind the switch's port DOOR; yields a port of 127.0.0.1 for each (address, port).

    network: the value's words up to the forwards (see lab/network.py).
    """
    words = ",".join([network, *(f"hostfwd=tcp:127.0.0.1:0-{address}:{port}" for address, port in forwards)])
    argv = [qemu(), "-name", "cornerstone-door", "-nodefaults", "-no-user-config", "-display", "none", "-machine",
            "none", "-monitor", "stdio", "-netdev", f"{words},id=user", "-netdev", f"{switch.netdev(DOOR)},id=port",
            "-netdev", "hubport,id=a,hubid=0,netdev=user", "-netdev", "hubport,id=b,hubid=0,netdev=port"]
    with subprocess.Popen([*WITH_US, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, start_new_session=True) as process:
        try:
            yield _forwarded(process, forwards)
        finally:
            process.kill()


def _forwarded(process: subprocess.Popen[str], forwards: tuple[tuple[str, int], ...]) -> tuple[int, ...]:
    if process.stdin is None or process.stdout is None:
        raise ValueError("started without pipes")
    process.stdin.write("info usernet\n")
    process.stdin.flush()
    found: dict[tuple[str, int], int] = {}
    said = []
    timer = threading.Timer(ANSWER_SECONDS, process.kill)
    timer.start()
    try:
        while len(found) < len(forwards):
            line = process.stdout.readline()
            if not line:
                raise CornerstoneError(f"QEMU's user network didn't start: {''.join(said).strip()[-400:]}",
                                       "see that qemu-system-x86 is installed", Code.MACHINE)
            said.append(line)
            if match := _FORWARD.search(line):
                found[match[2], int(match[3])] = int(match[1])
    finally:
        timer.cancel()
    return tuple(found[each] for each in forwards)

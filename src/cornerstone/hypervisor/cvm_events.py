"""What the Controller VM tells is told on: its event port is a socket of this host (see domain.py).

So whoever watches the node sees the CVM's states beside the host's. The CVM is another machine: its lines are checked,
and it can't speak as one of the host's own stages.
"""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from pathlib import Path

from cornerstone.model.event import Event, Listener

SOCKET = Path("/run/cornerstone-cvm-events.sock")
LONGEST_LINE = 1 << 16
# the socket is there when the domain runs
RETRY_SECONDS = 1.0
HOST_STAGES = ("boot", "foundation", "first-boot", "hypervisor")
# The CVM tries again what failed and waits for what is missing: for the host neither is an end.
SOFTER = {"failed": "warning", "waiting": "progress"}


def relayed(line: bytes) -> Event | None:
    """The event of a line as the host tells it; None for what isn't one that a CVM may tell."""
    try:
        event = Event.from_json(line.decode())
    except (ValueError, TypeError):
        return None
    if event.stage in HOST_STAGES:
        return None
    return replace(event, state=SOFTER.get(event.state, event.state))


class CvmEvents:
    """Listens in a thread of its own, for as long as this process lives, through all of the CVM's restarts."""

    def __init__(self, tell: Listener, path: Path = SOCKET) -> None:
        self._tell = tell
        self._path = path
        self._stop = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self.run, name="cvm-events", daemon=True).start()

    def stop(self) -> None:
        """Have run end after the line that it is at."""
        self._stop.set()

    def run(self) -> None:
        """Tell on until stopped."""
        while not self._stop.is_set():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as port:
                try:
                    port.connect(str(self._path))
                    self._listen(port)
                except OSError:
                    pass
            self._stop.wait(RETRY_SECONDS)

    def _listen(self, port: socket.socket) -> None:
        with port.makefile("rb") as lines:
            while (line := lines.readline(LONGEST_LINE)) and not self._stop.is_set():
                if (event := relayed(line)) is not None:
                    self._tell(event)

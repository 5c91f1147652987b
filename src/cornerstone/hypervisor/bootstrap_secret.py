"""The bootstrap secret on the host: emptied when the Controller VM says that its node is a member of its cluster.

The CVM can't do that itself: it got the secret as a file of the host, which the domain goes on naming.
"""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Callable
from pathlib import Path

from cornerstone.lib.deadline import within
from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.event import Event, Listener
from cornerstone.model.contracts import ports
from cornerstone.model.contracts.member_page import MEMBER_PAGE
from cornerstone.model.contracts.network import CVM_INTERNAL, INTERNAL_BRIDGE

STAGE = "hypervisor"
STEP = "bootstrap-secret"
# the CVM's page for its host, on the internal network (cvm/membership/server.py)
ADDRESS, PORT = str(CVM_INTERNAL), ports.MEMBERSHIP
TIMEOUT_SECONDS = 2
MAX_BYTES = 1 << 16


class BootstrapSecret:
    """Looks after one file. ask: whether the CVM's node is a member by now."""

    def __init__(self, path: Path, tell: Listener, ask: Callable[[], bool] | None = None) -> None:
        self._path = path
        self._tell = tell
        self._ask = ask or is_member
        # of the last wiping, tried again at each look and told once
        self._failed: int | None = None

    def look(self) -> None:
        """Empty the file if nobody needs it any more."""
        try:
            if self._path.exists() and self._path.stat().st_size and self._ask():
                wipe(self._path)
                self._tell(Event(STAGE, STEP, "done",
                                 "the node is a member of its cluster: the bootstrap secret is wiped"))
        except OSError as error:
            if error.errno != self._failed:
                self._failed = error.errno
                self._tell(Event(STAGE, STEP, "warning", f"{self._path} can't be wiped: {error.strerror}"))


def is_member(address: str = ADDRESS, bridge: str = INTERNAL_BRIDGE) -> bool:
    """Ask the CVM. No when it doesn't answer, or answers something else."""
    connection = http.client.HTTPConnection(address, PORT)
    with socket.socket() as connection.sock:
        try:
            connection.sock.settimeout(TIMEOUT_SECONDS)
            # without its CVM the bridge has no link, and the default route would lead to whoever is out there
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bridge.encode())
            connection.sock.connect((address, PORT))
            with within(connection.sock, TIMEOUT_SECONDS):
                connection.request("GET", "/")
                return MEMBER_PAGE.read(connection.getresponse().read(MAX_BYTES)).member
        except (OSError, CornerstoneError, http.client.HTTPException):
            return False


def wipe(path: Path) -> None:
    """Overwrite a file with zeros where it lies, and empty it, both on the disk. Cut off, it can be done again."""
    with path.open("r+b") as file:
        file.write(bytes(os.fstat(file.fileno()).st_size))
        file.flush()
        os.fsync(file.fileno())
        file.truncate(0)
        os.fsync(file.fileno())

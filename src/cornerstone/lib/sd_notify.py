"""Tell systemd how a service is: sd_notify(3), without its library."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(*lines: str) -> None:
    """Send the lines, such as READY=1; nothing happens when no systemd listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # a systemd that doesn't hear it ends no service
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        # @ is how the environment writes the zero byte of an abstract address
        out.connect("\0" + address[1:] if address.startswith("@") else address)
        out.send("\n".join(lines).encode())

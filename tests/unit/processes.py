"""Waiting for processes that are somebody else's children."""

from __future__ import annotations

import os
import select


def wait_for_end(pid: int, seconds: float = 30) -> bool:
    """Wait until a process has ended; False when it still runs after so long. A zombie has ended.

    Where process 1 reaps nobody, as in a container without an init, a killed orphan stays a zombie for ever.
    """
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(process, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(process)

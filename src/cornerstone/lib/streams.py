"""Standard output and standard error whose reader has gone: `cluster status | head -1`."""

from __future__ import annotations

import os
import select
import signal

# What a shell calls a process that wrote into a pipe after its reader had gone (128 + SIGPIPE).
PIPE_ENDED = 128 + signal.SIGPIPE


def pipe_ended() -> bool:
    """Whether standard output or standard error is a pipe whose reader has gone."""
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def discard(*descriptors: int) -> None:
    """Let what is still buffered go nowhere, or Python would fail once more while it exits, with a code of its own."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)

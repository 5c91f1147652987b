"""A bound on how long a connection takes in all: a socket's own timeout begins anew with each byte."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def within(connection: socket.socket, seconds: float) -> Iterator[Callable[[], None]]:
    """Shut a connection down when the block takes longer; calling what is yielded lifts the bound.

    connection: a plain socket, also one that TLS is laid over in the block. Raises TimeoutError when the time was over,
    instead of what the block met by that.
    """
    over = threading.Event()
    # of our own: TLS takes the descriptor of the socket that it is laid over
    held = connection.dup()

    def cut() -> None:
        over.set()
        with contextlib.suppress(OSError):
            held.shutdown(socket.SHUT_RDWR)
    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield timer.cancel
    except Exception:
        if not over.is_set():
            raise
    finally:
        timer.cancel()
        timer.join()
        held.close()
    if over.is_set():
        raise TimeoutError(f"it takes longer than {seconds:g} s")

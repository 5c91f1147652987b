"""Addresses of the cluster that one CVM at a time has: whoever holds a lease in RADOS that it keeps renewing.

The kernel is told to drop the address when the lease may have ended (valid_lft), so a holder that hangs, or that can't
reach the cluster, has lost it before another may have it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from cornerstone.cvm.iscsi_target.lease import HeldByAnother
from cornerstone.lib import command
from cornerstone.lib.event import Event, Listener
from cornerstone.lib.failures import Failures

LEASE_SECONDS = 15
# How often it is renewed while it lasts. Not oftener: each time is a write on all copies' disks.
RENEWALS = 4
# clocks run at different speeds, and the kernel counts whole seconds
MARGIN_SECONDS = 2
# of ip and arping
COMMAND_SECONDS = 10
STAGE, STEP = "data-services", "address"


class Lease(Protocol):
    """A lock that ends by itself, `seconds` after it was last renewed."""

    seconds: int

    def renew(self) -> bool: ...

    def end(self) -> None: ...


def _run(*words: str) -> None:
    done = command.run(words, seconds=COMMAND_SECONDS)
    # what it answers isn't asked for; that it answers is
    if not done.ended:
        done.check()


class FloatingAddress:
    """One address, as 10.20.0.31, on an interface. changed: called when we have got it or lost it."""

    def __init__(self, address: str, interface: str, lease: Lease, changed: Callable[[], None], tell: Listener,
                 run: Callable[..., None] = _run, clock: Callable[[], float] = time.monotonic) -> None:
        self.address = address
        self._interface = interface
        self._lease = lease
        self._changed = changed
        self._tell = tell
        self._run = run
        self._clock = clock
        self._failures = Failures(lambda line: tell(Event(STAGE, STEP, "warning", f"{address}: {line}")))
        self._until = 0.0
        self._had = False

    @property
    def held(self) -> bool:
        """Whether it is ours now."""
        return self._clock() < self._until

    def tick(self) -> None:
        """Try to get it, or to keep it."""
        # also when that fails: what isn't renewed has to be let go of
        self._failures.attempt(self._renew)
        if left := int(self._until - self._clock()) if self.held else 0:
            self._run("ip", "address", "replace", f"{self.address}/32", "dev", self._interface,
                      "valid_lft", str(left), "preferred_lft", str(left))
        if self.held and not self._had:
            # who has it in mind as another CVM's learns the new one
            self._run("arping", "-U", "-c", "2", "-I", self._interface, self.address)
        if self.held != self._had:
            self._had = self.held
            self._tell(Event(STAGE, STEP, "done" if self.held else "warning",
                             f"{self.address} is {'held here' if self.held else 'no longer ours'}"))
            self._changed()

    def run(self, stop: threading.Event) -> None:
        """Until stop is set; then it is free for another at once."""
        while not stop.is_set():
            self._failures.attempt(self.tick)
            stop.wait(self._lease.seconds / RENEWALS)
        # only an address that is dropped is another's
        if self.held and self._failures.attempt(self._drop):
            self._failures.attempt(self._lease.end)

    def _renew(self) -> None:
        asked = self._clock()
        try:
            if self._lease.renew():
                self._until = asked + self._lease.seconds - MARGIN_SECONDS
        except HeldByAnother:
            self._drop()

    def _drop(self) -> None:
        self._run("ip", "address", "delete", f"{self.address}/32", "dev", self._interface)
        self._until = self._clock()

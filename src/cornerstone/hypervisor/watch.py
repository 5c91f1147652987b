"""The watch over the Controller VM: one that died is started again, and what happens to it is told as an event.

Died means that QEMU ended without being asked to, or that a start failed. A CVM that was shut down, from inside or by
virsh, stays down: somebody meant it. A crash of the guest's kernel libvirt restarts by itself (on_crash).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from cornerstone.hypervisor.bootstrap_secret import BootstrapSecret
from cornerstone.hypervisor.command import virsh
from cornerstone.hypervisor.cvm_events import CvmEvents
from cornerstone.lib.error import ends_in_one_line
from cornerstone.lib.event import Event, Listener, open_listeners, telling_the_end
from cornerstone.lib.failures import Failures
from cornerstone.model.contracts.node import SECRET_FILE, NodeConfig
from cornerstone.model.contracts.places import EVENTS_FILE

STAGE = "hypervisor"
STEP = "cvm"
# as `virsh domstate --reason` says it
DIED = ("shut off (crashed)", "shut off (failed)")
# virsh wakes us at every event of the domain; this is for one that falls between looking and listening
LOOK_SECONDS = 20
# a CVM that can't live isn't churned
BETWEEN_STARTS_SECONDS = 60


class Watch:
    """Looks at one domain. virsh: runs it with words and returns its exit code and what it said."""

    def __init__(self, name: str, tell: Listener, virsh: Callable[..., tuple[int, str]],
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._tell = tell
        self._virsh = virsh
        self._clock = clock
        self._last = ""
        self._next_start = 0.0

    def look(self) -> bool:
        """See how the domain is; tell of a change; start it if it died, but not again at once. True if it tried."""
        code, state = self._virsh("domstate", "--reason", self._name)
        died = code == 0 and state in DIED
        if state != self._last:
            self._last = state
            self._tell(Event(STAGE, STEP, "warning" if died or code else "progress", f"{self._name}: {state}"))
        due = died and self._clock() >= self._next_start
        if due:
            self._next_start = self._clock() + BETWEEN_STARTS_SECONDS
            self._tell(Event(STAGE, STEP, "started", f"{self._name} died and is started again"))
            code, said = self._virsh("start", self._name)
            self._tell(Event(STAGE, STEP, "failed" if code else "done", said or f"{self._name} is started"))
        return due

    def listen(self) -> None:
        """Wait until something happens to the domain, or for a while."""
        self._virsh("event", "--domain", self._name, "--event", "lifecycle", "--timeout", str(LOOK_SECONDS))


def look(watch: Watch, secret: BootstrapSecret, failures: Failures) -> None:
    """Look at the secret and at the domain, and wait for what happens next; what one raises is told."""
    failures.attempt(secret.look)

    def look_and_listen() -> None:
        if not watch.look():
            watch.listen()
    failures.attempt(look_and_listen)


@ends_in_one_line
def main(path: Path) -> int:
    """Watch the CVM of a node.json for ever; an error's code when it can't be read."""
    name = NodeConfig.read(path).cvm.name
    tell = open_listeners(path.with_name(EVENTS_FILE))
    with telling_the_end(tell, STAGE, STEP, again=True):
        watch, secret = Watch(name, tell, virsh), BootstrapSecret(path.with_name(Path(SECRET_FILE).name), tell)
        CvmEvents(tell).start()
        failures = Failures(lambda line: tell(Event(STAGE, STEP, "warning", line)))
        while True:
            look(watch, secret, failures)
            # a libvirtd that is gone makes it return at once
            time.sleep(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

"""When the host goes down: the guests end first, then the host's sessions with their volumes, the Controller VM last.

In another order a guest waits for its disk, and so does the host. One that doesn't end when it is asked to is turned
off: what its disks have acknowledged is kept.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from cornerstone.hypervisor.data_path import run
from cornerstone.hypervisor.watch import virsh
from cornerstone.model.error import ends_in_one_line
from cornerstone.model.event import Event, Listener, open_listeners
from cornerstone.model.node import NodeConfig

STAGE = "hypervisor"
STEP = "shutdown"
GUEST_SECONDS = 180
CONTROLLER_SECONDS = 300
# virsh wakes us when a domain ends; this is for one that does between looking and listening
LOOK_SECONDS = 5

Run = Callable[..., tuple[int, str]]


class Shutdown:
    """Ends what runs. virsh, run: a command with words; its exit code and what it said."""

    def __init__(self, controller: str, tell: Listener, virsh: Run = virsh, run: Run = run,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._controller = controller
        self._tell = tell
        self._virsh = virsh
        self._run = run
        self._clock = clock

    def end_all(self) -> None:
        """Everything, in order."""
        self._tell(Event(STAGE, STEP, "started"))
        self._end(self._running() - {self._controller}, GUEST_SECONDS)
        for words in (("multipath", "-F"), ("iscsiadm", "--mode", "node", "--logoutall=all")):
            self._run(*words)
        self._end(self._running() & {self._controller}, CONTROLLER_SECONDS)
        self._tell(Event(STAGE, STEP, "done"))

    def _running(self) -> set[str]:
        # a name has no blanks: virsh's own words are one line
        code, said = self._virsh("list", "--name")
        if code:
            self._tell(Event(STAGE, STEP, "warning", f"libvirt doesn't say what runs: {said}"))
        return set() if code else set(said.split())

    def _end(self, names: set[str], seconds: float) -> None:
        for name in sorted(names):
            self._virsh("shutdown", name)
        end = self._clock() + seconds
        while (left := names & self._running()) and self._clock() < end:
            self._virsh("event", "--event", "lifecycle", "--timeout", str(LOOK_SECONDS))
        for name in sorted(left):
            self._tell(Event(STAGE, STEP, "warning", f"{name} didn't end within {seconds:.0f} s and is turned off"))
            self._virsh("destroy", name)


@ends_in_one_line
def main(path: Path) -> int:
    """End all domains of the host whose node.json this is; an error's code when it can't be read."""
    name = NodeConfig.read(path).controller.name
    Shutdown(name, open_listeners(path.with_name("events.jsonl"))).end_all()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

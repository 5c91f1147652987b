"""When the host goes down: the guests end first, then the host's sessions with their volumes, the Controller VM last.

In another order a guest waits for its disk, and so does the host. One that doesn't end when it is asked to is turned
off: what its disks have acknowledged is kept. Before that multipath stops queueing, for a process that waits for its
disk can't be killed. What fails is told as a warning, and the host goes down all the same.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cornerstone.hypervisor.command import run, virsh
from cornerstone.hypervisor.multipath import Run, stop_queueing
from cornerstone.lib.error import ends_in_one_line
from cornerstone.lib.event import Event, Listener, open_listeners, telling_the_end
from cornerstone.model.contracts.node import NodeConfig
from cornerstone.model.contracts.places import EVENTS_FILE

STAGE = "hypervisor"
STEP = "shutdown"
GUEST_SECONDS = 180
CONTROLLER_SECONDS = 300
# virsh wakes us when a domain ends; this is for one that does between looking and listening
LOOK_SECONDS = 5
# each word of virsh, when libvirtd hangs
VIRSH_SECONDS = 60.0
# iscsiadm(8): there is no record
NO_OBJECTS = 21


class Shutdown:
    """Ends what runs. virsh, run: a command with words; its exit code and what it said."""

    def __init__(self, controller: str, tell: Listener, virsh: Run = virsh, run: Run = run,
                 clock: Callable[[], float] = time.monotonic,
                 sleep: Callable[[float], None] = time.sleep) -> None:
        self._controller = controller
        self._tell = tell
        self._virsh = virsh
        self._run = run
        self._clock = clock
        self._sleep = sleep
        self._warned: set[str] = set()

    def end_all(self) -> None:
        """Everything, in order."""
        self._tell(Event(STAGE, STEP, "started"))
        left = self._ask((self._running() or set()) - {self._controller}, GUEST_SECONDS)
        # from here on I/O that has no path fails, whatever fails later: its server is about to end
        for problem in stop_queueing(self._run):
            self._warn(problem)
        self._turn_off(left, GUEST_SECONDS)
        self._check("multipath doesn't let go of all volumes", self._run("multipath", "-F"))
        self._check("iSCSI doesn't log out everywhere",
                    self._run("iscsiadm", "--mode", "node", "--logoutall=all"), NO_OBJECTS)
        left = self._ask((self._running() or set()) & {self._controller}, CONTROLLER_SECONDS)
        self._turn_off(left, CONTROLLER_SECONDS)
        self._tell(Event(STAGE, STEP, "done"))

    def _running(self) -> set[str] | None:
        """Names of the domains that run; None, and a warning, when libvirt doesn't say."""
        # a name has no blanks: virsh's own words are one line
        code, said = self._virsh("list", "--name")
        self._check("libvirt doesn't say what runs", (code, said))
        return None if code else set(said.split())

    def _ask(self, names: set[str], seconds: float) -> set[str]:
        """Ask domains to end, and return those that haven't after so many seconds."""
        for name in sorted(names):
            self._command("shutdown", name, f"{name} can't be asked to end")
        end = self._clock() + seconds
        left = names
        while left and self._clock() < end:
            running = self._running()
            # unknown is not ended
            left = left if running is None else left & running
            if running is None:
                self._sleep(1)
            elif left:
                self._virsh("event", "--event", "lifecycle", "--timeout", str(LOOK_SECONDS))
        return left

    def _turn_off(self, names: set[str], seconds: float) -> None:
        for name in sorted(names):
            self._warn(f"{name} didn't end within {seconds:.0f} s and is turned off")
            self._command("destroy", name, f"{name} can't be turned off")

    def _command(self, word: str, name: str, what: str) -> None:
        """Give virsh a word for a domain. Its failure is none when the domain has just ended by itself."""
        answer = self._virsh(word, name)
        if answer[0]:
            running = self._running()
            if running is None or name in running:
                self._check(what, answer)

    def _check(self, what: str, answer: tuple[int, str], *also_good: int) -> None:
        code, said = answer
        if code not in (0, *also_good):
            self._warn(f"{what}: {said or f'exit code {code}'}")

    def _warn(self, message: str) -> None:
        """Tell it, once however often it is seen."""
        if message not in self._warned:
            self._warned.add(message)
            self._tell(Event(STAGE, STEP, "warning", message))


@ends_in_one_line
def main(path: Path) -> int:
    """End all domains of the host whose node.json this is; an error's code when it can't be read."""
    name = NodeConfig.read(path).cvm.name
    tell = open_listeners(path.with_name(EVENTS_FILE))
    with telling_the_end(tell, STAGE, STEP):
        Shutdown(name, tell, partial(virsh, seconds=VIRSH_SECONDS)).end_all()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

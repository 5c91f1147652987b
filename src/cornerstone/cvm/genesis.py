"""genesis: brings this node's services up, state by state, and says how far it is.

The states run in order, in one process under genesis.service. Each is idempotent: at every boot all of them run, and
find done what an earlier boot did. One that fails is tried again after a pause that grows, for ever; what it waits for
ends the pause early. `genesis status` reads what genesis.json says; docs/cvm.md describes the states.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cornerstone.cvm import clocks, disks, iscsi_target, membership, path_mtu, status
from cornerstone.cvm.ceph import check, engine, osd, pool
from cornerstone.cvm.membership import words
from cornerstone.cvm.node import EVENTS, STAGE, Node
from cornerstone.cvm.waiting import Waiting
from cornerstone.lib.atomic import put, sweep
from cornerstone.lib.error import Code, CornerstoneError, ends_in_one_line
from cornerstone.lib.event import Event, Listener, note, open_listeners, telling_the_end
from cornerstone.lib.failures import Failures
from cornerstone.lib.sd_notify import notify
from cornerstone.lib.wake import Wake
from cornerstone.model.contracts.genesis import Genesis, StateRecord
from cornerstone.model.contracts.node import NODE_CREDENTIAL, NodeConfig
from cornerstone.model.contracts.places import STATE

FILE = STATE / "genesis.json"
# between tries of a state that failed: doubled each time
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1, 60
# for what another member does nothing wakes us
LONGEST_WAIT_SECONDS = 4
# between looks at a node that is ready, times the cluster's patience: a look takes seconds of a slow processor
LOOK_SECONDS = 60


def identity(node: Node) -> None:
    """See to the clock: certificates and keys want one that isn't before the image was made, a cluster the same one."""
    now, made = time.time(), Path(__file__).stat().st_mtime
    if now < made:
        raise CornerstoneError(f"the clock says {time.strftime('%F %T', time.gmtime(now))}, which is before this image "
                               "was made", "set the clock of the host, or give the site ntp_servers", Code.MACHINE)
    if len(node.members) > 1:
        try:
            warning = clocks.settle(node.address, node.members, node.config.cvm.ntp_servers, made)
        except Waiting:
            raise
        except CornerstoneError as error:
            # what can't be told to chrony keeps nobody from his data
            warning = f"{error.message}; {error.hint}"
        if warning:
            node.warn(warning)


def look_for_disks(node: Node) -> None:
    """The data disks are there and may be used. To a member that is a warning: its other disks go on."""
    named = node.config.cvm.disks
    found = disks.find(entry.serial for entry in named)
    node.membership = membership.load()
    if node.membership:
        ours = osd.ours(node, found)
    else:
        # whose they are is for the next state to find out, if the cluster is to be had back
        ours = {disk.osd for disk in found if disk.osd} if words.said(words.RECOVER) else set()
    chosen = disks.choose(named, found, ours, anew=words.said(words.NEW))
    problems = list(chosen.problems)
    if len(found) < len(named) and (others := disks.unnamed(named)):
        problems.append(f"there are disks that node.json doesn't name: {', '.join(others)}")
    if problems and node.membership is None:
        raise CornerstoneError("; ".join(problems), "put the disk back or replace it, and image the node again; to "
                               "erase one, give the site its token", Code.REFUSED)
    node.osds = tuple(f"{disk} of cluster {disk.cluster or '(unknown)'}" for disk in chosen.foreign)
    if node.membership and not words.said(words.NEW):
        problems += [f"data disk {osd} isn't used; to give its data up: cluster --new create" for osd in node.osds]
    for problem in problems:
        node.warn(problem)


def look_at_paths(node: Node) -> None:
    """Warn of members to which large packets don't get through; the others can't be told apart from slow ones."""
    for warning in path_mtu.warnings(node.address, node.members):
        node.warn(warning)


def join(node: Node) -> None:
    if node.membership is None and words.said(words.RECOVER):
        membership.keep(membership.Membership.renew(recovered_cluster(node)))
    node.membership = membership.bring_up(node.config, membership.bootstrap_secret(), osds=node.osds)
    membership.get_to_know(node.config)
    look_at_paths(node)


def recovered_cluster(node: Node) -> str:
    """Return the id of the one cluster that has an OSD on every data disk of node.json, of which no other member knows.

    A disk that is missing may be the only one with the last writes, and nobody knows any more that it is missed.
    """
    named = node.config.cvm.disks
    found = disks.find(entry.serial for entry in named)
    chosen = dict(disks.choose(named, found, {disk.osd for disk in found if disk.osd}).usable)
    clusters = {disk.cluster for disk in chosen.values()}
    without = [entry.serial for entry in named if entry not in chosen or not chosen[entry].cluster]
    if without or len(clusters) != 1:
        why = f"these data disks hold no OSD: {', '.join(without)}" if without else \
            f"the data disks hold OSDs of {len(clusters)} clusters"
        raise CornerstoneError(f"the cluster can't be recovered: {why}",
                               "put all its disks in; if one is lost for good, image the node with a site without it",
                               Code.REFUSED)
    return clusters.pop()


STEPS: dict[str, Callable[[Node], None]] = {
    "identity": identity, "disks": look_for_disks, "membership": join, "engine": engine.bring_up,
    "pool": pool.make_pool, "container": pool.make_container,
    "data-services": iscsi_target.bring_up, "ready": check.check}


class Runner:
    """Runs the states of one boot and keeps genesis.json. clock: seconds since the kernel's start."""

    def __init__(self, node: Node, file: Path = FILE, steps: dict[str, Callable[[Node], None]] | None = None,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._node = node
        self._file = file
        self._steps = steps or STEPS
        self._clock = clock
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        sweep(file)
        self.record = Genesis(boot, tuple(StateRecord(name) for name in self._steps))
        self._keep()

    def run(self) -> CornerstoneError | None:
        """Run the states in order; the error of the one that failed, where it stopped, or None when all are done."""
        for name, step in self._steps.items():
            if (error := self._try(name, step)) is not None:
                return error
        return None

    def _try(self, name: str, step: Callable[[Node], None]) -> CornerstoneError | None:
        node, began = self._node, self._clock()
        node.step, node.warnings = name, []
        node.note = lambda message: self._set(name, message=message)
        before = self.record.of(name)
        # a look at a node that is ready isn't news
        again = before.state == "done"
        if not again:
            self._set(name, state="running", tries=before.tries + 1)
            # one that waits is tried every few seconds
            if not before.error:
                node.tell(Event(STAGE, name, "started"))
        error = None
        try:
            step(node)
        except CornerstoneError as problem:
            error = problem
        except Exception as problem:
            traceback.print_exc()
            error = CornerstoneError(f"{type(problem).__name__}: {problem}", "this is a defect of genesis; its journal "
                                     "has the traceback", Code.FAILED)
        took = round((self._clock() - began) * 1000)
        warnings = tuple(node.warnings)
        for warning in warnings:
            if warning not in before.warnings:
                node.tell(Event(STAGE, name, "warning", warning))
        if error is not None:
            failed = "waiting" if isinstance(error, Waiting) else "failed"
            self._set(name, state=failed, took=took, message="", error=error.message, hint=error.hint,
                      warnings=warnings)
            if (error.message, error.hint) != (before.error, before.hint):
                node.tell(Event(STAGE, name, failed, f"{error.message}; {error.hint}".rstrip("; ")))
        elif not again:
            self._set(name, state="done", took=took, message="", error="", hint="", warnings=warnings)
            node.tell(Event(STAGE, name, "done", data={"seconds": round(took / 1000, 1)}))
        elif (warnings, "") != (before.warnings, self.record.of(name).message):
            self._set(name, message="", warnings=warnings)
        return error

    def _set(self, name: str, **changes: object) -> None:
        if "state" in changes:
            changes |= {"since": time.time_ns() // 10**6, "uptime": round(self._clock() * 1000)}
        states = tuple(replace(record, **changes) if record.name == name else record for record in self.record.states)
        self.record = replace(self.record, states=states)
        self._keep()

    def _keep(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        # of this boot only
        put(self._file, self.record.to_json(), durable=False)


def serve(runner: Runner, wait: Callable[[float], None], look: float = LOOK_SECONDS) -> None:
    """Bring the node up and keep looking after it, for ever; look: seconds between looks at one that is ready."""
    pause = FIRST_PAUSE_SECONDS
    failures = Failures(note)
    while True:
        error = _run(runner, failures)
        if error is None:
            notify("READY=1", "STATUS=ready")
            pause = FIRST_PAUSE_SECONDS
            wait(look)
        else:
            if isinstance(error, Waiting):
                pause = min(pause, LONGEST_WAIT_SECONDS)
            notify(f"STATUS=trying again within {pause} s")
            wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def _run(runner: Runner, failures: Failures) -> CornerstoneError | None:
    """Run the states. What they can't say themselves, as that the disk of their record is full, is noted."""
    try:
        return runner.run()
    except Exception as problem:
        failures.add(problem)
        return CornerstoneError(f"genesis can't go on: {problem}", "see: journalctl -u genesis", Code.FAILED)


def print_too(listener: Listener) -> Listener:
    """Return a listener that tells this one, and prints a line on standard output, which is the console."""
    def tell(event: Event) -> None:
        listener(event)
        if event.state != "started":
            print(f"genesis: {event.step} {event.state} {event.message}".rstrip(), flush=True)
    return tell


@ends_in_one_line
def main(words: list[str]) -> int:
    """`genesis` runs, `genesis status [--json]` tells."""
    if words:
        return status.main(words, FILE)
    config = NodeConfig.read(Path(os.environ["CREDENTIALS_DIRECTORY"], NODE_CREDENTIAL))
    tell = print_too(open_listeners(EVENTS))
    with telling_the_end(tell, STAGE, "serve", again=True), Wake() as wake:
        serve(Runner(Node(config, tell)), wake.wait, LOOK_SECONDS * config.patience)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

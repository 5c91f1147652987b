"""The command `cluster`: status, create, recover, admit, start and stop, in words that operators of such systems know.

It runs on any CVM and asks all members by their certificates; what it prints is what each of them says of itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cornerstone.cvm.membership.actions import ADMIT_SECONDS
from cornerstone.cvm.membership.client import Client
from cornerstone.cvm.membership.kept import load
from cornerstone.cvm.membership.member import Member
from cornerstone.cvm.membership.state import STATE_FORMAT, NodeState, load_genesis
from cornerstone.lib.error import Code, CornerstoneError, ends_in_one_line
from cornerstone.lib.serde import to_record
from cornerstone.model.contracts.node import NODE_CREDENTIAL, NodeConfig
from cornerstone.model.contracts.places import STATE

# as systemd keeps what the machine was given
NODE = Path("/run/credentials/@system", NODE_CREDENTIAL)
UNCONFIGURED = "Cluster is currently unconfigured. Please create the cluster."
NEW_WARNING = ("Data disks of these nodes that hold another cluster's data and have their tokens are erased.\n"
               "Do you want to proceed? (I agree/[N]): ")
STOP_WARNING = ("This stops the storage services of all members: virtual machines lose their disks, so shut them down "
                "before.\nDo you want to proceed? (I agree/[N]): ")
AGREED = "I agree"
LOOK_SECONDS = 2
# stopping ends when its services have
STOP_SECONDS = 300


@dataclass(frozen=True)
class Answer:
    """What came of asking one member how it is. state: None when it is down; then error says why."""

    address: str
    state: NodeState | None
    error: str = ""


@dataclass(frozen=True)
class Cluster:
    """The members as seen from this one. say: prints a line."""

    config: NodeConfig
    client: Client
    say: Callable[[str], object] = print

    @property
    def me(self) -> Member:
        return self.client.me

    def status(self) -> list[Answer]:
        """How every member is."""
        found = self.client.ask_all(self.me.members, "status")
        return [Answer(address, None, answer.message) if isinstance(answer, CornerstoneError)
                else self._state(address, answer) for address, answer in found.items()]

    def _state(self, address: str, answer: Mapping) -> Answer:
        state = STATE_FORMAT.parse(answer.get("state"), f"what {address} says of itself")
        ours = load(self.client.folder)
        if ours and state.fsid and state.fsid != ours.fsid:
            return Answer(address, None, f"it is a member of another cluster, {state.fsid}")
        return Answer(address, state)

    def create(self, members: Sequence[str], name: str, redundancy_factor: int, *, new: bool = False) -> None:
        """Have the cluster formed, and wait until all members are up. What the site says can't be changed here.

        new: give up other clusters' OSDs on the data disks, as far as node.json allows it; in a formed cluster too.
        """
        site = self.config.cluster
        if site is None:
            raise CornerstoneError("the site of this node has no cluster", "image the nodes with a site that has one",
                                   Code.REFUSED)
        for what, given, ours in (("members", sorted(members), sorted(self.me.members)), ("name", name, site.name),
                                  ("redundancy factor", redundancy_factor, site.redundancy_factor)):
            if given and given != ours:
                raise CornerstoneError(f"the site says another {what}: {_text(ours)}, not {_text(given)}",
                                       "leave it out, or image the nodes with another site", Code.REFUSED)
        ours = load(self.client.folder)
        for answer in self.status():
            if answer.state and answer.state.fsid and not (new and ours and answer.state.fsid == ours.fsid):
                raise CornerstoneError(f"{answer.address} is a member of the cluster {answer.state.fsid} already: "
                                       "there is no second formation", "see: cluster status", Code.REFUSED)
        if new:
            # before the first forms it, so that each knows when it has joined
            for answer in self.client.ask_all(self.me.members[1:], "create", new=True).values():
                if isinstance(answer, CornerstoneError):
                    self.say(f"not told: {answer.message}; say it there again")
        self.client.ask(self.me.members[0], "create", new=new)
        self.say(f"Creating cluster with CVMs: {', '.join(self.me.members)}")
        self._wait()

    def recover(self) -> None:
        """Have the cluster back whose OSDs this single node's data disks hold, and wait until it is up."""
        self.client.ask(self.me.address, "recover")
        self.say("Recovering the cluster from its data disks")
        self._wait()

    def admit(self, address: str) -> None:
        """Let the node at a member's address join again with another key: it was imaged anew. For 15 minutes."""
        self._require_formed()
        if address not in self.me.members:
            raise CornerstoneError(f"{address or 'nobody'} isn't a member", "the members are "
                                   f"{', '.join(self.me.members)}: cluster admit ADDRESS", Code.INPUT)
        others = tuple(member for member in self.me.members if member != address)
        found = self.client.ask_all(others, "admit", node=address)
        failed = [answer for answer in found.values() if isinstance(answer, CornerstoneError)]
        for error in failed:
            self.say(f"not told: {error.message}")
        if len(failed) == len(found):
            raise CornerstoneError(f"no member takes {address} anew", "see above", Code.FAILED)
        self.say(f"{address} may join with another key, once and within {ADMIT_SECONDS // 60} minutes")

    def start(self) -> None:
        """Start the services of all members, and wait until they are up."""
        self._require_formed()
        self._everywhere("start")
        self._wait()

    def stop(self) -> None:
        """Stop the services of all members."""
        self._require_formed()
        self._everywhere("stop", STOP_SECONDS)

    def _require_formed(self) -> None:
        if load(self.client.folder) is None:
            raise CornerstoneError(UNCONFIGURED, "see: genesis status", Code.REFUSED)

    def _everywhere(self, action: str, timeout: float = 30) -> None:
        found = self.client.ask_all(self.me.members, action, timeout)
        failed = [answer for answer in found.values() if isinstance(answer, CornerstoneError)]
        for line in text(self.status()):
            self.say(line)
        if failed:
            raise CornerstoneError(f"not every member did {action}: {'; '.join(error.message for error in failed)}",
                                   f"call it again when they are back: cluster {action}", Code.FAILED)

    def _wait(self) -> None:
        """Until every member is ready, telling each change."""
        said: list[str] = []
        while True:
            waiting = [_waiting(answer) for answer in self.status() if not (answer.state and answer.state.ready)]
            for line in waiting:
                if line not in said:
                    self.say(line)
            if not waiting:
                break
            said = waiting
            time.sleep(LOOK_SECONDS)
        for line in text(self.status()):
            self.say(line)
        self.say("Success!")


def text(answers: Sequence[Answer]) -> Iterator[str]:
    """For people: each CVM, and below it its services with their processes."""
    states = [answer.state for answer in answers if answer.state]
    yield f"The state of the cluster: {'stop' if states and all(state.stopped for state in states) else 'start'}"
    for answer in answers:
        yield ""
        yield f"\tCVM: {answer.address} {'Up' if answer.state else f'Down: {answer.error}'}"
        for service in answer.state.services if answer.state else ():
            how = "UP" if service.up else "STARTING" if service.pids else "DOWN"
            yield f"{service.name:>36}   {how:<8} {list(service.pids)}"


def warnings(folder: Path) -> Iterator[str]:
    """What genesis on this CVM warns of. The cluster's room and its copies are the same on all."""
    genesis = load_genesis(folder)
    found = [warning for state in genesis.states for warning in state.warnings] if genesis else []
    if found:
        yield ""
        yield "\tWarnings:"
        yield from (f"\t  {warning}" for warning in found)


def _waiting(answer: Answer) -> str:
    """For what a member is waited."""
    if answer.state is None:
        return f"Waiting on {answer.address} (Down): {answer.error}"
    return f"Waiting on {answer.address} (Up) to start: {answer.state.now}"


def _text(value: object) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cluster", description="The cluster that this CVM is a member of.")
    parser.add_argument("-s", "--svm_ips", default="", metavar="IP,IP,IP", help="create: addresses of all its CVMs")
    parser.add_argument("--redundancy_factor", type=int, default=0, help="create: how many copies of the data")
    parser.add_argument("--cluster_name", default="", help="create: what it is called")
    parser.add_argument("--new", action="store_true", help="create: other clusters' data on the data disks may go")
    parser.add_argument("--json", action="store_true", help="status: for programs")
    parser.add_argument("action", choices=("status", "create", "recover", "admit", "start", "stop"))
    parser.add_argument("address", nargs="?", default="", help="admit: of the CVM that was imaged anew")
    return parser


def run(cluster: Cluster, chosen: argparse.Namespace, agree: Callable[[], str]) -> int:
    """Do what was chosen, and return the exit code. agree: reads the answer to a question that was printed."""
    if chosen.action == "create":
        if chosen.new:
            cluster.say(NEW_WARNING)
            if agree() != AGREED:
                cluster.say("Nothing is erased.")
                return int(Code.INTERRUPTED)
        cluster.create([ip for ip in chosen.svm_ips.split(",") if ip], chosen.cluster_name, chosen.redundancy_factor,
                       new=chosen.new)
    elif chosen.action == "recover":
        cluster.recover()
    elif chosen.action == "admit":
        cluster.admit(chosen.address)
    elif chosen.action == "start":
        cluster.start()
    elif chosen.action == "stop":
        cluster.say(STOP_WARNING)
        if agree() != AGREED:
            cluster.say("Nothing is stopped.")
            return int(Code.INTERRUPTED)
        cluster.stop()
    else:
        answers = cluster.status()
        if chosen.json:
            cluster.say(json.dumps([to_record(answer) for answer in answers], indent=1))
            return 0
        if load(cluster.client.folder) is None:
            cluster.say(UNCONFIGURED)
            for answer in answers:
                cluster.say(_waiting(answer))
            return 0
        for line in (*text(answers), *warnings(cluster.client.folder)):
            cluster.say(line)
    return 0


@ends_in_one_line
def main(words: Sequence[str], node: Path = NODE, folder: Path = STATE,
         agree: Callable[[], str] = input) -> int:
    """0, or the error's code with the error on standard error."""
    chosen = _parser().parse_intermixed_args(words)
    try:
        config = NodeConfig.from_json(node.read_bytes(), str(node))
        return run(Cluster(config, Client(Member.of(config), folder)), chosen, agree)
    except FileNotFoundError:
        print("error: this is no CVM of a node: it has no node.json", file=sys.stderr)
        return int(Code.INPUT)
    except PermissionError as error:
        print(f"error: {error.filename} can't be read: become root", file=sys.stderr)
        return int(Code.INPUT)
    except CornerstoneError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.code)
    except (KeyboardInterrupt, EOFError):
        return int(Code.INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

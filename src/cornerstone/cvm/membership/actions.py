"""Answer what members ask of one another: to join, a node's state, the members' keys, and commands to the cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from cornerstone.cvm import services
from cornerstone.cvm.membership import keys, words
from cornerstone.cvm.membership.kept import MEMBERSHIP_FORMAT, load, load_osds, write
from cornerstone.cvm.membership.member import MEMBER_FORMAT, Member, refusal
from cornerstone.cvm.membership.messages import Request
from cornerstone.cvm.membership.state import STATE_FORMAT, node_state
from cornerstone.lib.atomic import flush

GENESIS = "genesis.service"
# who uses the storage goes first
STOPPED_IN_TURN = (("data-services*.service",), services.STORAGE)

# an operator's word that a node was imaged anew
ADMIT_SECONDS = 15 * 60

Answer = tuple[HTTPStatus, Mapping[str, Any]]


@dataclass(frozen=True)
class Actions:
    """me: this node; folder: what it keeps. Each action takes what a member has sent."""

    me: Member
    folder: Path
    # by address until when another key is taken for it, in seconds since this machine's start
    _admitted: dict[str, float] = field(default_factory=dict)

    def answer(self, name: str, request: Request) -> Answer:
        """Do what a member asks for, unless it is one of another cluster; that may only see how we are."""
        action = {"join": self.join, "status": self.status, "create": self.create, "recover": self.recover,
                  "start": self.start, "stop": self.stop, "keys": self.keys, "admit": self.admit}.get(name)
        if action is None:
            return HTTPStatus.NOT_FOUND, {"error": f"there is no {name}"}
        ours, theirs = self.me.now(self.folder), request.member
        if name != "status" and ours.fsid and theirs.fsid and ours.fsid != theirs.fsid:
            return _refused(refusal(ours, theirs), "see: cluster status")
        return action(request)

    def meet(self, address: str, certificate: bytes) -> bool:
        """Tell whether a certificate is the member's at an address; an admission is used up by the key it lets in."""
        if keys.meet(address, certificate, self.folder):
            return True
        admitted = self._admitted.pop(address, 0) > _now()
        return admitted and keys.meet(address, certificate, self.folder, admitted=True)

    def join(self, request: Request) -> Answer:
        """The cluster's id and keys, for who may be a member with us."""
        if reason := refusal(self.me.now(self.folder), request.member):
            return _refused(reason, "image the nodes with one ISO, with one site in it")
        membership = load(self.folder)
        if membership is None:
            return HTTPStatus.CONFLICT, {"error": "it isn't a member itself yet", "osds": load_osds(self.folder)}
        # who is given it has it for good, so it has to be for good here
        flush(self.folder)
        return HTTPStatus.OK, {"member": MEMBER_FORMAT.write(self.me.now(self.folder)),
                               "membership": MEMBERSHIP_FORMAT.write(membership),
                               "keys": keys.told(self.me.address, self.folder)}

    def keys(self, *_: object) -> Answer:
        """Which key each member has, as this node knows it."""
        return HTTPStatus.OK, {"keys": keys.told(self.me.address, self.folder)}

    def admit(self, request: Request) -> Answer:
        """Take another key for a member's address, once and within ADMIT_SECONDS: that node was imaged anew."""
        address = request.node
        if load(self.folder) is None:
            return _refused("it isn't a member itself yet", "see: genesis status")
        if address not in self.me.others:
            return _refused(f"{address} isn't another member", f"the members are {', '.join(self.me.members)}")
        self._admitted[address] = _now() + ADMIT_SECONDS
        return HTTPStatus.OK, {}

    def status(self, *_: object) -> Answer:
        """How this node is."""
        return HTTPStatus.OK, {"state": STATE_FORMAT.write(node_state(self.folder))}

    def create(self, request: Request) -> Answer:
        """Let the node form the cluster, where the site left that to `cluster create`.

        new in the request: and let other clusters' OSDs go, also on a member that has come late.
        """
        membership, new = load(self.folder), request.new
        if new:
            words.say(words.NEW, self.folder)
        elif membership:
            return _refused(f"it is a member of the cluster {membership.fsid} already: there is no second formation",
                            "see: cluster status")
        if membership is None:
            words.say(words.CREATE, self.folder)
        return HTTPStatus.OK, {}

    def recover(self, *_: object) -> Answer:
        """Let the node have the cluster back whose OSDs its data disks hold; it has to be the only member."""
        if membership := load(self.folder):
            return _refused(f"it is a member of the cluster {membership.fsid}", "see: cluster status")
        if self.me.others:
            return _refused("the other members know the cluster", "start them: this node joins it then")
        words.say(words.RECOVER, self.folder)
        return HTTPStatus.OK, {}

    def start(self, *_: object) -> Answer:
        """Let genesis bring this node's services up."""
        if (self.folder / services.HELD.name).exists() or not all(service.up for service in services.running()):
            (self.folder / services.HELD.name).unlink(missing_ok=True)
            flush(self.folder)
            _restart_genesis()
        return HTTPStatus.OK, {}

    def stop(self, *_: object) -> Answer:
        """Stop this node's services, until `cluster start`, over reboots too."""
        write(self.folder / services.HELD.name, "")
        services.stop(GENESIS)
        for units in STOPPED_IN_TURN:
            services.stop(*units)
        _restart_genesis()
        return HTTPStatus.OK, {}


def _now() -> float:
    # goes on while the machine is suspended
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _restart_genesis() -> None:
    """It then says anew how far it is. Not waited for, as it has started only when all is ready."""
    services.stop(GENESIS)
    services.start("--no-block", GENESIS)


def _refused(error: str, hint: str) -> Answer:
    return HTTPStatus.FORBIDDEN, {"error": error, "hint": hint}

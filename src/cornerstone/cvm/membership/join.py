"""Form the cluster, or join it: every member does the same, in any order, and may be cut off at any point.

The first of node.json's members draws the cluster's id and keys; whoever has them gives them to whoever shows a
certificate of the same authority. The first doesn't draw before it has heard of a majority that they are no members
yet: so one that was imaged anew gets back into its cluster, and forms no second one. That costs nothing, for Ceph's
monitors need a majority too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cornerstone.cvm.membership import keys, words
from cornerstone.cvm.membership.client import Absent, Client, NotYet, Refused, Unadmitted
from cornerstone.cvm.membership.kept import Membership, keep, keep_osds, load, tidy
from cornerstone.cvm.membership.member import MEMBER_FORMAT, Member, certify, refusal
from cornerstone.cvm.waiting import Waiting
from cornerstone.lib.error import CornerstoneError
from cornerstone.model.contracts.node import SECRET_CREDENTIAL, NodeConfig
from cornerstone.model.contracts.places import STATE

CREATE = words.CREATE


def bring_up(config: NodeConfig, secret: str, folder: Path = STATE, osds: Sequence[str] = ()) -> Membership:
    """Be a member, and return what that takes; it is on the disk by then.

    secret: as bootstrap_secret() has it. osds: OSDs of another cluster that this node's data disks hold, in words for
    people. Waiting says for whom; any other CornerstoneError is to be mended. Calling it again goes on where it was.
    """
    member = Member.of(config)
    tidy(folder)
    # before it has its certificate nobody can ask this node
    keep_osds(osds, folder)
    certify(member, secret, folder)
    if membership := load(folder):
        return membership
    if config.cluster is None:
        raise Waiting("the site of this node has no cluster", "image the node with a site that has one")
    may_form = config.cluster.form or words.said(words.CREATE, folder)
    found, known = _find(member, Client(member, folder), may_form=may_form, osds=osds,
                         anew=words.said(words.NEW, folder))
    kept = keep(found, folder)
    keys.learn(known, member.address, folder)
    return kept


def get_to_know(config: NodeConfig, folder: Path = STATE) -> None:
    """Meet the other members that are there, and learn of those that they have met.

    Once a node has met all, nobody becomes one of them any more without an operator's word (keys.py).
    """
    member = Member.of(config)
    for answer in Client(member, folder).ask_all(member.others, "keys").values():
        if isinstance(answer, dict):
            keys.learn(answer.get("keys"), member.address, folder)


def bootstrap_secret() -> str:
    """Return the bootstrap secret as systemd has handed it over, base64; "" when the host has none, or has wiped it."""
    path = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent"), SECRET_CREDENTIAL)
    return path.read_text().strip() if path.exists() else ""


def _find(member: Member, client: Client, *, may_form: bool, osds: Sequence[str] = (), anew: bool = False
          ) -> tuple[Membership, Any]:
    """Ask the others once, and return what one of them gives, with whose key it knows, or a new cluster's.

    No new one is drawn over the OSDs of another, here or on a member that answers, unless an operator has said so.
    """
    answers = client.ask_all(member.others, "join")
    for address, answer in answers.items():
        if isinstance(answer, dict):
            return _accepted(member, address, answer), answer.get("keys")
    for answer in answers.values():
        if isinstance(answer, Unadmitted):
            # there is a cluster, so none is drawn
            raise answer
    unformed = [address for address, answer in answers.items() if isinstance(answer, NotYet)]
    if member.first and 2 * (len(unformed) + 1) > len(member.members):
        if not may_form:
            raise Waiting("the cluster is to be formed by hand", f"cluster -s {','.join(member.members)} create")
        held = [f"{member.address} has {osd}" for osd in osds]
        held += [f"{address} has {osd}" for address in unformed for osd in answers[address].osds]
        if held and not anew:
            raise Waiting(f"data disks hold OSDs of another cluster: {'; '.join(held)}", _instead(member))
        return Membership.draw(), {}
    refused = {address: answer for address, answer in answers.items() if isinstance(answer, Refused)}
    # of who forms the cluster one is enough; it itself goes on as long as a majority is possible
    if member.members[0] in refused:
        raise refused[member.members[0]]
    if member.first and 2 * len(refused) >= len(member.members):
        raise next(iter(refused.values()))
    raise Waiting(_for_whom(member, answers))


def _instead(member: Member) -> str:
    """Return what can be done about another cluster's OSDs instead of waiting."""
    new = f"to give their data up for a new cluster: cluster -s {','.join(member.members)} --new create"
    if member.others:
        return f"they wait for a member that still knows their cluster; {new}"
    return f"to have their cluster back: cluster recover; {new}"


def _accepted(member: Member, address: str, answer: Mapping) -> Membership:
    theirs = MEMBER_FORMAT.parse(answer.get("member"), f"what {address} says of itself")
    if reason := refusal(member, theirs):
        raise Refused(reason, "image the nodes with one ISO")
    return Membership.of(answer.get("membership"))


def _for_whom(member: Member, answers: Mapping[str, CornerstoneError]) -> str:
    """For whom, and why it isn't there."""
    if member.first:
        whom = f"{len(member.members) // 2 + 1} of {len(member.members)} members, to form the cluster"
        why = [answer for answer in answers.values() if isinstance(answer, Absent | Refused)]
    else:
        whom = f"{member.members[0]}, which forms the cluster"
        why = [answer for address, answer in answers.items()
               if address == member.members[0] or isinstance(answer, Refused)]
    return f"waiting for {whom}: {'; '.join(answer.message for answer in why)}"

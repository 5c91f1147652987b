"""The messages between members of a cluster: a request with who asks, and what is answered when it can't be done.

What is answered when it can is each action's own (actions.py), in objects that have versions of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

from cornerstone.cvm.membership.member import MEMBER_FORMAT, Member
from cornerstone.lib.serde import Format


@dataclass(frozen=True)
class Request:
    """member: who asks; new: with create, that other clusters' OSDs go; node: with admit, the member's address."""

    member: Member
    new: bool = False
    node: str = ""


@dataclass(frozen=True)
class Refusal:
    """error, hint: in words; another_key: of the two one has another key than its member; osds: another cluster's."""

    error: str = ""
    hint: str = ""
    another_key: bool = False
    osds: tuple[str, ...] = ()


REQUEST = Format("member request", Request, MEMBER_FORMAT.writer, MEMBER_FORMAT.reader, message=True)
REFUSAL = Format("member refusal", Refusal, "the members' service", "the member that has asked", message=True)

"""The page that a CVM has for its host, on the internal network: whether the node is a member of its cluster yet."""

from __future__ import annotations

from dataclasses import dataclass

from cornerstone.lib.serde import Format


@dataclass(frozen=True)
class MemberPage:
    """member: only when it says so the host wipes the bootstrap secret."""

    member: bool


MEMBER_PAGE = Format("member page", MemberPage, "the members' service of a CVM", "the host: bootstrap-secret.service",
                     message=True)

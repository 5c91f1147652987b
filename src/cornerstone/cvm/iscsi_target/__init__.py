"""The cluster's volumes as iSCSI targets: what there is, who serves it, and its addresses. docs/data-path.md."""

from __future__ import annotations

from cornerstone.cvm import membership, services
from cornerstone.cvm.ceph import pool
from cornerstone.cvm.node import Node
from cornerstone.lib.error import Code, CornerstoneError

UNIT = "data-services.service"


def bring_up(node: Node) -> None:
    """The state `data-services`: the target is there, and whatever an initiator asks for is served."""
    services.start(UNIT)


def container() -> str:
    """The container whose volumes this node serves. CornerstoneError while it is no member of a cluster."""
    member = membership.load()
    if member is None:
        raise CornerstoneError("this node is no member of a cluster yet", "see: genesis status", Code.FAILED)
    return pool.container_name(member)

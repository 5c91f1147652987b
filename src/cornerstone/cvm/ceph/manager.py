"""The manager of this node: it counts, balances and reports. One is active, the others wait to be."""

from __future__ import annotations

from cornerstone.cvm.ceph import conf, files
from cornerstone.cvm.ceph.cluster import Cluster
from cornerstone.cvm.node import Node


def unit(node: Node) -> str:
    return f"ceph-mgr@{conf.name(node.address)}.service"


def prepare(node: Node, cluster: Cluster) -> None:
    """Give the manager its key, unless it has it."""
    name = conf.name(node.address)
    keyring = files.folder(files.HOME / "mgr" / f"ceph-{name}") / "keyring"
    if not keyring.exists():
        key = cluster.key(f"mgr.{name}", mon="allow profile mgr", osd="allow *", mds="allow *")
        files.write(keyring, files.keyring(f"mgr.{name}", key), files.USER, 0o600)

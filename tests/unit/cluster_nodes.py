"""Nodes of a cluster on loopback addresses, each with its folder, its members' service and its own secret."""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from cornerstone.cvm.membership import join
from cornerstone.cvm.membership.client import Client
from cornerstone.cvm.membership.kept import Membership, load
from cornerstone.cvm.membership.member import Member
from cornerstone.cvm.membership.server import MembersServer
from cornerstone.cvm.waiting import Waiting
from cornerstone.lib.error import CornerstoneError
from cornerstone.model.contracts.node import Cluster, Cvm, Hypervisor, NodeConfig, Uplink

SECRET = base64.b64encode(b"a secret of thirty-two bytes, yes").decode()
_networks = itertools.count(os.getpid() % 200 * 250)


def addresses(count: int) -> tuple[str, ...]:
    """Loopback addresses that no other test has."""
    network = next(_networks)
    return tuple(f"127.{1 + network // 250}.{network % 250}.{number + 1}" for number in range(count))


def config(address: str, members: tuple[str, ...], *, form: bool = True) -> NodeConfig:
    """A node.json with what matters here."""
    return NodeConfig("identity", "aos-6.8", "LAB-1", "", "A", "DISK-1",
                      Hypervisor("host", "10.20.0.11/24", "10.20.0.1", (), (), Uplink((), "", "", "", 0, 1500)),
                      Cvm("cvm", f"{address}/8", "127.0.0.1", (), (), 1, 1, (), (), ()),
                      Cluster("lab", members, 2, form, "", "", "UTC"), (), "6.8")


class Node:
    """One CVM. osds: another cluster's on its data disks; said: what it told while it waited."""

    def __init__(self, config: NodeConfig, folder: Path, secret: str = SECRET) -> None:
        self.config = config
        self.member = Member.of(config)
        self.folder = folder
        self.secret = secret
        self.osds: tuple[str, ...] = ()
        self.said: list[str] = []
        self.news = threading.Event()
        # what it tries again after, as genesis does after all
        self.awaits: tuple[type[CornerstoneError], ...] = (Waiting,)

    def bring_up(self, tries: int = 500) -> Membership:
        """Become a member; an AssertionError when that takes too many tries."""
        for _ in range(tries):
            try:
                return join.bring_up(self.config, self.secret, self.folder, self.osds)
            except self.awaits as waiting:
                self._say(waiting.message)
            threading.Event().wait(0.02)
        raise AssertionError(self.said)

    def _say(self, text: str) -> None:
        if self.said[-1:] != [text]:
            self.said.append(text)
        self.news.set()

    @contextlib.contextmanager
    def serving(self) -> Iterator[MembersServer]:
        """With its members' service."""
        server = MembersServer(self.member, self.folder)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    @property
    def kept(self) -> Membership | None:
        return load(self.folder)


def nodes(folder: Path, count: int) -> tuple[Node, ...]:
    """A cluster's nodes, none of which has run yet."""
    members = addresses(count)
    return tuple(Node(config(each, members), folder / each) for each in members)


def changed(node: Node, **changes: object) -> Node:
    """The node with another cluster in its node.json."""
    assert node.config.cluster
    cluster = replace(node.config.cluster, **changes)
    return Node(replace(node.config, cluster=cluster), node.folder, node.secret)


def admit(node: Node, *by: Node) -> None:
    """Have members take another key for a node that is imaged anew, as `cluster admit` does."""
    for member in by:
        Client(member.member, member.folder).ask(member.member.address, "admit", node=node.member.address)


@contextlib.contextmanager
def all_serving(*several: Node) -> Iterator[None]:
    """With the members' service of each."""
    with contextlib.ExitStack() as stack:
        for node in several:
            stack.enter_context(node.serving())
        yield


@contextlib.contextmanager
def beside() -> Iterator[ThreadPoolExecutor]:
    """Threads for nodes that come up at the same time."""
    with ThreadPoolExecutor(8) as threads:
        yield threads


def started(threads: ThreadPoolExecutor, node: Node) -> Future[Membership]:
    """Let a node come up beside the test, and go on when it waits for others or is done."""
    future = threads.submit(node.bring_up)
    future.add_done_callback(lambda _: node.news.set())
    assert node.news.wait(60)
    return future


def together(threads: ThreadPoolExecutor, *several: Node) -> Membership:
    """Let nodes come up at the same time, and return what they are members of."""
    (membership,) = {future.result(60) for future in [started(threads, node) for node in several]}
    return membership

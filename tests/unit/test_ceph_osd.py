"""Which OSD a disk's is, and how an OSD's own process says that it is, by its socket."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.cvm.ceph import osd
from cornerstone.cvm.ceph.tool import run
from cornerstone.cvm.disks import Disk
from cornerstone.cvm.membership import Membership
from cornerstone.cvm.node import Node
from cornerstone.lib.error import CornerstoneError
from cornerstone.model.contracts.node import DataDisk, NodeConfig

NODES = Path(__file__).resolve().parents[1] / "data/nodes"
CONFIG = NodeConfig.from_json((NODES / "passthrough.json").read_text())
MEMBER = Membership("1c7a3a3e-6d0b-4d0c-9a51-3f2f6a0d00ff", "k", "k")
UUID = "4a2c7a3e-6d0b-4d0c-9a51-3f2f6a0d8a11"
DISK = Disk("0000", Path("/nonexistent"), 1 << 30)


def node_at(address: str, *named: DataDisk) -> Node:
    cvm = replace(CONFIG.cvm, address=f"{address}/24", disks=named)
    return Node(replace(CONFIG, cvm=cvm), lambda event: None, MEMBER)


def test_d6_disks_of_one_serial_have_osds_of_their_own_on_a_node_and_in_a_cluster():
    bare, one, two = (DataDisk("0000", wwn, 1 << 30) for wwn in ("", "naa.1", "naa.2"))
    first, second = node_at("10.20.0.31"), node_at("10.20.0.32")
    assert len({osd.own_uuid(node, disk) for node in (first, second) for disk in (bare, one, two)}) == 6
    # nor when both nodes make theirs at the same time: twins even by their world-wide names
    assert osd.own_uuid(first, one) != osd.own_uuid(second, one)
    assert osd.own_uuid(first, replace(one, contents="sha256:1", model="M")) == osd.own_uuid(first, one)


def test_d6_this_cluster_s_osds_are_ours_by_their_label_whatever_their_uuid_is_derived_from():
    node = node_at("10.20.0.31", DataDisk("0000", "", 1 << 30))
    found = [replace(DISK, osd=UUID, cluster=MEMBER.fsid),
             replace(DISK, osd="6a2c7a3e-6d0b-4d0c-9a51-3f2f6a0d8a11", cluster="of another")]
    begun = osd.own_uuid(node, node.config.cvm.disks[0])
    assert osd.ours(node, found) == {UUID, begun}
    assert osd.serials(node) == {begun: "0000", osd.uuid_of(MEMBER, "0000"): "0000"}


class Answering:
    """A cluster that has osd.3 on a host, "" for one that never was up."""

    def __init__(self, host: str, up_from: int = 0) -> None:
        self.host, self.up_from = host, up_from

    def command(self, prefix: str, **arguments: object) -> object:
        return {"osd new": {"osdid": 3}, "osd dump": {"osds": [{"osd": 3, "uuid": UUID, "up_from": self.up_from}]},
                "osd find": {"osd": 3, "crush_location": {"host": self.host} if self.host else {}}}[prefix]

    def key(self, *_: object, **caps: object) -> str:
        raise AssertionError("it goes on")


def test_d6_an_osd_that_another_node_has_is_not_made_here():
    with pytest.raises(CornerstoneError, match=r"its OSD would be osd\.3, which the node other has"):
        osd.make(DISK, UUID, "mine", Answering("other", 7))
    with pytest.raises(CornerstoneError, match=r"it held osd\.3 and doesn't any more"):
        osd.make(DISK, UUID, "mine", Answering("mine", 7))
    for host in ("", "mine"):
        with pytest.raises(AssertionError, match="it goes on"):
            osd.make(DISK, UUID, "mine", Answering(host))


def test_a_disk_of_an_older_release_s_osd_that_was_emptied_is_not_taken_anew():
    with pytest.raises(CornerstoneError, match=r"it held osd\.3 and doesn't any more"):
        osd.check_former(UUID, "mine", Answering("mine", 7))
    # it never held data; it is another node's; there is none
    osd.check_former(UUID, "mine", Answering("mine", 0))
    osd.check_former(UUID, "mine", Answering("other", 7))
    osd.check_former("6a2c7a3e-6d0b-4d0c-9a51-3f2f6a0d8a11", "mine", Answering("mine", 7))


def test_d6_an_osd_under_another_uuid_is_taken_only_where_the_cluster_has_it_on_this_node():
    osd.require_own(UUID, "mine", Answering("mine"))
    for host, words in (("other", "of the node other"), ("", "of the node .unknown.")):
        with pytest.raises(CornerstoneError, match=words):
            osd.require_own(UUID, "mine", Answering(host))
    with pytest.raises(CornerstoneError, match="the cluster doesn't know any more"):
        osd.require_own("6a2c7a3e-6d0b-4d0c-9a51-3f2f6a0d8a11", "mine", Answering("mine"))


def test_m23_a_tool_may_say_any_bytes():
    with pytest.raises(CornerstoneError, match="sh failed with exit status 3: no such model: .*odd"):
        run("sh", "-c", r"printf 'no such model: \377\376 odd' >&2; exit 3")


def framed(text: str) -> bytes:
    """As Ceph's daemons answer: the length in four bytes, then the text."""
    return len(text).to_bytes(4, "big") + text.encode()


@pytest.mark.parametrize(("answer", "state"), [
    (framed(json.dumps({"whoami": 3, "state": "active"})), "active"),
    (framed(json.dumps({"whoami": 3, "state": "booting"})), "booting"),
    # before it knows the command
    (framed("ERROR: (22) Invalid argument"), "starting"),
    (framed("{}"), "starting"),
    (framed(json.dumps({"state": "active"}))[:9], "starting"),
    (b"", "starting"),
])
def test_its_state_is_what_it_answers(tmp_path, monkeypatch, answer, state):
    monkeypatch.setattr(osd, "SOCKETS", tmp_path)

    def serve(listening: socket.socket) -> bytes:
        line, _ = listening.accept()
        with line:
            asked = line.recv(4096)
            line.sendall(answer)
        return asked
    with socket.socket(socket.AF_UNIX) as listening, ThreadPoolExecutor() as pool:
        listening.bind(str(tmp_path / "ceph-osd.3.asok"))
        listening.listen()
        served = pool.submit(serve, listening)
        assert osd.state(3) == state
        assert json.loads(served.result().removesuffix(b"\0"))["prefix"] == "status"


def test_one_that_ended_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(osd, "SOCKETS", tmp_path)
    assert osd.state(3) == ""
    with socket.socket(socket.AF_UNIX) as ended:
        ended.bind(str(tmp_path / "ceph-osd.3.asok"))
    assert osd.state(3) == ""

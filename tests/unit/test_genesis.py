"""genesis: states in order, each tried until it is done, and genesis.json says how far it is."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.cvm import genesis, status
from cornerstone.cvm.disks import Disk
from cornerstone.cvm.genesis import Runner, serve
from cornerstone.cvm.membership import Membership
from cornerstone.cvm.node import Node
from cornerstone.cvm.services import parse
from cornerstone.cvm.waiting import Waiting
from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.wake import Wake
from cornerstone.model.contracts.genesis import Genesis
from cornerstone.model.contracts.node import NodeConfig

NODES = Path(__file__).resolve().parents[1] / "data/nodes"
CONFIG = NodeConfig.from_json((NODES / "passthrough.json").read_text())


class Bench:
    """A node whose states do what a test says: step names to what they raise, one after another, then nothing."""

    def __init__(self, folder: Path, **raised: list[Exception]) -> None:
        self.events, self.ran, self.file, self.time = [], [], folder / "genesis.json", 0.0
        self.node = Node(CONFIG, self.events.append)
        self.raised = raised
        steps = {name: lambda node, name=name: self._step(name) for name in ("first", "second", "third")}
        self.runner = Runner(self.node, self.file, steps, lambda: self.time)

    def _step(self, name: str) -> None:
        self.ran.append(name)
        self.time += 2.5
        if self.raised.get(name):
            raise self.raised[name].pop(0)

    @property
    def kept(self) -> Genesis:
        return Genesis.from_json(self.file.read_bytes())

    @property
    def told(self) -> list[str]:
        return [f"{event.step} {event.state} {event.message}".strip() for event in self.events]


def test_all_are_run_in_order_and_what_each_took_is_kept(tmp_path):
    bench = Bench(tmp_path)
    assert [record.state for record in bench.kept.states] == ["waiting"] * 3
    assert bench.runner.run() is None
    assert bench.ran == ["first", "second", "third"]
    assert bench.kept.ready
    assert [(record.took, record.uptime, record.tries) for record in bench.kept.states] == \
        [(2500, 2500, 1), (2500, 5000, 1), (2500, 7500, 1)]
    assert bench.told == ["first started", "first done", "second started", "second done", "third started", "third done"]


def test_one_that_fails_stops_there_and_is_gone_on_with(tmp_path):
    bench = Bench(tmp_path, second=[CornerstoneError("no disk", "put it in")] * 2)
    assert bench.runner.run().message == "no disk"
    record = bench.kept.of("second")
    assert (record.state, record.error, record.hint, record.tries) == ("failed", "no disk", "put it in", 1)
    assert bench.kept.of("third").state == "waiting"
    bench.runner.run()
    assert bench.kept.of("second").tries == 2
    assert bench.runner.run() is None
    record = bench.kept.of("second")
    assert (record.state, record.error, record.hint, record.tries) == ("done", "", "", 3)
    # what is done is looked at again, silently; the same error isn't told twice
    assert bench.ran == ["first", "second"] * 2 + ["first", "second", "third"]
    assert bench.told.count("second failed no disk; put it in") == 1 and bench.told.count("first done") == 1
    assert bench.told.count("second started") == 1


def test_one_that_was_done_and_fails_later_is_told(tmp_path):
    bench = Bench(tmp_path)
    bench.runner.run()
    bench.raised["first"] = [CornerstoneError("gone", "look")]
    assert bench.runner.run().message == "gone"
    assert not bench.kept.ready
    assert bench.told[-1] == "first failed gone; look"


def test_how_a_state_gets_on_is_kept_while_it_runs(tmp_path):
    bench = Bench(tmp_path)
    seen = []

    def second(node):
        node.say("waiting for 10.20.0.31")
        seen.extend((bench.kept.of("second").message, status.text(bench.kept, ())))
    bench.runner._steps["second"] = second
    bench.runner.run()
    assert seen[0] == "waiting for 10.20.0.31" and "\n  waiting for 10.20.0.31\n" in seen[1]
    assert bench.kept.of("second").message == ""
    bench.runner.run()
    assert bench.kept.of("second").message == ""
    assert "second progress waiting for 10.20.0.31" in bench.told


def test_a_defect_is_an_error_like_others_with_its_traceback_in_the_journal(tmp_path, capsys):
    bench = Bench(tmp_path, first=[KeyError("key")])
    assert bench.runner.run().message == "KeyError: 'key'"
    assert "Traceback" in capsys.readouterr().err


def test_warnings_are_told_once_and_kept_until_they_are_gone(tmp_path):
    bench = Bench(tmp_path)
    speaking = ["disk A is missing"]
    bench.runner._steps["second"] = lambda node: [node.warn(text) for text in speaking]
    for _ in range(3):
        assert bench.runner.run() is None
    assert bench.kept.of("second").warnings == ("disk A is missing",)
    assert bench.told.count("second warning disk A is missing") == 1
    speaking.clear()
    bench.runner.run()
    assert bench.kept.of("second").warnings == ()


def test_pauses_grow_up_to_a_minute_and_start_small_again():
    class Stop(Exception):
        pass

    answers, pauses = [CornerstoneError("no")] * 8 + [None] + [CornerstoneError("no")], []

    class Answers:
        def run(self):
            return answers.pop(0)

    def wait(seconds):
        pauses.append(seconds)
        if not answers:
            raise Stop
    with pytest.raises(Stop):
        serve(Answers(), wait, 240)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 240, 1]


def test_systemd_is_told_when_it_is_ready(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        bench = Bench(tmp_path, first=[CornerstoneError("no")])
        said = []

        def wait(seconds):
            said.append(systemd.recv(4096).decode())
            if len(said) == 2:
                raise InterruptedError
        with pytest.raises(InterruptedError):
            serve(bench.runner, wait)
    assert said == ["STATUS=trying again within 1 s", "READY=1\nSTATUS=ready"]


def test_a_wait_ends_when_somebody_asks():
    with Wake() as wake:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGHUP))
        timer.start()
        wake.wait(3600)
        timer.join()
        wake.wait(0)


def test_a_clock_before_the_image_was_made_is_an_error(monkeypatch):
    monkeypatch.setattr(genesis.time, "time", lambda: 86400.0)
    with pytest.raises(CornerstoneError, match="the clock says 1970-01-02 00:00:00"):
        genesis.identity(None)


def test_a_chrony_that_takes_no_command_is_a_warning_and_a_wrong_clock_is_waited_for(monkeypatch):
    node = Node(CONFIG, lambda event: None)
    raised = []

    def settle(me, members, servers, earliest):
        assert (me, members, servers) == ("10.20.0.31", CONFIG.cluster.members, CONFIG.cvm.ntp_servers)
        raise raised[-1]
    monkeypatch.setattr(genesis.clocks, "settle", settle)
    raised.append(CornerstoneError("chronyc local off: 501", "look"))
    genesis.identity(node)
    assert node.warnings == ["chronyc local off: 501; look"]
    raised.append(Waiting("no majority"))
    with pytest.raises(Waiting):
        genesis.identity(node)


SHOWN = """Id=genesis.service
ActiveState=active
ControlGroup=/system.slice/genesis.service

ControlGroup=
Id=ceph-mon@10-20-0-31.service
ActiveState=failed
"""


def test_services_are_what_systemd_says(tmp_path):
    group = tmp_path / "system.slice/genesis.service"
    group.mkdir(parents=True)
    (group / "cgroup.procs").write_text("12\n34\n")
    found = parse(SHOWN, tmp_path)
    assert [(service.name, service.up, service.pids) for service in found] == \
        [("ceph-mon@10-20-0-31", False, ()), ("genesis", True, (12, 34))]


def test_status_for_people_and_for_programs(tmp_path, monkeypatch, capsys):
    bench = Bench(tmp_path, second=[CornerstoneError("no disk", "put it in")])
    bench.runner.run()
    monkeypatch.setattr(status.services, "running", lambda: parse(SHOWN, tmp_path))
    assert status.main(["status"], tmp_path / "none") == 1
    assert status.main(["status"], bench.file) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("first          done")
    assert lines[2:4] == ["  no disk", "  put it in"]
    assert lines[-2:] == ["ceph-mon@10-20-0-31 DOWN     []", "genesis        UP       []"]
    assert status.main(["status", "--json"], bench.file) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["states"][1]["error"] == "no disk" and said["services"][1]["up"] is True
    bench.runner.run()
    assert status.main(["status"], bench.file) == 0
    assert status.main(["restart"], bench.file) == 2


FSID, OTHER = "1c7a3a3e-6d0b-4d0c-9a51-3f2f6a0d00ff", "2c7a3a3e-6d0b-4d0c-9a51-3f2f6a0d00ff"
UUIDS = ("4a2c7a3e-6d0b-4d0c-9a51-3f2f6a0d8a11", "5a2c7a3e-6d0b-4d0c-9a51-3f2f6a0d8a11")


@pytest.fixture
def imaged_again(monkeypatch):
    """A node whose two data disks hold OSDs of these clusters, imaged again with their tokens. said: by an operator."""
    def make(*clusters: str, said: tuple[str, ...] = (), member: Membership | None = None) -> Node:
        named = tuple(replace(entry, contents=f"osd:{uuid}")
                      for entry, uuid in zip(CONFIG.cvm.disks, UUIDS, strict=True))
        found = tuple(Disk(entry.serial, Path("/dev", f"sd{letter}"), entry.size, uuid if cluster else "",
                           "a BlueStore OSD" if cluster else "", "", entry.contents if cluster else "", entry.wwn,
                           cluster=cluster)
                      for entry, letter, uuid, cluster in zip(named, "ab", UUIDS, clusters, strict=False))
        monkeypatch.setattr(genesis.disks, "find", lambda serials: found)
        monkeypatch.setattr(genesis.disks, "present", lambda root=None: found)
        monkeypatch.setattr(genesis.membership, "load", lambda: member)
        monkeypatch.setattr(genesis.words, "said", lambda word: word in said)
        return Node(replace(CONFIG, cvm=replace(CONFIG.cvm, disks=named)), lambda event: None)
    return make


def test_d9_a_node_imaged_again_says_whose_osds_it_has_and_goes_on_to_ask(imaged_again):
    node = imaged_again(FSID, "")
    genesis.look_for_disks(node)
    assert node.osds == (f"sda (S4EVNX0R100001, 1920.4 GB) of cluster {FSID}",)
    assert node.warnings == []


def test_d10_a_member_leaves_another_cluster_s_osd_alone_until_somebody_says_so(imaged_again):
    member = Membership(FSID, "k", "k")
    node = imaged_again(FSID, OTHER, member=member)
    genesis.look_for_disks(node)
    assert node.warnings == [f"data disk sdb (PHLJ100001, 1920.4 GB) of cluster {OTHER} isn't used; to give its data "
                             "up: cluster --new create"]
    node = imaged_again(FSID, OTHER, member=member, said=("new-cluster",))
    genesis.look_for_disks(node)
    assert node.warnings == []


def test_d11_the_cluster_of_all_data_disks_is_recovered_with_new_keys(imaged_again, monkeypatch):
    node, kept = imaged_again(FSID, FSID, said=("recover",)), []
    monkeypatch.setattr(genesis.membership, "keep", kept.append)
    monkeypatch.setattr(genesis.membership, "bring_up", lambda *_, osds: (kept[0], osds))
    genesis.look_for_disks(node)
    genesis.join(node)
    assert kept[0].fsid == FSID and node.membership == (kept[0], ())


@pytest.mark.parametrize(("clusters", "words"), [
    ((FSID, OTHER), "the data disks hold OSDs of 2 clusters"), ((FSID, ""), "these data disks hold no OSD: PHLJ100001"),
    ((FSID,), "these data disks hold no OSD: PHLJ100001")])
def test_d11_a_cluster_is_not_recovered_of_a_part_of_its_disks(imaged_again, clusters, words):
    node = imaged_again(*clusters, said=("recover",))
    with pytest.raises(CornerstoneError, match=words):
        genesis.recovered_cluster(node)

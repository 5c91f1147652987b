"""The command `cluster`, on nodes that serve one another, with a systemctl that notes what it is asked for."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cluster_nodes import SECRET, Node, all_serving, changed, nodes
from cornerstone.cvm import services
from cornerstone.cvm.commands import cluster
from cornerstone.cvm.membership import words
from cornerstone.cvm.membership.client import Client
from cornerstone.cvm.membership.join import CREATE
from cornerstone.cvm.membership.kept import Membership, keep
from cornerstone.cvm.membership.member import certify
from cornerstone.cvm.membership.state import BOOT_ID, NodeState
from cornerstone.lib.error import Code
from cornerstone.model.contracts.genesis import Genesis, StateRecord

SYSTEMCTL = """#!/bin/sh
here=${0%/*}
echo "$*" >>"$here/asked"
case "$1" in
    show) cat "$here/shown" ;;
    stop) case "$*" in *ceph*) printf 'Id=genesis.service\\nActiveState=active\\n' >"$here/shown" ;; esac ;;
esac
"""
SHOWN = """Id=genesis.service
ActiveState=active

Id=ceph-mon@node.service
ActiveState=active
"""


@pytest.fixture
def systemctl(tmp_path, monkeypatch):
    """A folder with the program, which counts for all nodes: shown is what it shows, asked what it was asked for."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "systemctl").write_text(SYSTEMCTL)
    (folder / "systemctl").chmod(0o755)
    (folder / "shown").write_text(SHOWN)
    (folder / "asked").touch()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(cluster, "LOOK_SECONDS", 0.02)
    return folder


def wanted(systemctl: Path) -> list[str]:
    """What it was asked for besides showing."""
    lines = (systemctl / "asked").read_text().splitlines()
    return [line for line in lines if not line.startswith(("show", "reset-failed"))]


@pytest.fixture
def three(tmp_path):
    found = nodes(tmp_path, 3)
    for node in found:
        node.folder.mkdir()
        certify(node.member, SECRET, node.folder)
        (node.folder / "node.json").write_text(node.config.to_json())
    return found


def genesis(node: Node, *states: StateRecord, boot: str = "") -> None:
    """What genesis on a node says."""
    record = Genesis(boot or BOOT_ID.read_text().strip(), states or (StateRecord("ready", "done"),))
    (node.folder / "genesis.json").write_text(record.to_json())


def formed(*several: Node) -> Membership:
    membership = Membership.draw()
    for node in several:
        keep(membership, node.folder)
        genesis(node)
    return membership


def run(node: Node, *words: str, agree: str = "") -> int:
    return cluster.main(words, node.folder / "node.json", node.folder, lambda: agree)


def test_status_of_a_cluster_with_one_member_down(three, systemctl, capsys):
    one, two, down = (node.member.address for node in three)
    formed(*three)
    (systemctl / "shown").write_text(SHOWN.replace("active\n\n", "active\n\n", 1).replace(
        "mon@node.service\nActiveState=active", "mon@node.service\nActiveState=failed"))
    with all_serving(*three[:2]):
        assert run(three[0], "status") == 0
    lines = [f"{'ceph-mon@node':>36}   DOWN     []", f"{'genesis':>36}   UP       []"]
    assert capsys.readouterr().out.splitlines() == [
        "The state of the cluster: start", "", f"\tCVM: {one} Up", *lines, "", f"\tCVM: {two} Up", *lines, "",
        f"\tCVM: {down} Down: {down} doesn't answer: Connection refused"]


def test_a_service_that_is_not_up_yet_and_has_processes_is_starting():
    state = NodeState("", False, "engine", False, (services.Service("genesis", False, (121, 140)),))
    assert list(cluster.text([cluster.Answer("10.20.0.31", state)]))[-1] == f"{'genesis':>36}   STARTING [121, 140]"


def test_d25_status_shows_what_genesis_warns_of(three, systemctl, capsys):
    formed(three[0])
    genesis(three[0], StateRecord("ready", "done", warnings=("OSD_NEARFULL: osd.0 is near full",)))
    with all_serving(three[0]):
        assert run(three[0], "status") == 0
    assert capsys.readouterr().out.splitlines()[-3:] == ["", "\tWarnings:", "\t  OSD_NEARFULL: osd.0 is near full"]
    genesis(three[0], StateRecord("ready", "done", warnings=("of another boot",)), boot="0f3c")
    with all_serving(three[0]):
        assert run(three[0], "status") == 0
    assert "Warnings" not in capsys.readouterr().out


def test_status_before_there_is_a_cluster_says_what_is_waited_for(three, systemctl, capsys):
    for node in three[:2]:
        genesis(node, StateRecord("identity", "done"),
                StateRecord("membership", "waiting", error="waiting for who forms it"))
    with all_serving(*three[:2]):
        assert run(three[0], "status") == 0
    one, two, down = (node.member.address for node in three)
    assert capsys.readouterr().out.splitlines() == [
        cluster.UNCONFIGURED,
        f"Waiting on {one} (Up) to start: membership: waiting for who forms it",
        f"Waiting on {two} (Up) to start: membership: waiting for who forms it",
        f"Waiting on {down} (Down): {down} doesn't answer: Connection refused"]


def test_status_for_programs(three, systemctl, capsys):
    membership = formed(three[0])
    with all_serving(three[0]):
        assert run(three[0], "--json", "status") == run(three[0], "status", "--json") == 0
    text = capsys.readouterr().out
    said = json.loads(text[:len(text) // 2])
    assert [answer["address"] for answer in said] == list(three[0].member.members)
    assert said[0]["state"] == {
        "fsid": membership.fsid, "ready": True, "now": "services", "stopped": False, "services": [
            {"name": "ceph-mon@node", "up": True, "pids": []}, {"name": "genesis", "up": True, "pids": []}]}
    assert said[1]["state"] is None and "doesn't answer" in said[1]["error"]
    assert membership.monitor_key not in text and membership.admin_key not in text


@pytest.mark.parametrize("what", ["another boot", "no genesis", "a service down", "a state failed"])
def test_ready_is_what_all_say_in_this_boot(three, systemctl, capsys, what):
    formed(three[0])
    if what == "another boot":
        genesis(three[0], boot="0f3c")
    elif what == "no genesis":
        (three[0].folder / "genesis.json").unlink()
    elif what == "a service down":
        (systemctl / "shown").write_text(SHOWN.replace("=active", "=activating"))
    else:
        genesis(three[0], StateRecord("engine", "failed", error="no disk"))
    with all_serving(three[0]):
        run(three[0], "status", "--json")
    state = json.loads(capsys.readouterr().out)[0]["state"]
    assert not state["ready"]
    assert state["now"] == {"another boot": "genesis", "no genesis": "genesis", "a service down": "services",
                            "a state failed": "engine: no disk"}[what]


def test_a_member_of_another_cluster_is_shown_as_such(three, systemctl, capsys):
    formed(three[0])
    other = formed(three[1])
    with all_serving(*three[:2]):
        run(three[0], "status")
    assert f"CVM: {three[1].member.address} Down: it is a member of another cluster, {other.fsid}" in \
        capsys.readouterr().out


def test_stop_asks_and_stops_everywhere_in_turn_until_start(three, systemctl, capsys):
    formed(*three)
    with all_serving(*three):
        assert run(three[1], "stop", agree="yes") == Code.INTERRUPTED
        assert wanted(systemctl) == []
        assert run(three[1], "stop", agree="I agree") == 0
        out = capsys.readouterr().out
        assert "Nothing is stopped." in out and "The state of the cluster: stop" in out
        asked = wanted(systemctl)
        assert sorted(asked) == sorted(3 * [
            "stop genesis.service", "stop data-services*.service",
            "stop ceph-osd@*.service ceph-mgr@*.service ceph-mon@*.service", "stop genesis.service",
            "start --no-block genesis.service"])
        assert all((node.folder / services.HELD.name).exists() for node in three)
        (systemctl / "asked").write_text("")
        assert run(three[2], "start") == 0
        assert not any((node.folder / services.HELD.name).exists() for node in three)
        assert sorted(wanted(systemctl)) == sorted(3 * ["stop genesis.service", "start --no-block genesis.service"])
        assert capsys.readouterr().out.splitlines()[-1] == "Success!"
        # what runs is left alone
        (systemctl / "asked").write_text("")
        assert run(three[0], "start") == 0
        assert wanted(systemctl) == []


def test_a21_admit_is_for_a_member_and_says_who_was_not_told(three, systemctl, capsys):
    formed(*three)
    address = three[2].member.address
    with all_serving(three[0]):
        assert run(three[0], "admit") == run(three[0], "admit", "10.9.9.9") == Code.INPUT
        assert "10.9.9.9 isn't a member" in capsys.readouterr().err
        assert run(three[0], "admit", address) == 0
        said = capsys.readouterr().out
        assert f"not told: {three[1].member.address} doesn't answer" in said
        assert f"{address} may join with another key, once and within 15 minutes" in said
    # nobody is there who could let it in
    assert run(three[0], "admit", address) == Code.FAILED
    assert f"no member takes {address} anew" in capsys.readouterr().err


def test_stop_with_a_member_away_says_so(three, systemctl, capsys):
    formed(*three)
    with all_serving(*three[:2]):
        assert run(three[0], "stop", agree="I agree") == Code.FAILED
    captured = capsys.readouterr()
    assert f"not every member did stop: {three[2].member.address} doesn't answer" in captured.err
    assert "call it again when they are back: cluster stop" in captured.err


def test_start_waits_for_all_and_tells_each_change(three, systemctl, capsys):
    formed(*three)
    genesis(three[1], StateRecord("engine", "running", message="making an OSD"))
    lines = []

    def say(line):
        lines.append(line)
        if line.endswith("making an OSD"):
            genesis(three[1], StateRecord("pool", "running"))
        elif line.endswith("pool"):
            genesis(three[1])
    with all_serving(*three):
        cluster.Cluster(three[0].config, Client(three[0].member, three[0].folder), say).start()
    address = three[1].member.address
    assert [line for line in lines if line.startswith(("Waiting", "Success"))] == [
        f"Waiting on {address} (Up) to start: engine: making an OSD", f"Waiting on {address} (Up) to start: pool",
        "Success!"]


@pytest.mark.parametrize("action", ["start", "stop"])
def test_what_is_not_formed_is_neither_started_nor_stopped(three, systemctl, capsys, action):
    with all_serving(*three):
        assert run(three[0], action, agree="I agree") == Code.REFUSED
    assert cluster.UNCONFIGURED in capsys.readouterr().err
    assert wanted(systemctl) == []


def test_create_lets_the_first_form_it_and_waits(three, systemctl, capsys):
    by_hand = [changed(node, form=False) for node in three]
    addresses = ",".join(three[0].member.members)
    with all_serving(*by_hand):
        thread = threading.Thread(target=run, args=(three[2], "-s", addresses, "--redundancy_factor=2", "create"))
        thread.start()
        while not (three[0].folder / CREATE).exists():
            assert thread.is_alive()
            threading.Event().wait(0.02)
        formed(*three)
        thread.join(60)
    out = capsys.readouterr().out
    assert f"Creating cluster with CVMs: {addresses.replace(',', ', ')}\n" in out
    assert out.splitlines()[-1] == "Success!"
    assert not any((node.folder / CREATE).exists() for node in three[1:])


@pytest.mark.parametrize(("words", "said"), [
    (("-s", "10.0.0.1,10.0.0.2", "create"), "the site says another members: 127."),
    (("--redundancy_factor=3", "create"), "the site says another redundancy factor: 2, not 3"),
    (("--cluster_name=prod", "create"), "the site says another name: lab, not prod"),
])
def test_create_makes_no_other_cluster_than_the_site_s(three, systemctl, capsys, words, said):
    with all_serving(*three):
        assert run(three[0], *words) == Code.REFUSED
    assert said in capsys.readouterr().err
    assert not (three[0].folder / CREATE).exists()


def test_a_second_formation_is_refused_by_any_member_that_knows_of_the_first(three, systemctl, capsys):
    membership = formed(three[1])
    with all_serving(*three):
        assert run(three[2], "create") == Code.REFUSED
    assert f"{three[1].member.address} is a member of the cluster {membership.fsid} already" in capsys.readouterr().err


def test_a_node_without_a_cluster_in_its_site_has_nothing_to_create(three, systemctl, capsys):
    alone = replace(three[0].config, cluster=None)
    (three[0].folder / "node.json").write_text(alone.to_json())
    assert run(three[0], "create") == Code.REFUSED
    assert "the site of this node has no cluster" in capsys.readouterr().err


def test_errors_are_lines(tmp_path, capsys, three):
    assert cluster.main(["status"], tmp_path / "none", tmp_path) == Code.INPUT
    (tmp_path / "node.json").write_text("{}")
    assert cluster.main(["status"], tmp_path / "node.json", tmp_path) == Code.INPUT
    err = capsys.readouterr().err
    assert "this is no CVM of a node" in err and ".identity is missing" in err and "Traceback" not in err
    with pytest.raises(SystemExit) as caught:
        cluster.main(["destroy"])
    assert caught.value.code == 2


def test_d10_other_clusters_osds_are_given_up_on_every_member_when_somebody_agrees(three, systemctl, capsys):
    for node in three:
        genesis(node)
    members = ",".join(three[0].member.members)
    with all_serving(*three):
        assert run(three[1], "-s", members, "--new", "create", agree="yes") == Code.INTERRUPTED
        assert not any(words.said(words.NEW, node.folder) for node in three)
        assert "are erased" in capsys.readouterr().out
        assert run(three[1], "-s", members, "--new", "create", agree="I agree") == 0
        assert all(words.said(words.NEW, node.folder) for node in three)
        assert words.said(words.CREATE, three[0].folder)


def test_d10_a_member_that_is_away_is_named(three, systemctl, capsys, monkeypatch):
    genesis(three[0])
    genesis(three[1])
    monkeypatch.setattr(cluster.Cluster, "_wait", lambda self: None)
    with all_serving(*three[:2]):
        assert run(three[0], "--new", "create", agree="I agree") == 0
    assert f"not told: {three[2].member.address} doesn't answer" in capsys.readouterr().out


def test_d10_the_word_is_taken_in_a_formed_cluster_and_none_of_another_s(three, systemctl):
    formed(*three[:2])
    genesis(three[2])
    with all_serving(*three):
        assert run(three[0], "--new", "create", agree="I agree") == 0
        # who is no member himself gives nothing up while another knows of a cluster
        assert run(three[2], "--new", "create", agree="I agree") == Code.REFUSED
    assert words.said(words.NEW, three[1].folder) and not words.said(words.CREATE, three[1].folder)


def test_d11_recover_is_for_a_single_node_that_is_no_member(tmp_path, three, systemctl, capsys):
    single = nodes(tmp_path / "single", 1)[0]
    single.folder.mkdir(parents=True)
    certify(single.member, SECRET, single.folder)
    (single.folder / "node.json").write_text(single.config.to_json())
    genesis(single)
    with single.serving():
        assert run(single, "recover") == 0
    assert words.said(words.RECOVER, single.folder)
    with three[0].serving():
        assert run(three[0], "recover") == Code.REFUSED
    assert "the other members know the cluster" in capsys.readouterr().err
    formed(single)
    with single.serving():
        assert run(single, "recover") == Code.REFUSED


def test_a_state_of_a_newer_release_is_shown(three, systemctl, monkeypatch):
    formed(*three[:1])
    state = {"fsid": "", "ready": True, "now": "", "stopped": False, "mood": "fine",
             "services": [{"name": "genesis", "up": True, "pids": [], "memory": 1}]}
    client = Client(three[0].member, three[0].folder)
    monkeypatch.setattr(Client, "ask_all", lambda *_: {three[0].member.address: {"state": state}})
    (answer,) = cluster.Cluster(three[0].config, client).status()
    assert answer.state.services[0].name == "genesis"

"""How clusters form: real nodes with real certificates and sockets, in every order, cut off at every point."""

from __future__ import annotations

import base64
import itertools
import os
import signal
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from cluster_nodes import (
    SECRET,
    Node,
    addresses,
    admit,
    all_serving,
    beside,
    changed,
    config,
    nodes,
    started,
    together,
)
from cornerstone.cvm.membership import actions, join, keys, words
from cornerstone.cvm.membership.client import Client, Refused, Unadmitted
from cornerstone.cvm.membership.kept import MEMBER, MEMBERSHIP, Membership, keep, load
from cornerstone.cvm.membership.member import certify
from cornerstone.cvm.waiting import Waiting
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.serde import to_record
from cornerstone.model.contracts.node import SECRET_CREDENTIAL

ROOT = Path(__file__).resolve().parents[2]
ORDERS = list(itertools.permutations(range(3)))
OTHER = base64.b64encode(b"another secret of some more bytes").decode()


def assert_one_cluster(*several: Node) -> None:
    assert len({node.kept for node in several}) == 1
    assert several[0].kept is not None


def test_a_single_node_forms_its_cluster_with_and_without_a_secret(tmp_path):
    for secret in (SECRET, ""):
        node = nodes(tmp_path / f"with{bool(secret)}", 1)[0]
        node.secret = secret
        formed = node.bring_up()
        assert uuid.UUID(formed.fsid).version == 4
        assert node.bring_up() == formed == node.kept
        assert node.said == []


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "".join(map(str, order)))
def test_three_nodes_in_any_order_become_one_cluster(tmp_path, order):
    three = nodes(tmp_path, 3)
    with all_serving(*three), beside() as threads:
        futures = [started(threads, three[number]) for number in order]
        kept = [future.result(60) for future in futures]
    assert len(set(kept)) == 1
    assert_one_cluster(*three)


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "".join(map(str, order)))
def test_three_nodes_that_are_switched_on_one_after_the_other(tmp_path, order):
    """Before its turn a node's service isn't there either."""
    three = nodes(tmp_path, 3)
    with beside() as threads, three[order[0]].serving():
        first = started(threads, three[order[0]])
        with three[order[1]].serving():
            second = started(threads, three[order[1]])
            with three[order[2]].serving():
                third = started(threads, three[order[2]])
                assert len({future.result(60) for future in (first, second, third)}) == 1


def test_a_majority_forms_and_the_late_one_is_taken_in_by_nodes_without_the_secret(tmp_path):
    five = nodes(tmp_path, 5)
    with all_serving(*five[:3]), beside() as threads:
        together(threads, *five[:3])
    for node in five[:3]:
        node.secret = ""
        assert node.bring_up() == five[0].kept
    # and the one that formed it may be gone by then
    with all_serving(*five[1:]):
        assert five[3].bring_up() == five[4].bring_up() == five[1].kept


def test_the_first_alone_waits_for_a_majority_and_says_so(tmp_path):
    three = nodes(tmp_path, 3)
    with three[0].serving(), beside() as threads:
        future = started(threads, three[0])
        others = f"{three[1].member.address} doesn't answer: Connection refused; " \
                 f"{three[2].member.address} doesn't answer: Connection refused"
        assert three[0].said == [f"waiting for 2 of 3 members, to form the cluster: {others}"]
        with three[1].serving():
            # who has no certificate yet isn't heard, so it has to come up too
            second = started(threads, three[1])
            assert future.result(60) == second.result(60)


def test_a_joiner_says_whom_it_waits_for(tmp_path):
    three = nodes(tmp_path, 3)
    with all_serving(*three[1:]), beside() as threads:
        last = started(threads, three[2])
        first = three[0].member.address
        assert three[2].said == [f"waiting for {first}, which forms the cluster: {first} doesn't answer: "
                                 "Connection refused"]
        with three[0].serving():
            assert started(threads, three[0]).result(60) == last.result(60)


# a node in a process of its own, that is killed ahead of the change of this number
CUT = """
import os, signal, sys, time
from pathlib import Path
from cornerstone.cvm.membership import join, words
from cornerstone.cvm.waiting import Waiting
from cornerstone.model.contracts.node import NodeConfig
left = [int(sys.argv[3])]
def cut(real):
    def call(*arguments, **more):
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return real(*arguments, **more)
    return call
for module, name in ((os, "open"), (os, "fsync"), (os, "link"), (os, "replace"), (os, "unlink"), (os, "rename")):
    setattr(module, name, cut(getattr(module, name)))
Path.replace = cut(Path.replace)
Path.unlink = cut(Path.unlink)
config, secret = NodeConfig.from_json(Path(sys.argv[1]).read_text()), sys.stdin.read()
while True:
    try:
        join.bring_up(config, secret, Path(sys.argv[2]))
        break
    except Waiting:
        time.sleep(0.02)
print("changes left", left[0])
"""
MANY = 1000


def cut_after(node: Node, changes: int) -> int:
    """Bring a node up and kill it after some changes; how many it made when it came to its end, else 0."""
    node.folder.mkdir(parents=True, exist_ok=True)
    (node.folder / "node.json").write_text(node.config.to_json())
    done = subprocess.run([sys.executable, "-c", CUT, node.folder / "node.json", node.folder, str(changes)],
                          input=node.secret, env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True,
                          timeout=120, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return changes - int(done.stdout.rsplit(maxsplit=1)[-1]) if done.returncode == 0 else 0


def test_who_forms_may_be_killed_at_any_write(tmp_path):
    changes = cut_after(nodes(tmp_path / "whole", 1)[0], MANY)
    assert changes > 8
    for point in range(changes):
        node = nodes(tmp_path / str(point), 1)[0]
        assert cut_after(node, point) == 0
        before = node.kept
        formed = node.bring_up()
        assert before in (None, formed)
        assert_private(node)


def test_who_forms_may_be_killed_at_any_write_while_others_join(tmp_path):
    """What one of them got is the cluster's, also when it got it between two of the writes."""
    point = done = 0
    while not done:
        three = nodes(tmp_path / str(point), 3)
        with all_serving(*three), beside() as threads:
            joining = [started(threads, node) for node in three[1:]]
            done = cut_after(three[0], point)
            formed = three[0].bring_up()
            assert {future.result(60) for future in joining} == {formed}
        point += 1
    assert point > 8


def test_who_joins_may_be_killed_at_any_write(tmp_path):
    first, second, third = nodes(tmp_path, 3)
    with all_serving(first, second, third), beside() as threads:
        formed = together(threads, first, second)
        changes = cut_after(third, MANY)
        assert changes > 8 and third.kept == formed
        for point in range(changes):
            for path in third.folder.iterdir():
                path.unlink()
            admit(third, first, second)
            assert cut_after(third, point) == 0
            assert third.kept in (None, formed)
            assert third.bring_up() == formed
            join.get_to_know(third.config, third.folder)
            assert_private(third)


def assert_private(node: Node) -> None:
    files = {path.name for path in node.folder.iterdir()} - {"node.json"}
    assert {MEMBER, MEMBERSHIP} <= files <= {MEMBER, MEMBERSHIP, keys.KEYS}
    assert {(node.folder / name).stat().st_mode & 0o777 for name in files} == {0o600}


def test_the_first_imaged_anew_gets_back_into_its_cluster(tmp_path):
    three = nodes(tmp_path, 3)
    with all_serving(*three), beside() as threads:
        formed = together(threads, *three)
        for path in three[0].folder.iterdir():
            path.unlink()
        admit(three[0], *three[1:])
        assert three[0].bring_up() == formed


def test_a21_another_key_for_a_member_s_address_is_refused_until_somebody_says_so(tmp_path):
    """Who has the bootstrap secret, and takes a member's address, isn't that member."""
    three = nodes(tmp_path, 3)
    with all_serving(*three), beside() as threads:
        formed = together(threads, *three)
        for node in three:
            join.get_to_know(node.config, node.folder)
        whole = keys.told(three[0].member.address, three[0].folder)
        assert all(keys.told(node.member.address, node.folder) == whole for node in three) and len(whole) == 3
        for number, node in enumerate(three):
            others = [each for each in three if each is not node]
            for path in node.folder.iterdir():
                path.unlink()
            # nobody gives it anything, and it draws no cluster of its own
            with pytest.raises(Unadmitted, match="another certificate than the member had") as caught:
                node.bring_up()
            assert node.kept is None and f"cluster admit {node.member.address}" in caught.value.hint
            # an admission is of one address, and of a member's
            with pytest.raises(Refused, match="isn't another member"):
                Client(others[0].member, others[0].folder).ask(others[0].member.address, "admit", node="10.9.9.9")
            admit(node, *others)
            assert node.bring_up() == formed
            # used up by the key that it let in; whom one member has admitted the others learn of
            for each in three:
                join.get_to_know(each.config, each.folder)
            assert {keys.known(each.folder)[node.member.address].admission for each in others} == {1}, number


def test_a21_an_admission_ends_after_a_while_and_is_used_once(tmp_path, monkeypatch):
    one, two = nodes(tmp_path, 2)
    with all_serving(one, two), beside() as threads:
        formed = together(threads, one, two)
        join.get_to_know(one.config, one.folder)
        admit(two, one)
        for path in two.folder.iterdir():
            path.unlink()
        real = actions._now
        monkeypatch.setattr(actions, "_now", lambda: real() + actions.ADMIT_SECONDS + 1)
        with pytest.raises(Unadmitted):
            two.bring_up()
        monkeypatch.undo()
        admit(two, one)
        assert two.bring_up() == formed
        for path in two.folder.iterdir():
            path.unlink()
        with pytest.raises(Unadmitted):
            two.bring_up()


def test_a21_a_member_that_was_off_learns_of_an_admission_from_the_others(tmp_path):
    three = nodes(tmp_path, 3)
    with all_serving(*three), beside() as threads:
        together(threads, *three)
        for node in three:
            join.get_to_know(node.config, node.folder)
    with all_serving(*three[:2]):
        for path in three[0].folder.iterdir():
            path.unlink()
        admit(three[0], three[1])
        three[0].bring_up()
    with all_serving(*three):
        client = Client(three[2].member, three[2].folder)
        with pytest.raises(Unadmitted):
            client.ask(three[0].member.address, "status")
        join.get_to_know(three[2].config, three[2].folder)
        client.ask(three[0].member.address, "keys")
        # and it is let in there
        Client(three[0].member, three[0].folder).ask(three[2].member.address, "keys")


def test_a21_what_a_node_knows_of_keys_is_never_taken_for_nothing(tmp_path):
    one, two = nodes(tmp_path, 2)
    with all_serving(one, two), beside() as threads:
        together(threads, one, two)
    (one.folder / keys.KEYS).write_text("{")
    with pytest.raises(CornerstoneError, match="is damaged"):
        keys.meet(two.member.address, b"", one.folder)


def test_a_second_formation_is_refused(tmp_path):
    """Both other members were off when the first was imaged anew, and one had never joined: it draws a second time."""
    three = nodes(tmp_path, 3)
    with all_serving(*three[:2]), beside() as threads:
        old = together(threads, *three[:2])
    for path in three[0].folder.iterdir():
        path.unlink()
    with all_serving(three[0], three[2]), beside() as threads:
        new = together(threads, three[0], three[2])
    assert new.fsid != old.fsid
    # the one that was off knows another key of the first's
    with three[0].serving(), pytest.raises(Unadmitted):
        Client(three[1].member, three[1].folder).ask(three[0].member.address, "join")
    assert three[1].kept == old
    (three[1].folder / keys.KEYS).unlink()
    with three[0].serving(), pytest.raises(Refused, match="there is no second formation") as caught:
        Client(three[1].member, three[1].folder).ask(three[0].member.address, "join")
    assert old.fsid in str(caught.value) and new.fsid in str(caught.value)
    assert three[1].kept == old


def waiting_for_osds(node: Node) -> None:
    """Wait until the node says that OSDs of another cluster keep it."""
    while not node.said[-1].startswith("data disks hold OSDs of another cluster: "):
        node.news.clear()
        assert node.news.wait(60)


@pytest.mark.parametrize("holder", [0, 1])
def test_d10_two_of_three_imaged_anew_draw_no_cluster_over_the_first_one_s_osds(tmp_path, holder):
    """They wait for the third, which knows it; whichever of the two has the OSDs."""
    three = nodes(tmp_path, 3)
    with all_serving(*three), beside() as threads:
        formed = together(threads, *three)
    for node in three[:2]:
        for path in node.folder.iterdir():
            path.unlink()
        node.awaits = (Waiting, Unadmitted)
    three[holder].osds = (f"sda (S, 1.0 GB) of cluster {formed.fsid}",)
    with all_serving(*three[:2]), beside() as threads:
        back = [started(threads, node) for node in three[:2]]
        waiting_for_osds(three[0])
        assert three[0].said[-1].endswith(
            f"{three[holder].member.address} has sda (S, 1.0 GB) of cluster {formed.fsid}")
        with three[2].serving():
            for node in three[:2]:
                admit(node, three[2])
            assert [future.result(60) for future in back] == [formed, formed]


def test_d9_a_single_node_draws_no_cluster_over_another_s_osds_until_somebody_says_so(tmp_path):
    node = nodes(tmp_path, 1)[0]
    node.osds = ("sda (S, 1.0 GB) of cluster 1c7a3a3e-6d0b-4d0c-9a51-3f2f6a0d00ff",)
    with pytest.raises(Waiting, match="data disks hold OSDs of another cluster") as caught:
        join.bring_up(node.config, node.secret, node.folder, node.osds)
    assert "cluster recover" in caught.value.hint and "--new create" in caught.value.hint
    assert node.kept is None
    words.say(words.NEW, node.folder)
    assert node.bring_up() == node.kept


def test_a_message_of_a_newer_release_is_understood(tmp_path):
    """Fields that this release doesn't know are ignored, on both sides."""
    first, second, third = nodes(tmp_path, 3)
    newer = {**to_record(second.member), "disks": ["S"]}
    with all_serving(first, second), beside() as threads:
        formed = together(threads, first, second)
        client = Client(second.member, second.folder)
        answer = client.ask(first.member.address, "join", member=newer, release="7.0")
    answer["member"]["disks"], answer["membership"]["colour"] = ["S"], "blue"
    assert join._accepted(third.member, first.member.address, answer) == formed


def test_what_is_kept_is_never_replaced(tmp_path):
    one = keep(Membership.draw(), tmp_path)
    assert keep(Membership.draw(), tmp_path) == one == load(tmp_path)


def test_a_wrong_secret_is_said_on_both_sides_and_mended_by_the_right_one(tmp_path, capfd):
    first, second, third = nodes(tmp_path, 3)
    third.secret = OTHER
    with all_serving(first, second, third), beside() as threads:
        formed = together(threads, first, second)
        with pytest.raises(CornerstoneError, match="their bootstrap secrets or cluster names differ") as caught:
            third.bring_up()
        assert caught.value.code is Code.REFUSED
        assert f"{first.member.address} and {third.member.address} aren't members of one cluster" in str(caught.value)
        assert third.kept is None
        third.secret = SECRET
        assert third.bring_up() == formed
    heard = capfd.readouterr().err
    assert (f"{third.member.address}: doesn't take this node for a member: their bootstrap secrets or cluster names "
            "differ\n") in heard
    assert not any(secret in heard + str(caught.value) for secret in (SECRET, OTHER, formed.monitor_key))


def test_a_majority_forms_in_spite_of_one_with_a_wrong_secret(tmp_path):
    first, second, third = nodes(tmp_path, 3)
    second.secret = OTHER
    with all_serving(first, second, third), beside() as threads:
        certify(second.member, OTHER, second.folder)
        third_up = started(threads, third)
        assert third.said == [
            f"waiting for {first.member.address}, which forms the cluster: {first.member.address} breaks off; "
            f"{second.member.address} and {third.member.address} aren't members of one cluster: their bootstrap "
            "secrets or cluster names differ"]
        assert started(threads, first).result(60) == third_up.result(60)
        with pytest.raises(CornerstoneError, match="secrets or cluster names differ"):
            second.bring_up()


def test_the_first_gives_up_when_no_majority_shares_its_secret(tmp_path):
    first, second, third = nodes(tmp_path, 3)
    for node in (second, third):
        node.folder.mkdir()
        certify(node.member, OTHER, node.folder)
    with all_serving(second, third), pytest.raises(CornerstoneError, match="secrets or cluster names differ"):
        first.bring_up()


@pytest.mark.parametrize("secret", ["", "c2hvcnQ=", "not base64!", "ö"])
def test_several_nodes_need_a_secret_that_is_one(tmp_path, secret):
    node = nodes(tmp_path, 3)[0]
    node.secret = secret
    with pytest.raises(CornerstoneError, match="bootstrap secret") as caught:
        node.bring_up()
    assert not secret or secret not in str(caught.value)
    assert not (node.folder / MEMBERSHIP).exists()


@pytest.mark.parametrize(("change", "words"), [
    ({"profile": "aos-6.7", "aos": "6.7"}, "a cluster is formed of one release, or of two with a known direct upgrade"),
    ({"aos": "6.8.1"}, "AOS 6.8.1 of profile aos-6.8: a cluster is formed of one release"),
    ({"aos": "6.8.1", "aos_beside": ("6.8.2", "6.7")}, "AOS 6.8.1 of profile aos-6.8: a cluster is formed of one"),
])
def test_another_release_is_refused(tmp_path, change, words):
    first, second, third = nodes(tmp_path, 3)
    other = Node(replace(third.config, **change), third.folder)
    with all_serving(first, second), beside() as threads:
        assert together(threads, first, second)
        with pytest.raises(CornerstoneError, match=words):
            other.bring_up()
    assert other.kept is None


@pytest.mark.parametrize(("ours", "theirs"), [((), ("6.8",)), (("6.10",), ()), (("6.10",), ("6.8",))])
def test_releases_with_a_known_upgrade_form_one_cluster(tmp_path, ours, theirs):
    """Whichever of the two knows it: the older was made before anybody knew of the newer."""
    first, second, third = (Node(replace(node.config, aos_beside=ours), node.folder) for node in nodes(tmp_path, 3))
    newer = Node(replace(third.config, profile="aos-6.10", aos="6.10", aos_beside=theirs), third.folder)
    with all_serving(first, second), beside() as threads:
        formed = together(threads, first, second)
        assert newer.bring_up() == formed == newer.kept


def test_a_member_of_the_same_release_may_be_of_another_profile(tmp_path):
    first, second, third = nodes(tmp_path, 3)
    other = Node(replace(third.config, profile="aos-6.8-with-tools"), third.folder)
    with all_serving(first, second), beside() as threads:
        assert together(threads, first, second) == other.bring_up()


def test_other_members_in_the_site_are_refused(tmp_path):
    first, second, third = nodes(tmp_path, 3)
    members = first.member.members
    other = changed(third, members=(members[0], members[2], members[1]))
    with all_serving(first, second), beside() as threads:
        assert together(threads, first, second)
        with pytest.raises(CornerstoneError, match=f"the members are .* to {first.member.address}, but"):
            other.bring_up()


def test_who_is_not_in_the_list_is_refused(tmp_path):
    first, second, third = nodes(tmp_path, 3)
    stranger_address = addresses(1)[0]
    stranger = Node(config(stranger_address, (*first.member.members, stranger_address)), tmp_path / "stranger")
    with all_serving(first, second), beside() as threads:
        assert together(threads, first, second)
        with pytest.raises(CornerstoneError, match=f"{stranger_address} isn't taken for a member: it isn't one of"):
            stranger.bring_up()


def test_a_node_that_was_told_so_waits_for_cluster_create(tmp_path):
    three = [changed(node, form=False) for node in nodes(tmp_path, 3)]
    with all_serving(*three), beside() as threads:
        futures = [started(threads, node) for node in three]
        while three[0].said[-1] != "the cluster is to be formed by hand":
            three[0].news.clear()
            assert three[0].news.wait(60)
        (three[0].folder / join.CREATE).write_text("")
        assert len({future.result(60) for future in futures}) == 1


def test_a_node_without_a_cluster_in_its_site_forms_none(tmp_path):
    node = nodes(tmp_path, 1)[0]
    with pytest.raises(Waiting, match="the site of this node has no cluster"):
        join.bring_up(replace(node.config, cluster=None), "", node.folder)
    assert node.kept is None


def test_a_node_whose_address_changed_needs_the_secret_once_more(tmp_path):
    first, second, third = nodes(tmp_path, 3)
    with all_serving(first, second), beside() as threads:
        formed = together(threads, first, second)
    moved = Node(config(third.member.address, first.member.members), first.folder, "")
    with pytest.raises(CornerstoneError, match="no bootstrap secret"):
        moved.bring_up()
    moved.secret = SECRET
    assert moved.bring_up() == formed
    assert (first.folder / MEMBER).read_text().startswith(f"{third.member.address} of lab\n")


def test_the_secret_comes_as_a_credential(tmp_path, monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert join.bootstrap_secret() == ""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert join.bootstrap_secret() == ""
    (tmp_path / SECRET_CREDENTIAL).write_text(f"{SECRET}\n")
    assert join.bootstrap_secret() == SECRET
    os.truncate(tmp_path / SECRET_CREDENTIAL, 0)
    assert join.bootstrap_secret() == ""

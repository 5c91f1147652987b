"""The engine floor: an older Ceph isn't started on what a newer one has opened, and says so without blaming a disk."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from cluster_nodes import config
from cornerstone.cvm.ceph import engine, floor, osd
from cornerstone.cvm.disks import Choice, Disk
from cornerstone.cvm.membership import Membership
from cornerstone.cvm.node import Node
from cornerstone.cvm.waiting import Waiting
from cornerstone.lib.error import CornerstoneError
from cornerstone.model.contracts.node import DataDisk
from cornerstone.model.disk.identity import BLUESTORE, OPENED_BY, read_opened_by

OSD = "4a2c7a3e-6d0b-4d0c-9a51-3f2f6a0d8a11"
CREATED = "ceph version 18.2.7 (6b0e988052ec84cf2d4a54ff9bbbc5e720b621ad) reef (stable)"
DISK = Disk("S1", Path("/dev/sdb"), 10**12, osd=OSD)


def label(**meta: str) -> bytes:
    """A BlueStore label's first bytes, as Ceph writes them: key and value each with its length before it."""
    words = b"".join(len(word).to_bytes(4, "little") + word for pair in sorted(meta.items())
                     for word in map(str.encode, pair))
    return BLUESTORE + OSD.encode() + b"\n" + bytes(40) + words + bytes(4096)


def test_the_label_says_which_ceph_has_made_and_opened_an_osd():
    assert read_opened_by(label(ceph_fsid="f", whoami="3")) == ()
    assert read_opened_by(label(require_osd_release="16", whoami="3")) == ("16",)
    assert set(read_opened_by(label(**{OPENED_BY: "18.2.7"}, ceph_version_when_created=CREATED,
                                    require_osd_release="18"))) == {"18.2.7", CREATED, "18"}
    assert read_opened_by(b"ext4" + label(require_osd_release="16")) == ()
    assert read_opened_by(label(require_osd_release="16")[:64]) == ()


@pytest.mark.parametrize(("text", "found"), [
    ("18.2.7", (18, 2)), ("16", (16, 0)), (CREATED, (18, 2)), ("", (0, 0)), ("reef", (0, 0)), ("\ufffd\ufffd", (0, 0)),
    ("ceph version 16.2.15 (618f440892089921c3e944a991122ddc44e60516) pacific (stable)", (16, 2)), ("9" * 300, (0, 0))])
def test_a_version_s_series(text, found):
    assert floor.series(text) == found


@pytest.mark.parametrize("opened_by", ["18.2.7", "18", CREATED, "16.3.0"])
def test_an_osd_that_a_newer_ceph_has_opened_is_refused(tmp_path, opened_by):
    with pytest.raises(Waiting, match=r"sdb \(S1, 1000.0 GB\) was last opened by Ceph 1[68].* and this CVM has 16\.2"
                       ) as refused:
        floor.require([replace(DISK, osd="x", serial="S0", opened_by=("16.2.15",)),
                       replace(DISK, opened_by=("16", opened_by, "14.2.21"))], "16.2.15", tmp_path, tmp_path)
    assert "boot the release" in refused.value.hint and "the disks are whole" in refused.value.hint


@pytest.mark.parametrize("opened_by", [
    (), ("",), ("16",), ("16.2.15",), ("16.2.16",), ("14.2.21", "15"), ("nonsense",)])
def test_the_same_series_and_older_ones_are_taken(tmp_path, opened_by):
    floor.require([replace(DISK, opened_by=opened_by)], "16.2.15", tmp_path, tmp_path)


def test_what_opened_the_engine_last_is_kept_in_the_cvm_s_state(tmp_path):
    assert floor.load(tmp_path) is None
    floor.keep("16.2.15", tmp_path)
    floor.keep("18.2.7", tmp_path)
    assert json.loads((tmp_path / floor.FILE).read_text()) == {"version": 1, "ceph": "18.2.7"}
    assert (tmp_path / floor.FILE).stat().st_mode & 0o077 == 0
    floor.require([], "18.2.4", tmp_path, tmp_path / "none")
    with pytest.raises(Waiting, match=r"this CVM was last opened by Ceph 18\.2, and this CVM has 16\.2"):
        floor.require([], "16.2.15", tmp_path, tmp_path / "none")
    (tmp_path / floor.FILE).write_text("{")
    with pytest.raises(CornerstoneError, match="engine.json"):
        floor.require([], "18.2.7", tmp_path, tmp_path / "none")


def test_a_monitor_s_own_word_counts_too(tmp_path):
    (tmp_path / "ceph-a").mkdir()
    (tmp_path / "ceph-a/min_mon_release").write_text("18\n")
    with pytest.raises(Waiting, match=r"monitor was last opened by Ceph 18, and this CVM has 16\.2"):
        floor.require([], "16.2.15", tmp_path / "none", tmp_path)
    floor.require([], "18.2.7", tmp_path / "none", tmp_path)


@pytest.mark.parametrize(("said", "version"), [
    (CREATED, "18.2.7"), ("ceph version 16.2.15 (618f) pacific (stable)\n", "16.2.15"), ("no version", None)])
def test_the_installed_version_is_what_ceph_osd_says(monkeypatch, said, version):
    monkeypatch.setattr(floor, "run", lambda *words: said)
    floor.installed.cache_clear()
    try:
        if version is None:
            with pytest.raises(CornerstoneError, match="says no version"):
                floor.installed()
        else:
            assert floor.installed() == version
    finally:
        floor.installed.cache_clear()


@pytest.fixture
def node(monkeypatch, tmp_path):
    """A member whose one data disk holds an OSD of its cluster, on a CVM with Ceph 16; it may start nothing."""
    entry = DataDisk("S1", "", 10**12)
    whole = config("127.0.0.1", ("127.0.0.1",))
    found = Node(replace(whole, cvm=replace(whole.cvm, disks=(entry,))), lambda event: None, Membership.draw())
    disk = replace(DISK, osd=osd.own_uuid(found, entry), cluster=found.member.fsid, opened_by=("18.2.7",))
    monkeypatch.setattr(engine, "choose", lambda node: Choice(((entry, disk),), ()))
    monkeypatch.setattr(engine.services, "check_held", lambda: None)
    monkeypatch.setattr(engine.floor, "installed", lambda: "16.2.15")
    monkeypatch.setattr(engine.floor, "require", partial(floor.require, folder=tmp_path, monitors=tmp_path / "mon"))
    monkeypatch.setattr(engine.floor, "keep", partial(floor.keep, folder=tmp_path))

    def never(*words):
        raise AssertionError(f"it did {words}")
    for module, name in ((engine.files, "write"), (engine.monitor, "prepare"), (engine.services, "start"),
                         (engine.osd, "activate"), (engine.manager, "prepare")):
        monkeypatch.setattr(module, name, never)
    return found


def test_a_node_with_newer_disks_starts_no_daemon_and_calls_no_disk_broken(node, tmp_path):
    with pytest.raises(Waiting, match=r"last opened by Ceph 18\.2, and this CVM has 16\.2"):
        engine.bring_up(node)
    assert node.warnings == []
    assert not (tmp_path / floor.FILE).exists()


def test_with_the_release_that_opened_them_it_goes_on(node, monkeypatch, tmp_path):
    monkeypatch.setattr(engine.floor, "installed", lambda: "18.2.7")
    with pytest.raises(AssertionError, match="it did"):
        engine.bring_up(node)
    assert floor.load(tmp_path) == floor.Opened("18.2.7")


def test_another_cluster_s_osd_doesn_t_stop_a_node(node, monkeypatch):
    """It is used only when it is erased before."""
    foreign = replace(DISK, cluster="another", opened_by=("18.2.7",))
    monkeypatch.setattr(engine, "choose", lambda node: Choice(((DataDisk("S1", "", 10**12), foreign),), ()))
    with pytest.raises(AssertionError, match="it did"):
        engine.bring_up(node)

"""A build of what is there already makes nothing, and an ISO that is lost is mastered again from the layers."""

from __future__ import annotations

import filecmp

from cornerstone.factory.build.build import build
from cornerstone.factory.build.netboot import SCRIPT, SUMS, folder_of
from cornerstone.factory.build.reproduce import copy_checkout
from cornerstone.factory.settings import Workspace
from cornerstone.model.profile.profile import load_profile

PROFILE = "aos-6.8"


def test_an_iso_is_mastered_from_the_layers_and_is_not_made_twice(iso, tmp_path, request, monkeypatch):
    """In a checkout of its own, for others read the ISO of this one meanwhile."""
    root = request.config.rootpath
    monkeypatch.setenv("CORNERSTONE_CACHE", str(Workspace(root).cache))
    copy_checkout(root, tmp_path / "checkout")
    workspace, events = Workspace(tmp_path / "checkout"), []
    profile = load_profile(PROFILE, workspace.root)

    again = build(workspace, profile, events.append)
    assert {event.step for event in events if event.state == "done"} == {"iso", "netboot"}
    assert filecmp.cmp(again, iso, shallow=False)
    assert filecmp.cmp(folder_of(again) / SUMS, folder_of(iso) / SUMS, shallow=False)

    before = again.stat()
    events.clear()
    assert build(workspace, profile, events.append) == again
    assert [(event.step, event.state) for event in events] == [("iso", "cached")]
    assert (again.stat().st_ino, again.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

    # what is changed in the folder for starting over the network is made again, and the ISO stays
    (folder_of(again) / SCRIPT).write_text("#!ipxe\n")
    events.clear()
    build(workspace, profile, events.append)
    assert {event.step for event in events if event.state == "done"} == {"netboot"}
    assert (again.stat().st_ino, again.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert (folder_of(again) / SCRIPT).read_bytes() == (folder_of(iso) / SCRIPT).read_bytes()

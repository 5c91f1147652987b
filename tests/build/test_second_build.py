"""A build of what is there already makes nothing."""

from __future__ import annotations

from cornerstone.factory.build import build
from cornerstone.factory.settings import Workspace
from cornerstone.model.profile import load_profile


def test_nothing_is_made_twice(iso, request):
    root, events = request.config.rootpath, []
    before = iso.stat()
    assert build(Workspace(root), load_profile("aos-6.8", root), events.append) == iso
    assert [(event.step, event.state) for event in events] == [("iso", "cached")]
    assert (iso.stat().st_ino, iso.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_lost_iso_is_mastered_again_from_the_layers(iso, request):
    root, events = request.config.rootpath, []
    content = iso.read_bytes()
    iso.unlink()
    assert build(Workspace(root), load_profile("aos-6.8", root), events.append) == iso
    assert {event.step for event in events if event.state == "done"} == {"iso"}
    assert iso.read_bytes() == content

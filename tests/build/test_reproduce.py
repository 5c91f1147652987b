"""The same bytes anywhere, and without a network: the second build has no interface but its own idle loopback."""

from __future__ import annotations

import re

from cornerstone.factory.build.progress import Progress
from cornerstone.factory.build.reproduce import reproduce
from cornerstone.factory.settings import Workspace
from cornerstone.model.profile.profile import load_profile

PROFILE = "aos-6.8"


def test_other_surroundings_and_no_network_give_the_same_bytes(iso, request):
    workspace = Workspace(request.config.rootpath)
    with Progress() as show:
        assert reproduce(workspace, load_profile(PROFILE, workspace.root), show) == []
    said = (iso.parent / "logs" / "reproduce.log").read_text()
    assert re.findall("^interface: (.*)$", said, re.MULTILINE) == ["lo"]
    assert re.search("^✓ hypervisor ", said, re.MULTILINE), "it was made there, not found"

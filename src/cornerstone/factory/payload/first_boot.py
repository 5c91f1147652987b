"""The first-boot script of a profile's nodes, kickstart-style: one shell script, its steps in order."""

from __future__ import annotations

from cornerstone.factory.payload.render import render
from cornerstone.lib.event import PORT
from cornerstone.model.contracts.network import HOST_INTERNAL, INTERNAL, INTERNAL_BRIDGE
from cornerstone.model.contracts.places import EVENTS_FILE, STATE
from cornerstone.model.profile.profile import Profile

# In this order; each is a function of the same name in the template.
STEPS = ("identity", "networks", "access", "cvm", "start_cvm")


def script(profile: Profile) -> str:
    """Return the text of the first-boot script for a profile."""
    return render("first-boot.sh", profile=profile, steps=STEPS, state=STATE, port=PORT, bridge=INTERNAL_BRIDGE,
                  address=f"{HOST_INTERNAL}/{INTERNAL.prefixlen}", events=EVENTS_FILE)

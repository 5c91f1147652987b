"""The first-boot script of a profile's nodes, kickstart-style: one shell script, its steps in order."""

from __future__ import annotations

from cornerstone.factory.payload.render import render
from cornerstone.model.profile.profile import Profile

# In this order; each is a function of the same name in the template.
STEPS = ("identity", "networks", "access", "cvm", "start_cvm")


def script(profile: Profile) -> str:
    """The text of the first-boot script for a profile."""
    return render("first-boot.sh", profile=profile, steps=STEPS)

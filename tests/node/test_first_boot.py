"""A machine whose power is cut in every step of its first boot, before its cluster has formed."""

from __future__ import annotations

from cornerstone.factory.payload.first_boot import STEPS


def test_a_first_boot_that_is_cut_in_every_step_goes_on_and_repeats_no_other(cluster):
    """The last machine: the others meanwhile wait for it."""
    member = cluster.members[-1]
    for step in STEPS:
        member.wait_for("first-boot", step, "started")
        member.cut_power()
        member.power_on()
    member.wait_for("first-boot", "complete")
    told = [(event.step, event.state) for event in member.watch.events if event.stage == "first-boot"]
    assert told == [(STEPS[-1], "started"), (STEPS[-1], "done"), ("complete", "done")]

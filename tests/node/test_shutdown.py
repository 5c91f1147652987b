"""How a host ends. The last file to run: the others' guest and volume are removed by way of the host it turns off."""

from __future__ import annotations


def test_a_host_that_is_shut_down_ends_its_cvm_before(cluster, nodes):
    member = cluster.members[0]
    told = member.told()
    nodes[0].check_output("systemctl --no-block poweroff")
    member.wait_for("hypervisor", "shutdown", since=told)
    assert [event for event in member.watch.events[told:] if (event.step, event.state) == ("shutdown", "warning")] == []
    member.wait_until_off()

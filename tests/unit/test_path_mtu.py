"""The MTU between members, through real kernels: what gets through is found, and what doesn't is told."""

from __future__ import annotations

import os
import re
import time

import pytest

from cornerstone.cvm import genesis, path_mtu
from namespaces import cable, namespace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces takes root")

A, B, C = "10.20.0.21", "10.20.0.22", "10.20.0.23"


@pytest.fixture
def members():
    """Three members on a switch, all with an MTU of 9000; and what sets the MTU of the switch's port to the second."""
    with namespace() as first, namespace() as second, namespace() as third, namespace() as switch:
        switch.ip("link add bridge type bridge", "link set bridge up")
        for number, (member, address) in enumerate(((first, A), (second, B), (third, C))):
            cable(member, "eth0", f"02:00:5e:00:01:0{number}", switch, f"port{number}", f"02:00:5e:00:02:0{number}")
            switch.ip(f"link set port{number} mtu 9000 master bridge")
            member.ip("link set eth0 mtu 9000", f"addr add {address}/24 dev eth0", "link set lo up")
        yield first, second, switch


def test_m15_packets_of_the_mtu_get_through(members):
    first, second, _ = members
    began = time.monotonic()
    assert first.call(path_mtu.warnings, A, (A, B, C)) == second.call(path_mtu.warnings, B, (A, B, C)) == []
    assert first.call(path_mtu.mtu_of, A) == 9000 and first.call(path_mtu.mtu_of, "10.9.9.9") == 0
    assert time.monotonic() - began < path_mtu.ANSWER_SECONDS, "nothing is waited for when all has come"


@pytest.mark.parametrize("through", [1500, 8995])
def test_m15_a_smaller_mtu_between_is_told_by_the_pair_and_the_size_that_passes(members, through):
    first, second, switch = members
    switch.ip(f"link set port1 mtu {through}")
    [warning] = first.call(path_mtu.warnings, A, (A, B, C))
    assert warning.startswith(f"packets of 9000 bytes, this node's MTU, don't get through from {A} to {B}, only such "
                              f"of up to {through}; ")
    # what comes in at a port may be as much longer as a VLAN's tag is
    told = [re.search(rf"from {B} to (\S+), only such of up to (\d+);", each) for each in
            second.call(path_mtu.warnings, B, (A, B, C))]
    assert [each[1] for each in told] == [A, C]
    assert all(through <= int(each[2]) <= through + 4 for each in told)


def test_m15_what_the_kernel_has_learned_of_a_path_hides_nothing(members):
    first, _, switch = members
    first.ip(f"route add {B} dev eth0 mtu 1400")
    assert first.call(path_mtu.warnings, A, (A, B)) == []
    switch.ip("link set port1 mtu 1500")
    assert "up to 1500;" in first.call(path_mtu.warnings, A, (A, B))[0]


def test_m15_of_a_member_that_is_away_nothing_is_said(members):
    first, second, _ = members
    second.ip("link set eth0 down")
    assert first.call(path_mtu.warnings, A, (A, B, C)) == []


def test_m15_a_cluster_of_one_has_no_path():
    assert path_mtu.warnings(A, (A,)) == path_mtu.warnings(A, (A, B)) == []


def test_m15_genesis_warns_of_it(members, monkeypatch):
    first, _, switch = members
    switch.ip("link set port1 mtu 1500")

    class Member:
        address, members, said = A, (A, B, C), []

        def warn(self, message: str) -> None:
            self.said.append(message)
    node = Member()
    first.call(genesis.look_at_paths, node)
    assert len(node.said) == 1 and f"from {A} to {B}" in node.said[0]

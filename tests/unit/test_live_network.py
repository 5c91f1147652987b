"""The live environment's own network, between namespaces: a static address, a lease from a real server, no trace."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from ipaddress import IPv4Address, IPv4Interface

import pytest

from cornerstone.foundation.installer import live_network
from cornerstone.foundation.installer.live_network import configure, lease, links, static, temporary
from cornerstone.lib.error import Code, CornerstoneError
from namespaces import cable, namespace

root = pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces takes root")
OURS, SERVERS = "02:00:5e:00:01:01", "02:00:5e:00:02:01"
UDHCPD = """start 10.70.0.50
end 10.70.0.50
interface lan1
lease_file {folder}/leases
pidfile {folder}/pid
option subnet 255.255.255.0
option router 10.70.0.1
option dns 10.70.0.53 10.70.0.54
"""


@pytest.fixture
def pair():
    """A machine with two cards, the second of them on a server's."""
    with namespace() as node, namespace() as server:
        cable(node, "up0", OURS, server, "lan0", SERVERS)
        cable(node, "up1", "02:00:5e:00:01:02", server, "lan1", "02:00:5e:00:02:02")
        yield node, server


@pytest.fixture
def dhcp(pair, tmp_path):
    """DHCP on the second card only."""
    with serve_dhcp(pair[1], tmp_path):
        yield


@contextlib.contextmanager
def serve_dhcp(server, folder):
    """Serve DHCP on the interface lan1 of a namespace while the block runs."""
    server.ip("addr add 10.70.0.1/24 dev lan1")
    (folder / "conf").write_text(UDHCPD.format(folder=folder))
    process = server.call(subprocess.Popen, ["busybox", "udhcpd", "-f", str(folder / "conf")],
                          stderr=subprocess.PIPE, text=True)
    try:
        assert "started" in process.stderr.readline()
        yield
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def shown(place, what: str) -> list:
    return json.loads(place.call(subprocess.check_output, ["ip", "-4", "-json", *what.split()]))


@root
def test_the_card_that_gets_a_lease_is_used_and_left_as_it_was(pair, dhcp, tmp_path):
    node, _ = pair
    resolver = tmp_path / "resolv.conf"

    def inside():
        with temporary("", ["up0", "up1"], resolver) as how:
            return how, shown(node, "addr show up1"), shown(node, "route")

    how, cards, routes = node.call(inside)
    assert how == "up1 10.70.0.50/24, gateway 10.70.0.1, by DHCP"
    assert [card["local"] for card in cards[0]["addr_info"]] == ["10.70.0.50"]
    assert [route["gateway"] for route in routes if route["dst"] == "default"] == ["10.70.0.1"]
    assert resolver.read_text() == "nameserver 10.70.0.53\nnameserver 10.70.0.54\n"
    assert shown(node, "route") == [] and [card for card in shown(node, "addr show up1") if card.get("addr_info")] == []


@root
def test_m13_a_port_that_carries_nothing_for_the_first_18_s_is_waited_for(tmp_path):
    """A spanning tree's port listens and learns first, each for its forward delay."""
    with namespace() as node, namespace() as server:
        server.ip("link add lan1 type bridge stp_state 1 forward_delay 900", "link set lan1 up")
        with serve_dhcp(server, tmp_path):
            cable(node, "up1", OURS, server, "port", SERVERS)
            server.ip("link set port master lan1")
            assert node.call(lease, ["up1"])[:2] == ("up1", IPv4Interface("10.70.0.50/24"))


@root
def test_no_lease_is_an_error_that_names_the_argument(pair, monkeypatch):
    monkeypatch.setattr(live_network, "DHCP_TRIES", 1)
    monkeypatch.setattr(live_network, "DHCP_WAIT", 1)
    with pytest.raises(CornerstoneError, match="DHCP gave no address on up0, up1") as error:
        pair[0].call(lease, ["up0", "up1"])
    assert "foundation.address=" in error.value.hint and error.value.code is Code.NETWORK


@root
def test_a_static_address_is_used_and_taken_back_after_a_failure_too(pair, tmp_path):
    node, _ = pair

    def inside():
        with contextlib.suppress(KeyError), temporary("10.70.0.9/24", ["up0"], tmp_path / "resolv.conf") as how:
            assert how == "up0 10.70.0.9/24"
            assert [route["dst"] for route in shown(node, "route")] == ["10.70.0.0/24"]
            raise KeyError

    node.call(inside)
    assert shown(node, "route") == []
    assert not (tmp_path / "resolv.conf").exists()


@root
def test_a_nodes_address_stays(pair, tmp_path):
    node, _ = pair
    resolver = tmp_path / "resolv.conf"
    for _ in range(2):
        device = node.call(configure, "up0", IPv4Interface("10.70.0.11/24"), IPv4Address("10.70.0.1"),
                           [IPv4Address("10.70.0.53")], resolver=resolver)
    assert device == "up0" and resolver.read_text() == "nameserver 10.70.0.53\n"
    assert [card["local"] for card in shown(node, "addr show up0")[0]["addr_info"]] == ["10.70.0.11"]


@root
def test_what_the_kernel_does_not_take_is_told(pair):
    with pytest.raises(CornerstoneError, match="the network can't be set up: .*up9") as error:
        pair[0].call(configure, "up9", IPv4Interface("10.70.0.11/24"), None)
    assert error.value.code is Code.MACHINE


@root
def test_links(pair):
    node, server = pair
    server.ip("link set lan1 down")
    assert node.call(links) == {"lo": False, "up0": True, "up1": False}


def test_a_machine_without_a_link_can_not_fetch():
    with pytest.raises(CornerstoneError, match="no network card has a link"), temporary("", []):
        pass


@pytest.mark.parametrize(("argument", "expected"), [
    ("10.20.0.5/24,10.20.0.1", (IPv4Interface("10.20.0.5/24"), IPv4Address("10.20.0.1"))),
    ("10.20.0.5/255.255.255.0", (IPv4Interface("10.20.0.5/24"), None)),
])
def test_the_argument_for_an_address(argument, expected):
    assert static(argument) == expected


@pytest.mark.parametrize("argument", ["10.20.0.5", "10.20.0.5/33", "dhcp", "10.20.0.5/24,10.21.0.1", "127.0.0.1/8",
                                      "10.20.0.5/24,x", "/24"])
def test_what_is_no_address(argument):
    with pytest.raises(CornerstoneError, match="isn't an address in a network"):
        static(argument)

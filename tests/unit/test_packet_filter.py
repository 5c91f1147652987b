"""A14, A15: what a node's packet filters take, tried from every place in network namespaces with the real nft."""

from __future__ import annotations

import contextlib
import json
import re
import selectors
import socket
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.model.contracts.node import NodeConfig
from cornerstone.model.packet_filter import cvm_rules, host_rules
from namespaces import Namespace, cable, namespace

ROOT = Path(__file__).resolve().parents[2]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
HOST, CVM, STRANGER, MEMBER, MEMBERS_HOST = "10.20.0.11", "10.20.0.31", "10.20.0.99", "10.20.0.32", "10.20.0.12"
HOST_INSIDE, CVM_INSIDE = "192.168.5.1", "192.168.5.2"
# a stranger who answers for inner addresses on the outer network
FORGER = "192.168.5.77"
ALL_PORTS = range(1, 1 << 16)
# the rows of the document that are tried with all ports
WHOLLY = {("host", "outside"), ("CVM", "outside"), ("CVM", "another member")}
# of the services there are, of ones that there may be, and the neighbours of ranges
LIKELY = (22, 53, 80, 111, 123, 443, 2100, 2101, 2102, 3260, 3300, 5900, 6789, 6799, 6800, 7568, 7569, 9440, 16509)
IP_BIND_ADDRESS_NO_PORT = 24
# sockets at a time: fewer than a process may have open, and than packets wait for a card
BATCH = 900


def config() -> NodeConfig:
    read = NodeConfig.from_json((ROOT / "tests/data/nodes/passthrough.json").read_text())
    assert read.cluster
    return replace(read, authorized_keys=(KEY,), hypervisor=replace(read.hypervisor, address=f"{HOST}/24"),
                   cvm=replace(read.cvm, address=f"{CVM}/24"),
                   cluster=replace(read.cluster, members=(CVM, MEMBER), hosts=(HOST, MEMBERS_HOST)))


def load(where: Namespace, rules: str) -> None:
    subprocess.run(["ip", "netns", "exec", where.name, "nft", "--file", "-"], input=rules, text=True, check=True)


@contextlib.contextmanager
def node(rules: NodeConfig) -> Iterator[tuple[Namespace, Namespace, Namespace]]:
    """The world outside, the host and the CVM, with the cards' names of a node; the outer network is one bridge."""
    with namespace() as outside, namespace() as host, namespace() as cvm:
        outside.ip("link add lan type bridge", "link set lan up", "link set lo up")
        for number, (there, card) in enumerate(((host, "br0"), (cvm, "eth0"))):
            cable(outside, f"port{number}", f"02:00:00:00:01:0{number}", there, card, f"02:00:00:00:02:0{number}")
            outside.ip(f"link set port{number} master lan")
        cable(host, "virbr-internal", "02:00:00:00:03:01", cvm, "eth1", "02:00:00:00:03:02")
        host.ip(f"addr add {HOST}/24 dev br0", f"addr add {HOST_INSIDE}/24 dev virbr-internal", "link set lo up")
        cvm.ip(f"addr add {CVM}/24 dev eth0", f"addr add {CVM_INSIDE}/24 dev eth1", "link set lo up")
        outside.ip(*(f"addr add {address}/24 dev lan" for address in (STRANGER, MEMBER, MEMBERS_HOST)),
                   f"addr add {FORGER}/32 dev lan")
        load(host, host_rules(rules))
        load(cvm, cvm_rules(rules))
        yield outside, host, cvm


def open_ports(source: str, target: str, ports: range | tuple[int, ...]) -> set[int]:
    """Return the TCP ports of target on which a SYN from source is answered, open or refused; called where source is.

    What is answered is so at once, for the cards are the kernel's own; what is dropped never is.
    """
    answered = set()
    for start in range(0, len(ports), BATCH):
        with selectors.DefaultSelector() as waiting, contextlib.ExitStack() as stack:
            for port in ports[start:start + BATCH]:
                knocking = stack.enter_context(socket.socket())
                knocking.setblocking(False)
                knocking.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                knocking.bind((source, 0))
                knocking.connect_ex((target, port))
                waiting.register(knocking, selectors.EVENT_READ | selectors.EVENT_WRITE, port)
            while found := waiting.select(timeout=0.05):
                for key, _ in found:
                    waiting.unregister(key.fileobj)
                    error = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    # no route, and nobody who has the address, are no answers of the port
                    if error in (0, 111):
                        answered.add(key.data)
    return answered


def udp_answers(source: str, target: str, port: int) -> bool:
    """Whether a datagram gets through to a port where nobody listens: then the kernel says so."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.bind((source, 0))
        asking.connect((target, port))
        asking.settimeout(0.2)
        asking.send(b"?")
        try:
            asking.recv(1)
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            return False
    raise AssertionError("nobody listens, and somebody answered")


def documented() -> dict[tuple[str, str], tuple[set[int], set[int]]]:
    """The table in docs/network.md, by place and source: TCP and UDP ports."""
    lines = (ROOT / "docs/network.md").read_text().split("<!-- accepted:")[1].split("\n\n")[1].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {(at, source): (numbers(tcp), numbers(udp)) for at, source, tcp, udp in rows}


def numbers(text: str) -> set[int]:
    return {number for first, last in re.findall(r"(\d+)(?:-(\d+))?", text)
            for number in range(int(first), int(last or first) + 1)}


def test_a14_every_port_from_every_place_is_as_the_document_says():
    tried = {}
    for at, source, where, address, target, ports in (
            ("host", "outside", 0, STRANGER, HOST, ALL_PORTS),
            ("host", "its CVM, inside", 2, CVM_INSIDE, HOST_INSIDE, LIKELY),
            ("CVM", "outside", 0, STRANGER, CVM, ALL_PORTS), ("CVM", "another member", 0, MEMBER, CVM, ALL_PORTS),
            ("CVM", "a member's host", 0, MEMBERS_HOST, CVM, LIKELY),
            ("CVM", "its host, inside", 1, HOST_INSIDE, CVM_INSIDE, LIKELY)):
        # each in a world of its own: who was knocked at has to be answered by whom he knocks at
        with node(config()) as world:
            tcp = world[where].call(open_ports, address, target, ports)
            udp = {port for port in LIKELY if world[where].call(udp_answers, address, target, port)}
        tried[at, source] = tcp, udp
    assert tried == {key: (tcp if key in WHOLLY else tcp & set(LIKELY), udp)
                     for key, (tcp, udp) in documented().items()}


def test_a15_a_neighbour_reaches_no_internal_address():
    with node(config()) as (outside, _, _):
        outside.ip(f"route add {CVM_INSIDE}/32 via {CVM}", f"route add {HOST_INSIDE}/32 via {HOST}")
        for source in (STRANGER, MEMBER, MEMBERS_HOST, FORGER):
            for target in (CVM_INSIDE, HOST_INSIDE):
                assert outside.call(open_ports, source, target, LIKELY) == set(), (source, target)
        # nor is believed who says that he is inside
        outside.ip(f"route add {CVM}/32 dev lan", f"route add {HOST}/32 dev lan")
        for target in (CVM, HOST):
            assert outside.call(open_ports, FORGER, target, LIKELY) == set(), target


def test_a15_without_the_filter_a_neighbour_does():
    """What the filter is for: the kernel by itself answers, so the test above would see it."""
    with node(config()) as (outside, _, cvm):
        load(cvm, "flush ruleset")
        outside.ip(f"route add {CVM_INSIDE}/32 via {CVM}")
        assert outside.call(open_ports, STRANGER, CVM_INSIDE, LIKELY) == set(LIKELY)


def test_a14_a_node_forwards_nothing():
    with node(config()) as (outside, host, cvm):
        outside.ip(f"route add {CVM_INSIDE}/32 via {HOST}")
        cvm.ip(f"route add {STRANGER}/32 via {HOST_INSIDE}")
        subprocess.run(["ip", "netns", "exec", host.name, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"],
                       check=True)
        assert outside.call(open_ports, STRANGER, CVM_INSIDE, LIKELY) == set()


@pytest.mark.parametrize(("sources", "keys", "from_near", "from_far"), [
    (("0.0.0.0/0",), (KEY,), True, True), (("10.20.0.0/28", "10.20.0.99/32"), (KEY,), True, False),
    (("172.16.0.0/12",), (KEY,), False, False), ((), (KEY,), False, False), (("0.0.0.0/0",), (), False, False)])
def test_a14_ssh_is_open_as_the_site_wants_it(sources, keys, from_near, from_far):
    with node(replace(config(), ssh_from=sources, authorized_keys=keys)) as (outside, host, _):
        for target in (HOST, CVM):
            for source, taken in ((STRANGER, from_near), (MEMBER, from_far)):
                assert (22 in outside.call(open_ports, source, target, (22,))) == taken, (source, target)
        # from its host a CVM can be reached in any case
        assert host.call(open_ports, HOST_INSIDE, CVM_INSIDE, (22,)) == {22}


def test_a14_a_node_without_a_cluster_lets_nobody_in_but_ssh():
    with node(replace(config(), cluster=None)) as (outside, _, _):
        for source in (STRANGER, MEMBER, MEMBERS_HOST):
            assert outside.call(open_ports, source, CVM, LIKELY) == {22}


def test_a14_the_only_member_has_no_rule_for_others():
    one = config()
    with node(replace(one, cluster=replace(one.cluster, members=(CVM,), hosts=(HOST,)))) as (outside, _, _):
        assert outside.call(open_ports, MEMBER, CVM, LIKELY) == {22}
        assert not outside.call(udp_answers, MEMBER, CVM, 123)


def test_a14_what_an_image_has_before_it_knows_its_node_takes_nothing():
    closed = (ROOT / "elements/base/static/etc/nftables.conf").read_text()
    with node(config()) as (outside, host, cvm):
        load(host, closed)
        load(cvm, closed)
        assert outside.call(open_ports, STRANGER, HOST, LIKELY) == set()
        assert host.call(open_ports, HOST_INSIDE, CVM_INSIDE, LIKELY) == set()
        # what it asks itself is answered, as its DHCP and its site are
        assert host.call(open_ports, HOST, STRANGER, LIKELY) == set(LIKELY)


def echo(source: str, target: str) -> bool:
    """Whether a ping is answered within ten seconds (RFC 792: type 8 asks, type 0 answers)."""
    asked = struct.pack(">BBHHH", 8, 0, 0xffff - 0x0800 - 1, 0, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as pinging:
        pinging.bind((source, 0))
        pinging.settimeout(10)
        pinging.sendto(asked, (target, 0))
        answer, (address, _) = pinging.recvfrom(128)
    return address == target and answer[20] == 0


def test_pings_are_answered():
    with node(config()) as (outside, _, _):
        assert all(outside.call(echo, STRANGER, target) for target in (HOST, CVM))


def test_a_node_json_without_hosts_shuts_the_data_path_to_the_outside():
    record = json.loads(config().to_json())
    del record["cluster"]["hosts"]
    with node(NodeConfig.from_json(json.dumps(record))) as (outside, _, _):
        assert outside.call(open_ports, MEMBERS_HOST, CVM, LIKELY) == {22}

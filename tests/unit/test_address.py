"""A node's addresses on the wire: probes between network namespaces, with real kernels and raw frames answering."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from cornerstone.foundation.installer import address
from cornerstone.foundation.installer.address import Conflict, addresses, check, duplicates, link_up
from cornerstone.lib.error import CornerstoneError
from cornerstone.model.contracts.facts import Nic
from cornerstone.model.site.file import read_site
from cornerstone.model.site.site import Bmc, Uplink
from namespaces import Namespace, cable, namespace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces takes root")

ROOT = Path(__file__).resolve().parents[2]
OURS, THEIRS = "02:00:5e:00:01:01", "02:00:5e:00:02:01"
NIC = Nic("up0", OURS)
LATE, PROBER, LOUD = "02:00:5e:00:02:10", "02:00:5e:00:02:20", "02:00:5e:00:02:30"
TAG = 140


def ip(text: str) -> IPv4Address:
    return IPv4Address(text)


def lab_site(**cluster):
    document = json.loads((ROOT / "sites/lab-three-nodes.json").read_text())
    document["clusters"][0].update(cluster)
    return read_site(json.dumps(document).encode())


@pytest.fixture
def pair():
    """A node's network and another machine's, with a cable."""
    with namespace() as node, namespace() as other:
        cable(node, "up0", OURS, other, "lan0", THEIRS)
        yield node, other


@pytest.fixture(autouse=True)
def forwarding(monkeypatch):
    """Ports that carry from the start, where a test doesn't say otherwise."""
    monkeypatch.setattr(address, "FORWARD_SECONDS", 0.0)


@pytest.fixture
def quick(monkeypatch):
    """For answers that come at once or never."""
    monkeypatch.setattr(address, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr(address, "ANNOUNCE_SECONDS", 0.5)


class Speaker:
    """A machine on a cable that speaks ARP as it is told, in a VLAN: for what no kernel does on request.

    answer(address, seen): what to send upon the seen-th probe for an address, as (sender MAC, sender address, target
    address, operation) after a delay, or None.
    """

    def __init__(self, place: Namespace, nic: str, vlan: int, answer) -> None:
        self._line = place.call(self._open, nic)
        self._vlan, self._answer = vlan, answer
        self._seen: dict[str, int] = {}
        self._timers: list[threading.Timer] = []
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._listen)

    @staticmethod
    def _open(nic: str) -> socket.socket:
        line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        line.bind((nic, 3))
        line.setsockopt(address.SOL_PACKET, address.PACKET_AUXDATA, 1)
        return line

    def __enter__(self) -> Speaker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._stopped, b"x")
        self._thread.join()
        for timer in self._timers:
            timer.cancel()
            timer.join()
        self._line.close()
        os.close(self._stop)
        os.close(self._stopped)

    def _listen(self) -> None:
        while True:
            ready = address.select.select([self._line, self._stop], [], [])[0]
            if self._stop in ready:
                return
            frame, extra, _, sender = self._line.recvmsg(2048, 64)
            if sender[2] == address.PACKET_OUTGOING or frame[12:14] != b"\x08\x06" or address._tag(extra) != self._vlan:
                continue
            assert frame[28:32] == bytes(4), "a probe has no sender address"
            target = socket.inet_ntoa(frame[38:42])
            self._seen[target] = self._seen.get(target, 0) + 1
            if told := self._answer(target, self._seen[target]):
                delay, *arp = told
                timer = threading.Timer(delay, self._say, arp)
                self._timers.append(timer)
                timer.start()

    def _say(self, mac: str, sender: str, target: str, operation: int) -> None:
        source = bytes.fromhex(mac.replace(":", ""))
        tag = struct.pack("!HH", 0x8100, self._vlan) if self._vlan else b""
        self._line.send(b"\xff" * 6 + source + tag + b"\x08\x06" + address.ETHERNET_IPV4 + struct.pack(
            "!H6s4s6s4s", operation, source, socket.inet_aton(sender), bytes(6), socket.inet_aton(target)))


def answers(target: str, seen: int):
    """10: answers the third probe a second and a half late. 20: probes too. 30: announces itself. 40: nobody."""
    return {"10.60.0.10": seen == 3 and (1.5, LATE, target, "0.0.0.0", 2),
            "10.60.0.20": seen == 1 and (0, PROBER, "0.0.0.0", target, 1),
            "10.60.0.30": seen == 2 and (0, LOUD, target, target, 1)}.get(target)


WANTED = [ip(f"10.60.0.{last}") for last in (10, 20, 30, 40)]
FOUND = [Conflict(ip("10.60.0.10"), LATE, "up0"), Conflict(ip("10.60.0.20"), PROBER, "up0"),
         Conflict(ip("10.60.0.30"), LOUD, "up0")]


@pytest.mark.parametrize("vlan", [0, TAG])
def test_whoever_answers_late_or_probes_or_announces_is_a_conflict(pair, vlan):
    node, other = pair
    with Speaker(other, "lan0", vlan, answers):
        assert node.call(duplicates, WANTED, [NIC], vlan=vlan) == FOUND


@pytest.mark.parametrize(("ours", "theirs"), [(0, TAG), (TAG, 0), (TAG, TAG + 1)])
def test_another_vlan_is_another_network(pair, quick, ours, theirs):
    node, other = pair
    with Speaker(other, "lan0", theirs, answers):
        assert node.call(duplicates, WANTED, [NIC], vlan=ours) == []


def test_a_kernel_that_has_the_address_answers_on_each_card_that_reaches_it(pair):
    node, other = pair
    cable(node, "up1", "02:00:5e:00:01:02", other, "lan1", "02:00:5e:00:02:02")
    other.ip("addr add 10.60.0.11/24 dev lan0")
    second = replace(NIC, name="up1", mac="02:00:5e:00:01:02")
    began = time.monotonic()
    found = node.call(duplicates, [ip("10.60.0.11"), ip("10.60.0.12")], [NIC, second])
    assert time.monotonic() - began >= 4, "RFC 5227's waits are kept"
    # Linux answers on lan1 for an address of lan0 as well, with lan1's MAC
    assert found == [Conflict(ip("10.60.0.11"), THEIRS, "up0"),
                     Conflict(ip("10.60.0.11"), "02:00:5e:00:02:02", "up1")]
    assert str(found[0]) == f"10.60.0.11 is in use by {THEIRS}, heard on up0"


def test_this_machines_own_cards_are_no_conflict(pair, quick):
    """Two uplinks in one network hear each other's probes, and the kernel answers for what the live system has."""
    node, other = pair
    cable(node, "up1", "02:00:5e:00:01:02", other, "lan1", "02:00:5e:00:02:02")
    other.ip("link add bridge type bridge", "link set bridge up", "link set lan0 master bridge",
             "link set lan1 master bridge")
    node.ip("addr add 10.60.0.11/24 dev up0")
    second = replace(NIC, name="up1", mac="02:00:5e:00:01:02")
    assert node.call(duplicates, [ip("10.60.0.11")], [NIC, second]) == []


# what a node refuses and says

THREE = lab_site()
FIRST = replace(THREE.nodes[0], uplink=Uplink((OURS,)))


def test_a_duplicate_is_refused_by_role_address_mac_and_card(pair, quick):
    node, other = pair
    other.ip(f"addr add {FIRST.cvm} dev lan0", f"addr add {THREE.hypervisor_gateway}/24 dev lan0")
    with pytest.raises(CornerstoneError) as error:
        node.call(check, THREE, FIRST, [NIC])
    assert error.value.message == (f"address.duplicate: {FIRST.hostname}'s CVM address {FIRST.cvm.ip} is in use "
                                   f"by {THEIRS}, heard on up0")
    assert "MAC" in error.value.hint


def test_several_duplicates_are_told_at_once(pair, quick):
    node, other = pair
    other.ip(f"addr add {FIRST.cvm} dev lan0", f"addr add {FIRST.hypervisor} dev lan0")
    with pytest.raises(CornerstoneError, match="2 addresses can.t be used") as error:
        node.call(check, THREE, FIRST, [NIC])
    assert f"\n  hypervisor {FIRST.hypervisor.ip} is in use by {THEIRS}, heard on up0" in error.value.message
    assert f"\n  CVM {FIRST.cvm.ip} is in use" in error.value.message


def test_free_addresses_and_a_gateway_that_answers(pair, quick):
    node, other = pair
    other.ip(f"addr add {THREE.hypervisor_gateway}/24 dev lan0")
    assert node.call(check, THREE, FIRST, [NIC]) == []


def test_a_gateway_that_does_not_answer_is_a_warning(pair, quick):
    node, _ = pair
    [warning] = node.call(check, THREE, replace(FIRST, uplink=Uplink((OURS,), vlan=TAG)), [NIC])
    assert warning.startswith(f"the gateway {THREE.hypervisor_gateway} didn't answer on up0 in VLAN {TAG}: ")


@pytest.fixture
def spanning_tree(monkeypatch):
    """A node at a bridge's port that carries nothing for the first 4 s of its link; behind it the gateway."""
    monkeypatch.setattr(address, "FORWARD_SECONDS", 20.0)
    with namespace() as node, namespace() as switch, namespace() as other:
        cable(switch, "port0", "02:00:5e:00:03:01", other, "lan0", THEIRS)
        switch.ip("link add bridge type bridge stp_state 1 forward_delay 200", "link set bridge up",
                  "link set port0 master bridge")
        other.ip(f"addr add {THREE.hypervisor_gateway}/24 dev lan0")

        def plug_in() -> None:
            cable(node, "up0", OURS, switch, "port1", "02:00:5e:00:03:02")
            switch.ip("link set port1 master bridge")
        yield node, other, plug_in


def test_m12_behind_a_spanning_tree_a_duplicate_is_still_heard(spanning_tree):
    node, other, plug_in = spanning_tree
    other.ip(f"addr add {FIRST.hypervisor} dev lan0")
    plug_in()
    said = []
    with pytest.raises(CornerstoneError, match=f"hypervisor address {FIRST.hypervisor.ip} is in use by {THEIRS}"):
        node.call(check, THREE, FIRST, [NIC], said.append)
    assert said and set(said) == {f"the gateway {THREE.hypervisor_gateway} is silent; a switch's port may need 20 s"}


def test_m12_behind_a_spanning_tree_free_addresses_are_found_free(spanning_tree):
    node, _, plug_in = spanning_tree
    plug_in()
    assert node.call(check, THREE, FIRST, [NIC]) == []


def test_the_clusters_addresses_are_the_first_members_to_check():
    site = lab_site(cluster_external_ip="10.20.0.30", cornerstone={"data_services_ip": "10.20.0.31"})
    own = {site.nodes[0].hypervisor.ip: "hypervisor", site.nodes[0].cvm.ip: "CVM"}
    assert addresses(site, site.nodes[0]) == {**own, ip("10.20.0.30"): "cluster", ip("10.20.0.31"): "data services"}
    assert list(addresses(site, site.nodes[1]).values()) == ["hypervisor", "CVM"]
    joins = lab_site(cluster_external_ip="10.20.0.30", cluster_init_now=False)
    assert list(addresses(joins, joins.nodes[0]).values()) == ["hypervisor", "CVM"]


# the BMC's address

BMC_MAC = "02:00:5e:00:02:b3"


def with_bmc(address: str, **fields):
    bmc = Bmc(IPv4Interface(address), THREE.hypervisor_gateway, "", **{"configure": True, **fields})
    return replace(FIRST, bmc=bmc)


@pytest.fixture
def beside(pair):
    """A node's network, and another's with the gateway and 10.20.0.111, whose MAC is THEIRS."""
    node, other = pair
    other.ip(f"addr add {THREE.hypervisor_gateway}/24 dev lan0", "addr add 10.20.0.111/24 dev lan0")
    return node


def test_m17_the_bmcs_new_address_in_use_elsewhere_is_refused(beside, quick):
    said = rf"address\.duplicate: .* BMC address 10\.20\.0\.111 is in use by {THEIRS}"
    with pytest.raises(CornerstoneError, match=said):
        beside.call(check, THREE, with_bmc("10.20.0.111/24"), [NIC], bmc_macs=[BMC_MAC])


@pytest.mark.parametrize(("node", "macs", "warning"), [
    (with_bmc("10.20.0.112/24"), [BMC_MAC], ""),
    (with_bmc("10.20.0.111/24"), [BMC_MAC, THEIRS], ""),
    (with_bmc("10.20.0.111/32", configure=False), [], ""),
    (with_bmc("10.77.0.11/24"), [BMC_MAC], "10.77.0.11 is free wasn't asked: it isn't in the node's own network"),
    (with_bmc("10.20.0.111/24"), [], "10.20.0.111 is free wasn't asked: the BMC's own MAC isn't known"),
], ids=["free", "the BMC has it already", "only compared", "another network", "its MAC unknown"])
def test_m17_the_bmcs_new_address_is_free_or_nobody_can_be_asked(beside, quick, node, macs, warning):
    # the gateway is the same machine here, so it isn't heard either where its MAC is the BMC's
    said = [each for each in beside.call(check, THREE, node, [NIC], bmc_macs=macs) if "the gateway" not in each]
    assert len(said) == bool(warning) and all(warning in each for each in said)


# uplinks

OTHER_NIC = Nic("up1", "02:00:5e:00:01:02")
BMCS_NIC = Nic("usb0", "02:00:5e:00:01:03", usb=True)


def test_uplinks_are_the_named_cards_with_a_link_else_all(pair):
    node, other = pair
    cable(node, "up1", OTHER_NIC.mac, other, "lan1", "02:00:5e:00:02:02")
    cable(node, "usb0", BMCS_NIC.mac, other, "bmc0", "02:00:5e:00:02:03")
    nics = [NIC, OTHER_NIC, BMCS_NIC]
    node.ip("link set up1 down")
    assert node.call(link_up, replace(FIRST, uplink=Uplink()), nics) == [NIC, OTHER_NIC]
    assert node.call(link_up, replace(FIRST, uplink=Uplink((OTHER_NIC.mac,))), nics) == [OTHER_NIC]
    permanent = replace(NIC, mac="02:00:5e:00:01:ff", permanent_mac=OURS)
    assert node.call(link_up, FIRST, [permanent, OTHER_NIC]) == [permanent]


def test_a_link_that_comes_late_is_waited_for(pair):
    node, other = pair
    other.ip("link set lan0 down")
    later = threading.Timer(0.5, other.ip, ("link set lan0 up",))
    later.start()
    assert node.call(link_up, FIRST, [NIC], seconds=60) == [NIC]
    later.join()


def test_a_second_uplink_without_a_link_is_a_warning(pair, quick):
    node, other = pair
    cable(node, "up1", OTHER_NIC.mac, other, "lan1", "02:00:5e:00:02:02")
    other.ip("link set lan1 down", f"addr add {THREE.hypervisor_gateway}/24 dev lan0")
    both = replace(FIRST, uplink=Uplink((OURS, OTHER_NIC.mac)))
    assert node.call(check, THREE, both, [NIC, OTHER_NIC]) == [f"uplink {OTHER_NIC.mac} has no link"]


@pytest.mark.parametrize(("uplink", "nics", "message"), [
    (Uplink((OURS,)), [NIC], f"address.link: no uplink of {FIRST.hostname} has a link: up0 {OURS}"),
    (Uplink(), [BMCS_NIC], f"address.link: no uplink of {FIRST.hostname} has a link: it has no network card"),
    (Uplink(("02:00:5e:00:09:09", OURS)), [NIC],
     f"address.uplink: 02:00:5e:00:09:09 of {FIRST.hostname} isn't in this machine"),
])
def test_a_node_without_a_link_is_refused(pair, uplink, nics, message):
    node, other = pair
    other.ip("link set lan0 down")
    with pytest.raises(CornerstoneError) as error:
        node.call(link_up, replace(FIRST, uplink=uplink), nics, seconds=0)
    assert error.value.message == message and error.value.hint

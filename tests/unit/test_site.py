"""What a site means: which node a machine is, and which disks a choice fits."""

import json
from pathlib import Path

import pytest

from cornerstone.lib.error import CornerstoneError
from cornerstone.model.site.file import read_site
from cornerstone.model.site.site import DiskChoice, cvm_name

ROOT = Path(__file__).resolve().parents[2]


def node(position: str, number: int, **more) -> dict:
    return {"node_position": position, "hypervisor_hostname": f"n{number}", "hypervisor_ip": f"10.0.0.1{number}",
            "cvm_ip": f"10.0.0.2{number}", **more}


def macs(*found: str) -> dict:
    return {"cornerstone": {"nic_macs": list(found)}}


MIXED = read_site(json.dumps({
    "cvm_gateway": "10.0.0.1", "cvm_netmask": "255.255.255.0", "hypervisor_gateway": "10.0.0.1",
    "hypervisor_netmask": "255.255.255.0", "ipmi_netmask": "255.255.255.0", "ipmi_gateway": "10.9.0.1",
    "blocks": [
        {"block_id": "B1", "nodes": [node("A", 1, node_serial="S1"), node("B", 2), node("C", 3, **macs(
            "52:54:00:00:00:03"))]},
        {"nodes": [node("A", 4, **macs("52:54:00:00:00:04", "52:54:00:00:00:14")),
                   node("B", 5, node_serial="S5", **macs("52:54:00:00:00:05")),
                   node("C", 6, ipmi_ip="10.9.0.16", ipmi_mac="52:54:00:00:00:f6")]}],
}).encode())


@pytest.mark.parametrize(("machine", "expected"), [
    ({"serial": "S1"}, "n1"), ({"serial": " s1 "}, "n1"), ({"serial": "S5", "macs": ["52:54:00:00:00:05"]}, "n5"),
    ({"serial": "S1", "block": "B1", "position": "A"}, "n1"),
    ({"block": "B1", "position": "B"}, "n2"), ({"block": "b1", "position": "b", "serial": "unlisted"}, "n2"),
    ({"macs": ["52:54:00:00:00:03"]}, "n3"), ({"macs": ["aa:00:00:00:00:00", "52:54:00:00:00:14"]}, "n4"),
    ({"macs": ["52:54:00:00:00:04", "52:54:00:00:00:14"]}, "n4"), ({"macs": ["52:54:00:00:00:0A", "52:54:00:00:00:F6"]},
                                                                    "n6"),
    ({"macs": ["52:54:00:00:00:05"]}, "n5"),
])
def test_a_machine_is_exactly_one_node(machine, expected):
    assert MIXED.node_for(**machine).hostname == expected


@pytest.mark.parametrize(("machine", "said"), [
    ({}, "no node of the site matches this machine (serial unknown; block unknown; position unknown; MACs unknown)"),
    ({"serial": "S9"}, "no node of the site matches this machine (serial S9;"),
    ({"block": "B1"}, "no node of the site matches"),
    ({"position": "A"}, "no node of the site matches"),
    ({"block": "B2", "position": "A"}, "no node of the site matches"),
    ({"serial": "S1", "block": "B1", "position": "B"}, "2 nodes of the site match"),
    ({"serial": "S1", "macs": ["52:54:00:00:00:04"]}, "2 nodes of the site match"),
    ({"macs": ["52:54:00:00:00:04", "52:54:00:00:00:03"]}, "2 nodes of the site match"),
    ({"serial": "S9", "block": "B1", "position": "A"},
     "n1 (block B1, position A, serial S1): matches by block and position, but its serial is another"),
    ({"serial": "S9", "macs": ["52:54:00:00:00:05"]},
     "n5 (position B, serial S5, MAC 52:54:00:00:00:05): matches by MAC, but its serial is another"),
])
def test_none_or_two_are_refused_with_all_candidates(machine, said):
    with pytest.raises(CornerstoneError) as caught:
        MIXED.node_for(**machine)
    assert said in caught.value.message
    for each in MIXED.nodes:
        assert f"\n  {each}" in caught.value.message
    assert caught.value.hint


DISK = {"serial": "S1", "wwn": "0x5000C500DEADBEEF", "model": "SATADOM-SL 3IE3", "size": 64 * 10**9}


@pytest.mark.parametrize(("choice", "fits"), [
    (DiskChoice(), True), (DiskChoice(serial="S1"), True), (DiskChoice(serial="s1"), False),
    (DiskChoice(serial="S"), False), (DiskChoice(wwn="0x5000c500deadbeef"), True), (DiskChoice(wwn="0x5"), False),
    (DiskChoice(model="SATADOM-SL 3IE3"), True), (DiskChoice(model="SATADOM*"), True), (DiskChoice(model="SATADOM"),
                                                                                         False),
    (DiskChoice(min_size=64 * 10**9), True), (DiskChoice(min_size=64 * 10**9 + 1), False),
    (DiskChoice(max_size=64 * 10**9), True), (DiskChoice(max_size=64 * 10**9 - 1), False),
    (DiskChoice(serial="S1", model="OTHER*"), False), (DiskChoice(serial="S1", model="SATA*", max_size=10**12), True),
])
def test_a_disk_choice_fits_when_all_of_it_does(choice, fits):
    assert choice.fits(**DISK) is fits


@pytest.mark.parametrize(("parts", "name"), [
    (("15SM65260061", "S", "h", "C"), "NTNX-15SM65260061-C-CVM"), (("", "9c7104c4", "h", "A"), "NTNX-9c7104c4-A-CVM"),
    (("", "", "edge-1.example.net", "A"), "NTNX-edge-1-A-CVM"), (("", "a b/c_d", "h", "A"), "NTNX-a-b-c-d-A-CVM"),
    (("", "x" * 64, "h", "A"), f"NTNX-{'x' * 40}-A-CVM"),
])
def test_a_cvm_s_name(parts, name):
    assert cvm_name(*parts) == name


def test_a_node_without_a_cluster():
    assert MIXED.cluster_of(MIXED.nodes[0]) is None

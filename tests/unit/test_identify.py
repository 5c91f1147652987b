"""Which node a machine is: by serial, chassis and slot, a network card of its own, or its BMC's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.foundation.installer.identify import identify
from cornerstone.lib.error import CornerstoneError
from cornerstone.model.contracts.facts import Bmc, Clock, Cpu, Dmi, Facts, Firmware, Nic
from cornerstone.model.site.file import read_site

ROOT = Path(__file__).resolve().parents[2]


def site():
    """Three nodes: A known by its serial, B by chassis and slot, C by its BMC's MAC and a card's."""
    document = json.loads((ROOT / "sites/lab-three-nodes.json").read_text())
    document |= {"ipmi_netmask": "255.255.255.0", "ipmi_gateway": "10.21.0.1"}
    a, b, c = (node for block in document["blocks"] for node in block["nodes"])
    for node in (a, b, c):
        node.pop("node_serial", None)
        node.pop("cornerstone", None)
    a["node_serial"] = "SN-A"
    c |= {"ipmi_ip": "10.21.0.13", "ipmi_mac": "02:00:5e:00:0c:ff", "cornerstone": {"nic_macs": ["02:00:5e:00:0c:01"]}}
    document["blocks"] = [{"block_id": "CHASSIS", "nodes": [a, b, c]}]
    return read_site(json.dumps(document).encode())


def facts(dmi: Dmi, macs: tuple[str, ...] = (), permanent: str = "", bmc: str = "") -> Facts:
    nics = tuple(Nic(f"eno{number}", mac, permanent) for number, mac in enumerate(macs))
    return Facts(dmi, Firmware("bios"), Cpu("x", 1, 1, 1), 1 << 30, Clock(0), nics=nics, bmc=Bmc(bool(bmc), mac=bmc))


@pytest.mark.parametrize(("machine", "index"), [
    (facts(Dmi(serial="SN-A")), 0),
    (facts(Dmi(serial="other", chassis_serial="chassis", position="B")), 1),
    (facts(Dmi(), ("02:00:5E:00:0C:01",)), 2),
    (facts(Dmi(), ("02:00:5e:00:99:99",), "02:00:5e:00:0c:01"), 2),
    (facts(Dmi(), bmc="02:00:5e:00:0c:ff"), 2),
    (replace(facts(Dmi()), bmc=Bmc(True, mac="02:00:5e:00:0c:01", other_macs=("02:00:5e:00:0c:ff",))), 2),
], ids=["serial", "chassis and slot", "card", "card with another MAC for now", "BMC", "BMC of several channels m16"])
def test_a_machine_is_found(machine, index):
    assert identify(site(), machine) == site().nodes[index]


@pytest.mark.parametrize(("machine", "reason"), [
    (facts(Dmi(serial="SN-X"), ("02:00:5e:00:99:99",)), "no node of the site matches this machine (serial SN-X"),
    (facts(Dmi()), "no node of the site matches this machine (serial unknown"),
    (facts(Dmi(serial="SN-A"), bmc="02:00:5e:00:0c:ff"), "2 nodes of the site match"),
    (facts(Dmi(serial="SN-X", chassis_serial="CHASSIS", position="A")), "but its serial is another"),
])
def test_a_machine_that_is_none_or_two_is_refused(machine, reason):
    with pytest.raises(CornerstoneError) as error:
        identify(site(), machine)
    assert reason in error.value.message

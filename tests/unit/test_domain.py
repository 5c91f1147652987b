"""The Controller VM's domain: node.json and a host's facts in, libvirt's XML out, compared with recorded ones.

After a change that is meant: PYTHONPATH=src:tests/unit python tests/unit/test_domain.py writes tests/data/nodes/*.xml
anew; the image tests hold them against both suites' own libvirt schema.
"""

from __future__ import annotations

import base64
import json
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.hypervisor.domain import domain_xml, main
from cornerstone.hypervisor.host import BlockDevice, Host, NumaNode
from cornerstone.model.contracts.node import NodeConfig

NODES = Path(__file__).resolve().parents[1] / "data/nodes"
TWO_NODES = (NumaNode(0, "0-9,20-29", 20, 10), NumaNode(1, "10-19,30-39", 20, 10))
ONE_NODE = (NumaNode(0, "0-7", 8, 4),)
DISKS = {"S4EVNX0R100001": BlockDevice("/dev/disk/by-id/wwn-0x5002538e40b5ad1f", True),
         "PHLJ100001": BlockDevice("/dev/disk/by-id/nvme-eui.01000000010000005cd2e4b5e7025051", False)}
HOSTS = {"passthrough": Host(TWO_NODES, TWO_NODES[1], secret="/var/lib/cornerstone/bootstrap-secret",
                             initiator="/var/lib/cornerstone/initiator.json"),
         "bond-and-single-disks": Host(ONE_NODE, None, DISKS)}


def config(name: str = "passthrough", **cvm: object) -> NodeConfig:
    node = NodeConfig.from_json((NODES / f"{name}.json").read_text())
    return replace(node, cvm=replace(node.cvm, **cvm))


def domain(node: NodeConfig, host: Host) -> ET.Element:
    return ET.fromstring(domain_xml(node, host))


@pytest.mark.parametrize("name", HOSTS)
def test_as_recorded(name):
    assert domain_xml(config(name), HOSTS[name]) == (NODES / f"{name}.xml").read_text()


def test_controllers_are_passed_whole():
    addresses = domain(config(), HOSTS["passthrough"]).findall("devices/hostdev/source/address")
    assert [address.attrib for address in addresses] == [
        {"domain": "0x0000", "bus": "0x3b", "slot": "0x00", "function": "0x0"},
        {"domain": "0x0001", "bus": "0xaf", "slot": "0x1f", "function": "0x7"}]


def test_memory_is_left_to_vfio_to_pin():
    """Locked as well, it counts twice against the limit, and QEMU doesn't start (tests/node sees that)."""
    tree = domain(config(), HOSTS["passthrough"])
    assert int(tree.findtext("memory")) == 20 << 20
    assert (tree.find("memoryBacking"), tree.find("memtune")) == (None, None)


@pytest.mark.parametrize(("vcpus", "host", "expected", "cpuset"), [
    (8, Host(TWO_NODES, TWO_NODES[1]), "8", "10-19,30-39"),
    (0, Host(TWO_NODES, TWO_NODES[0]), "10", "0-9,20-29"),
    (24, Host(TWO_NODES, TWO_NODES[0]), "24", None),
    (8, Host(TWO_NODES), "8", None),
    (8, Host(ONE_NODE, ONE_NODE[0]), "8", None),
    (0, Host(ONE_NODE, ONE_NODE[0]), "8", None),
    (0, Host((NumaNode(0, "0-1", 2, 2),)), "2", None),
    (0, Host(()), "1", None),
], ids=["given", "by the rule", "no room on the node", "no node is nearest", "one node", "one node, by the rule",
        "small machine", "no NUMA"])
def test_cpus(vcpus, host, expected, cpuset):
    tree = domain(config(vcpus=vcpus), host)
    assert (tree.findtext("vcpu"), tree.find("vcpu").get("cpuset")) == (expected, cpuset)
    assert (tree.find("numatune/memory") is not None) == (cpuset is not None)


def test_many_single_disks_have_names_of_their_own():
    disks = {f"S{number}": BlockDevice(f"/dev/disk/by-id/wwn-{number}", number % 2 == 0) for number in range(60)}
    tree = domain(config(scsi=tuple(disks)), Host((), None, disks))
    targets = [target.get("dev") for target in tree.findall("devices/disk/target")]
    assert len(set(targets)) == len(targets) == 61
    assert {"vda", "vdb", "vdae", "sda", "sdad"} <= set(targets)


def test_node_json_arrives_as_it_was():
    node = config()
    entry = domain(node, HOSTS["passthrough"]).findtext("sysinfo/oemStrings/entry")
    name, _, value = entry.partition("=")
    assert name == "io.systemd.credential.binary:cornerstone.node"
    assert NodeConfig.from_json(base64.b64decode(value)) == node


@pytest.mark.parametrize("files", [("bootstrap-secret",), ("initiator.json",), ("bootstrap-secret", "initiator.json")])
def test_secrets_are_named_not_told(tmp_path, capsys, files):
    """Nothing of them in the domain: any user may read that, and QEMU's command line."""
    (tmp_path / "node.json").write_text(config(passthrough=()).to_json())
    for file in files:
        (tmp_path / file).write_text("c2VjcmV0")
    assert main(tmp_path / "node.json") == 0
    printed = capsys.readouterr().out
    assert "c2VjcmV0" not in printed and base64.b64encode(b"c2VjcmV0").decode() not in printed
    names = {"bootstrap-secret": "cornerstone.bootstrap-secret", "initiator.json": "cornerstone.initiator"}
    assert [entry.attrib for entry in ET.fromstring(printed).findall("sysinfo[@type='fwcfg']/entry")] == [
        {"name": f"opt/io.systemd.credentials/{names[file]}", "file": str(tmp_path / file)} for file in files]


def test_defining_it_again_changes_nothing_and_nodes_differ():
    first, second = (domain(config(name), HOSTS[name]) for name in HOSTS)
    for path in ("uuid", "devices/interface/mac", "devices/interface/virtualport/parameters"):
        mine, other = ([(each.text, each.attrib) for each in tree.findall(path)] for tree in (first, second))
        assert mine and not [each for each in mine if each in other], path
        assert mine == [(each.text, each.attrib) for each in
                        domain(config(), HOSTS["passthrough"]).findall(path)]
    # neither multicast nor anybody's
    assert {int(mac.get("address")[:2], 16) & 3 for mac in first.findall("devices/interface/mac")} == {2}


@pytest.mark.parametrize(("write", "code", "message"), [
    (None, 2, "node.json can't be read: No such file or directory"),
    ("{", 2, "node.json isn't JSON"),
    ("{}", 2, "node.json: .identity is missing"),
    (json.dumps(json.loads((NODES / "bond-and-single-disks.json").read_text())
                | {"serial": 4}), 2, ".serial has to be text"),
], ids=["no file", "no JSON", "no node", "another type"])
def test_a_bad_node_json_is_one_line(tmp_path, capsys, write, code, message):
    if write is not None:
        (tmp_path / "node.json").write_text(write)
    assert main(tmp_path / "node.json") == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


if __name__ == "__main__":
    for each in HOSTS:
        (NODES / f"{each}.xml").write_text(domain_xml(config(each), HOSTS[each]))
    sys.exit()

"""Rules over a whole site file: what each field alone can't tell. Standard library only.

They work on the normalised JSON with whatever could be read of it, so that they speak also when single fields are
wrong. Each rule notes every breach that it finds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from cornerstone.lib.printable import shown
from cornerstone.model.contracts.network import INTERNAL, interface, unusable
from cornerstone.model.site.fields import EXTRA
from cornerstone.model.site.kinds import Notes
from cornerstone.model.site.site import cvm_name

# what Foundation's pages write when AHV is to come out of the AOS package
BUNDLED = "AHV bundled with AOS"
ZONES = Path("/usr/share/zoneinfo")
# of the nodes, in a hint
MOST_LISTED = 8

Document = dict[str, Any]
Rule = Callable[[Document, Notes], None]
RULES: list[Rule] = []


def rule(check: Rule) -> Rule:
    """Register a rule."""
    RULES.append(check)
    return check


def each_node(site: Document) -> Iterator[tuple[str, Document, Document]]:
    """Every node with its path and its block."""
    for at, block in enumerate(site.get("blocks", ())):
        for index, node in enumerate(block.get("nodes", ())):
            yield f".blocks[{at}].nodes[{index}]", node, block


def each_cluster(site: Document) -> Iterator[tuple[str, Document]]:
    """Every cluster with its path."""
    for index, cluster in enumerate(site.get("clusters", ())):
        yield f".clusters[{index}]", cluster


def network_of(site: Document, role: str) -> IPv4Network | None:
    """The network of role hypervisor or cvm, when gateway and netmask could be read."""
    if f"{role}_gateway" in site and f"{role}_netmask" in site:
        return interface(site[f"{role}_gateway"], site[f"{role}_netmask"]).network
    return None


def setting(site: Document, node: Document, name: str, default: Any = None) -> Any:
    """A node's own value, else the site's."""
    return node.get(name, site.get(name, default))


def _own_addresses(site: Document) -> Iterator[tuple[str, str]]:
    """Every address that one machine or cluster is to have alone."""
    for path, node, _ in each_node(site):
        for name in ("hypervisor_ip", "cvm_ip", "ipmi_ip"):
            if name in node:
                yield f"{path}.{name}", node[name]
    for path, cluster in each_cluster(site):
        if "cluster_external_ip" in cluster:
            yield f"{path}.cluster_external_ip", cluster["cluster_external_ip"]
        if "data_services_ip" in cluster.get(EXTRA, {}):
            yield f"{path}.{EXTRA}.data_services_ip", cluster[EXTRA]["data_services_ip"]


def _no_two(values: Iterator[tuple[str, str]], notes: Notes, hint: str) -> None:
    """Note each value that an earlier path has already, in whatever case."""
    seen: dict[str, str] = {}
    for path, value in values:
        first = seen.setdefault(value.casefold(), path)
        if first != path:
            notes.wrong(path, f"{value} is {first}'s already", hint)


@rule
def addresses_are_unique(site: Document, notes: Notes) -> None:
    """No address is used twice, and none is a gateway's."""
    gateways = {site[name]: f".{name}" for name in ("ipmi_gateway", "hypervisor_gateway", "cvm_gateway")
                if name in site}
    _no_two(((path, value) for path, value in _own_addresses(site) if value not in gateways), notes,
            "give each its own address")
    for path, value in _own_addresses(site):
        if value in gateways:
            notes.wrong(path, f"{value} is {gateways[value]}", "give each its own address")


@rule
def networks_fit(site: Document, notes: Notes) -> None:
    """Hosts and CVMs are in one network with their gateways, and BMCs in theirs."""
    host, cvm = network_of(site, "hypervisor"), network_of(site, "cvm")
    for role, network in (("hypervisor", host), ("cvm", cvm)):
        if network and (reason := unusable(IPv4Address(site[f"{role}_gateway"]), network)):
            notes.wrong(f".{role}_gateway", f"{site[f'{role}_gateway']} {reason}", "correct the gateway or the netmask")
    if host and cvm and host != cvm:
        notes.wrong(".cvm_netmask", f"the CVMs' network {cvm} isn't the hypervisors' {host}",
                    "a host and its CVM have to be in one network")
        # which of the two is meant isn't known, so nothing is said of the addresses
        return
    for path, node, _ in each_node(site):
        for role, network in (("hypervisor", host), ("cvm", cvm)):
            if network and f"{role}_ip" in node and (reason := unusable(IPv4Address(node[f"{role}_ip"]), network)):
                notes.wrong(f"{path}.{role}_ip", f"{node[f'{role}_ip']} {reason}",
                            f"choose an address of .{role}_gateway's network")
    for path, value in _own_addresses(site):
        if path.startswith(".clusters") and cvm and (reason := unusable(IPv4Address(value), cvm)):
            notes.wrong(path, f"{value} {reason}", "choose an address of the CVMs' network")


@rule
def internal_network_is_free(site: Document, notes: Notes) -> None:
    """Nothing is in 192.168.5.0/24, by which host and CVM talk inside every node."""
    hint = f"use another network: {INTERNAL} is inside every node"
    for role in ("hypervisor", "cvm"):
        network = network_of(site, role)
        if network and network.overlaps(INTERNAL):
            notes.wrong(f".{role}_gateway", f"{network} overlaps {INTERNAL}", hint)
    servers = [(f".{name}", value) for name in ("hypervisor_nameserver",) for value in site.get(name, "").split(",")]
    for path, cluster in each_cluster(site):
        for name in ("cvm_ntp_servers", "cvm_dns_servers", "hypervisor_ntp_servers"):
            servers += [(f"{path}.{name}", value) for value in cluster.get(name, "").split(",")]
    bmcs = [(path, value) for path, value in _own_addresses(site) if path.endswith("ipmi_ip")]
    for path, value in [*servers, *bmcs]:
        if re.fullmatch(r"[0-9.]+", value) and IPv4Address(value) in INTERNAL:
            notes.wrong(path, f"{value} is in {INTERNAL}", hint)


@rule
def bmcs_are_whole(site: Document, notes: Notes) -> None:
    """A BMC that is to be configured has netmask and gateway, and an account with its password or none."""
    configured, used = [], False
    for path, node, _ in each_node(site):
        if f"{path}.ipmi_ip" in notes.unread:
            used = True
        elif "ipmi_ip" not in node:
            for name in sorted(name for name, value in node.items() if name.startswith("ipmi_") and value):
                notes.warn(f"{path}.{name}", "has no effect without ipmi_ip", "add ipmi_ip, or delete it")
        elif node.get("ipmi_configure_now", True):
            configured.append((path, node))
        else:
            for name in sorted(node.keys() & {"ipmi_user", "ipmi_password", "ipmi_gateway"}):
                notes.warn(f"{path}.{name}", "has no effect with ipmi_configure_now false", "delete one of the two")
    for name in ("netmask", "gateway"):
        for path in _lacking(site, configured, f"ipmi_{name}", notes):
            notes.wrong(f"{path}.ipmi_{name}", "is missing", "add it here or at the top: the BMC needs it")
    for name, other in (("user", "password"), ("password", "user")):
        having = [(path, node) for path, node in configured if setting(site, node, f"ipmi_{name}")]
        for path in _lacking(site, having, f"ipmi_{other}", notes):
            notes.wrong(f"{path}.ipmi_{other}", "is missing", "give ipmi_user and ipmi_password together, or neither")
    blamed = set()
    for path, node in configured:
        netmask, gateway = setting(site, node, "ipmi_netmask"), setting(site, node, "ipmi_gateway")
        if not (netmask and gateway):
            continue
        network = interface(node["ipmi_ip"], netmask).network
        if reason := unusable(IPv4Address(node["ipmi_ip"]), network):
            notes.wrong(f"{path}.ipmi_ip", f"{node['ipmi_ip']} {reason}", "correct the address or ipmi_netmask")
        at = f"{path if 'ipmi_gateway' in node or len(configured) == 1 else ''}.ipmi_gateway"
        if at not in blamed and (reason := unusable(IPv4Address(gateway), network)):
            notes.wrong(at, f"{gateway} {reason}", "correct ipmi_gateway or ipmi_ip")
            blamed.add(at)
    if not configured and not used:
        for name in sorted(name for name in site if name.startswith("ipmi_")):
            notes.warn(f".{name}", "has no effect: no node has a BMC to configure", "add an ipmi_ip, or delete it")


def _lacking(site: Document, nodes: list[tuple[str, Document]], name: str, notes: Notes) -> list[str]:
    """The paths of nodes without a setting that couldn't be misread; the topmost when several nodes lack it alike."""
    if f".{name}" in notes.unread:
        return []
    paths = [path for path, node in nodes if not setting(site, node, name) and f"{path}.{name}" not in notes.unread]
    return [""] if len(paths) > 1 and len(paths) == len(nodes) else paths


@rule
def nodes_are_told_apart(site: Document, notes: Notes) -> None:
    """Names, serials, positions and network cards are each node's own, and each node can be found."""
    _no_two(((f"{path}.hypervisor_hostname", node["hypervisor_hostname"]) for path, node, _ in each_node(site)
             if "hypervisor_hostname" in node), notes, "give each node a name of its own")
    _no_two(((f"{path}.node_serial", node["node_serial"]) for path, node, _ in each_node(site)
             if "node_serial" in node), notes, "a serial number is one machine's")
    _no_two(((f".blocks[{at}].block_id", block["block_id"]) for at, block in enumerate(site.get("blocks", ()))
             if "block_id" in block), notes, "list the chassis once, with all its nodes")
    for at, block in enumerate(site.get("blocks", ())):
        _no_two(((f".blocks[{at}].nodes[{index}].node_position", node["node_position"])
                 for index, node in enumerate(block.get("nodes", ())) if "node_position" in node), notes,
                "each node of a block has a position of its own")
    cards = ((path, mac) for path, node, _ in each_node(site) for mac in macs_of(node))
    _no_two(cards, notes, "a network card is in one node")
    names = ((path, cvm_name(block.get("block_id", ""), node.get("node_serial", ""), node["hypervisor_hostname"],
                             node["node_position"])) for path, node, block in each_node(site)
             if {"hypervisor_hostname", "node_position"} <= node.keys() and "block_id" not in block)
    _no_two(names, notes, "give the block a block_id, or the node a serial that differs in letters and digits")
    for path, node, block in each_node(site):
        named = (f"{path}.node_serial", f"{path.rpartition('.')[0]}.block_id", f"{path}.{EXTRA}.nic_macs",
                 f"{path}.bond_uplinks", f"{path}.vswitches", f"{path}.ipmi_mac")
        if not (node.get("node_serial") or block.get("block_id") or macs_of(node) or notes.unread & set(named)):
            notes.wrong(path, "can't be told from other machines", "add node_serial, or the block's block_id, or "
                                                                   f"{EXTRA}.nic_macs")


def macs_of(node: Document) -> list[str]:
    """The network cards that a node's fields name, each once; the BMC's is among them."""
    named = [*node.get(EXTRA, {}).get("nic_macs", ()), *node.get("bond_uplinks", ()),
             *(mac for switch in node.get("vswitches", ()) for mac in switch.get("uplinks", ())),
             *([node["ipmi_mac"]] if "ipmi_mac" in node else ())]
    return list(dict.fromkeys(named))


@rule
def bonds_are_coherent(site: Document, notes: Notes) -> None:
    """LACP's rate needs LACP, a bond needs cards, and the two ways of saying it aren't mixed."""
    nodes = list(each_node(site))
    plain = [(path, node) for path, node, _ in nodes if not node.get("vswitches")]
    for path, place, below in [("", site, plain), *((path, node, [(path, node)]) for path, node, _ in nodes)]:
        if "bond_lacp_rate" in place and not any(
                setting(site, node, "bond_mode") == "dynamic" or notes.unread & {".bond_mode", f"{at}.bond_mode"}
                for at, node in below):
            notes.warn(f"{path}.bond_lacp_rate", "has no effect without bond_mode dynamic", "add it, or delete this")
    if "bond_mode" in site and not plain:
        notes.warn(".bond_mode", "has no effect: all nodes have vswitches", "delete it")
    for path, node, _ in nodes:
        switches = node.get("vswitches", ())
        if len(node.get("bond_uplinks", ())) == 1 and setting(site, node, "bond_mode") and not switches:
            notes.wrong(f"{path}.bond_uplinks", "has one network card, which makes no bond", "add the others")
        for index, switch in enumerate(switches):
            for name in sorted(name for name in node if name.startswith("bond_")):
                notes.warn(f"{path}.{name}", "has no effect beside vswitches, which says the same", "delete it")
            mode, lacp, at = switch.get("bond_mode", "active-backup"), switch.get("lacp", "off"), f"{path}.vswitches"
            unread = notes.unread & {f"{at}[{index}].bond_mode", f"{at}[{index}].lacp"}
            if mode == "balance-tcp" and lacp == "off" and not unread:
                notes.wrong(f"{at}[{index}].lacp", "is off, and balance-tcp needs LACP", 'write "active"')
            if mode != "balance-tcp" and lacp != "off" and not unread:
                notes.wrong(f"{at}[{index}].lacp", f"is {lacp}, and {mode} goes without LACP", 'write "off"')


@rule
def disks_are_coherent(site: Document, notes: Notes) -> None:
    """The boot disk isn't excluded, nor chosen as a data disk by its serial."""
    for path, node, _ in each_node(site):
        own = {**site.get(EXTRA, {}), **node.get(EXTRA, {})}
        boot = own.get("boot_disk", {}).get("serial")
        if boot and boot == node.get("exlude_boot_serial"):
            notes.wrong(f"{path}.exlude_boot_serial", f"{boot} is the chosen boot disk", "keep one of the two")
        if boot and boot in [disk.get("serial") for disk in own.get("data_disks", ())]:
            notes.wrong(f"{path}.{EXTRA}.boot_disk", f"{boot} is a data disk too", "choose another for one of the two")
    if "serial" in site.get(EXTRA, {}).get("boot_disk", {}) and len(list(each_node(site))) > 1:
        notes.wrong(f".{EXTRA}.boot_disk.serial", "is one disk's, and the site has several nodes",
                    "give each node its own, or choose by model or size")


@rule
def clusters_fit(site: Document, notes: Notes) -> None:
    """Members are nodes of the site, each in one cluster, and as many as the redundancy factor needs."""
    nodes = {node.get("cvm_ip", ""): None for _, node, _ in each_node(site)}
    listed = ", ".join(list(nodes)[:MOST_LISTED]) + " …" * (len(nodes) > MOST_LISTED)
    members: list[tuple[str, str]] = []
    for path, cluster in each_cluster(site):
        if not cluster.get("cluster_members"):
            continue
        own = [(f"{path}.cluster_members[{index}]", cvm) for index, cvm in enumerate(cluster["cluster_members"])]
        members += own
        for at, cvm in own:
            if cvm not in nodes and all(nodes):
                notes.wrong(at, f"{cvm} is no node's cvm_ip", f"the site has {listed or 'none'}")
        count, copies = len(own), cluster.get("redundancy_factor", 2)
        if count == 2:
            notes.wrong(f"{path}.cluster_members", "has 2 nodes, and neither would know whether the other is alive",
                        "make it 1 node, or 3 and more")
        elif count == 1 and copies > 2:
            notes.wrong(f"{path}.redundancy_factor", f"is {copies} on a single node", "write 1, or 2 for two disks")
        elif count > 2 and copies < 2:
            notes.wrong(f"{path}.redundancy_factor", f"is {copies} on {count} nodes: the loss of one would lose data",
                        "write 2 or 3")
        if cluster.get("single_node_cluster") and count != 1:
            notes.wrong(f"{path}.single_node_cluster", f"is true, and cluster_members has {count}",
                        "correct one of the two")
    _no_two(iter(members), notes, "a node is in one cluster")
    _no_two(((f"{path}.cluster_name", cluster["cluster_name"]) for path, cluster in each_cluster(site)
             if "cluster_name" in cluster), notes, "give each cluster a name of its own")


@rule
def time_zones_exist(site: Document, notes: Notes) -> None:
    """A time zone is in the time zone database, where this machine has one."""
    if not (ZONES / "UTC").exists():
        return
    for path, cluster in each_cluster(site):
        name = cluster.get("timezone", "UTC")
        if not _is_zone(ZONES / name):
            notes.wrong(f"{path}.timezone", f"{shown(name)} is no time zone", "such as UTC or Europe/Berlin")


def _is_zone(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"TZif"
    except OSError:
        return False


@rule
def what_to_know(site: Document, notes: Notes) -> None:
    """Warnings: what is allowed and may yet surprise."""
    for path, node, _ in each_node(site):
        # Foundation takes its absence for no
        if "ipmi_ip" in node and "ipmi_configure_now" not in node:
            user = setting(site, node, "ipmi_user")
            notes.warn(f"{path}.ipmi_ip", f"the BMC's address will be set to {node['ipmi_ip']}"
                       + f", and {user}'s password" * bool(user),
                       "ipmi_configure_now says whether: with false the BMC is left as it is")
    for path, cluster in each_cluster(site):
        if cluster.get("cluster_init_now", True) and "bootstrap_secret" not in cluster.get(EXTRA, {}):
            notes.warn(f"{path}.{EXTRA}.bootstrap_secret", "is missing",
                       "invoke customize draws one, and no other ISO has it; invoke site.new writes one into the file")
    if not site.get(EXTRA, {}).get("authorized_keys"):
        notes.warn(f".{EXTRA}.authorized_keys", "is missing", "nobody will be able to log in to the nodes by ssh")

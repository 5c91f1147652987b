"""What a site file says: nodes with their addresses and disks, and the clusters that they form.

Read one with `read_site` (model/site/file.py); the meaning is here, whole: defaults filled in, addresses with their
networks. Standard library only: the live environment of the ISO uses it too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from cornerstone.lib.error import CornerstoneError
from cornerstone.model.site.kinds import Problem

GB = 10 ** 9


@dataclass(frozen=True)
class DiskChoice:
    """What a disk has to match, all of it; empty and None match any. Sizes in bytes, both bounds included."""

    serial: str = ""
    wwn: str = ""
    model: str = ""
    min_size: int = 0
    max_size: int | None = None

    def fits(self, *, serial: str, wwn: str, model: str, size: int) -> bool:
        """Whether a disk with these properties matches; size in bytes."""
        return (self.serial in ("", serial) and self.wwn.lower() in ("", wwn.lower())
                and (not self.model or fnmatchcase(model, self.model))
                and self.min_size <= size and (self.max_size is None or size <= self.max_size))


@dataclass(frozen=True)
class Uplink:
    """The port of br0 to the outside, in Open vSwitch's words.

    macs: its network cards, lower case; empty: all with a link. mode: active-backup, balance-slb or balance-tcp;
    lacp: off, active or passive; lacp_rate: slow or fast; vlan: tag of host and CVM, 0 for none; mtu: bytes;
    options: other_config of the port as (key, value).
    """

    macs: tuple[str, ...] = ()
    mode: str = "active-backup"
    lacp: str = "off"
    lacp_rate: str = "slow"
    vlan: int = 0
    mtu: int = 1500
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Bmc:
    """A node's BMC. configure: set the address (and the account's password, when given), else only compare it.

    address with its netmask, or without (a /32) when it is only compared and the site has no netmask.
    """

    address: IPv4Interface
    gateway: IPv4Address | None
    mac: str
    configure: bool
    user: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True)
class Node:
    """One node. block_id, serial: empty when the file has none; macs: network cards known to be its own, BMC's too.

    hypervisor, cvm: addresses with their netmask, both in one network; bmc: None leaves the BMC alone; image: False
    leaves the node as it is; cvm_memory in bytes and cvm_vcpus: None takes the profile's. boot_disk: None when the
    file makes no choice; never_boot: serial of a disk that is not to be the boot disk; data_disks: empty takes all;
    passthrough: auto, scsi or pci, the last with pci_addresses (0000:3b:00.0); erase_tokens: (disk serial, token)
    for disks that aren't empty.
    """

    position: str
    block_id: str
    serial: str
    hostname: str
    hypervisor: IPv4Interface
    cvm: IPv4Interface
    bmc: Bmc | None
    uplink: Uplink
    macs: tuple[str, ...]
    image: bool
    cvm_memory: int | None
    cvm_vcpus: int | None
    boot_disk: DiskChoice | None
    never_boot: str
    data_disks: tuple[DiskChoice, ...]
    passthrough: str
    pci_addresses: tuple[str, ...]
    erase_tokens: tuple[tuple[str, str], ...]

    @property
    def cvm_name(self) -> str:
        """The CVM's name, which is also its host name and that of its domain: NTNX-<block or serial>-<position>-CVM."""
        return cvm_name(self.block_id, self.serial, self.hostname, self.position)

    def __str__(self) -> str:
        """The node for people: which it is and by what it is known."""
        known = [f"block {self.block_id}" * bool(self.block_id), f"position {self.position}",
                 f"serial {self.serial}" * bool(self.serial),
                 f"{'MAC' if len(self.macs) == 1 else 'MACs'} {', '.join(self.macs)}" * bool(self.macs)]
        return f"{self.hostname} ({', '.join(filter(None, known))})"


@dataclass(frozen=True)
class Block:
    """A chassis and its nodes."""

    block_id: str
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Cluster:
    """A cluster. members: CVM addresses; redundancy_factor: copies, on hosts, or on the disks of a single node.

    form: False when the nodes are only imaged; patience: factor on the time until a member is taken for dead;
    bootstrap_secret: base64, empty when the file has none.
    """

    name: str
    members: tuple[IPv4Address, ...]
    redundancy_factor: int
    form: bool
    address: IPv4Address | None
    data_services: IPv4Address | None
    cvm_ntp_servers: tuple[str, ...]
    cvm_dns_servers: tuple[IPv4Address, ...]
    hypervisor_ntp_servers: tuple[str, ...]
    timezone: str
    patience: int = 1
    bootstrap_secret: str = field(default="", repr=False)


@dataclass(frozen=True)
class Site:
    """A whole site file, checked. warnings: what the person should know; document: the file's JSON, normalised.

    ssh_from: networks from which nodes take ssh; all, if the file says nothing.
    aos_package, ahv_image: names that the file expects, to compare with the ISO by `check_releases`; may be empty.
    """

    blocks: tuple[Block, ...]
    clusters: tuple[Cluster, ...]
    hypervisor_gateway: IPv4Address
    cvm_gateway: IPv4Address
    nameservers: tuple[IPv4Address, ...]
    authorized_keys: tuple[str, ...]
    ssh_from: tuple[IPv4Network, ...]
    aos_package: str
    ahv_image: str
    webhook: str = field(default="", repr=False)
    reinstall_token: str = field(default="", repr=False)
    warnings: tuple[Problem, ...] = field(default=(), compare=False)
    document: dict = field(default_factory=dict, compare=False, repr=False)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes of all blocks."""
        return tuple(node for block in self.blocks for node in block.nodes)

    def cluster_of(self, node: Node) -> Cluster | None:
        """The cluster that a node is a member of."""
        return next((cluster for cluster in self.clusters if node.cvm.ip in cluster.members), None)

    def node_for(self, *, serial: str = "", block: str = "", position: str = "", macs: Iterable[str] = ()) -> Node:
        """The node that a machine is, by its serial number, else chassis and slot, else its network cards.

        What the machine doesn't tell is empty. Raises CornerstoneError, listing the nodes and what speaks for and
        against each, when none matches or two do, or when the one that matches says that it has another serial.
        """
        machine = {mac.lower() for mac in macs}
        found = {node: _matches(node, serial.strip(), block.strip(), position.strip(), machine) for node in self.nodes}
        matching = {node: ways for node, ways in found.items() if ways}
        others = [node for node in matching if _another(node.serial, serial)]
        if len(matching) == 1 and not others:
            return next(iter(matching))
        shown = [f"serial {serial.strip() or 'unknown'}", f"block {block.strip() or 'unknown'}",
                 f"position {position.strip() or 'unknown'}", f"MACs {', '.join(sorted(machine)) or 'unknown'}"]
        rows = [f"\n  {node}" + (f": matches by {' and '.join(ways)}" if ways else "")
                + (", but its serial is another" if ways and node in others else "") for node, ways in found.items()]
        reason = f"{len(matching)} nodes of the site match" if len(matching) > 1 else "no node of the site matches"
        raise CornerstoneError(f"{reason} this machine ({'; '.join(shown)}):{''.join(rows)}",
                               "give the node that this is meant to be its node_serial in the site file")


def cvm_name(block_id: str, serial: str, hostname: str, position: str) -> str:
    """The name of a node's CVM, fit to be a host name; at most 54 characters."""
    chassis = block_id or serial or hostname.partition(".")[0]
    return f"NTNX-{re.sub('[^A-Za-z0-9-]', '-', chassis)[:40]}-{position}-CVM"


def _another(ours: str, theirs: str) -> bool:
    return bool(ours and theirs.strip()) and ours.casefold() != theirs.strip().casefold()


def _matches(node: Node, serial: str, block: str, position: str, macs: set[str]) -> list[str]:
    """By what a machine looks like this node."""
    ways = {"serial": node.serial and node.serial.casefold() == serial.casefold(),
            "block and position": node.block_id and (node.block_id.casefold(), node.position.casefold())
            == (block.casefold(), position.casefold()),
            "MAC": macs.intersection(node.macs)}
    return [way for way, matches in ways.items() if matches]

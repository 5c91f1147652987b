"""Addresses of this node, before it takes them: the uplinks have a link, and nobody else has the addresses.

Duplicates are looked for as RFC 5227 says: ARP probes with sender 0.0.0.0, which change nobody's tables, on every
uplink, in the site's VLAN. Whoever answers for an address, uses it or probes it too is a conflict.
"""

from __future__ import annotations

import contextlib
import ctypes
import select
import socket
import struct
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from cornerstone.foundation.installer.live_network import ip, links
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.contracts.facts import Nic
from cornerstone.model.site.site import Node, Site

# RFC 5227, 1.1: PROBE_NUM, PROBE_MIN, and ANNOUNCE_WAIT after the last; a machine that has just come up alone needs
# no random wait before the first.
PROBES = 3
PROBE_SECONDS = 1.0
ANNOUNCE_SECONDS = 2.0
# Copper negotiates for two or three seconds.
LINK_SECONDS = 5.0
# A port of a spanning tree carries nothing for the first 30 s of its link, twice its forward delay, and for 50 s when
# the tree has to change as well (IEEE 802.1D-2004, 17.14: Max Age 20 s, Forward Delay 15 s).
FORWARD_SECONDS = 50.0
LINK_CHANGES = 1  # RTMGRP_LINK

BROADCAST = b"\xff" * 6
ARP, VLAN = 0x0806, 0x8100
ETHERNET_IPV4 = struct.pack("!HHBB", 1, 0x0800, 6, 4)
REQUEST, REPLY = 1, 2
# linux/if_packet.h and asm-generic/socket.h
ETH_P_ALL = 3
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_AUXDATA = 263, 1, 8
PACKET_MR_PROMISC = 1
PACKET_OUTGOING = 4
TP_STATUS_VLAN_VALID = 0x10
SO_ATTACH_FILTER = 26
AUXDATA = struct.Struct("=IIIHHHH")
# classic BPF: load the half word at 12, the EtherType; keep what is ARP (the kernel has taken a tag off before)
ARP_ONLY = struct.pack("=" + "HBBI" * 4, 0x28, 0, 0, 12, 0x15, 0, 1, ARP, 0x06, 0, 0, 0xFFFF, 0x06, 0, 0, 0)


@dataclass(frozen=True)
class Conflict:
    """Somebody else with an address: the MAC that spoke for it, and the card that heard it."""

    address: IPv4Address
    mac: str
    nic: str

    def __str__(self) -> str:
        return f"{self.address} is in use by {self.mac}, heard on {self.nic}"


def check(site: Site, node: Node, nics: Collection[Nic], say: Callable[[str], object] = lambda text: None,
          bmc_macs: Collection[str] = ()) -> list[str]:
    """Refuse unless the node has an uplink and its addresses are free. Returns warnings, one sentence each.

    bmc_macs: those of its BMC, which may have its address already. Takes about 4 s, and while the gateway is silent up
    to FORWARD_SECONDS; say is told then what it waits for. Raises CornerstoneError with every conflict, each by
    address, MAC and card.
    """
    uplinks = link_up(node, nics)
    missing = [mac for mac in node.uplink.macs if not any(mac in _macs(nic) for nic in uplinks)]
    warnings = [f"uplink {mac} has no link" for mac in missing]
    roles, gateway = addresses(site, node), site.hypervisor_gateway
    own = {mac for nic in nics for mac in _macs(nic)}
    if unasked := _unasked(node, bmc_macs):
        roles.pop(node.bmc.address.ip, None)
        warnings.append(unasked)
    heard = duplicates(roles, uplinks, vlan=node.uplink.vlan, own={*own, *bmc_macs}, gateway=gateway, say=say)
    if conflicts := [each for each in heard if each.address != gateway]:
        rows = "".join(f"\n  {roles[each.address]} {each}" for each in conflicts)
        one = f"{roles[conflicts[0].address]} address {conflicts[0]}"
        raise CornerstoneError(f"address.duplicate: {node.hostname}'s " +
                               (f"{len(conflicts)} addresses can't be used:{rows}" if len(conflicts) > 1 else one),
                               "switch off or readdress the machine with that MAC, or choose other addresses",
                               Code.REFUSED)
    if not any(each.address == gateway for each in heard):
        names = ", ".join(nic.name for nic in uplinks)
        warnings.append(f"the gateway {gateway} didn't answer on {names}"
                        + (f" in VLAN {node.uplink.vlan}" if node.uplink.vlan else "")
                        + ": duplicate addresses may have gone unnoticed; check VLAN, LACP and the switch's ports")
    return warnings


def addresses(site: Site, node: Node) -> dict[IPv4Address, str]:
    """What has to be free before this node is imaged, each with its role.

    The cluster's own addresses are the first member's to check, and only when it is to form the cluster: once it
    does, the cluster has them, rightly, while later members are still being imaged.
    """
    roles = {node.hypervisor.ip: "hypervisor", node.cvm.ip: "CVM"}
    if node.bmc and node.bmc.configure:
        roles[node.bmc.address.ip] = "BMC"
    cluster = site.cluster_of(node)
    if cluster and cluster.form and cluster.members[0] == node.cvm.ip:
        for address, role in ((cluster.address, "cluster"), (cluster.data_services, "data services")):
            if address:
                roles[address] = role
    return roles


def _unasked(node: Node, bmc_macs: Collection[str]) -> str:
    """Why nobody can be asked for the BMC's new address, as a warning; "" when somebody can, or it gets none.

    In another network silence proves nothing, and a router may answer for whoever is behind it (RFC 1027).
    """
    if node.bmc is None or not node.bmc.configure:
        return ""
    address, network = node.bmc.address.ip, node.hypervisor.network
    why = (f"it isn't in the node's own network {network}" if address not in network else
           "the BMC's own MAC isn't known, so its answer wouldn't be" if not bmc_macs else "")
    return f"whether the BMC's address {address} is free wasn't asked: {why}" if why else ""


def link_up(node: Node, nics: Iterable[Nic], seconds: float = LINK_SECONDS) -> list[Nic]:
    """The node's uplinks that have a link: those that the site names, else all cards but those on USB.

    Waits until all have one, at most some seconds. Raises CornerstoneError when none has.
    """
    nics = list(nics)
    named = node.uplink.macs
    # a card on USB is the BMC's way to talk to its host
    uplinks = [nic for nic in nics if (_macs(nic) & set(named) if named else not nic.usb)]
    shown = ", ".join(f"{nic.name} {nic.mac}" for nic in nics) or "none"
    if absent := [mac for mac in named if not any(mac in _macs(nic) for nic in uplinks)]:
        raise CornerstoneError(f"address.uplink: {', '.join(absent)} of {node.hostname} isn't in this machine",
                               f"its network cards are: {shown}", Code.REFUSED)
    if uplinks:
        ip(*(f"link set dev {nic.name} up" for nic in uplinks))
    found = _await_links([nic.name for nic in uplinks], seconds)
    if not found:
        raise CornerstoneError(f"address.link: no uplink of {node.hostname} has a link: "
                               f"{', '.join(f'{nic.name} {nic.mac}' for nic in uplinks) or 'it has no network card'}",
                               "connect it to a switch whose port is on", Code.REFUSED)
    return [nic for nic in uplinks if nic.name in found]


def duplicates(wanted: Iterable[IPv4Address], nics: Sequence[Nic], *, vlan: int = 0, own: Collection[str] = (),
               gateway: IPv4Address | None = None, say: Callable[[str], object] = lambda text: None) -> list[Conflict]:
    """Find who else has one of the addresses, and who is the gateway; all are asked for at once, in about 4 s.

    nics: up, with a link. own: MACs that are this machine's, besides those of nics. A gateway that is silent may mean
    that the switch's ports don't carry anything yet, so until it is heard all is asked again, up to FORWARD_SECONDS.
    Needs CAP_NET_RAW.
    """
    mine = {mac.lower() for mac in own} | {mac for nic in nics for mac in _macs(nic)}
    targets = {address.packed: address for address in (*wanted, *filter(None, [gateway]))}
    heard: dict[tuple[IPv4Address, str], Conflict] = {}
    forwarding, asked = time.monotonic() + FORWARD_SECONDS, 0
    with contextlib.ExitStack() as stack:
        lines = {stack.enter_context(_listen(nic, vlan)): nic for nic in nics}
        while asked < PROBES:
            silent = gateway is not None and not heard
            for line, nic in lines.items():
                for target in targets:
                    line.send(_frame(nic, target, vlan))
            asked += 1
            for line, frame in _frames(lines, ANNOUNCE_SECONDS if asked == PROBES else PROBE_SECONDS, vlan):
                claimed = _claim(frame, targets)
                if claimed and claimed[1] not in mine:
                    heard.setdefault(claimed, Conflict(*claimed, lines[line].name))
            if silent and heard:
                # what was asked before may not have got through
                asked = 1
            elif silent and asked == PROBES and time.monotonic() < forwarding:
                say(f"the gateway {gateway} is silent; a switch's port may need {FORWARD_SECONDS:.0f} s")
                asked -= 1
    return sorted(heard.values(), key=lambda each: (each.address, each.mac))


def _macs(nic: Nic) -> set[str]:
    return {mac.lower() for mac in (nic.mac, nic.permanent_mac) if mac}


def _await_links(names: Collection[str], seconds: float) -> set[str]:
    end = time.monotonic() + seconds
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as changes:
        changes.bind((0, LINK_CHANGES))
        while True:
            found = {name for name, link in links().items() if link and name in names}
            left = end - time.monotonic()
            if len(found) == len(names) or left <= 0 or not select.select([changes], [], [], left)[0]:
                return found
            changes.recv(65536)


@contextlib.contextmanager
def _listen(nic: Nic, vlan: int) -> Iterator[socket.socket]:
    # without a protocol nothing arrives before the filter is there
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as line:
        code = ctypes.create_string_buffer(ARP_ONLY, len(ARP_ONLY))
        line.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER,
                        struct.pack("@HP", len(ARP_ONLY) // 8, ctypes.addressof(code)))
        line.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        line.bind((nic.name, ETH_P_ALL))
        if vlan:
            # a card drops tags that nobody has registered, unless it is to take everything
            line.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, struct.pack(
                "=iHH8s", socket.if_nametoindex(nic.name), PACKET_MR_PROMISC, 0, b""))
        yield line


def _frame(nic: Nic, target: bytes, vlan: int) -> bytes:
    """An ARP probe, padded to Ethernet's 60 bytes."""
    mac = bytes.fromhex(nic.mac.replace(":", ""))
    tag = struct.pack("!HH", VLAN, vlan) if vlan else b""
    arp = ETHERNET_IPV4 + struct.pack("!H", REQUEST) + mac + bytes(4) + bytes(6) + target
    return (BROADCAST + mac + tag + struct.pack("!H", ARP) + arp).ljust(60, b"\0")


def _frames(lines: Collection[socket.socket], seconds: float, vlan: int) -> Iterator[tuple[socket.socket, bytes]]:
    """The ARP packets of our VLAN that arrive within some seconds, from the EtherType's end on."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        for line in select.select(lines, [], [], left)[0]:
            frame, extra, _, sender = line.recvmsg(2048, socket.CMSG_SPACE(AUXDATA.size))
            if sender[2] != PACKET_OUTGOING and _tag(extra) == vlan:
                yield line, frame[14:]


def _tag(extra: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in extra:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, *_, tci, _ = AUXDATA.unpack(data[:AUXDATA.size])
            return tci & 0xFFF if status & TP_STATUS_VLAN_VALID else 0
    return 0


def _claim(arp: bytes, targets: dict[bytes, IPv4Address]) -> tuple[IPv4Address, str] | None:
    """The address that an ARP packet lays claim to, and for which MAC: as its sender, or as a probe's target."""
    if len(arp) < 28 or not arp.startswith(ETHERNET_IPV4):
        return None
    operation, sender, address, target = struct.unpack("!H6s4s6x4s", arp[6:28])
    if operation not in (REQUEST, REPLY):
        return None
    claimed = target if address == bytes(4) and operation == REQUEST else address
    return (targets[claimed], sender.hex(":")) if claimed in targets else None

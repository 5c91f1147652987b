"""Addresses of a node's networks: read strictly, and what can't be a host's address. Standard library only."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv4Network, NetmaskValueError

# host and Controller VM talk to each other here, on a bridge without uplink; the same on every node
INTERNAL = IPv4Network("192.168.5.0/24")
HOST_INTERNAL, CVM_INTERNAL = IPv4Address("192.168.5.1"), IPv4Address("192.168.5.2")
# the host's bridge, and the CVM's card at it
INTERNAL_BRIDGE, CVM_INTERNAL_CARD = "virbr-internal", "eth1"
# the host's bridge to the outside, and the CVM's card at it
BRIDGE, CVM_CARD = "br0", "eth0"
# a shorter prefix is a slip of the pen; a longer one has no room for a host, its CVM and a gateway
PREFIXES = range(8, 30)
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")


def address(text: str) -> IPv4Address:
    """An IPv4 address that a host can have. Raises ValueError with the reason as a clause, to put after the text."""
    try:
        found = IPv4Address(text)
    except AddressValueError:
        raise ValueError("isn't an IPv4 address") from None
    for is_so, kind in ((found.is_unspecified, "the unspecified address"), (found.is_loopback, "a loopback address"),
                        (found.is_multicast, "a multicast address"), (found.is_link_local, "a link-local address"),
                        (found.is_reserved, "a reserved address")):
        if is_so:
            raise ValueError(f"is {kind}, not a host's")
    return found


def netmask(text: str) -> int:
    """The prefix length of a netmask such as 255.255.255.0. Raises ValueError with the reason as a clause."""
    try:
        prefix = IPv4Network(f"0.0.0.0/{text}").prefixlen
        if str(IPv4Network(f"0.0.0.0/{prefix}").netmask) != text:  # the module reads 24 and host masks too
            raise ValueError
    except (NetmaskValueError, ValueError):
        raise ValueError("isn't a netmask") from None
    if prefix not in PREFIXES:
        raise ValueError(f"is /{prefix}; a node's network is between /{PREFIXES[0]} and /{PREFIXES[-1]}")
    return prefix


def mac(text: str) -> str:
    """A network card's own MAC in lower case with colons. Raises ValueError with the reason as a clause."""
    found = text.lower().replace("-", ":")
    if not _MAC.fullmatch(found):
        raise ValueError("isn't a MAC address")
    if int(found[:2], 16) & 1 or found == "00:00:00:00:00:00":
        raise ValueError("isn't the address of one network card")
    return found


def is_host_name(text: str) -> bool:
    """Whether it is a host name by RFC 1123, with or without a domain. All digits would be an address misspelt."""
    labels = text.split(".")
    return len(text) <= 253 and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()


def interface(text: str, mask: str) -> IPv4Interface:
    """An address with its netmask."""
    return IPv4Interface(f"{text}/{mask}")


def unusable(of: IPv4Address, network: IPv4Network) -> str:
    """Why an address can't be a host's within its network, as a clause; empty when it can."""
    if of not in network:
        return f"isn't in {network}"
    if of == network.network_address:
        return f"is the network address of {network}"
    if of == network.broadcast_address:
        return f"is the broadcast address of {network}"
    return ""

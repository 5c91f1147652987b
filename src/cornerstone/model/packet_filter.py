"""The packet filter of a node's host and of its Controller VM, as text for nft, from node.json alone.

What isn't named here is dropped. The internal network is believed on its own link only: Linux answers for each of its
addresses on every card, so without that a neighbour would reach the CVM's internal one through the outer card.
"""

from __future__ import annotations

from collections.abc import Iterable

from cornerstone.model.contracts import ports
from cornerstone.model.contracts.network import (
    BRIDGE,
    CVM_CARD,
    CVM_INTERNAL,
    CVM_INTERNAL_CARD,
    HOST_INTERNAL,
    INTERNAL,
    INTERNAL_BRIDGE,
)
from cornerstone.model.contracts.node import NodeConfig

# where the distribution's nftables.service looks for it
FILE = "etc/nftables.conf"


def host_rules(config: NodeConfig) -> str:
    """Return the filter of the host: ssh from outside as the site wants it, what its CVM offers from inside."""
    return _rules("the host", INTERNAL_BRIDGE, [
        *_ssh(BRIDGE, config),
        _inside(INTERNAL_BRIDGE, str(CVM_INTERNAL), str(HOST_INTERNAL), ports.OFFERS),
    ])


def cvm_rules(config: NodeConfig) -> str:
    """Return the filter of the CVM: its host inside; outside the cluster's members, their hosts, and ssh as wanted."""
    own = config.cvm.address.partition("/")[0]
    members = [member for member in (config.cluster.members if config.cluster else ()) if member != own]
    hosts = config.cluster.hosts if config.cluster else ()
    cluster = [ports.MEMBERSHIP, ports.MONITOR, f"{ports.CEPH_DAEMONS[0]}-{ports.CEPH_DAEMONS[-1]}"]
    return _rules("the Controller VM", CVM_INTERNAL_CARD, [
        *_ssh(CVM_CARD, config),
        _inside(CVM_INTERNAL_CARD, str(HOST_INTERNAL), str(CVM_INTERNAL), ports.SSH, ports.MEMBERSHIP, ports.ISCSI),
        *_outside(CVM_CARD, members, f"tcp dport {_set(cluster)}"),
        *_outside(CVM_CARD, members, f"udp dport {ports.NTP}"),
        *_outside(CVM_CARD, hosts, f"tcp dport {ports.ISCSI}"),
    ])


def _rules(whose: str, internal_link: str, accepted: Iterable[str]) -> str:
    rules = "\n".join(f"        {rule}" for rule in accepted)
    return f"""\
# What {whose} takes from the network, made from node.json at each start; anything else is dropped.
flush ruleset

table inet node {{
    chain input {{
        type filter hook input priority filter; policy drop;
        iif lo accept
        iifname != "{internal_link}" ip saddr {INTERNAL} drop
        iifname != "{internal_link}" ip daddr {INTERNAL} drop
        ct state established,related accept
        ct state invalid drop
        icmp type echo-request accept
        icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
{rules}
        counter
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
    }}
}}
"""


def _ssh(link: str, config: NodeConfig) -> list[str]:
    # without a key nobody can log in
    return _outside(link, config.ssh_from, f"tcp dport {ports.SSH}") if config.authorized_keys else []


def _outside(link: str, sources: Iterable[str], what: str) -> list[str]:
    """Return a rule that accepts what comes from sources by a link; none without sources."""
    return [f'iifname "{link}" ip saddr {_set(sources)} {what} accept'] if sources else []


def _inside(link: str, source: str, target: str, *numbers: int) -> str:
    return f'iifname "{link}" ip saddr {source} ip daddr {target} tcp dport {_set(numbers)} accept'


def _set(items: Iterable[object]) -> str:
    return f"{{ {', '.join(map(str, items))} }}"

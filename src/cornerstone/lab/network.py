"""The network of a machine in the lab: QEMU's own, without a bridge, without root, and with nobody else on it.

It has the addresses of the site file. Nothing gets out; in comes only ssh, through a port of the loopback interface.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address

from cornerstone.lab.running import RunningMachine
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.site.site import Node, Site

SSH = 22
_FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+")


def user_network(site: Site, node: Node) -> str:
    """QEMU's -netdev value. The gateway and resolver() answer on it; port 0: the kernel chooses a free one."""
    return f"{closed_network(site, node)},hostfwd=tcp:127.0.0.1:0-{node.hypervisor.ip}:{SSH}"


def closed_network(site: Site, node: Node) -> str:
    """The same without a way in."""
    return f"user,net={node.hypervisor.network},host={site.hypervisor_gateway},dns={resolver(site, node)},restrict=on"


def resolver(site: Site, node: Node) -> IPv4Address:
    """An address of the node's network that isn't the site's: QEMU answers there, so it is taken."""
    taken = {site.hypervisor_gateway, site.cvm_gateway, *(address for each in site.nodes for address in
             (each.hypervisor.ip, each.cvm.ip)), *(cluster.address for cluster in site.clusters),
             *(cluster.data_services for cluster in site.clusters)}
    return next(address for address in node.hypervisor.network.hosts() if address not in taken)


def forwarded_port(running: RunningMachine) -> int:
    """The port of 127.0.0.1 behind which the node's ssh is."""
    text = str(running.ask("human-monitor-command", **{"command-line": "info usernet"}))
    found = _FORWARD.search(text)
    if found is None:
        raise CornerstoneError(f"QEMU forwards no port to the node:\n{text}", "", Code.MACHINE)
    return int(found[1])

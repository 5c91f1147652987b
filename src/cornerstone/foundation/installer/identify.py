"""Which node of the site this machine is, by what it tells of itself."""

from __future__ import annotations

from cornerstone.model.contracts.facts import Facts
from cornerstone.model.site.site import Node, Site


def identify(site: Site, facts: Facts) -> Node:
    """The node that this machine is, by serial, block and position, or MACs, its BMC's included.

    Raises CornerstoneError when none matches or two do.
    """
    dmi = facts.dmi
    macs = [mac for nic in facts.nics for mac in (nic.mac, nic.permanent_mac)]
    macs += [facts.bmc.mac, *facts.bmc.other_macs]
    return site.node_for(serial=dmi.serial, block=dmi.chassis_serial, position=dmi.position,
                         macs=(mac for mac in macs if mac))

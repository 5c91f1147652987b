"""Wired network interfaces that have a device; and how to come to know whether they have a link."""

from __future__ import annotations

import select
import socket
import time
from pathlib import Path

from cornerstone.lib import command
from cornerstone.lib.sysfs import children, link_name, number, pci_function, read
from cornerstone.model.contracts.facts import Nic

ETHERNET = "1"
ADDRESS_IS_PERMANENT = "0"
RTMGRP_LINK = 1
# Copper negotiates for two or three seconds, and some cards of 25 Gbit/s and more for ten.
LINK_SECONDS = 15.0


def read_nics(sys: Path) -> tuple[Nic, ...]:
    """The interfaces as they are; none is changed."""
    return tuple(_nic(path) for path in _interfaces(sys))


def raise_links() -> None:
    """Set every interface up, so that each finds out whether it has a link."""
    lines = "".join(f"link set dev {path.name} up\n" for path in _interfaces(Path("/sys")))
    command.run(["ip", "-force", "-batch", "-"], stdin=lines)


def await_link(seconds: float = LINK_SECONDS) -> None:
    """Return as soon as a wired interface has a link; after seconds, or with no such interface, without one.

    One on USB doesn't count: it is the BMC's way to its host, and always has a link.
    """
    end = time.monotonic() + seconds
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as changes:
        changes.bind((0, RTMGRP_LINK))
        while nics := [nic for nic in read_nics(Path("/sys")) if not nic.usb]:
            left = end - time.monotonic()
            if any(nic.link for nic in nics) or left <= 0 or not select.select([changes], [], [], left)[0]:
                return
            changes.recv(65536)


def _interfaces(sys: Path) -> list[Path]:
    # a wireless card is of this type too, but can't be a port of a bridge, and has no link of its own
    return [path for path in children(sys / "class/net")
            if (path / "device").exists() and read(path / "type") == ETHERNET and not (path / "phy80211").exists()]


def _nic(path: Path) -> Nic:
    device, mac = path / "device", read(path / "address")
    # the file can only be read while the interface is up
    carrier = read(path / "carrier")
    return Nic(
        path.name, mac, mac if read(path / "addr_assign_type") == ADDRESS_IS_PERMANENT else "",
        link_name(device / "driver"), pci_function(device), link_name(device / "subsystem") == "usb",
        number(device / "numa_node"),
        carrier == "1" if carrier else None, number(path / "speed"))

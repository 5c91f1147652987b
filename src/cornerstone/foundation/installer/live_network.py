"""Addresses of the live environment itself: to fetch a site file, and later to report to the site's webhook.

A site is fetched with the address of the kernel argument foundation.address=ADDRESS/PREFIX[,GATEWAY], or one from DHCP.
Untagged, on one network card; nothing of it stays afterwards.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import select
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from cornerstone.lib import command
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.contracts import network

ARGUMENT = "foundation.address"
RESOLVER = Path("/etc/resolv.conf")
# udhcpc asks so often, and waits so many seconds each time: until a port of a spanning tree has long carried it (see
# FORWARD_SECONDS in address.py)
DHCP_TRIES, DHCP_WAIT = 18, 3
# What udhcpc runs for each thing that happens: of a lease it tells all it got, one NAME=value a line.
_LEASE = """#!/bin/sh
[ "$1" != bound ] || printf '%s\\n' "nic=$interface" "ip=$ip" "mask=$mask" "router=$router" "dns=$dns"
"""
_TAGGED = "foundation"


@contextlib.contextmanager
def temporary(argument: str, nics: Iterable[str], resolver: Path = RESOLVER) -> Iterator[str]:
    """Be in a network while the block runs; yields a line that says how. nics: names, with a link.

    argument: the value of foundation.address, "" for DHCP. Raises CornerstoneError when that can't be had.
    """
    nics = list(nics)
    if not nics:
        raise CornerstoneError("no network card has a link, so no site can be fetched",
                               "connect one, or bring the site on a volume or in the ISO", Code.MACHINE)
    if argument:
        # which of several cards is the one isn't known before something answers: the first
        address, gateway = static(argument)
        nic, servers = nics[0], ()
    else:
        nic, address, gateway, servers = lease(nics)
    configure(nic, address, gateway, servers, resolver=resolver)
    try:
        yield f"{nic} {address}" + (f", gateway {gateway}" if gateway else "") + ("" if argument else ", by DHCP")
    finally:
        ip(f"address flush dev {nic}")


def static(argument: str) -> tuple[IPv4Interface, IPv4Address | None]:
    """Address and gateway of ADDRESS/PREFIX[,GATEWAY]. Raises CornerstoneError when it isn't that."""
    text, _, gateway = argument.partition(",")
    try:
        address = ipaddress.IPv4Interface(text)
        network.address(str(address.ip))
        found = network.address(gateway) if gateway else None
        if "/" not in text or (found and network.unusable(found, address.network)):
            raise ValueError
    except ValueError:
        raise CornerstoneError(f"kernel argument {ARGUMENT}={argument} isn't an address in a network",
                               f"such as {ARGUMENT}=10.20.0.5/24,10.20.0.1") from None
    return address, found


def lease(nics: Iterable[str]) -> tuple[str, IPv4Interface, IPv4Address | None, tuple[IPv4Address, ...]]:
    """The first lease that DHCP gives on any of these cards: the card, address, gateway, name servers."""
    nics = list(nics)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dhcp-")))
        script = folder / "lease"
        script.write_text(_LEASE)
        script.chmod(0o700)
        reader, writer = os.pipe()
        stack.callback(os.close, reader)
        for nic in nics:
            words = ["busybox", "udhcpc", "-f", "-q", "-n", "-t", str(DHCP_TRIES), "-T", str(DHCP_WAIT), "-i", nic,
                     "-s", str(script)]
            client = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.DEVNULL)
            stack.callback(client.wait)
            stack.callback(client.kill)
        os.close(writer)
        # ends with a lease, or when the last client has given up
        said = ""
        while "dns=" not in said or not said.endswith("\n"):
            select.select([reader], [], [])
            if not (more := os.read(reader, 4096)):
                break
            said += more.decode(errors="replace")
    told = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    try:
        return (told["nic"], IPv4Interface(f"{told['ip']}/{told['mask']}"),
                IPv4Address(told["router"].split()[0]) if told.get("router") else None,
                tuple(IPv4Address(each) for each in told.get("dns", "").split()))
    except (KeyError, ValueError):
        raise CornerstoneError(f"DHCP gave no address on {', '.join(nics)}", f"give kernel argument {ARGUMENT}="
                               "ADDRESS/PREFIX,GATEWAY, or bring the site on a volume or in the ISO", Code.NETWORK) \
            from None


def configure(nic: str, address: IPv4Interface, gateway: IPv4Address | None, servers: Iterable[IPv4Address] = (), *,
              vlan: int = 0, resolver: Path = RESOLVER) -> str:
    """Give a card an address, as VLAN interface when there is a tag; returns the interface's name.

    Raises CornerstoneError when the kernel doesn't take it.
    """
    device = _TAGGED if vlan else nic
    lines = [f"link set dev {nic} up"]
    if vlan:
        lines += [f"link add link {nic} name {device} type vlan id {vlan}", f"link set dev {device} up"]
    lines.append(f"address replace {address} broadcast + dev {device}")
    if gateway:
        lines.append(f"route replace default via {gateway} dev {device}")
    ip(*lines)
    if servers := list(servers):
        resolver.write_text("".join(f"nameserver {each}\n" for each in servers))
    return device


def links() -> dict[str, bool]:
    """Every interface of this network namespace by name, and whether it has a link."""
    rows = json.loads(command.read(["ip", "-json", "link"]))
    return {row["ifname"]: "LOWER_UP" in row["flags"] for row in rows}


def ip(*lines: str) -> None:
    """Run commands of `ip`, all or up to the first that fails. Raises CornerstoneError with what it said."""
    done = command.run(["ip", "-batch", "-"], stdin="".join(f"{line}\n" for line in lines))
    if done.code:
        raise CornerstoneError(f"the network can't be set up: {done.said.splitlines()[0] if done.said else 'ip'} "
                               f"({'; '.join(lines)})", "check the card's driver, or use another card", Code.MACHINE)

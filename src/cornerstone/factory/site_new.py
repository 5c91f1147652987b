"""`invoke site new`: a valid site file from a few answers, given as flags or asked for on a terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from cornerstone.factory.customize import bootstrap_secret
from cornerstone.model.error import CornerstoneError
from cornerstone.model.site import Site
from cornerstone.model.site_fields import EXTRA
from cornerstone.model.site_file import read_site, to_json

POSITIONS = "ABCD"


@dataclass(frozen=True)
class Question:
    """One answer that a site needs: its flag, what is asked, an example, and whether it can be left empty."""

    name: str
    text: str
    example: str
    optional: bool = False

    @property
    def flag(self) -> str:
        """As it is given on the command line."""
        return "--" + self.name.replace("_", "-")


QUESTIONS = (
    Question("cluster", "Name of the cluster", "lab"),
    Question("gateway", "Gateway with prefix length", "10.20.0.1/24"),
    Question("hypervisors", "Addresses of the hypervisors, with commas", "10.20.0.11,10.20.0.12,10.20.0.13"),
    Question("cvms", "Addresses of their Controller VMs", "10.20.0.21,10.20.0.22,10.20.0.23"),
    Question("serials", "Serial numbers of the machines", "S1,S2,S3"),
    Question("ssh_key", "Public ssh key file for root", "~/.ssh/id_ed25519.pub", optional=True),
    Question("address", "Address of the cluster itself", "10.20.0.30", optional=True),
    Question("data_services", "Address of its iSCSI target", "10.20.0.31", optional=True),
    Question("dns", "Name servers, with commas", "10.20.0.53", optional=True),
    Question("ntp", "Time servers, with commas", "ntp.example.net", optional=True),
)


def new_site(path: Path, given: Mapping[str, str], ask: Callable[[str], str] | None, *, force: bool = False) -> Site:
    """Write a new site file, readable by its owner alone, and return it.

    given: answers by the names of QUESTIONS, empty where there is none; ask: asks for one line, None without a
    terminal. Raises CornerstoneError for answers that are missing or wrong, and when the file is there and not force.
    """
    if path.exists() and not force:
        raise CornerstoneError(f"{path} is there already", "choose another name, or give --force to replace it")
    site = read_site(json.dumps(document(answers(given, ask))).encode(), "the new site")
    write(path, to_json(site), force=force)
    return site


def answers(given: Mapping[str, str], ask: Callable[[str], str] | None) -> dict[str, str]:
    """All answers: the given ones, the others asked for. Once anything required has to be asked, so is the rest."""
    missing = [each for each in QUESTIONS if not each.optional and not given.get(each.name)]
    if missing and ask is None:
        raise CornerstoneError(f"a site needs {', '.join(each.flag for each in missing)}", "such as " + " ".join(
            f"{each.flag} {each.example}" for each in missing))
    found = {}
    for each in QUESTIONS:
        found[each.name] = given.get(each.name, "").strip()
        while missing and not found[each.name]:
            found[each.name] = ask(f"{each.text} ({'optional' if each.optional else each.example}): ").strip()
            if each.optional:
                break
    return found


def document(given: Mapping[str, str]) -> dict[str, Any]:
    """Foundation's JSON from the answers: blocks of four nodes, one cluster of all."""
    try:
        gateway = IPv4Interface(given["gateway"])
    except ValueError:
        raise CornerstoneError(f"--gateway {given['gateway']} isn't an address with its prefix length",
                               "such as 10.20.0.1/24") from None
    hosts, cvms, serials = (words(given[name]) for name in ("hypervisors", "cvms", "serials"))
    if not len(hosts) == len(cvms) == len(serials):
        raise CornerstoneError(f"there are {len(hosts)} hypervisors, {len(cvms)} CVMs and {len(serials)} serials",
                               "give one of each for every node, in the same order")
    nodes = [{"node_position": POSITIONS[index % 4], "hypervisor_hostname": f"{given['cluster'].lower()}-{index + 1}",
              "hypervisor_ip": host, "cvm_ip": cvm, "hypervisor": "kvm", "node_serial": serial}
             for index, (host, cvm, serial) in enumerate(zip(hosts, cvms, serials, strict=True))]
    network = {"gateway": str(gateway.ip), "netmask": str(gateway.netmask)}
    servers = {"cvm_dns_servers": given["dns"], "cvm_ntp_servers": given["ntp"], "hypervisor_ntp_servers": given["ntp"]}
    return {
        **{f"{role}_{name}": value for role in ("cvm", "hypervisor") for name, value in network.items()},
        "hypervisor_nameserver": given["dns"],
        "blocks": [{"nodes": nodes[at:at + 4]} for at in range(0, len(nodes), 4)],
        "clusters": [{
            "cluster_name": given["cluster"], "redundancy_factor": 1 if len(nodes) == 1 else 2, "cluster_members": cvms,
            "cluster_external_ip": given["address"], **servers,
            EXTRA: {"data_services_ip": given["data_services"], "bootstrap_secret": bootstrap_secret()}}],
        EXTRA: {"authorized_keys": ssh_keys(given["ssh_key"])},
    }


def ssh_keys(name: str) -> list[str] | None:
    """The keys in a .pub file. Raises CornerstoneError when it can't be read."""
    if not name:
        return None
    path = Path(name).expanduser()
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CornerstoneError(f"--ssh-key {path} can't be read: {getattr(error, 'strerror', 'it is no text')}",
                               "give a .pub file; ssh-keygen -t ed25519 makes one") from None
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def words(text: str) -> list[str]:
    """The entries of a list with commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def write(path: Path, text: str, *, force: bool) -> None:
    """Write a file for its owner alone, whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if force:
            beside.replace(path)
        else:
            os.link(beside, path)  # fails when somebody else has just made it
    except OSError as error:
        raise CornerstoneError(f"{path} can't be written: {error.strerror}", "check the folder and its rights") \
            from None
    finally:
        beside.unlink(missing_ok=True)

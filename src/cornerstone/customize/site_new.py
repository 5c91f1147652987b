"""`invoke site.new`: a valid site file from a few answers, given as flags or asked for on a terminal."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from cornerstone.customize.customize import bootstrap_secret
from cornerstone.lib.atomic import put
from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.json_text import read_bounded
from cornerstone.model.site.fields import EXTRA
from cornerstone.model.site.file import SiteError, read_site, to_json
from cornerstone.model.site.site import Site

POSITIONS = "ABCD"
# bytes of a file of public keys
MOST_KEYS = 64 << 10


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


class AnswerError(CornerstoneError):
    """Answers that make no valid site; names: the questions that they belong to, so that these can be asked again."""

    def __init__(self, problems: Sequence[tuple[str, str, str]]) -> None:
        """problems: name of the question or "", the reason, and the hint of each."""
        rows = [f"--{name.replace('_', '-')}: {reason}" if name else reason for name, reason, _ in problems]
        super().__init__("\n  ".join(dict.fromkeys(rows)), "; ".join(dict.fromkeys(hint for *_, hint in problems)))
        self.names = tuple(dict.fromkeys(name for name, *_ in problems if name))


def new_site(path: Path, given: Mapping[str, str], ask: Callable[[str], str] | None, *, force: bool = False) -> Site:
    """Write a new site file, readable by its owner alone, and return it.

    given: answers by the names of QUESTIONS, empty where there is none; ask: asks for one line, None without a
    terminal. With it wrong answers are told and asked for again. Raises CornerstoneError for answers that are missing
    or wrong, and when the file is there and not force.
    """
    if path.exists() and not force:
        raise CornerstoneError(f"{path} is there already", "choose another name, or give --force to replace it")
    if not path.parent.is_dir():
        raise CornerstoneError(f"{path} can't be written: No such file or directory", "make its folder first")
    found = answers(given, ask)
    while True:
        try:
            site = read(document(found))
            break
        except AnswerError as error:
            if ask is None or not error.names:
                raise
            print(f"{error.message}\n  {error.hint}", file=sys.stderr)
            found |= {each.name: answer(each, ask) for each in QUESTIONS if each.name in error.names}
    write(path, to_json(site), force=force)
    return site


def answers(given: Mapping[str, str], ask: Callable[[str], str] | None) -> dict[str, str]:
    """All answers: the given ones, the others asked for. Once anything required has to be asked, so is the rest."""
    found = {each.name: given.get(each.name, "").strip() for each in QUESTIONS}
    missing = [each for each in QUESTIONS if not each.optional and not found[each.name]]
    if missing and ask is None:
        raise CornerstoneError(f"a site needs {', '.join(each.flag for each in missing)}", "such as " + " ".join(
            f"{each.flag} {each.example}" for each in missing))
    if missing and ask:
        found |= {each.name: answer(each, ask) for each in QUESTIONS if not found[each.name]}
    return found


def answer(question: Question, ask: Callable[[str], str]) -> str:
    """Ask until there is an answer, or once when there needn't be one."""
    prompt = f"{question.text} ({'optional' if question.optional else question.example}): "
    while not (said := ask(prompt).strip()) and not question.optional:
        pass
    return said


def read(wanted: dict[str, Any]) -> Site:
    """The site of a document that was made from answers. Raises AnswerError in the words of the questions."""
    try:
        return read_site(json.dumps(wanted).encode(), "the new site")
    except SiteError as error:
        raise AnswerError([(question_of(problem.path), in_flags(problem.reason), problem.hint)
                           for problem in error.problems]) from None


# Which answer a key of Foundation's JSON was made from.
_KEYS = {"hypervisor_ip": "hypervisors", "cvm_ip": "cvms", "node_serial": "serials", "hypervisor_hostname": "cluster",
         "cluster_name": "cluster", "cluster_members": "cvms", "cluster_external_ip": "address",
         "data_services_ip": "data_services", "authorized_keys": "ssh_key"}
_ENDINGS = {"gateway": "gateway", "netmask": "gateway", "dns_servers": "dns", "nameserver": "dns", "ntp_servers": "ntp"}


def question_of(path: str) -> str:
    """The name of the question whose answer stands at a path of the JSON, or "" when there is none."""
    keys = re.findall(r"\.([a-z_]+)", path)
    return next((found for key in reversed(keys) if (found := _KEYS.get(key) or next(
        (name for ending, name in _ENDINGS.items() if key.endswith(ending)), ""))), "")


def in_flags(reason: str) -> str:
    """A reason with each path of the JSON in it replaced by the flag that the value comes from."""
    def flag(found: re.Match[str]) -> str:
        name = question_of(found[0])
        return f"--{name.replace('_', '-')}" if name else found[0]
    return re.sub(r"(?<![\w/])(\.[a-z_]+(\[[0-9]+\])?)+", flag, reason)


def document(given: Mapping[str, str]) -> dict[str, Any]:
    """Foundation's JSON from the answers: blocks of four nodes, one cluster of all. Raises AnswerError."""
    gateway = parse_gateway(given["gateway"])
    hosts, cvms, serials = (words(given[name]) for name in ("hypervisors", "cvms", "serials"))
    if not len(hosts) == len(cvms) == len(serials):
        reason = f"there are {len(hosts)} hypervisors, {len(cvms)} CVMs and {len(serials)} serials"
        counts = {"hypervisors": len(hosts), "cvms": len(cvms), "serials": len(serials)}
        usual = sorted(counts.values())[1]
        raise AnswerError([(name, reason, "give one of each for every node, in the same order")
                           for name, count in counts.items() if count != usual])
    # A cluster's name may have dots and underlines, which a host's name may not.
    stem = re.sub("[^a-z0-9]+", "-", given["cluster"].lower()).strip("-")[:50] or "node"
    nodes = [{"node_position": POSITIONS[index % 4], "hypervisor_hostname": f"{stem}-{index + 1}",
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


def parse_gateway(text: str) -> IPv4Interface:
    """The gateway with its prefix length. Raises AnswerError for anything else."""
    try:
        gateway = IPv4Interface(text)
    except ValueError:
        raise AnswerError([("gateway", f"{text} isn't an address with its prefix length", "such as 10.20.0.1/24")]) \
            from None
    if "/" not in text:
        raise AnswerError([("gateway", f"give the prefix length: {text}/24, say, where the network has 254 addresses",
                            "the prefix length says which addresses are in the same network")])
    return gateway


def ssh_keys(name: str) -> list[str] | None:
    """The keys in a .pub file. Raises AnswerError when it can't be read or holds a private key."""
    if not name:
        return None
    hint = "give a .pub file; ssh-keygen -t ed25519 makes one"
    try:
        path = Path(name).expanduser()
    except RuntimeError:
        raise AnswerError([("ssh_key", f"{name} is in the home of somebody who isn't known here", hint)]) from None
    try:
        # Editors on Windows begin a file with a byte order mark.
        text = read_bounded(path, MOST_KEYS).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = f"{path} can't be read: {getattr(error, 'strerror', 'it is no text')}"
        raise AnswerError([("ssh_key", reason, hint)]) from None
    if len(text) > MOST_KEYS:
        raise AnswerError([("ssh_key", f"{path} has more than {MOST_KEYS >> 10} KiB", hint)])
    if "PRIVATE KEY" in text:
        raise AnswerError([("ssh_key", f"{path} holds a private key, which has to stay where it is", hint)])
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def words(text: str) -> list[str]:
    """The entries of a list with commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def write(path: Path, text: str, *, force: bool) -> None:
    """Write a file for its owner alone, whole or not at all; without force only where there is none."""
    try:
        put(path, text, 0o600, exclusive=not force)
    except OSError as error:
        raise CornerstoneError(f"{path} can't be written: {error.strerror}", "check the folder and its rights") \
            from None

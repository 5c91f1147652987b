"""Site files: JSON text in, a Site or one error with every problem out. Standard library only."""

from __future__ import annotations

import hashlib
import json
import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.json_text import JsonProblem, parse
from cornerstone.model.contracts.network import interface
from cornerstone.model.contracts.node import ANYWHERE
from cornerstone.model.contracts.site_area import ROOM, SIZE
from cornerstone.model.site.fields import BLOCK, CLUSTER, CLUSTER_EXTRA, EXTRA, NODE, NODE_EXTRA, SITE, SITE_EXTRA
from cornerstone.model.site.kinds import CENTRAL, Fields, Notes, Problem, record
from cornerstone.model.site.rules import BUNDLED, RULES, each_node, macs_of, setting
from cornerstone.model.site.site import GB, Block, Bmc, Cluster, DiskChoice, Node, Site, Uplink

REDACTED = "(not shown)"
# bytes of a site file; without blanks and with the secrets that are drawn it has to fit the area of an ISO, too
MOST = SIZE
# digits of a site's short hash: nobody makes a second site with the same 64 bits while a machine boots
SHORT = 16
# a bootstrap secret of 32 bytes in base64 with its keys, as customising adds it
DRAWN = len(',"cornerstone":{"bootstrap_secret":""}') + 44
# the tables with secrets, by the path from the top; [] stands for every entry
_NESTED: dict[str, Fields] = {
    "": SITE, EXTRA: SITE_EXTRA, "blocks[]": BLOCK, "blocks[].nodes[]": NODE, f"blocks[].nodes[].{EXTRA}": NODE_EXTRA,
    "clusters[]": CLUSTER, f"clusters[].{EXTRA}": CLUSTER_EXTRA,
}
GIB = 1 << 30


class SiteError(CornerstoneError):
    """A site file that is refused; problems: each with path, reason and hint; more: how many others there are."""

    def __init__(self, where: str, problems: tuple[Problem, ...], more: int = 0) -> None:
        count = "1 problem" if len(problems) + more == 1 else f"{len(problems) + more:,} problems"
        rows = "".join(f"\n  {problem}\n      {problem.hint}" for problem in problems)
        rows += f"\n  … and {more:,} more" * bool(more)
        super().__init__(f"{where}: {count}{rows}", "docs/site.md says what a site file holds", Code.INPUT)
        self.problems = problems


def read_site(content: bytes, where: str = "site.json") -> Site:
    """Read a site file. where: its name in errors. Raises SiteError with what is wrong in it, all or the first 50.

    The file is Foundation's image_nodes body, or a saved configuration, which has that under the key config; paths
    in errors start at the body.
    """
    notes = Notes()
    given = _parse(content, where, notes)
    if isinstance(given, dict) and given.keys() == {"config"}:
        given = given["config"]
    if isinstance(given, dict) and "blocks" not in given and (found := sorted(given.keys() & CENTRAL)):
        notes.of_central(f".{found[0]}")
        raise SiteError(where, tuple(notes.problems), notes.more)
    document = record(SITE).read(given, "", notes)
    for rule in RULES:
        rule(document, notes)
    if not notes.problems and (size := _size_in_iso(document)) > ROOM:
        notes.wrong("", f"has {size} bytes as an ISO holds it, with the secrets that are drawn, and at most {ROOM} fit",
                    "cut it into several sites, each for an ISO of its own")
    if notes.problems:
        raise SiteError(where, tuple(notes.problems), notes.more)
    return _site(document, tuple(notes.warnings))


def to_json(site: Site) -> str:
    """The file's text, normalised: the same meaning, keys in one order. Holds the secrets; mind where it goes."""
    return as_text(site.document)


def to_area(site: Site) -> bytes:
    """Return the normalised site without blanks, as an ISO holds it. Holds the secrets, too."""
    return compact(site.document)


def size_in_iso(site: Site) -> int:
    """How many of ROOM bytes the site takes on an ISO, a secret that is yet to be drawn for each cluster included."""
    return _size_in_iso(site.document)


def compact(document: dict[str, Any]) -> bytes:
    """A site's JSON without blanks, so that it is no larger than the file that it came from."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _size_in_iso(document: dict[str, Any]) -> int:
    drawn = [cluster for cluster in document.get("clusters", ()) if "bootstrap_secret" not in cluster.get(EXTRA, {})]
    return len(compact(document)) + DRAWN * len(drawn)


def short_hash(content: bytes) -> str:
    """Return by what people tell site files apart: the first digits of what sha256sum shows."""
    return hashlib.sha256(content).hexdigest()[:SHORT]


def redacted(site: Site) -> str:
    """The same with every secret replaced, to show it."""
    copy = json.loads(json.dumps(site.document))
    for path, name in SECRETS:
        for place in _places(copy, path):
            if name in place:
                place[name] = REDACTED
    return as_text(copy)


def as_text(document: dict[str, Any]) -> str:
    """A site's JSON as it stands in files and in the ISO."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


SECRETS = tuple((path, name) for path, fields in _NESTED.items() for name, field in fields.items() if field.secret)
"""Where secrets are: (path of the object as blocks[].nodes[], name)."""


def secrets_of(site: Site) -> tuple[str, ...]:
    """The secrets themselves, so that they can be kept out of what is told."""
    return tuple(place[name] for path, name in SECRETS for place in _places(site.document, path) if name in place)


def has_secrets(site: Site) -> bool:
    """Whether the file holds any, so that it isn't everybody's to read."""
    return redacted(site) != to_json(site)


def check_releases(site: Site, aos: str, ahv: str) -> None:
    """Raise SiteError when the file expects other releases than those that an ISO carries."""
    problems = []
    for path, given, word, release in ((".nos_package", site.aos_package, "AOS", aos),
                                       (".hypervisor_iso.kvm.filename", site.ahv_image, "AHV", ahv)):
        if given and not given.startswith(BUNDLED) \
                and not re.search(rf"(?<![0-9])(?<![0-9]\.){re.escape(release)}(?!\.?[0-9])", given):
            problems.append(Problem(path, f"'{given}' doesn't name {word} {release}, which the ISO carries",
                                    "take the ISO of that release, or delete the field: the ISO carries its own"))
    if problems:
        raise SiteError("the site doesn't fit the ISO", tuple(problems))


def _parse(content: bytes, where: str, notes: Notes) -> Any:
    try:
        value, twice = parse(content, MOST)
    except JsonProblem as problem:
        reason = problem.reason
        if place := problem.syntax:
            reason = f"isn't JSON at line {place.lineno}, column {place.colno}: {place.msg}"
        raise SiteError(where, (Problem("", reason, problem.hint),)) from None
    for path in twice:
        notes.wrong(path, "is written twice in one object", "keep one of the two")
    return value


def _places(document: Any, path: str) -> list[dict[str, Any]]:
    places = [document]
    for part in filter(None, path.split(".")):
        name = part.removesuffix("[]")
        found = [place[name] for place in places if name in place]
        places = [entry for each in found for entry in each] if part.endswith("[]") else found
    return places


def _site(document: dict[str, Any], warnings: tuple[Problem, ...]) -> Site:
    extra = document.get(EXTRA, {})
    nodes = iter([_node(document, block, node) for _, node, block in each_node(document)])
    blocks = tuple(Block(block.get("block_id", ""), tuple(next(nodes) for _ in block["nodes"]))
                   for block in document["blocks"])
    return Site(
        blocks, tuple(map(_cluster, document.get("clusters", ()))),
        IPv4Address(document["hypervisor_gateway"]), IPv4Address(document["cvm_gateway"]),
        _addresses(document.get("hypervisor_nameserver", "")), tuple(extra.get("authorized_keys", ())),
        tuple(map(IPv4Network, extra.get("ssh_from", (ANYWHERE,)))),
        document.get("nos_package", ""), document.get("hypervisor_iso", {}).get("kvm", {}).get("filename", ""),
        extra.get("webhook", ""), extra.get("reinstall_token", ""), warnings, document)


def _node(site: dict[str, Any], block: dict[str, Any], node: dict[str, Any]) -> Node:
    own = {**site.get(EXTRA, {}), **node.get(EXTRA, {})}
    passthrough = own.get("passthrough", "auto")
    memory = node.get("cvm_gb_ram")
    return Node(
        position=node["node_position"], block_id=block.get("block_id", ""), serial=node.get("node_serial", ""),
        hostname=node["hypervisor_hostname"], hypervisor=interface(node["hypervisor_ip"], site["hypervisor_netmask"]),
        cvm=interface(node["cvm_ip"], site["cvm_netmask"]), bmc=_bmc(site, node), uplink=_uplink(site, node),
        macs=tuple(macs_of(node)), image=node.get("image_now", True), cvm_memory=memory and memory * GIB,
        cvm_vcpus=node.get("cvm_num_vcpus"),
        boot_disk=_disk(own["boot_disk"]) if "boot_disk" in own else None,
        never_boot=node.get("exlude_boot_serial", ""), data_disks=tuple(map(_disk, own.get("data_disks", ()))),
        passthrough="pci" if isinstance(passthrough, list) else passthrough,
        pci_addresses=tuple(passthrough) if isinstance(passthrough, list) else (),
        erase_tokens=tuple(sorted(own.get("erase_tokens", {}).items())))


def _bmc(site: dict[str, Any], node: dict[str, Any]) -> Bmc | None:
    if "ipmi_ip" not in node:
        return None
    gateway = setting(site, node, "ipmi_gateway")
    return Bmc(IPv4Interface(f"{node['ipmi_ip']}/{setting(site, node, 'ipmi_netmask', 32)}"),
               IPv4Address(gateway) if gateway else None, node.get("ipmi_mac", ""),
               node.get("ipmi_configure_now", True), setting(site, node, "ipmi_user", ""),
               setting(site, node, "ipmi_password", ""))


def _uplink(site: dict[str, Any], node: dict[str, Any]) -> Uplink:
    vlan = setting(site, node, "current_cvm_vlan_tag", 0)
    for switch in node.get("vswitches", ()):
        options = tuple(tuple(each.split("=", 1)) for each in switch.get("other_config", ()))
        return Uplink(tuple(switch["uplinks"]), switch.get("bond_mode", "active-backup"), switch.get("lacp", "off"),
                      vlan=vlan, mtu=switch.get("mtu", 1500), options=options)
    macs = tuple(node.get("bond_uplinks", ()))
    if setting(site, node, "bond_mode") == "dynamic":
        return Uplink(macs, "balance-tcp", "active", setting(site, node, "bond_lacp_rate", "slow"), vlan)
    return Uplink(macs, vlan=vlan)


def _disk(choice: dict[str, Any]) -> DiskChoice:
    return DiskChoice(choice.get("serial", ""), choice.get("wwn", ""), choice.get("model", ""),
                      choice.get("min_gb", 0) * GB, choice["max_gb"] * GB if "max_gb" in choice else None)


def _cluster(cluster: dict[str, Any]) -> Cluster:
    extra = cluster.get(EXTRA, {})

    def one(text: str | None) -> IPv4Address | None:
        return IPv4Address(text) if text else None

    def words(name: str) -> tuple[str, ...]:
        return tuple(filter(None, cluster.get(name, "").split(",")))
    return Cluster(
        cluster["cluster_name"], tuple(map(IPv4Address, cluster["cluster_members"])), cluster["redundancy_factor"],
        cluster.get("cluster_init_now", True), one(cluster.get("cluster_external_ip")),
        one(extra.get("data_services_ip")), words("cvm_ntp_servers"), _addresses(cluster.get("cvm_dns_servers", "")),
        words("hypervisor_ntp_servers"), cluster.get("timezone", "UTC"), extra.get("patience", 1),
        extra.get("bootstrap_secret", ""))


def _addresses(text: str) -> tuple[IPv4Address, ...]:
    return tuple(map(IPv4Address, filter(None, text.split(","))))

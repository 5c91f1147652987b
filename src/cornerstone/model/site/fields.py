"""The fields of a site file, each in one line: its kind and what it does, or why it is refused.

The wire is Foundation's own `image_nodes` body, with its misspellings; what Foundation lacks is under the key
`cornerstone`. Reading, the JSON Schema and the list of secrets all come from these tables. Standard library only.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

from cornerstone.lib.printable import quoted, shown
from cornerstone.model.contracts import network
from cornerstone.model.site.kinds import (
    BOOLEAN,
    HOST_NAME,
    IPV4,
    MAC,
    NETMASK,
    NOTHING,
    Field,
    Fields,
    Kind,
    Notes,
    asks_nothing,
    choice,
    comma_list,
    converted,
    ignored,
    many,
    number,
    record,
    record_schema,
    refused,
    text,
)

EXTRA = "cornerstone"
ONLY_AHV = "this factory only images AHV"
NO_RDMA = "RDMA cards aren't passed through"
NO_CISCO = "Cisco UCS Manager isn't driven; each node is imaged by the ISO that it boots"
NO_SEGMENTATION = "network segmentation isn't set up"
SELF = "a node is imaged by the ISO that it boots, not through a running one"
RESULT = "it is a result of an earlier session, not a wish"
FOUND = "it is what discovery found on the node, not a wish"
NOT_ASKED = "the hypervisor is AHV"
OTHER_HYPERVISORS = {"ahv": "Foundation's word for AHV is kvm", "esx": ONLY_AHV, "hyperv": ONLY_AHV, "xen": ONLY_AHV,
                     "linux": ONLY_AHV, "phoenix": "it says that a node runs the installer, not what to install"}
# what makers' firmware says where it has no serial number
PLACEHOLDERS = {"none", "n/a", "0", "unknown", "not specified", "default string", "to be filled by o.e.m.",
                "system serial number", "chassis serial number", "0123456789", "123456789"}
SSH_KEYS = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
            "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com")
SECRET_BYTES = 32

_URL = re.compile(r"https?://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?(/[!-~]*)?")
# a label as resolvers take it, which is more than a host may be called
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")

FILE_NAME = text(hint="the name of a file", longest=255)
SERIAL = text(lambda value: "is what firmware says without a serial" if value.lower() in PLACEHOLDERS else None,
              "as `dmidecode -s system-serial-number` shows it", longest=64)
DISK_SERIAL = text(hint="as `lsblk -o SERIAL` shows it", longest=64)


def _server(value: str) -> str | None:
    if re.fullmatch(r"[0-9.]+", value):
        try:
            network.address(value)
        except ValueError as error:
            return str(error)
        return None
    return None if network.is_host_name(value) else "is neither an IPv4 address nor a host name"


def _web_address(value: str) -> str | None:
    """The reason why no request could be sent to an http or https address, as a clause."""
    if not (found := _URL.fullmatch(value)):
        return "doesn't fit"
    host, port = found["host"], found["port"]
    if port and not 0 < int(port) < 1 << 16:
        return "has a port that isn't from 1 to 65535"
    try:
        if host.startswith("["):
            IPv6Address(host[1:-1])
        elif re.fullmatch(r"[0-9.]+", host):
            IPv4Address(host)
        elif len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.removesuffix(".").split(".")):
            return "has a host that is no name"
    except ValueError:
        return "has a host that is no IP address"
    return None


def _network(value: str) -> IPv4Network:
    try:
        return IPv4Network(value)
    except ValueError:
        raise ValueError("isn't an IPv4 network, or has bits behind its prefix") from None


def _ssh_key(value: str) -> str | None:
    words = value.split(None, 2)
    if words[0] not in SSH_KEYS:
        return "isn't an OpenSSH public key without options"
    try:
        blob = base64.b64decode(words[1] if len(words) > 1 else "", validate=True)
    except (binascii.Error, ValueError):
        return "isn't a whole public key"
    name = words[0].encode()
    return None if blob.startswith(len(name).to_bytes(4, "big") + name) else "isn't a whole public key"


def _bootstrap_secret(value: str) -> str | None:
    try:
        found = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return "isn't base64"
    if len(found) < SECRET_BYTES:
        return f"has {len(found)} bytes, and {SECRET_BYTES} by chance are needed"
    return None if _may_be_drawn(found, value) else "is a text or a pattern, and anybody may guess it without asking"


def _may_be_drawn(found: bytes, value: str) -> bool:
    """Whether bytes, written as value, may come from a random source.

    Whoever connects to a member sees what is derived from the secret, and can try guesses at home as fast as he can
    compute. Of a thousand million secrets that are drawn each test here refuses one at most.
    """
    steps = {(later - earlier) % 256 for earlier, later in itertools.pairwise(found)}
    if len(set(found)) < 20 or len(steps) < 19:
        return False
    # of a text's base64, and of a text that happens to be base64
    if sum(32 <= byte < 127 for byte in found) > 0.9 * len(found) or _is_text(found):
        return False
    typed = value.rstrip("=")
    return all(sum(map(kind, typed)) < 0.88 * len(typed) for kind in (str.islower, str.isupper, str.isdigit))


def _is_text(found: bytes) -> bool:
    try:
        return found.decode().replace("\n", "").isprintable()
    except UnicodeDecodeError:
        return False


def _passthrough(value: Any, path: str, notes: Notes) -> Any:
    if isinstance(value, list):
        return PCI_ADDRESSES.read(value, path, notes)
    if value not in ("auto", "scsi"):
        return notes.wrong(path, f"{shown(value)} isn't a choice", 'write "auto", "scsi", or a list of PCI addresses')
    return value


def _erase_tokens(value: Any, path: str, notes: Notes) -> dict[str, str] | None:
    if not isinstance(value, dict):
        return notes.wrong(path, f"{shown(value)} isn't an object", 'write it as {"disk serial": "token"}')
    return {serial: token for serial, given in value.items()
            if DISK_SERIAL.read(serial, f"{path}[{quoted(serial)}]", notes)
            and (token := TOKEN.read(given, f"{path}[{quoted(serial)}]", notes))}


def _some_disk(value: dict, path: str, notes: Notes) -> None:
    if not value:
        notes.wrong(path, "names no disk", "give a serial, a wwn, a model or a size")
    if value.get("min_gb", 0) > value.get("max_gb", 1 << 60):
        notes.wrong(f"{path}.min_gb", "is more than max_gb", "swap them")


NETWORK = converted(_network, "write it with its prefix: 10.20.0.0/16")
PCI_ADDRESSES = many(text(pattern=r"[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]",
                          hint="in full and in lower case, as `lspci -D` shows it: 0000:3b:00.0"), most=32)
PASSTHROUGH = Kind(_passthrough, {"anyOf": [{"enum": ["auto", "scsi"]}, PCI_ADDRESSES.schema]})
TOKEN = text(pattern=r"[A-Za-z0-9._-]{4,64}", hint="as the plan shows it beside the disk")
ERASE_TOKENS = Kind(_erase_tokens, {"type": "object", "additionalProperties": TOKEN.schema})

DISK: Fields = {
    "serial": Field(DISK_SERIAL, "the disk's serial number"),
    "wwn": Field(text(pattern=r"(0x|naa\.|eui\.|nvme\.|uuid\.)?[0-9A-Za-z.-]{8,128}", 
                      hint="as `lsblk -o WWN` shows it"), "its world wide name"),
    "model": Field(text(hint="as `lsblk -o MODEL` shows it; * stands for any text", longest=64), "its model"),
    "min_gb": Field(number(1, 1 << 20), "at least so many GB (10^9 bytes, as on its label)"),
    "max_gb": Field(number(1, 1 << 20), "at most so many GB"),
}
DISK_CHOICE = record(DISK, _some_disk)

# defaults for all nodes under the topmost key, or one node's own
CHOICES: Fields = {
    "boot_disk": Field(DISK_CHOICE, "what the boot disk has to match, all of it; exactly one disk may"),
    "data_disks": Field(many(DISK_CHOICE, most=64), "disks that match one of these go to the storage pool; "
                                                     "default: all that are passed through"),
    "passthrough": Field(PASSTHROUGH, "auto: storage controllers go to the CVM whole where possible; a list: just "
                                      "these PCI addresses; scsi: raw SCSI devices instead; default: auto"),
}

SITE_EXTRA: Fields = {
    **CHOICES,
    "authorized_keys": Field(many(text(_ssh_key, "one line of a .pub file", secret=True)),
                             "ssh keys that may log in as root on hypervisors and CVMs"),
    "ssh_from": Field(many(NETWORK, least=0), "networks from which hypervisors and CVMs take ssh; an empty list: none; "
                                              "default: all"),
    "webhook": Field(text(_web_address, "an http or https address without user and password", secret=True),
                     "where nodes report their progress (POST, JSON)", secret=True),
    "reinstall_token": Field(text(pattern=r"[A-Za-z0-9._-]{8,64}", secret=True, hint="8 to 64 letters, digits, dots "
                                  "and dashes"), "kernel argument foundation.reinstall with this text installs a node "
                                                 "anew that is installed already", secret=True),
}
NODE_EXTRA: Fields = {
    **CHOICES,
    "nic_macs": Field(many(MAC), "network cards by which the node is known when it has no serial number"),
    "erase_tokens": Field(ERASE_TOKENS, "by disk serial: the plan's token that allows erasing a disk that isn't empty"),
}
CLUSTER_EXTRA: Fields = {
    "data_services_ip": Field(IPV4, "address of the cluster's iSCSI target"),
    "patience": Field(number(1, 10), "how many times longer than usual members wait for one another before they take "
                                     "one for dead: 1, and more where machines are slow, for instance emulated"),
    "bootstrap_secret": Field(
        text(_bootstrap_secret, "base64 of 32 random bytes or more: `openssl rand -base64 32` draws one, and so does "
             "invoke customize when it is missing", secret=True),
        "shared secret by which nodes know each other while the cluster forms, base64; `invoke customize` draws one "
        "when it is missing", secret=True),
}

VSWITCH: Fields = {
    "name": Field(choice("br0", why_not={"vs0": "the bridge of host and CVM is br0 here"}), "the bridge, br0",
                  required=True),
    "uplinks": Field(many(MAC, most=8), "its network cards", required=True),
    "bond_mode": Field(choice("active-backup", "balance-slb", "balance-tcp"), "mode of the bond in Open vSwitch; "
                                                                              "default: active-backup"),
    "lacp": Field(choice("off", "active", "passive"), "LACP; balance-tcp needs it; default: off"),
    "other_config": Field(many(text(pattern=r"[a-z][a-z0-9-]*=[A-Za-z0-9:.-]+", hint="key=value, as Open vSwitch has "
                                    "it: bond-detect-mode=miimon"), 0, 16), "other_config of the bond's port"),
    "mtu": Field(number(1280, 9216), "MTU of bridge and uplinks in bytes; default: 1500"),
}

BOND: Fields = {
    "bond_mode": Field(choice("dynamic", why_not={
        "static": "Open vSwitch has no static link aggregation that keeps broadcasts whole"}),
        "dynamic: LACP over all uplinks; default: one uplink at a time"),
    "bond_lacp_rate": Field(choice("slow", "fast"), "how often LACP speaks; default: slow"),
    "current_cvm_vlan_tag": Field(number(0, 4094), "VLAN of host and CVM on the uplinks; 0: untagged, the default"),
}


def _account(maximum: int) -> Kind:
    return text(lambda value: None if value.isascii() and len(value) <= maximum else "isn't possible on a BMC",
                f"at most {maximum} ASCII characters", secret=True, longest=maximum)


IPMI: Fields = {
    "ipmi_netmask": Field(NETMASK, "netmask of the BMCs"),
    "ipmi_gateway": Field(IPV4, "gateway of the BMCs"),
    "ipmi_user": Field(_account(16), "BMC account whose password is set"),
    "ipmi_password": Field(_account(20), "its password", secret=True),
}

NODE: Fields = {
    "node_position": Field(text(pattern="[A-Za-z0-9]{1,4}", hint="A, B, C or D on a chassis of four"),
                           "slot in the chassis", required=True),
    "hypervisor_hostname": Field(HOST_NAME, "the hypervisor's host name", required=True),
    "hypervisor_ip": Field(IPV4, "the hypervisor's address", required=True),
    "cvm_ip": Field(IPV4, "the Controller VM's address", required=True),
    "hypervisor": Field(choice("kvm", why_not=OTHER_HYPERVISORS), "kvm, which is AHV"),
    "ipmi_ip": Field(IPV4, "the BMC's address; without one the BMC is left alone"),
    "ipmi_mac": Field(MAC, "the BMC's MAC, compared before it is configured"),
    "ipmi_configure_now": Field(BOOLEAN, "false: the BMC's address is only compared, not set; default: set"),
    **IPMI,
    "node_serial": Field(SERIAL, "the machine's serial number, by which it is known"),
    "image_now": Field(BOOLEAN, "false: the node is left as it is; default: true"),
    "cvm_gb_ram": Field(number(4, 4096), "the CVM's memory in GiB; default: the profile's"),
    "cvm_num_vcpus": Field(number(1, 256), "the CVM's virtual CPUs; default: the profile's"),
    **BOND,
    "bond_uplinks": Field(many(MAC, most=8), "network cards of the bond; default: all with a link"),
    "vswitches": Field(many(record(VSWITCH), 0, 1), "the bridge in Open vSwitch's own words, instead of bond_*"),
    "exlude_boot_serial": Field(DISK_SERIAL, "serial of a disk that is never the boot disk"),
    EXTRA: Field(record(NODE_EXTRA), "this node's own choices"),
    "node_uuid": ignored("the machine is known by serial, position or MAC"),
    "cluster_id": ignored(FOUND),
    "ipv6_address": ignored(SELF),
    "ipv6_interface": ignored(SELF),
    "current_network_interface": ignored(SELF),
    "device_hint": refused(SELF),
    "nos_version": ignored("it says what the node ran before; the ISO carries its own AOS"),
    "is_bare_metal": ignored("every node is imaged as bare metal here"),
    "is_selected": Field(BOOLEAN, "false: the same as image_now false"),
    "compute_only": refused("every node here has a Controller VM"),
    "hardware_attributes_override": refused("what a machine can do is found out on it"),
    "rdma_passthrough": refused(NO_RDMA),
    "rdma_mac_addr": ignored(NO_RDMA),
    "image_delay": ignored("each node images itself, so there is no rush to stagger"),
    "mitigate_low_boot_space": refused("a boot disk that is too small is refused"),
    "image_successful": ignored(RESULT),
    "ucsm_node_serial": ignored(NO_CISCO),
    "ucsm_managed_mode": refused(NO_CISCO),
    "ucsm_params": ignored(NO_CISCO),
}

# in the replies of discover_nodes and ipmi_config, from which clients make the body
DISCOVERED_NODE = {**dict.fromkeys(("model", "svm_ip", "hypervisor_version", "foundation_version", "configured",
                                    "attributes"), FOUND),
                   **dict.fromkeys(("ipmi_configure_successful", "ipmi_message"), RESULT)}
DISCOVERED_BLOCK = dict.fromkeys(("model", "chassis_n"), FOUND)


def _selected(node: dict, path: str, notes: Notes) -> None:
    """Take a node that isn't selected on Foundation's pages for one that isn't to be imaged."""
    if not node.pop("is_selected", True) and node.get("image_now", True):
        node["image_now"] = False
        notes.warn(f"{path}.is_selected", "is false, so the node is left as it is", "delete it to have it imaged")


BLOCK: Fields = {
    "block_id": Field(text(pattern="[A-Za-z0-9][A-Za-z0-9._-]{0,39}", hint="letters, digits, dots and dashes, at most "
                           "40: the chassis' serial number"), "the chassis' serial number, part of the CVM's name"),
    "nodes": Field(many(record(NODE, _selected, DISCOVERED_NODE), most=64), "the nodes in this chassis", required=True),
}

CLUSTER: Fields = {
    "cluster_name": Field(text(pattern="[A-Za-z0-9]([A-Za-z0-9._-]{0,73}[A-Za-z0-9])?", hint="letters, digits, dots "
                               "and dashes, at most 75"), "the cluster's name", required=True),
    "redundancy_factor": Field(number(1, 3), "copies of each piece of data: 2 or 3 on hosts of their own; on a single "
                                             "node 1, or 2 on disks of their own", required=True),
    "cluster_members": Field(many(IPV4), "the CVM addresses of its nodes", required=True),
    "cluster_init_now": Field(BOOLEAN, "false: the nodes are imaged and no cluster is formed; default: true"),
    "cluster_external_ip": Field(IPV4, "the cluster's own address"),
    "single_node_cluster": Field(BOOLEAN, "true for a cluster of one node"),
    "cvm_ntp_servers": Field(comma_list(text(_server, "an address or a host name")), "time servers of the CVMs, with "
                                                                                     "commas"),
    "cvm_dns_servers": Field(comma_list(IPV4), "name servers of the CVMs, with commas"),
    "hypervisor_ntp_servers": Field(comma_list(text(_server, "an address or a host name")),
                                    "time servers of the hypervisors, with commas"),
    "timezone": Field(text(pattern=r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}", longest=64,
                           hint="a name of the time zone database: Europe/Berlin"),
                      "time zone of the CVMs; default: UTC"),
    EXTRA: Field(record(CLUSTER_EXTRA), "what Foundation's format lacks for a cluster"),
    "enable_ns": refused(NO_SEGMENTATION),
    **{name: ignored(NO_SEGMENTATION) for name in ("backplane_subnet", "backplane_netmask", "backplane_vlan")},
    "cluster_init_successful": ignored(RESULT),
}

CARRIED = "the ISO carries its own, and its manifest the checksums"
KVM: Fields = {
    "filename": Field(FILE_NAME, "an AHV ISO: it has to name the build that the ISO carries", required=True),
    "checksum": refused(CARRIED),
}
HYPERVISOR_ISO: Fields = {
    "kvm": Field(record(KVM), "the AHV build that is expected on the ISO"),
    **{name: refused(ONLY_AHV) for name in ("esx", "hyperv", "xen", "linux")},
}
_HYPERVISOR_ISO = record(HYPERVISOR_ISO)


def _hypervisor_iso(value: Any, path: str, notes: Notes) -> Any:
    """Images of other hypervisors beside that of AHV are for nodes that aren't in this file."""
    if isinstance(value, dict) and not asks_nothing(value.get("kvm")):
        others = [name for name in ("esx", "hyperv", "xen", "linux") if not asks_nothing(value.get(name))]
        for name in others:
            notes.warn(f"{path}.{name}", f"has no effect: {NOT_ASKED}", "it can be deleted")
        value = {name: given for name, given in value.items() if name not in others}
    return _HYPERVISOR_ISO.read(value, path, notes)



SITE: Fields = {
    "cvm_gateway": Field(IPV4, "gateway of the CVMs", required=True),
    "cvm_netmask": Field(NETMASK, "netmask of the CVMs", required=True),
    "hypervisor_gateway": Field(IPV4, "gateway of the hypervisors", required=True),
    "hypervisor_netmask": Field(NETMASK, "netmask of the hypervisors", required=True),
    **IPMI,
    "hypervisor_nameserver": Field(comma_list(IPV4), "name servers of the hypervisors, with commas"),
    "nos_package": Field(FILE_NAME, "an AOS package: it has to name the release that the ISO carries"),
    "hypervisor_iso": Field(Kind(_hypervisor_iso, _HYPERVISOR_ISO.schema),
                            "the hypervisor that is expected on the ISO"),
    "hypervisor": Field(choice("kvm", why_not=OTHER_HYPERVISORS), "kvm, which is AHV, for all nodes"),
    **BOND,
    "blocks": Field(many(record(BLOCK, told=DISCOVERED_BLOCK)), "chassis and their nodes", required=True),
    "clusters": Field(many(record(CLUSTER), 0), "clusters to form"),
    EXTRA: Field(record(SITE_EXTRA), "what Foundation's format lacks"),
    "hypervisor_password": refused("nothing here logs in by password; give cornerstone.authorized_keys"),
    "skip_hypervisor": refused("hypervisor and CVM are imaged together"),
    "rdma_passthrough": refused(NO_RDMA),
    "fc_settings": refused("Foundation Central isn't spoken to; cornerstone.webhook gets the progress",
                           lambda value: isinstance(value, dict) and not value.get("foundation_central", True)),
    "tests": ignored("every cluster is validated, without asking"),
    "svm_rescue_args": refused("there is no AOS installer to hand them to"),
    "install_script": refused("nothing outside the signed ISO is run"),
    "layout_egg_uuid": refused("what a machine can do is found out on it"),
    "eos_metadata": ignored("it is bookkeeping of the site where the file was made"),
    **{name: ignored(NOT_ASKED) for name in (
        "xs_master_ip", "xs_master_label", "xs_master_username", "xs_master_password", "xen_config_type",
        "hyperv_sku", "hyperv_product_key", "hyperv_external_vnic", "hyperv_external_vswitch",
        "unc_path", "unc_username", "unc_password")},
    "ucsm_ip": refused(NO_CISCO),
    **{name: ignored(NO_CISCO) for name in ("ucsm_user", "ucsm_password")},
}


def schema() -> dict[str, Any]:
    """The JSON Schema of a site file; sites/schema.json holds it."""
    saved = {"type": "object", "properties": {"config": {"$ref": "#/$defs/site"}}, "required": ["config"],
             "additionalProperties": False}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Cornerstone site",
            "description": "Foundation's image_nodes JSON, and the key cornerstone for what it lacks; or a saved "
                           "configuration, which has that under the key config. The addresses are compared with one "
                           "another when the file is read.",
            "if": {"required": ["config"]}, "then": saved, "else": {"$ref": "#/$defs/site"},
            "$defs": {"site": record_schema(SITE), "nothing": NOTHING}}

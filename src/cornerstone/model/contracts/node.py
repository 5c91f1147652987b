"""What Foundation hands to an installed node: node.json, its schema; and the token that allows erasing a disk.

Nothing in node.json is secret. Written to the state partition, read by the first-boot script (jq) and handed on to the
Controller VM. Addresses are text as in a network's configuration: 10.20.0.11/24. Sizes in bytes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.json_text import read_bounded
from cornerstone.lib.serde import Format
from cornerstone.model.disk.identity import DiskIdentity

SCHEMA_VERSION = 2
# the systemd credential by which a CVM gets it
NODE_CREDENTIAL = "cornerstone.node"
# and the cluster's bootstrap secret, if the site has one
SECRET_CREDENTIAL = "cornerstone.bootstrap-secret"  # noqa: S105 (a name)
# every IPv4 network
ANYWHERE = "0.0.0.0/0"
# below the state partition, where /var lies over the root
FOLDER = "var/upper/lib/cornerstone"
NODE_FILE = f"{FOLDER}/node.json"
FIRST_BOOT_FILE = f"{FOLDER}/first-boot.sh"
CVM_FILE = f"{FOLDER}/cvm.qcow2"
# the cluster's bootstrap secret, if the site has one: root's alone, wiped once the cluster is formed
SECRET_FILE = f"{FOLDER}/bootstrap-secret"


@dataclass(frozen=True)
class Uplink:
    """The port of br0 to the outside, as model/site/site.py's Uplink; interfaces are named by their MACs."""

    macs: tuple[str, ...]
    mode: str
    lacp: str
    lacp_rate: str
    vlan: int
    mtu: int
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Hypervisor:
    """The host itself."""

    hostname: str
    address: str
    gateway: str
    nameservers: tuple[str, ...]
    ntp_servers: tuple[str, ...]
    uplink: Uplink


@dataclass(frozen=True)
class DataDisk:
    """A disk for the storage pool, by what stays the same when it is passed through.

    contents: the fingerprint of what was on it when it was planned, and so of all that may be erased from it; "" when
    it was empty.
    """

    serial: str
    wwn: str
    size: int
    contents: str = ""
    model: str = ""

    @property
    def identity(self) -> DiskIdentity:
        """Return by what the disk is known."""
        return DiskIdentity(self.serial, self.wwn, self.size, self.model)


@dataclass(frozen=True)
class Cvm:
    """The Controller VM. passthrough: PCI functions that it gets whole; scsi: serials of disks that it gets singly.

    vcpus: 0 leaves it to the hypervisor, by the rule in model/sizing.py.
    """

    name: str
    address: str
    gateway: str
    nameservers: tuple[str, ...]
    ntp_servers: tuple[str, ...]
    memory: int
    vcpus: int
    passthrough: tuple[str, ...]
    scsi: tuple[str, ...]
    disks: tuple[DataDisk, ...]


@dataclass(frozen=True)
class Cluster:
    """The cluster that the node belongs to; members are CVM addresses in the site's order.

    patience: factor on the times until a member is taken for dead, a client gives up and a floating address is free.
    hosts: addresses of the members' hosts, which use the cluster's volumes.
    """

    name: str
    members: tuple[str, ...]
    redundancy_factor: int
    form: bool
    address: str
    data_services: str
    timezone: str
    patience: int = 1
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class NodeConfig:
    """The whole file. identity: of the ISO; boot_disk: serial of the disk that it is on; aos: the profile's release.

    ssh_from: networks from which host and CVM take ssh, for those with a key. aos_beside: releases of AOS that may be
    in one cluster with this one.
    """

    identity: str
    profile: str
    serial: str
    block: str
    position: str
    boot_disk: str
    hypervisor: Hypervisor
    cvm: Cvm
    cluster: Cluster | None
    authorized_keys: tuple[str, ...]
    aos: str = ""
    ssh_from: tuple[str, ...] = (ANYWHERE,)
    schema: int = SCHEMA_VERSION
    aos_beside: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> NodeConfig:
        """Read node.json from path. Raises CornerstoneError when it can't be read, or as from_json does."""
        try:
            return cls.from_json(read_bounded(path), str(path))
        except OSError as error:
            raise CornerstoneError(f"{path} can't be read: {error.strerror}",
                                   "it comes with first boot, and to a CVM with its machine") from error

    @property
    def patience(self) -> int:
        """The cluster's; 1 without one."""
        return self.cluster.patience if self.cluster else 1

    def to_json(self) -> str:
        """The text of node.json."""
        return json.dumps(NODE.write(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "node.json") -> NodeConfig:
        """Parse node.json; source names it in errors. Raises CornerstoneError with the path of what is wrong."""
        return NODE.read(text, source)


def _rename_cvm(record: dict[str, Any]) -> dict[str, Any]:
    """Rename what version 1 calls controller."""
    return {"cvm" if key == "controller" and "cvm" not in record else key: value for key, value in record.items()}


NODE = Format("node.json", NodeConfig, "Foundation; the host to its CVM", "first boot, host, CVM", SCHEMA_VERSION,
              key="schema", steps={1: _rename_cvm},
              newer="boot a release that knows it, or image the node with this one")


# what a token begins with that gives up a Ceph OSD: nobody types it for a file system that may go
OSD_TOKEN = "ceph-osd-"  # noqa: S105 (public)


def erase_token(serial: str, wwn: str = "", contents: str = "", *, osd: bool = False) -> str:
    """Return what a site has to say of a disk that isn't empty before it is erased.

    It is bound to the disk and to what is on it; contents: the text that Contents.key gives. osd: a Ceph OSD is on it,
    whose token is of another kind.
    """
    bound = "\0".join(("erase", serial, wwn, contents)).encode("utf-8", "backslashreplace")
    return (OSD_TOKEN if osd else "") + hashlib.sha256(bound).hexdigest()[:12]

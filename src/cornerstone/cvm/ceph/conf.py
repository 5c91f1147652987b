"""ceph.conf of this node, and which members run monitors and managers. Options: https://docs.ceph.com/en/reef/rados/configuration/."""

from __future__ import annotations

from ipaddress import IPv4Interface

from cornerstone.cvm.node import Node
from cornerstone.model.contracts import ports

MIB, GIB = 1 << 20, 1 << 30
# what the CVM's other services want of its memory; what an OSD may take: Ceph's least, and more than helps much
OTHERS_MEMORY = 4 * GIB
OSD_MEMORY = (896 * MIB, 8 * GIB)

# Until a monitor or an OSD that says nothing is taken for dead: Ceph's own figures.
MON_LEASE_SECONDS = MON_ELECTION_SECONDS = 5
OSD_GRACE_SECONDS = 20
# Until Ceph itself ends a fence (an entry of its blocklist), by the monitors' wall clock. That must never be: whose
# client was fenced ends it (data_services/clients.py). Forty years are longer than clocks are wrong, and their end is
# within the 32 bits of Ceph's seconds. Not `rbd blocklist expire seconds`: with it librbd 18.2.7 sends text where the
# monitors want a number, and can't break a lock any more (EINVAL).
FENCE_SECONDS = 40 * 365 * 24 * 3600
# Until a client that no monitor or OSD answers gets an error; Ceph's own would wait for ever.
CLIENT_SECONDS = 60

# of the manager, which else loads all that it finds, each into an interpreter of its own; without one of its
# "always on" modules the cluster's health would be an error
UNUSED_MODULES = (
    "alerts", "cephadm", "cli_api", "dashboard", "diskprediction_local", "feedback", "influx", "insights", "iostat",
    "k8sevents", "localpool", "mds_autoscaler", "mirroring", "nfs", "osd_perf_query", "osd_support", "prometheus",
    "restful", "rgw", "rook", "selftest", "snap_schedule", "stats", "telegraf", "test_orchestrator", "zabbix")


def name(address: str) -> str:
    """What the daemons on a member are called, by its CVM's address: 10.20.0.31 → 10-20-0-31."""
    return address.replace(".", "-")


def monitors(members: tuple[str, ...]) -> tuple[str, ...]:
    """The members that run a monitor: an odd number, so that half a cluster is never a quorum."""
    return members[:5 if len(members) >= 5 else 3 if len(members) >= 3 else 1]


def managers(members: tuple[str, ...]) -> tuple[str, ...]:
    """The members that run a manager: as many as monitors make a quorum, for with fewer none is of use."""
    running = monitors(members)
    return running[:len(running) // 2 + 1]


def address_vector(address: str) -> str:
    """Of a monitor: the second version of the protocol alone, the first can't be encrypted."""
    return f"[v2:{address}:{ports.MONITOR}]"


def replicas(node: Node) -> int:
    """How many copies of everything there are."""
    return node.config.cluster.redundancy_factor if node.config.cluster else 1


def failure_domain(node: Node) -> str:
    """What two copies must not share: a host; on a single one, a disk."""
    return "osd" if len(node.members) == 1 else "host"


def least_replicas(count: int) -> int:
    """How many copies there must be for a write: with two, one may be away, as with three."""
    return max(1, count - 1)


def osd_memory(node: Node) -> int:
    """The bytes that one OSD aims at."""
    least, most = OSD_MEMORY
    disks = max(1, len(node.config.cvm.disks))
    return min(most, max(least, (node.config.cvm.memory - OTHERS_MEMORY) // disks))


def ceph_conf(node: Node) -> str:
    """The text of /etc/ceph/ceph.conf."""
    running, count = monitors(node.members), replicas(node)
    patience = node.config.patience
    options = {
        "fsid": node.member.fsid,
        "mon host": " ".join(map(address_vector, running)),
        "mon initial members": ",".join(map(name, running)),
        # of the CVM's two networks the one that all members have
        "public network": str(IPv4Interface(node.config.cvm.address).network),
        "auth cluster required": "cephx",
        "auth service required": "cephx",
        "auth client required": "cephx",
        "auth allow insecure global id reclaim": "false",
        "ms bind msgr1": "false",
        **{f"ms {who} mode": "secure" for who in ("cluster", "service", "client", "mon cluster", "mon service",
                                                  "mon client")},
        # what Ceph makes for itself is to be as safe as the container
        "osd pool default size": str(count),
        "osd pool default min size": str(least_replicas(count)),
        "osd pool default pg num": "32",
        "osd crush chooseleaf type": "0" if failure_domain(node) == "osd" else "1",
        # on a single host there is but one that could report
        "mon osd min down reporters": "1" if failure_domain(node) == "osd" else "2",
        "mon allow pool size one": "true" if count == 1 else "false",
        "mon lease": str(patience * MON_LEASE_SECONDS),
        "mon election timeout": str(patience * MON_ELECTION_SECONDS),
        "osd heartbeat grace": str(patience * OSD_GRACE_SECONDS),
        "mon osd blocklist default expire": str(FENCE_SECONDS),
        # it only counts and balances: better late than replaced in vain, again and again, where processors are busy
        "mon mgr beacon grace": "120",
        # and what it counts nobody needs every two seconds, each time with a write of all monitors
        "mgr tick period": "10",
        "mgr stats period": "10",
        "mon warn on pool no redundancy": "false" if count == 1 else "true",
        "osd memory target": str(osd_memory(node)),
        # else each OSD writes 12 MB at its first start to guess how fast its disk is, all of them at once
        "osd mclock skip benchmark": "true",
        "mgr disabled modules": ",".join(UNUSED_MODULES),
        # to the journal; without the databases' settings, thousands of lines at each start
        "debug rocksdb": "1/5",
        "debug bdev": "0/5",
        "log to file": "false",
        "log to stderr": "true",
        "mon cluster log to file": "false",
        # who commanded what is in each monitor's journal; in their database it would be a write of all for every look
        "clog to monitors": "default=true audit=false",
    }
    client = dict.fromkeys(("client mount timeout", "rados mon op timeout", "rados osd op timeout"),
                           str(patience * CLIENT_SECONDS))
    return "# Written by genesis at each start; a change here is lost.\n" + "".join(
        f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in told.items())
        for section, told in (("global", options), ("client", client)))

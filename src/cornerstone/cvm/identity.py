"""Who this Controller VM is: host name, networks, packet filter, time sources and keys, from node.json at each boot.

node.json comes with the machine, as the systemd credential cornerstone.node (see hypervisor/domain.py). A CVM whose
node.json changed is another one from its next boot on. Keys that somebody adds in the CVM stay: these have a place of
their own, which sshd_config.d names.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from cornerstone.cvm.clocks import SLEWED_SECONDS, TOLERANCE_SECONDS
from cornerstone.lib.atomic import put, sweep
from cornerstone.lib.error import ends_in_one_line
from cornerstone.model import packet_filter
from cornerstone.model.contracts.network import CVM_CARD, CVM_INTERNAL, CVM_INTERNAL_CARD, INTERNAL
from cornerstone.model.contracts.node import NODE_CREDENTIAL, NodeConfig
from cornerstone.model.contracts.places import RUN

INTERNAL_ADDRESS = f"{CVM_INTERNAL}/{INTERNAL.prefixlen}"


def files(config: NodeConfig) -> Mapping[str, str]:
    """Return the text of each file, by its path from the root."""
    cvm = config.cvm
    address = cvm.address.partition("/")[0]
    return {
        "etc/hostname": f"{cvm.name}\n",
        "etc/hosts": f"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{address} {cvm.name}\n",
        "etc/resolv.conf": "".join(f"nameserver {server}\n" for server in cvm.nameservers),
        "etc/chrony/chrony.conf": _time_sources(config),
        f"run/systemd/network/10-{CVM_CARD}.network": _network(
            CVM_CARD, cvm.address, f"Gateway={cvm.gateway}"),
        f"run/systemd/network/10-{CVM_INTERNAL_CARD}.network": _network(
            CVM_INTERNAL_CARD, INTERNAL_ADDRESS, "LinkLocalAddressing=no"),
        packet_filter.FILE: packet_filter.cvm_rules(config),
        f"{str(RUN)[1:]}/authorized_keys/root": "".join(f"{key}\n" for key in config.authorized_keys),
    }


def _network(name: str, address: str, *more: str) -> str:
    lines = "\n".join((f"Address={address}", *more, "IPv6AcceptRA=no"))
    return f"[Match]\nName={name}\n\n[Network]\n{lines}\n"


def _time_sources(config: NodeConfig) -> str:
    """Return chrony.conf: the site's time servers, and the other members, so that members of a cluster always agree.

    Ceph's monitors bear 0.05 s of difference. No member starts as one that leads (chrony.conf(5), local): genesis says
    which may, by what a majority of their clocks say (clocks.py).
    """
    own = config.cvm.address.partition("/")[0]
    members = config.cluster.members if config.cluster else ()
    lines = [f"server {server} iburst" for server in config.cvm.ntp_servers]
    lines += [f"server {member} iburst minpoll 4 maxpoll 6" for member in members if member != own]
    if len(members) > 1:
        # its own too: genesis reads all clocks in one way
        lines += [f"allow {member}" for member in members]
        # One that has followed once isn't taken along by a clock that jumps: it may be the only one that is wrong.
        lines.append(f"maxchange {TOLERANCE_SECONDS} 1 -1")
    # what is off by more is set at once; no port for commands
    return "\n".join((*lines, f"makestep {SLEWED_SECONDS} -1", "rtcsync", "driftfile /var/lib/chrony/chrony.drift",
                      "cmdport 0", ""))


def become(config: NodeConfig, root: Path = Path("/")) -> None:
    """Write the files below root, each whole or not at all."""
    for name, text in files(config).items():
        path = root / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # written anew at each boot
        sweep(path)
        put(path, text, durable=False)


@ends_in_one_line
def main(credentials: Path) -> int:
    """Become what the credential says; 0, or the error's code with the error in one line."""
    config = NodeConfig.read(credentials / NODE_CREDENTIAL)
    become(config)
    socket.sethostname(config.cvm.name)
    print(f"this is {config.cvm.name}: {config.cvm.address}, {INTERNAL_ADDRESS}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(os.environ["CREDENTIALS_DIRECTORY"])))

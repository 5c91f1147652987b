"""The way into a node by ssh: a key drawn for one run, and a configuration that trusts nothing of this computer."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from cornerstone.lib import command
from cornerstone.lib.error import Code
from cornerstone.lib.json_text import parse
from cornerstone.model.contracts.network import CVM_INTERNAL
from cornerstone.model.site.fields import EXTRA


@dataclass(frozen=True)
class Access:
    """Everything lies in one private folder; remove() takes it away again."""

    folder: Path

    @property
    def key(self) -> Path:
        """The private key, 0600."""
        return self.folder / "key"

    @property
    def config(self) -> Path:
        """For ssh -F; the node is called `node` there."""
        return self.folder / "config"

    @property
    def url(self) -> str:
        """What testinfra calls the node."""
        return "ssh://node"

    def draw(self) -> str:
        """Draw the key; returns the public one, a line as authorized_keys has it."""
        self.remove()
        self.folder.mkdir(mode=0o700, parents=True)
        command.read(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "cornerstone-lab", "-f", self.key],
                     code=Code.MACHINE)
        return self.key.with_suffix(".pub").read_text(encoding="ascii").strip()

    def share(self, other: Access) -> None:
        """Give another way in the same key."""
        other.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("key", "key.pub"):
            os.link(self.folder / name, other.folder / name)

    def configure(self, *ports: int) -> None:
        """Say where the nodes are, and their CVMs behind them: node and cvm, or with several node-1, cvm-1, node-2 …

        Their host keys are taken at the first connection and insisted on from then on.
        """
        hosts = "".join(f"""\
Host {node}
    HostName 127.0.0.1
    Port {port}
Host {cvm}
    HostName {CVM_INTERNAL}
    HostKeyAlias {cvm}
    ProxyJump {node}
""" for node, cvm, port in zip(names("node", len(ports)), names("cvm", len(ports)), ports, strict=True))
        self.config.write_text(f"""\
{hosts}Host *
    User root
    IdentityFile {self.key}
    IdentitiesOnly yes
    IdentityAgent none
    BatchMode yes
    StrictHostKeyChecking accept-new
    UserKnownHostsFile {self.folder / "known_hosts"}
    GlobalKnownHostsFile none
    ControlMaster auto
    ControlPath {self.folder / "%n"}
    ControlPersist yes
    ConnectTimeout 300
    LogLevel ERROR
""", encoding="ascii")

    def disconnect(self) -> None:
        """End the connections that are kept open for the next command."""
        for path in sorted(self.folder.glob("*")):
            if path.is_socket():
                command.run(["ssh", "-F", self.config, "-O", "exit", path.name])

    def remove(self) -> None:
        for name in ("key", "key.pub", "config", "known_hosts", "known_hosts.old"):
            (self.folder / name).unlink(missing_ok=True)
        if self.folder.is_dir():
            self.folder.rmdir()


def names(kind: str, count: int) -> list[str]:
    """What the nodes, or their CVMs (kind cvm), are called in a configuration of so many."""
    return [kind] if count == 1 else [f"{kind}-{number}" for number in range(1, count + 1)]


def with_key(site_file: bytes, public_key: str) -> bytes:
    """A site file whose nodes also let this key in."""
    document, _ = parse(site_file)
    document.setdefault(EXTRA, {}).setdefault("authorized_keys", []).append(public_key)
    return json.dumps(document, indent=2).encode() + b"\n"

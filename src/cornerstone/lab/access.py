"""The way into a node by ssh: a key drawn for one run, and a configuration that trusts nothing of this computer."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cornerstone.model.site_fields import EXTRA


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
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "cornerstone-lab", "-f", self.key],
                       check=True, stdin=subprocess.DEVNULL)
        return self.key.with_suffix(".pub").read_text(encoding="ascii").strip()

    def configure(self, port: int) -> None:
        """Say where the node is. Its host key is taken at the first connection and insisted on from then on."""
        self.config.write_text(f"""\
Host node
    HostName 127.0.0.1
    Port {port}
    User root
    IdentityFile {self.key}
    IdentitiesOnly yes
    IdentityAgent none
    BatchMode yes
    StrictHostKeyChecking accept-new
    UserKnownHostsFile {self.folder / "known_hosts"}
    GlobalKnownHostsFile none
    ControlMaster auto
    ControlPath {self.folder / "control"}
    ControlPersist yes
    ConnectTimeout 60
    LogLevel ERROR
""", encoding="ascii")

    def disconnect(self) -> None:
        """End the connection that is kept open for the next command."""
        if (self.folder / "control").exists():
            subprocess.run(["ssh", "-F", self.config, "-O", "exit", "node"], capture_output=True, check=False)

    def remove(self) -> None:
        for name in ("key", "key.pub", "config", "known_hosts", "known_hosts.old", "control"):
            (self.folder / name).unlink(missing_ok=True)
        if self.folder.is_dir():
            self.folder.rmdir()


def with_key(site_file: bytes, public_key: str) -> bytes:
    """A site file whose nodes also let this key in."""
    document = json.loads(site_file)
    document.setdefault(EXTRA, {}).setdefault("authorized_keys", []).append(public_key)
    return json.dumps(document, indent=2).encode() + b"\n"

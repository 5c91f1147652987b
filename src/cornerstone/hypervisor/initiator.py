"""This host as an iSCSI initiator: its name and its CHAP secret, drawn here once and told to its own CVM alone.

`python3 -m cornerstone.hypervisor.initiator node.json`, in first boot, writes them for root only: into the credential
that the CVM's domain hands over (see domain.py), and the name into open-iscsi's configuration.
"""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

from cornerstone.lib.atomic import put, sweep
from cornerstone.lib.error import CornerstoneError, ends_in_one_line
from cornerstone.lib.gpt import derived_id
from cornerstone.model.contracts.iscsi import INITIATOR_FILE, IQN, Initiator, from_line, to_line
from cornerstone.model.contracts.node import NodeConfig

# 128 bit; some initiators take no more than 16 characters, ours does
SECRET_BYTES = 16


def draw(config: NodeConfig) -> Initiator:
    """Draw a new identity: the name is always the same for a node, the secret never."""
    where = derived_id(config.serial, config.cvm.name, config.cvm.address, "initiator")
    return Initiator(f"{IQN}:host-{where}", secrets.token_hex(SECRET_BYTES))


def write(config: NodeConfig, state: Path, root: Path = Path("/")) -> None:
    """Draw the identity unless there is one in state, and tell open-iscsi, below root."""
    credential = state / Path(INITIATOR_FILE).name
    if credential.exists():
        initiator = from_line(Initiator, credential.read_bytes(), str(credential))
    else:
        initiator = draw(config)
        sweep(credential)
        state.mkdir(parents=True, exist_ok=True)
        put(credential, to_line(initiator), 0o600)
    name = root / "etc/iscsi/initiatorname.iscsi"
    name.parent.mkdir(parents=True, exist_ok=True)
    put(name, f"InitiatorName={initiator.name}\n", 0o600)


@ends_in_one_line
def main(node: Path) -> int:
    """Do it for the host of a node.json; 0, or an error's code with the error in one line."""
    try:
        write(NodeConfig.read(node), node.parent)
    except OSError as error:
        raise CornerstoneError(f"{error.filename}: {error.strerror}", "see: journalctl -u first-boot") from error
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

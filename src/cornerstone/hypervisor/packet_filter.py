"""The host's packet filter: `python3 -m cornerstone.hypervisor.packet_filter node.json` prints it for nft."""

from __future__ import annotations

import sys
from pathlib import Path

from cornerstone.lib.error import ends_in_one_line
from cornerstone.model import packet_filter
from cornerstone.model.contracts.node import NodeConfig


@ends_in_one_line
def main(node: Path) -> int:
    """Print the filter of the host of a node.json; 0, or an error's code with the error in one line."""
    print(packet_filter.host_rules(NodeConfig.read(node)), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

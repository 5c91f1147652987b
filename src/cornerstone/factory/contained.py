"""Where a root tree is made: a private mount and process namespace, and one environment whatever the machine's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from cornerstone.lib import process

# When the command ends, however it ends, its mounts and processes are gone with it. The host name is one that resolves
# everywhere: sudo complains of any other, into output that others parse.
CONTAINED = ("unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
             "sh", "-c", 'umask 022; hostname localhost; exec "$@"', "-")


def environment(work: Path, epoch: int) -> dict[str, str]:
    """Return what is set for the tools that make a tree below work; epoch: the SOURCE_DATE_EPOCH, in seconds."""
    return {
        "LC_ALL": "C.UTF-8",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin",
        "SOURCE_DATE_EPOCH": str(epoch),
        "TMPDIR": str(work),
        "TZ": "UTC",
    }


def detach_loops(below: Path) -> None:
    """Detach the loop devices whose file lies below a folder of ours: a killed build leaves them attached."""
    listing = subprocess.run(["losetup", "--json", "--list"], capture_output=True, encoding="utf-8",
                             errors="surrogateescape", env=process.environment(), check=False).stdout
    for device in json.loads(listing or "{}").get("loopdevices", []):
        if (device.get("back-file") or "").startswith(f"{below}/"):
            subprocess.run(["losetup", "--detach", device["name"]], env=process.environment(), check=False)

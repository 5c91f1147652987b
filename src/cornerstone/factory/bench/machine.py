"""Where a benchmark ran: what a reader needs to know before comparing its figures with others."""

from __future__ import annotations

import datetime
import os
import platform
import re
from importlib import metadata
from pathlib import Path

from cornerstone.factory.build.plan import TOOLS
from cornerstone.lib import process
from cornerstone.lib.error import CornerstoneError


def describe(folder: Path, checkout: Path) -> dict[str, str]:
    """The machine's facts by name, for people; folder is where the benchmark writes, checkout what it measures."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.M)
    tools = [line.split(" ", 1) for line in _said(
        "dpkg-query", "--show", "--showformat=${Package} ${Version}\\n", *TOOLS, "xorriso").splitlines()]
    changed = _said("git", "-C", str(checkout), "status", "--porcelain")
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _said("git", "-C", str(checkout), "rev-parse", "--short", "HEAD") + " with changes" * bool(changed),
        "CPU": f"{cpu[1] if cpu else platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{int(memory[1]) / (1 << 20):.0f} GiB" if memory else "unknown",
        "file system": _said("findmnt", "--noheadings", "--output", "FSTYPE,OPTIONS", "--target", str(folder)),
        "system": f"{platform.freedesktop_os_release().get('PRETTY_NAME', platform.system())}, "
                  f"Linux {platform.release()}, Python {platform.python_version()}",
        "tools": ", ".join(f"{name} {version}" for name, version in tools)
                 + "".join(f", {name} {metadata.version(name)}" for name in ("diskimage-builder", "pycdlib")),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def _said(*argv: str) -> str:
    try:
        return re.sub(" +", " ", process.call(argv).text).strip()
    except CornerstoneError:
        return ""

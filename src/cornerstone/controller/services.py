"""The node's services, as systemd has them: started, stopped, and how they are."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from cornerstone.model.error import Code, CornerstoneError

CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Service:
    """A unit, how systemd says it is, and the processes in it."""

    name: str
    up: bool
    pids: tuple[int, ...]


def running() -> tuple[Service, ...]:
    """genesis and all of Ceph's daemons that systemd knows here."""
    done = subprocess.run(["systemctl", "show", "--property=Id,ActiveState,ControlGroup", "genesis.service",
                           "ceph-mon@*.service", "ceph-mgr@*.service", "ceph-osd@*.service"],
                          capture_output=True, text=True, check=False)
    return parse(done.stdout)


def parse(shown: str, cgroups: Path = CGROUPS) -> tuple[Service, ...]:
    """What `systemctl show` printed: a block of lines a unit."""
    found = []
    for block in shown.strip().split("\n\n"):
        fields = dict(line.partition("=")[::2] for line in block.splitlines())
        if name := fields.get("Id", ""):
            found.append(Service(name.removesuffix(".service"), fields.get("ActiveState") == "active",
                                 _pids(cgroups, fields.get("ControlGroup", ""))))
    return tuple(sorted(found, key=lambda service: service.name))


def _pids(cgroups: Path, group: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, (cgroups / group.lstrip("/") / "cgroup.procs").read_text().split())) if group else ()
    except OSError:
        return ()


def start(*units: str) -> None:
    """Start units, and wait until they have."""
    _systemctl("start", *units)


def stop(*units: str) -> None:
    """Stop units, and wait until they have."""
    _systemctl("stop", *units)


def _systemctl(*words: str) -> None:
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CornerstoneError(f"systemctl {' '.join(words)}: {done.stderr.strip()[-300:]}",
                               f"see: journalctl -u {words[-1]}", Code.FAILED)

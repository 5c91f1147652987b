"""The node's services, as systemd has them: started, stopped, and how they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cornerstone.cvm.waiting import Waiting
from cornerstone.lib import command
from cornerstone.model.contracts.places import STATE

CGROUPS = Path("/sys/fs/cgroup")
# while this file is there, the services are stopped because somebody wants it so, over reboots too
HELD = STATE / "stopped"
STORAGE = ("ceph-osd@*.service", "ceph-mgr@*.service", "ceph-mon@*.service")


@dataclass(frozen=True)
class Service:
    """A unit, how systemd says it is, and the processes in it."""

    name: str
    up: bool
    pids: tuple[int, ...]


def running() -> tuple[Service, ...]:
    """Return genesis, the iSCSI target and all of Ceph's daemons that systemd knows here."""
    return parse(command.run(["systemctl", "show", "--property=Id,ActiveState,ControlGroup", "genesis.service",
                              "data-services.service", *STORAGE]).text)


def parse(shown: str, cgroups: Path = CGROUPS) -> tuple[Service, ...]:
    """Parse what `systemctl show` printed: a block of lines a unit."""
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
    """Start units, and wait until they have; also one that systemd has given up on."""
    if units:
        command.run(["systemctl", "reset-failed", *units])
        _systemctl("start", *units)


def stop(*units: str) -> None:
    """Stop units, and wait until they have."""
    _systemctl("stop", *units)


def active(unit: str) -> bool:
    """Tell whether a unit runs."""
    return command.run(["systemctl", "is-active", "--quiet", unit]).code == 0


def check_held() -> None:
    """Stop the storage engine here and raise Waiting, while somebody wants it stopped."""
    if HELD.exists():
        stop(*STORAGE)
        raise Waiting("this node's services are stopped", "start them: cluster start")


def _systemctl(*words: str) -> None:
    command.read(["systemctl", *words], hint=f"see: journalctl -u {words[-1]}")

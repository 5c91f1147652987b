"""The kernel clients by which CVMs have mapped images: whom to fence before another writes, and when a fence may end.

Each mapping has a client of its own, which Ceph tells by address and nonce, so a fence never hits a later one. Who is
about to write fences all earlier clients of the image, also one that let go by itself: a write of it that was given up
may still lie in a TCP connection. A fence ends only by the word of the CVM whose client it was, when nothing of that
client can reach an OSD any more. docs/data-path.md has the argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cornerstone.cvm.iscsi_target.device import client_addresses
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.serde import Format
from cornerstone.model.contracts import ports

MACHINE_ID = Path("/etc/machine-id")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
TCP_CONNECTIONS = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
# include/net/tcp_states.h: FIN_WAIT1, FIN_WAIT2, LAST_ACK, CLOSING
CLOSING = {"04", "05", "09", "0B"}


@dataclass(frozen=True)
class Client:
    """A kernel's client. address: as 10.20.0.31:0/3141592653; machine and boot: the machine-id and boot_id of it."""

    image: str
    address: str
    machine: str
    boot: str


@dataclass(frozen=True)
class Kernel:
    """The machine-id and boot_id of the CVM that maps an image, kept in Ceph under the image and the CVM's address."""

    machine: str
    boot: str


KERNEL = Format("client of an image", Kernel, "any CVM, in Ceph", "the iSCSI target of all CVMs", hint="see: ceph -s",
                code=Code.FAILED, newer="update this CVM to the release of the others")


class Fences(Protocol):
    """What Ceph keeps: records of clients, and which addresses are fenced (blocklisted)."""

    def clients(self, image: str = "") -> list[Client]: ...

    def note(self, client: Client) -> None: ...

    def forget(self, client: Client) -> None: ...

    def fenced(self) -> set[str]: ...

    def fence(self, address: str) -> None: ...

    def end_fence(self, address: str) -> None: ...


class Clients:
    """The clients of all images, as the CVM sees them whose machine and boot these are."""

    def __init__(self, fences: Fences, machine: str = "", boot: str = "",
                 mapped: Callable[[], frozenset[str]] = client_addresses,
                 under_way: Callable[[], bool] | None = None) -> None:
        self._fences = fences
        self._machine = machine or MACHINE_ID.read_text().strip()
        self._boot = boot or BOOT_ID.read_text().strip()
        self._mapped = mapped
        self._under_way = under_way or bytes_under_way
        self._before: dict[str, frozenset[str]] = {}
        self._gone: set[Client] = set()

    def begin(self, image: str) -> None:
        """Remember who has had an image until now; called before the first command waits for it."""
        self._before[image] = self._addresses(image)

    def fence_former(self, image: str, broken: bool = False) -> None:
        """Fence everybody who has ever mapped an image and isn't fenced yet. broken: one of them hasn't let go."""
        if broken:
            # it may have served the image until now
            self._before[image] = frozenset()
        if former := self._addresses(image):
            for address in sorted(former - self._fences.fenced()):
                self._fences.fence(address)

    def serve(self, image: str, address: str) -> bool:
        """Note the client that is about to write, so that the next one fences it.

        Returns whether another may have served the image since begin. Then what has waited here may be older than
        what that one has written: a host that gives up waiting writes by another path.
        """
        if not address:
            raise CornerstoneError(f"the kernel doesn't say by which client {image} is mapped", "see: dmesg",
                                   Code.FAILED)
        between = self._addresses(image) - self._before.pop(image, frozenset())
        self._fences.note(Client(image, address, self._machine, self._boot))
        return bool(between)

    def end_fences(self, images: Iterable[str]) -> None:
        """End the fences of clients of ours that are gone, and forget those of images that are gone.

        A client is gone when its kernel runs no more, or when it was unmapped before the look before this one. What
        it has sent may still be in TCP's hands then, as long as a connection to an OSD is being closed.
        """
        present = set(images)
        ours = {client for client in self._fences.clients() if client.machine == self._machine}
        mapped = self._mapped()
        gone = {client for client in ours if client.boot != self._boot or client.address not in mapped}
        ended = {client for client in gone if client.boot != self._boot or client in self._gone}
        self._gone = gone
        if not ended or self._under_way():
            return
        fenced = self._fences.fenced()
        for client in ended:
            if client.address in fenced:
                self._fences.end_fence(client.address)
            elif client.image in present:
                # the next to serve the image still has to fence it
                continue
            self._fences.forget(client)

    def _addresses(self, image: str) -> frozenset[str]:
        return frozenset(client.address for client in self._fences.clients(image))


def bytes_under_way() -> bool:
    """Whether a TCP connection to an OSD that this kernel has closed may still deliver what was written to it."""
    lines = (line.split() for path in TCP_CONNECTIONS if path.exists() for line in path.read_text().splitlines()[1:])
    return any(state in CLOSING and int(remote.rpartition(":")[2], 16) in ports.CEPH_DAEMONS
               for _, _, remote, state, *_ in lines)

"""A cluster as the data path sees it: real Gateways, Clients and Devices on models of what is below them.

Modelled are LIO's states, device mapper, the kernel's Ceph clients, the images, their locks and Ceph's blocklist, and
hosts that write to one block, each value again until it is acknowledged. How long a fence lives and when a request is
given up is read from what Ceph and the kernel are really told. Time is one number that only rules move.
"""

from __future__ import annotations

import configparser
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from cornerstone.cvm.ceph import conf
from cornerstone.cvm.iscsi_target import device
from cornerstone.cvm.iscsi_target.catalogue import Disk
from cornerstone.cvm.iscsi_target.clients import Client, Clients
from cornerstone.cvm.iscsi_target.device import Device
from cornerstone.cvm.iscsi_target.gateway import Gateway, lun_of
from cornerstone.cvm.iscsi_target.target import ACTIVE, STANDBY
from cornerstone.cvm.membership import Membership
from cornerstone.cvm.node import Node
from cornerstone.lib.error import CornerstoneError
from cornerstone.model.contracts.node import Cluster, NodeConfig

NODE = Path(__file__).resolve().parents[1] / "data/nodes/passthrough.json"
MEMBERS = ("10.20.0.31", "10.20.0.32", "10.20.0.33")
# Ceph's own, when it isn't told
HOUR = 3600.0


def fence_seconds() -> float:
    """Return how long an entry of the blocklist lives, by the ceph.conf of a member."""
    config = NodeConfig.from_json(NODE.read_text())
    node = Node(replace(config, cluster=Cluster("one", MEMBERS, 2, True, "", "", "")), lambda event: None,
                Membership("1c7a3a3e-6d0b-4d0c-9a51-3f2f6a0d00ff", "MONITOR==", "ADMIN=="))
    parser = configparser.ConfigParser()
    parser.read_string(conf.ceph_conf(node))
    return float(parser["global"].get("mon osd blocklist default expire", str(HOUR)))


def request_seconds() -> float | None:
    """Return after how long the kernel gives a request up, by the options that images are mapped with; None: never."""
    options = device.MAP_OPTIONS.format(seconds=getattr(device, "REQUEST_SECONDS", None))
    return next((float(value) for key, _, value in (option.partition("=") for option in options.split(","))
                 if key == "osd_request_timeout"), None)


@dataclass
class Volume:
    """A host's volume: value is what Ceph has, sent the last value that was written, acknowledged the last that was."""

    disk: Disk
    value: int = 0
    sent: int = 0
    acknowledged: int = 0
    lock: str = ""
    deleted: bool = False


@dataclass(frozen=True)
class Command:
    """A host's write of a value."""

    volume: Volume
    value: int


@dataclass
class Request:
    """A command on its way from a kernel's client to the cluster."""

    command: Command
    address: str
    image: str
    since: float


@dataclass
class Mapper:
    """A device of device mapper: image is "" while its table gives errors."""

    image: str = ""
    loaded: str | None = None
    suspended: bool = False
    waiting: list[Command] = field(default_factory=list)


class World:
    """All of it. during: called while the next volume is being taken, after commands wait for it, with its CVM."""

    def __init__(self, cvms: int) -> None:
        self.now = 1_000_000.0
        self.fence_seconds = fence_seconds()
        self.request_seconds = request_seconds()
        self.fenced: dict[str, float] = {}
        self.records: dict[Client, None] = {}
        self.volumes: list[Volume] = []
        self.during: Callable[[Cvm], None] | None = None
        self.nonce = 0
        self.cvms = [Cvm(self, number) for number in range(cvms)]

    def is_fenced(self, address: str) -> bool:
        return self.fenced.get(address, 0) > self.now

    def create(self) -> Volume:
        number = len(self.volumes)
        volume = Volume(Disk(0, number, f"volume-{number}", f"serial-{number}", 1 << 30))
        self.volumes.append(volume)
        return volume

    def delete(self, volume: Volume) -> None:
        volume.deleted = True
        for cvm in self.cvms:
            cvm.look()

    def volume_of(self, image: str) -> Volume:
        return next(volume for volume in self.volumes if volume.disk.image == image)

    def pass_time(self, seconds: float) -> None:
        """Let time pass. What runs in a CVM by time may be late, but for the kernel's timers."""
        self.now += seconds
        for cvm in self.cvms:
            if not cvm.paused:
                cvm.give_up()

    def server(self, volume: Volume) -> Cvm | None:
        """Return the CVM that serves a volume."""
        return next((cvm for cvm in self.cvms if cvm.could_write(volume)), None)

    def write(self, volume: Volume, cvm: Cvm) -> None:
        """Have the host write by this path: the next value, or again the one that isn't acknowledged."""
        if volume.sent == volume.acknowledged:
            volume.sent += 1
        cvm.receive(Command(volume, volume.sent))

    def give(self, volume: Volume, cvm: Cvm) -> None:
        """Have a CVM let go of a volume, and a command reach its device right after that.

        It has passed LIO's look at the ALUA state before.
        """
        if cvm.deaf:
            return
        served = cvm.could_write(volume) and volume.sent == volume.acknowledged
        cvm.gateway.release(volume.disk)
        if served:
            volume.sent += 1
            cvm.submit(Command(volume, volume.sent))

    def carry_out(self, request: Request) -> None:
        """What an OSD does with a write."""
        if self.is_fenced(request.address):
            return
        volume = self.volume_of(request.image)
        assert request.command.volume is volume, "a command reached another volume"
        if not volume.deleted:
            volume.value = request.command.value
            volume.acknowledged = max(volume.acknowledged, volume.value)

    def check(self) -> None:
        """The promises."""
        for volume in self.volumes:
            assert volume.value >= volume.acknowledged, \
                f"{volume.disk.image} has {volume.value}, and {volume.acknowledged} was acknowledged"
            writers = [cvm.number for cvm in self.cvms if cvm.could_write(volume)]
            assert len(writers) <= 1, f"{volume.disk.image} is written by {writers}"


class Cvm:
    """A CVM: its kernel, the target in it, and data-services."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        # deaf: data-services hangs, and the kernel serves on
        self.connected, self.paused, self.deaf = True, False, False
        self.boot = 0
        self.start()

    def start(self) -> None:
        """Start a kernel that knows nothing of an earlier one."""
        self.boot += 1
        self.states: dict[str, int] = {}
        self.mappers: dict[str, Mapper] = {}
        self.mapped: dict[str, str] = {}
        self.requests: list[Request] = []
        # given up, and still in a TCP connection's buffer
        self.unsent: list[Request] = []
        # of hosts, not yet looked at
        self.inbox: list[Command] = []
        self.paused = False
        self.start_service()

    def start_service(self) -> None:
        self.deaf = False
        self.clients = Clients(ModelFences(self), f"machine-{self.number}", str(self.boot),
                               lambda: frozenset(self.mapped.values()), lambda: bool(self.unsent))
        self.gateway = Gateway(self, ModelLocks(self), self.device, lambda event: None, clock=lambda: self.world.now)

    def device(self, disk: Disk) -> ModelDevice:
        self.mappers.setdefault(disk.serial, Mapper())
        return ModelDevice(disk.serial, "pool", disk.image, disk.size, turns=self.clients, cvm=self)

    # what Gateway knows as States

    def state(self, lun) -> int:
        return self.states.get(lun.serial, STANDBY)

    def set_state(self, lun, state: int) -> None:
        self.states[lun.serial] = state

    # LIO

    def receive(self, command: Command) -> None:
        """A host's command, with a SET TARGET PORT GROUPS before it where that is needed."""
        if self.paused:
            self.inbox.append(command)
            return
        lun = lun_of(command.volume.disk)
        if self.state(lun) == ACTIVE or self.deaf:
            self.execute(command)
            return
        answered: list[Command] = []

        def held() -> None:
            if not answered:
                answered.append(command)
                self.execute(command)
        self.states[lun.serial] = ACTIVE
        self.gateway.look(command.volume.disk, held)

    def execute(self, command: Command) -> None:
        if self.state(lun_of(command.volume.disk)) == ACTIVE:
            self.submit(command)

    def submit(self, command: Command) -> None:
        """Give a command to the volume's device."""
        mapper = self.mappers.get(command.volume.disk.serial)
        if mapper is None:
            return
        if mapper.suspended:
            mapper.waiting.append(command)
        elif mapper.image in self.mapped:
            request = Request(command, self.mapped[mapper.image], mapper.image, self.world.now)
            if self.connected:
                # behind what TCP still has of this client
                self.send_unsent(request.address)
                self.world.carry_out(request)
            else:
                self.requests.append(request)

    # the kernel's client

    def give_up(self) -> None:
        """End the requests that had no answer for too long."""
        limit = self.world.request_seconds
        for request in [each for each in self.requests if limit and self.world.now - each.since >= limit]:
            self.requests.remove(request)
            self.unsent.append(request)

    def send_unsent(self, address: str = "") -> None:
        """Have TCP send what was written to it before its client gave up, of one client or of all."""
        if self.connected and not self.paused:
            for request in [each for each in self.unsent if address in ("", each.address)]:
                self.unsent.remove(request)
                self.world.carry_out(request)

    def drain(self, image: str) -> None:
        """Wait until nothing of an image is under way."""
        address = self.mapped.get(image)
        if since := [request.since for request in self.requests if request.address == address]:
            if self.world.request_seconds is None:
                raise CornerstoneError("dmsetup suspend: no answer")
            self.world.now = max(self.world.now, max(since) + self.world.request_seconds)
            self.give_up()

    def could_write(self, volume: Volume) -> bool:
        """Whether a command that is acknowledged to a host could come from here."""
        mapper = self.mappers.get(volume.disk.serial)
        return bool(mapper and mapper.image and not volume.deleted and mapper.image in self.mapped
                    and not self.world.is_fenced(self.mapped[mapper.image]))

    def require_cluster(self) -> None:
        if not self.connected:
            raise CornerstoneError("the cluster doesn't answer")

    # what happens to it

    def check(self) -> None:
        """What data-services does by time."""
        if not self.paused and not self.deaf:
            self.give_up()
            self.gateway.check([volume.disk for volume in self.world.volumes if not volume.deleted])

    def end_fences(self) -> None:
        """What data-services does by time after that."""
        if not self.paused and not self.deaf and self.connected:
            self.clients.end_fences(volume.disk.image for volume in self.world.volumes if not volume.deleted)

    def look(self) -> None:
        """What data-services does when the catalogue has changed."""
        if self.paused or self.deaf or not self.connected:
            return
        for volume in self.world.volumes:
            if not volume.deleted:
                self.gateway.look(volume.disk)
            elif volume.disk.serial in self.mappers:
                self.states.pop(volume.disk.serial, None)
                self.device(volume.disk).remove()

    def connect(self) -> None:
        """The network is back, and what hangs goes on."""
        self.connected = True
        if not self.paused:
            requests, self.requests = self.requests, []
            for request in requests:
                self.send_unsent(request.address)
                self.world.carry_out(request)

    def resume(self) -> None:
        self.paused = False
        if self.connected:
            self.connect()
        inbox, self.inbox = self.inbox, []
        for command in inbox:
            self.execute(command)


@dataclass(frozen=True)
class ModelDevice(Device):
    """A Device on the models of device mapper and the kernel's client."""

    cvm: Cvm | None = None

    @property
    def _mapper(self) -> Mapper:
        return self.cvm.mappers[self.name]

    def table(self) -> str | None:
        mapper = self.cvm.mappers.get(self.name)
        return mapper and self._table(f"linear {mapper.image} 0" if mapper.image else "error")

    def _suspended(self) -> bool:
        return self._mapper.suspended

    def _dmsetup(self, *words: str) -> None:
        mapper = self._mapper
        match words:
            case "suspend", *_:
                if mapper.image:
                    self.cvm.drain(mapper.image)
                mapper.suspended = True
            case "load", _, "--table", table:
                mapper.loaded = self.image if " linear " in table else ""
            case "resume", _:
                if mapper.loaded is not None:
                    mapper.image, mapper.loaded = mapper.loaded, None
                mapper.suspended = False
                waiting, mapper.waiting = mapper.waiting, []
                for command in waiting:
                    self.cvm.submit(command)
            case "remove", _:
                del self.cvm.mappers[self.name]

    def mapped(self) -> str:
        return "/dev/rbd0" if self.image in self.cvm.mapped else ""

    def address(self) -> str:
        return self.cvm.mapped.get(self.image, "")

    def _map(self) -> str:
        self.cvm.require_cluster()
        world = self.cvm.world
        volume = world.volume_of(self.image)
        if volume.lock or volume.deleted:
            raise CornerstoneError("rbd map: busy")
        world.nonce += 1
        volume.lock = self.cvm.mapped[self.image] = f"{MEMBERS[self.cvm.number]}:0/{world.nonce}"
        return "/dev/rbd0"

    def _unmap(self, path: str) -> None:
        self.cvm.drain(self.image)
        address = self.cvm.mapped.pop(self.image)
        volume = self.cvm.world.volume_of(self.image)
        if self.cvm.connected and volume.lock == address:
            volume.lock = ""


class ModelLocks:
    """The images' locks, as one CVM asks for them."""

    def __init__(self, cvm: Cvm) -> None:
        self._cvm = cvm
        self._world = cvm.world

    def ask_for(self, disk: Disk) -> None:
        self._cvm.require_cluster()
        holder = self._world.volume_of(disk.image).lock
        for cvm in self._world.cvms:
            if holder and cvm.mapped.get(disk.image) == holder and cvm.connected and not (cvm.paused or cvm.deaf):
                cvm.gateway.release(disk)
        # a host gives up waiting later than this: who hears has heard by now
        during, self._world.during = self._world.during, None
        if during:
            during(self._cvm)

    def break_all(self, disk: Disk) -> int:
        self._cvm.require_cluster()
        volume = self._world.volume_of(disk.image)
        self._cvm.clients.fence_former(disk.image, bool(volume.lock))
        holder, volume.lock = volume.lock, ""
        if holder:
            ModelFences(self._cvm).fence(holder)
        return int(bool(holder))

    def lost(self, disk: Disk) -> bool:
        self._cvm.require_cluster()
        return self._world.volume_of(disk.image).lock != self._cvm.mapped.get(disk.image)


class ModelFences:
    """Ceph's blocklist and the records of clients, as one CVM reaches them."""

    def __init__(self, cvm: Cvm) -> None:
        self._cvm = cvm
        self._world = cvm.world

    def clients(self, image: str = "") -> list[Client]:
        self._cvm.require_cluster()
        return [client for client in self._world.records if image in ("", client.image)]

    def note(self, client: Client) -> None:
        self._cvm.require_cluster()
        self._world.records[client] = None

    def forget(self, client: Client) -> None:
        self._cvm.require_cluster()
        del self._world.records[client]

    def fenced(self) -> set[str]:
        self._cvm.require_cluster()
        return {address for address in self._world.fenced if self._world.is_fenced(address)}

    def fence(self, address: str) -> None:
        self._cvm.require_cluster()
        self._world.fenced[address] = self._world.now + self._world.fence_seconds

    def end_fence(self, address: str) -> None:
        self._cvm.require_cluster()
        del self._world.fenced[address]

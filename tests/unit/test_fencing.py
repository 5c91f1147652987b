"""Fences: who is cut off stays cut off until nothing of it can reach the cluster any more, and no longer."""

from __future__ import annotations

import pytest

from cornerstone.cvm.iscsi_target import clients, device
from cornerstone.cvm.iscsi_target.device import Device
from cornerstone.cvm.iscsi_target.gateway import Gateway
from cornerstone.cvm.iscsi_target.target import STANDBY
from cornerstone.lib.error import CornerstoneError
from fencing_world import ModelDevice, World, fence_seconds, request_seconds

MINUTE, YEAR = 60.0, 365 * 86400.0


@pytest.fixture
def world():
    return World(2)


@pytest.fixture
def taken(world):
    """A volume whose CVM is cut off with a write under way, and that is written by the other one: the two CVMs."""
    volume = world.create()
    old, new = world.cvms
    world.write(volume, old)
    old.connected = False
    world.write(volume, old)
    # the first of them gets an error: it waited while the old one may have served
    for _ in range(4):
        world.write(volume, new)
    assert (volume.value, volume.acknowledged) == (4, 4)
    return volume, old, new


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("seconds", [20, 61, 61 * MINUTE, 2 * YEAR, 12 * YEAR])
def test_d13_a_write_that_hung_however_long_never_comes_back(world, taken, seconds, paused):
    volume, old, _ = taken
    old.paused = paused
    world.pass_time(seconds)
    old.resume()
    old.connect()
    old.send_unsent()
    world.check()


def test_d13_a_monitor_whose_clock_is_ten_years_late_makes_fences_that_outlast_its_correction():
    assert fence_seconds() > 2 * 10 * YEAR
    # Ceph's seconds have 32 bits: an end beyond them would be in the past
    assert 2_000_000_000 + fence_seconds() < 1 << 32


def test_d13_a_hanging_request_ends_before_its_fence_does():
    assert request_seconds() == 60 < fence_seconds()
    assert "osd_request_timeout={seconds}" in device.MAP_OPTIONS.split(",")


def test_d13_librbd_is_not_told_a_fence_s_length():
    """In 18.2.7 it sends that as text, and breaks no lock any more."""
    assert not any("expire" in option for option in device.MAP_OPTIONS.split(","))


def test_d13_a_fence_ends_when_its_cvm_has_let_go_and_nothing_is_under_way(world, taken):
    _, old, _ = taken
    (fenced,) = world.fenced
    old.check()
    world.pass_time(61)
    old.check()
    assert not old.mapped, "let go: the cluster hasn't answered for longer than the lease"
    old.connect()
    for _ in range(3):
        old.end_fences()
    assert fenced in world.fenced, "TCP still has what was written"
    old.send_unsent()
    for _ in range(2):
        old.end_fences()
    assert world.fenced == {}
    assert fenced not in {client.address for client in world.records}


def test_d13_a_fence_stays_while_its_client_is_still_mapped(world, taken):
    """The network is back, and nobody has looked yet whether the volume is still ours."""
    volume, old, _ = taken
    old.connect()
    for _ in range(3):
        old.end_fences()
    assert len(world.fenced) == 1
    world.write(volume, old)
    world.check()


def test_d13_another_cvm_ends_no_fence(world, taken):
    _, _, new = taken
    world.pass_time(YEAR)
    for _ in range(3):
        new.end_fences()
    assert len(world.fenced) == 1


def test_d13_a_fence_of_a_kernel_that_runs_no_more_ends_at_its_machine_s_next_boot(world, taken):
    volume, old, new = taken
    old.start()
    old.connect()
    old.end_fences()
    assert world.fenced == {}
    world.write(volume, old)
    world.check()
    assert old.could_write(volume) and not new.could_write(volume)


def test_d13_a_new_machine_at_the_same_address_ends_no_fence_of_the_old_one(world, taken):
    """The old one may still run somewhere, with writes under way."""
    _, old, _ = taken
    (fenced,) = world.fenced
    old.start()
    old.clients._machine = "another"
    old.connect()
    for _ in range(3):
        old.end_fences()
    assert set(world.fenced) == {fenced}


def test_d13_a_new_client_of_a_fenced_cvm_is_not_fenced(world, taken):
    volume, old, _ = taken
    old.check()
    world.pass_time(61)
    old.check()
    old.connect()
    world.write(volume, old)
    assert old.could_write(volume) and volume.acknowledged == volume.sent


def test_d13_who_let_go_by_itself_is_fenced_too(world):
    """A write that it gave up before may still be in TCP's hands."""
    volume = world.create()
    old, new = world.cvms
    world.write(volume, old)
    old.connected = False
    world.write(volume, old)
    world.pass_time(61)
    assert old.unsent
    # cut off from one OSD only
    old.connected = True
    old.gateway.release(volume.disk)
    assert volume.lock == "" and not old.mapped
    for _ in range(2):
        world.write(volume, new)
    old.send_unsent()
    world.check()


def test_d13_a_record_is_kept_until_the_next_has_fenced_it_or_its_volume_is_gone(world):
    volume = world.create()
    old, _ = world.cvms
    world.write(volume, old)
    old.gateway.release(volume.disk)
    for _ in range(3):
        old.end_fences()
    assert len(world.records) == 1
    world.delete(volume)
    for _ in range(2):
        old.end_fences()
    assert world.records == {}


def test_d16_the_writer_maps_an_image_when_all_its_former_clients_are_fenced(world, monkeypatch):
    """So the writer's first map of the cluster has the fences, whoever broke the lock."""
    found: list[list[bool]] = []
    map_image = ModelDevice._map

    def look_and_map(self) -> str:
        found.append([world.is_fenced(client.address) for client in world.records if client.image == self.image])
        return map_image(self)
    monkeypatch.setattr(ModelDevice, "_map", look_and_map)
    volume = world.create()
    old, new = world.cvms
    world.write(volume, old)
    old.connected = False
    world.write(volume, old)
    world.write(volume, new)
    new.gateway.release(volume.disk)
    old.connect()
    old.check()
    world.write(volume, old)
    assert found == [[], [True], [True, True]]


def test_d16_each_mapping_is_a_new_client_that_lends_its_lock_to_nobody():
    """A client that was there before could have a map of the cluster without the fence."""
    assert {"noshare", "exclusive"} <= set(device.MAP_OPTIONS.split(","))


def test_d15_what_waits_for_a_volume_is_too_old_once_another_cvm_has_served_it(world):
    volume = world.create()
    old, new = world.cvms

    def during(taker) -> None:
        # the host gives up waiting, writes by the other path, and that CVM lets go before the first one has the volume
        for _ in range(2):
            world.write(volume, new)
        new.gateway.release(volume.disk)
    world.during = during
    world.write(volume, old)
    world.check()
    assert volume.value == 2


def test_d15_a_command_that_arrives_after_close_gets_an_error_at_once(world):
    volume = world.create()
    old, new = world.cvms
    world.write(volume, old)
    world.give(volume, old)
    assert old.mappers[volume.disk.serial].waiting == []
    old.look()
    mapper = old.mappers[volume.disk.serial]
    assert not mapper.suspended, "nor is it suspended by a look while nobody has asked"
    for _ in range(2):
        world.write(volume, new)
    world.write(volume, old)
    world.check()


def test_d15_what_waits_is_too_old_when_the_former_cvm_served_on_until_it_was_fenced(world):
    """Its data-services hangs: it doesn't hear that it is to let go, and its kernel serves."""
    volume = world.create()
    old, new = world.cvms
    world.write(volume, old)
    old.deaf = True

    def during(taker) -> None:
        for _ in range(2):
            world.write(volume, old)
    world.during = during
    world.write(volume, new)
    world.check()
    assert (volume.value, new.could_write(volume)) == (3, True)
    world.write(volume, new)
    assert volume.acknowledged == 4


def test_d15_what_a_service_that_ended_left_waiting_is_too_old(world):
    volume = world.create()
    old, new = world.cvms

    def during(taker) -> None:
        raise KeyboardInterrupt
    world.during = during
    old.gateway._let_go = lambda disk, device: None
    with pytest.raises(KeyboardInterrupt):
        world.write(volume, old)
    assert old.mappers[volume.disk.serial].waiting
    for _ in range(2):
        world.write(volume, new)
    old.start_service()
    old.look()
    world.check()


def test_d15_close_leaves_the_table_of_errors_live(monkeypatch):
    """As device mapper is told."""
    done: list[str] = []
    live = Device("volume-a", "pool", "image", 1 << 30)
    monkeypatch.setattr(Device, "table", lambda self: "0 2097152 linear 251:0 0")
    monkeypatch.setattr(Device, "_run", lambda self, *words: done.append(words[1]) or "")
    live.close()
    assert done == ["suspend", "load", "resume"]


@pytest.mark.parametrize("tcp, under_way", [
    ("01 00000010:00000000", False), ("04 00000010:00000000", True), ("05 00000000:00000000", True),
    ("06 00000000:00000000", False), ("0B 00000000:00000000", True)])
@pytest.mark.parametrize("port, is_osd", [("1A90", True), ("0CE4", False), ("1D91", False)])
def test_d13_a_closed_connection_to_an_osd_is_under_way(tmp_path, monkeypatch, tcp, under_way, port, is_osd):
    """From the kernel's own list, as Linux 6.12 writes it."""
    path = tmp_path / "tcp"
    path.write_text("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
                    f"   0: 1F00140A:D2F0 2000140A:{port} {tcp} 02:0000A6F8 00000000     0        0 0 2 0000 20 4 30\n")
    monkeypatch.setattr(clients, "TCP_CONNECTIONS", (path, tmp_path / "absent"))
    assert clients.bytes_under_way() == (under_way and is_osd)


class Cut:
    """Two volumes that are served. The cluster doesn't answer for those in away; those in taken are another's."""

    def __init__(self) -> None:
        self.now = 0.0
        self.away: set[str] = set()
        self.taken: set[str] = set()
        self.done: list[str] = []
        self.gateway = Gateway(self, self, self._device, lambda event: None, 15, lambda: self.now)
        world = World(1)
        self.disks = [world.create().disk, world.create().disk]

    def _device(self, disk):
        cut = self

        class Served:
            served = True

            def close(self) -> None:
                cut.done.append(f"close {disk.serial}")
        return Served()

    def set_state(self, lun, state) -> None:
        assert state == STANDBY
        self.done.append(f"standby {lun.serial}")

    def lost(self, disk) -> bool:
        if disk.serial in self.away:
            raise CornerstoneError("RADOS timed out")
        return disk.serial in self.taken


def test_d14_a_cluster_that_does_not_answer_for_longer_than_the_lease_loses_us_our_volumes():
    cut = Cut()
    cut.away = {"serial-0", "serial-1"}
    cut.gateway.check(cut.disks)
    assert cut.done == []
    cut.now = 15
    cut.gateway.check(cut.disks)
    assert cut.done == ["standby serial-0", "close serial-0", "standby serial-1", "close serial-1"]


def test_d14_one_question_that_takes_longer_than_the_lease_is_enough():
    cut = Cut()

    def lost(disk) -> bool:
        cut.now += 60
        raise CornerstoneError("RADOS timed out")
    cut.lost = lost
    cut.gateway.check(cut.disks[:1])
    assert cut.done == ["standby serial-0", "close serial-0"]


def test_d14_an_answer_in_between_begins_the_lease_anew():
    cut = Cut()
    for now, away in ((0, True), (10, False), (20, True), (30, True)):
        cut.now, cut.away = now, {"serial-0"} if away else set()
        cut.gateway.check(cut.disks[:1])
    assert cut.done == []


def test_d14_one_volume_s_error_does_not_keep_the_others():
    cut = Cut()
    cut.away, cut.taken = {"serial-0"}, {"serial-1"}
    cut.gateway.check(cut.disks)
    assert cut.done == ["standby serial-1", "close serial-1"]


def test_d14_every_command_of_device_mapper_and_rbd_is_bounded(monkeypatch):
    """And by more than what it waits for: a request that hangs ends first."""
    asked: list[float] = []
    monkeypatch.setattr(device.command, "run", lambda words, *, seconds=None, **options:
                        asked.append(seconds) or device.command.Done(words[0], 0))
    for patience in (1, 10):
        Device("volume-a", "pool", "image", 1 << 30, patience).close()
    assert asked and all(asked), asked

"""The host's end of the data path: what iscsiadm is asked, from recorded answers of open-iscsi 2.1.11."""

from __future__ import annotations

import json
import socket
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.hypervisor.data_path import DataPath, answer, check_offer, merge_settings, naa, serve, sessions
from cornerstone.lib.error import CornerstoneError
from cornerstone.model.contracts.iscsi import Answer, Initiator, Offer, Portal, device_name, from_line, to_line

TARGET = "iqn.2024-07.internal.cornerstone:11111111-2222-3333-4444-555555555555"
ROOT = Path(__file__).resolve().parents[2]
VOLUME, OLD_VOLUME = "e7159402-b3b2-567d-864b-1174ab0788cf", "11111111-2222-3333-4444-555556666666"
OFFER = Offer(TARGET, (Portal("192.168.5.2", 1), Portal("10.20.0.22", 2)), (VOLUME,))
OWN, OTHER, FORMER = "192.168.5.2:3260,1", "10.20.0.22:3260,2", "10.20.0.29:3260,3"
RECORD = """\
# BEGIN RECORD 2.1.11
node.name = iqn.x
node.tpgt = 1
node.startup = manual
node.session.auth.authmethod = None
node.conn[0].address = 192.168.5.2
# END RECORD
"""


class OpenIscsi:
    """Knows records and sessions as `address:port,tag`; those of down take no login."""

    def __init__(self, tmp_path: Path, known=(), logged_in=(), down=(), slow=()) -> None:
        self.known, self.logged_in, self.down, self.slow = set(known), set(logged_in), set(down), set(slow)
        self.calls: list[str] = []
        self.records, self.devices = tmp_path / "nodes", tmp_path / "scsi_device"
        self.block, self.mapper = tmp_path / "block", tmp_path / "mapper"
        self.mapper.mkdir()
        self.events: list[str] = []
        self.answers: dict[str, tuple[int, str]] = {}
        # what a scan finds by asking the devices: their wwid by then
        self.becomes: dict[Path, str] = {}

    def run(self, *words: str) -> tuple[int, str]:
        line = " ".join(words)
        self.calls.append(line)
        if line in self.answers:
            return self.answers[line]
        if line == "iscsiadm --mode session":
            return self._list([f"tcp: [{number}] {portal} {TARGET} (non-flash)"
                               for number, portal in enumerate(sorted(self.logged_in), 1)], "No active sessions.")
        if line == "iscsiadm --mode node":
            return self._list([f"{portal} {TARGET}" for portal in sorted(self.known)], "No records found")
        if words[:3] == ("iscsiadm", "--mode", "node"):
            return self._node(words[6], words[7:])
        if words[-1] == "--rescan":
            for device, wwid in self.becomes.items():
                (device / "wwid").write_text(f"{wwid}\n")
            self._scan(self.logged_in)
        return 0, ""

    def _scan(self, portals: set[str]) -> None:
        """Each shows one volume, but the slow ones."""
        for portal in portals - self.slow:
            if not (self.devices / portal).exists():
                self.device(portal, f"naa.{device_name(VOLUME)[1:]}")

    @staticmethod
    def _list(lines: list[str], none: str) -> tuple[int, str]:
        return (0, "\n".join(lines)) if lines else (21, f"iscsiadm: {none}")

    def _node(self, portal: str, words: tuple[str, ...]) -> tuple[int, str]:
        if words == ("--op", "new"):
            self.known.add(portal)
            record = self.records / TARGET / portal.replace(":", ",") / "default"
            record.parent.mkdir(parents=True)
            record.write_text(RECORD)
        elif words == ("--op", "delete"):
            self.known.remove(portal)
        elif words == ("--logout",):
            self.logged_in.discard(portal)
        elif portal in self.down:
            return 8, "iscsiadm: initiator reported error (8 - connection timed out)\niscsiadm: Could not log in"
        else:
            self.logged_in.add(portal)
            self._scan({portal})
        return 0, ""

    def device(self, name: str, wwid: str, vendor: str = "LIO-ORG") -> Path:
        folder = self.devices / name / "device"
        folder.mkdir(parents=True)
        for key, value in {"wwid": wwid, "vendor": f"{vendor} ", "delete": ""}.items():
            (folder / key).write_text(f"{value}\n")
        return folder

    def map(self, name: str, *devices: Path) -> None:
        """A multipath map that holds these SCSI devices."""
        for holder in (self.block / f"dm-{name}", *(device / f"block/sd{number}/holders/dm-{name}"
                                                    for number, device in enumerate(devices))):
            (holder / "dm").mkdir(parents=True)
            (holder / "dm/uuid").write_text(f"mpath-{name}\n")
        (self.mapper / name).touch()

    def deleted(self, device: Path) -> bool:
        return (device / "delete").read_text() == "1\n"

    def data_path(self) -> DataPath:
        return DataPath(Initiator("iqn.host", "hush"), lambda event: self.events.append(event.message), self.run,
                        self.devices, (self.records,), self.block, self.mapper)


def test_a_new_host_logs_in_everywhere_with_its_secret_on_no_command_line(tmp_path):
    world = OpenIscsi(tmp_path)
    assert world.data_path().take(OFFER) == Answer((OTHER, OWN))
    assert not any("hush" in call for call in world.calls)
    for portal in (OWN, OTHER):
        record = world.records / TARGET / portal.replace(":", ",") / "default"
        assert "node.session.auth.password = hush\n" in record.read_text()
        assert stat.S_IMODE(record.stat().st_mode) == 0o600
    # only the own CVM's login is waited for
    assert [call for call in world.calls if call.endswith("--no_wait")] == \
        [f"iscsiadm --mode node --targetname {TARGET} --portal {OTHER} --login --no_wait"]


def test_what_is_there_already_is_only_looked_at_again(tmp_path):
    world = OpenIscsi(tmp_path, known=(OWN, OTHER), logged_in=(OWN, OTHER))
    assert world.data_path().take(OFFER) == Answer((OTHER, OWN))
    assert [call for call in world.calls if "--targetname" in call] == []
    assert "iscsiadm --mode session --rescan" in world.calls


def test_a_volume_that_a_portal_does_not_show_yet_is_told(tmp_path):
    world = OpenIscsi(tmp_path, known=(OWN, OTHER), logged_in=(OWN, OTHER), slow=(OTHER,))
    assert world.data_path().take(OFFER) == Answer((OTHER, OWN), "", (VOLUME,))
    world.slow.clear()
    assert world.data_path().take(OFFER) == Answer((OTHER, OWN))


def test_a_portal_that_is_down_is_told_and_the_others_are_used(tmp_path):
    world = OpenIscsi(tmp_path, down=(OTHER,))
    assert world.data_path().take(OFFER) == Answer((OWN,), f"{OTHER}: iscsiadm: Could not log in")
    assert world.events == [f"1 of 2 portals, 1 volumes; {OTHER}: iscsiadm: Could not log in"]


def test_a_portal_that_is_offered_no_more_is_left(tmp_path):
    world = OpenIscsi(tmp_path, known=(OWN, OTHER, FORMER), logged_in=(OWN, OTHER, FORMER))
    assert world.data_path().take(OFFER) == Answer((OTHER, OWN))
    assert world.known == world.logged_in == {OWN, OTHER}


def test_only_our_devices_whose_volume_is_gone_are_dropped(tmp_path):
    world = OpenIscsi(tmp_path, known=(OWN, OTHER), logged_in=(OWN, OTHER))
    kept = world.device("6:0:0:0", f"naa.{device_name(VOLUME)[1:]}")
    gone = [world.device(name, "naa.60014051111111122223333444455555") for name in ("6:0:0:1", "7:0:0:1")]
    local = world.device("0:0:0:0", "naa.5002538e40b5ad1f", "ATA")
    world.data_path().take(OFFER)
    assert "multipath -f 360014051111111122223333444455555" in world.calls
    assert [(folder / "delete").read_text() for folder in gone] == ["1\n", "1\n"]
    assert [(folder / "delete").read_text() for folder in (kept, local)] == ["\n", "\n"]


OLD = "360014051111111122223333444455555"


def connected(tmp_path) -> OpenIscsi:
    return OpenIscsi(tmp_path, known=(OWN, OTHER), logged_in=(OWN, OTHER))


def test_multipathd_asks_who_a_path_is_that_comes_back_d17():
    assert "recheck_wwid yes" in overrides()


def test_a_write_whose_path_fails_waits_for_the_next_path():
    """And no two paths of a volume are used in turn."""
    assert {"no_path_retry queue", "path_grouping_policy failover"} <= set(overrides())


def overrides() -> list[str]:
    """Return the lines of multipath.conf for all volumes."""
    conf = (ROOT / "elements/hypervisor/static/etc/multipath.conf").read_text()
    return [line.strip() for line in conf.partition("\noverrides {\n")[2].partition("\n}")[0].splitlines()]


def test_a_device_that_a_map_of_another_volume_holds_goes_d17(tmp_path):
    """Before anything new is looked for, and only that one."""
    world = connected(tmp_path)
    changed, same = (world.device(name, f"naa.{device_name(VOLUME)[1:]}") for name in ("6:0:0:0", "7:0:0:0"))
    world.map(OLD, changed)
    world.map(device_name(VOLUME), same)
    world.data_path().take(OFFER)
    assert (world.deleted(changed), world.deleted(same)) == (True, False)
    assert world.calls.index("multipathd del path sd0") < world.calls.index("iscsiadm --mode session --rescan")
    assert [each for each in world.events if each.startswith("SCSI device")] == [
        f"SCSI device 6:0:0:0 was {OLD} and answers as {device_name(VOLUME)}: it is taken from its map"]


def test_a_device_that_has_become_another_volume_by_the_scan_goes_d17(tmp_path):
    world = connected(tmp_path)
    device = world.device("6:0:0:0", f"naa.{OLD[1:]}")
    world.becomes[device] = f"naa.{device_name(VOLUME)[1:]}"
    # both are offered: it isn't a volume that is gone
    world.data_path().take(replace(OFFER, volumes=(VOLUME, OLD_VOLUME)))
    assert world.deleted(device)


def test_each_device_is_asked_anew_but_those_of_a_broken_session_d17(tmp_path):
    world = connected(tmp_path)
    well, broken = (world.device(name, f"naa.{device_name(VOLUME)[1:]}") for name in ("6:0:0:0", "7:0:0:0"))
    (well / "state").write_text("running\n")
    (broken / "state").write_text("transport-offline\n")
    world.data_path().take(OFFER)
    assert [(device / "rescan").exists() for device in (well, broken)] == [True, False]
    assert not world.deleted(well) and not world.deleted(broken)


def test_a_device_that_cannot_say_who_it_is_stays_d17(tmp_path):
    world = connected(tmp_path)
    device = world.device("6:0:0:0", f"naa.{device_name(VOLUME)[1:]}")
    world.map(device_name(VOLUME), device)
    world.becomes[device] = ""
    world.data_path().take(OFFER)
    assert not world.deleted(device)


def test_a_device_of_a_deleted_volume_that_is_in_use_goes_with_its_queue_d18(tmp_path):
    """What waits for it fails, the paths go, the map when the guest lets go, and it is told which guest that is."""
    world = connected(tmp_path)
    devices = [world.device(name, f"naa.{OLD[1:]}") for name in ("6:0:0:1", "7:0:0:1")]
    world.map(OLD, *devices)
    world.answers = {f"multipath -f {OLD}": (1, f"{OLD}: map in use"), "virsh --quiet list --name": (0, "vm1\nvm2\n"),
                     "virsh --quiet domblklist vm1": (0, " vda   /var/lib/x.qcow2\n sda   -"),
                     "virsh --quiet domblklist vm2": (0, f" sda   {world.mapper / OLD}")}
    data_path = world.data_path()
    data_path.take(OFFER)
    assert all(map(world.deleted, devices))
    steps = [f"multipathd disablequeueing map {OLD}", f"multipath -f {OLD}", f"dmsetup remove --deferred {OLD}"]
    assert [call for call in world.calls if call in steps] == steps
    told = (f"{OLD} is gone from the cluster and in use here, by vm2: its reads and writes fail from now on; "
            f"{OLD}: map in use")
    assert told in world.events
    data_path.take(OFFER)
    assert world.events.count(told) == 1


def test_a_deleted_volume_that_no_guest_has_is_told_too_d18(tmp_path):
    world = connected(tmp_path)
    world.map(OLD, world.device("6:0:0:1", f"naa.{OLD[1:]}"))
    world.answers = {f"multipath -f {OLD}": (1, "map in use"), "virsh --quiet list --name": (1, "error: no libvirt")}
    world.data_path().take(OFFER)
    assert any("in use here, by no guest, but a process of the host" in each for each in world.events)


def test_without_multipathd_the_kernel_ends_the_queue_d18(tmp_path):
    world = connected(tmp_path)
    world.map(OLD, world.device("6:0:0:1", f"naa.{OLD[1:]}"))
    # multipathd says so with the exit code 0
    world.answers = {f"multipathd disablequeueing map {OLD}": (0, "timeout"), f"multipath -f {OLD}": (1, "map in use")}
    world.data_path().take(OFFER)
    assert f"dmsetup message {OLD} 0 fail_if_no_path" in world.calls


def test_a_map_without_any_device_goes_too_d18(tmp_path):
    """Its sessions have ended before its volume was deleted; and other maps than ours stay."""
    world = connected(tmp_path)
    world.map(OLD)
    world.map(device_name(VOLUME))
    world.map("35000c5001ab10001")
    world.data_path().take(OFFER)
    assert [call for call in world.calls if "multipath" in call] \
        == [f"multipathd disablequeueing map {OLD}", f"multipath -f {OLD}"]


@pytest.mark.parametrize("line", [b"[" * 100_000, b'{"target": ' + b"[" * 100_000])
def test_an_offer_that_is_nested_too_deeply_ends_nobody_d23(line, tmp_path):
    assert answer(line, OpenIscsi(tmp_path).data_path()).error


def test_an_offer_at_which_something_fails_ends_nobody_d23(tmp_path):
    world = OpenIscsi(tmp_path)
    world.run = lambda *words: 1 // 0
    assert "ZeroDivisionError" in answer(to_line(OFFER), world.data_path()).error


def test_sessions_and_records_are_read_alike():
    listed = f"tcp: [9] {OWN} {TARGET} (non-flash)\ntcp: [10] {OTHER} {TARGET} (non-flash)\ntcp: [2] {OWN} iqn.y (x)"
    assert sessions(listed) == {TARGET: {OWN, OTHER}, "iqn.y": {OWN}}
    assert sessions(f"{OWN} {TARGET}\n{OTHER} {TARGET}") == {TARGET: {OWN, OTHER}}
    assert sessions("") == {}


def test_a_record_gets_settings_and_keeps_the_rest():
    made = merge_settings(RECORD, {"node.startup": "automatic", "node.session.auth.password": "hush"})
    assert made == RECORD.replace("node.startup = manual\n", "").replace(
        "# END", "node.startup = automatic\nnode.session.auth.password = hush\n# END")
    assert merge_settings(made, {"node.startup": "automatic", "node.session.auth.password": "hush"}) == made


def test_a_device_without_an_naa_id_has_no_name(tmp_path):
    (tmp_path / "wwid").write_text("t10.ATA     QEMU HARDDISK\n")
    assert naa(tmp_path) == "" == naa(tmp_path / "absent")


@pytest.mark.parametrize("offer, said", [
    (Offer("--help", (), ()), "'--help'"),
    (Offer(TARGET, (Portal("-x", 1),), ()), "'-x'"),
    (Offer(TARGET, (), ("../../x",)), "'../../x'"),
])
def test_an_offer_with_other_words_is_refused(offer, said):
    with pytest.raises(CornerstoneError, match=said):
        check_offer(offer)


@pytest.mark.parametrize("line", [b"", b"{", b"[]\n", b'{"target": 1}\n'])
def test_what_is_no_offer_is_answered_with_what_is_wrong(line, tmp_path):
    world = OpenIscsi(tmp_path)
    said = answer(line, world.data_path())
    assert said.sessions == () and said.error.startswith("offer")
    assert world.calls == []


@pytest.mark.parametrize("own", [True, False])
def test_only_the_own_cvm_makes_offers(tmp_path, monkeypatch, own):
    monkeypatch.setattr("cornerstone.hypervisor.data_path.CVM_ADDRESS", "127.0.0.1" if own else "192.168.5.2")
    world = OpenIscsi(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # it serves for ever: its end is that of the listener
        threading.Thread(target=lambda: pytest.raises(OSError, serve, listener, world.data_path()), daemon=True).start()
        with socket.create_connection(listener.getsockname(), timeout=30) as cvm, cvm.makefile("rb") as lines:
            cvm.sendall(to_line(OFFER))
            said = b""
            try:
                said = lines.readline()
            except ConnectionResetError:
                assert not own
    assert (from_line(Answer, said, "answer") == Answer((OTHER, OWN))) if own else said == b""
    assert bool(world.calls) == own


def test_no_secret_is_in_an_offer():
    assert set(json.loads(to_line(OFFER))) == {"version", "target", "portals", "volumes"}

"""The text screen, on real terminals (pseudo ttys): what it asks, what it takes back, what it makes of the answers."""

from __future__ import annotations

import json
import os
import re
import select
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.foundation.installer.ask import NONE, ask_site
from cornerstone.lib.error import CornerstoneError
from cornerstone.model.contracts.facts import Clock, Contents, Cpu, Disk, Dmi, Facts, Firmware, Nic, Signature
from cornerstone.model.site.file import read_site

DISKS = (Disk("sda", 480 << 30, "BOOT-1", model="SATADOM"), Disk("sdb", 960 << 30, model="NO SERIAL"),
         Disk("sdc", 960 << 30, "DATA-1", model="SSD", contents=Contents(signatures=(Signature("ext4"),))),
         Disk("sdd", 8 << 30, "STICK", model="USB"))
FACTS = Facts(Dmi(serial="SN-77"), Firmware("uefi"), Cpu("x", 1, 2, 2), 32 << 30, Clock(0), disks=DISKS,
              boot_medium="sdd", nics=(Nic("eno1", "02:00:5e:00:01:01"), Nic("usb0", "02:00:5e:00:01:02", usb=True)))
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7uqUmTbFQXyAQn0XcKeZzOmTjbC7zBRUIAkVsZJXkR me@example"
USUAL = ["", "", "10.20.0.1/24", "", "10.20.0.11", "", "1", "", "", "", "", "", "", "yes"]
TOKEN = DISKS[2].token
PROMPT = r"press Enter on this console\.|[])]: |change it: "


class Terminals:
    """Pseudo ttys, and somebody at one of them."""

    def __init__(self, count: int) -> None:
        pairs = [os.openpty() for _ in range(count)]
        self.people, self._slaves = ([pair[side] for pair in pairs] for side in (0, 1))
        self.devices = [Path(os.ttyname(slave)) for slave in self._slaves]
        self.heard = {each: "" for each in self.people}
        self.result: list = []

    def start(self, facts: Facts) -> None:
        def run():
            try:
                self.result.append(ask_site(facts, self.devices))
            except CornerstoneError as error:
                self.result.append(error)
        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def hear(self, person: int, until: str) -> str:
        """Read on until a pattern, and return all up to its end."""
        while not (found := re.search(until, self.heard[person])):
            assert select.select([person], [], [], 60)[0], f"only {self.heard[person]!r}"
            self.heard[person] += os.read(person, 4096).decode()
        before, self.heard[person] = self.heard[person][:found.end()], self.heard[person][found.end():]
        return before

    def say(self, person: int, line: str) -> None:
        os.write(person, line.encode() + b"\r")

    def answer(self, *lines: str, person: int = 0) -> str:
        """Say each line once its prompt is there; returns all that was shown."""
        shown = ""
        for line in lines:
            shown += self.hear(self.people[person], PROMPT)
            self.say(self.people[person], line)
            # the terminal's echo, which is no prompt
            shown += self.hear(self.people[person], "\n")
        return shown

    def site(self) -> dict:
        self._thread.join(60)
        read_site(self.result[0])
        return json.loads(self.result[0])


@pytest.fixture
def terminals():
    made: list[Terminals] = []

    def make(count: int = 1, facts: Facts = FACTS) -> Terminals:
        made.append(Terminals(count))
        made[-1].start(facts)
        return made[-1]

    yield make
    for each in made:
        for handle in (*each.people, *each._slaves):
            os.close(handle)


def test_enter_and_three_answers_make_a_site(terminals):
    terminal = terminals()
    shown = terminal.answer(*USUAL)
    site = terminal.site()
    [node] = site["blocks"][0]["nodes"]
    assert node == {"node_position": "A", "hypervisor": "kvm", "node_serial": "SN-77", "hypervisor_hostname": "node-1",
                    "hypervisor_ip": "10.20.0.11", "cvm_ip": "10.20.0.12",
                    "cornerstone": {"boot_disk": {"serial": "BOOT-1"}}}
    assert site["hypervisor_netmask"] == "255.255.255.0" and site["clusters"][0]["cluster_name"] == "node-1"
    assert "1  sda SATADOM, 480.0 GiB, serial BOOT-1: empty" in shown
    assert "2  sdc SSD, 960.0 GiB, serial DATA-1: ext4" in shown
    assert "STICK" not in shown and "NO SERIAL" not in shown
    assert re.search("Gateway +10.20.0.1/24\r", shown)


def test_each_site_has_a_secret_of_its_own(terminals):
    found = []
    for _ in range(2):
        terminal = terminals()
        shown = terminal.answer(*USUAL)
        found.append(terminal.site()["clusters"][0]["cornerstone"]["bootstrap_secret"])
        assert found[-1] not in shown
    assert found[0] != found[1]


def test_all_that_can_be_said(terminals):
    terminal = terminals()
    terminal.answer("", "edge-1.example.net", "10.40.0.1/255.255.254.0", "140", "10.40.1.11", "10.40.0.21", "DATA-1",
                    TOKEN, "edge", "10.40.0.31", "10.40.0.53,10.40.0.54", "ntp.example.net", KEY, "yes")
    site = read_site(json.dumps(terminal.site()).encode())
    [node], [cluster] = site.nodes, site.clusters
    assert node.erase_tokens == (("DATA-1", TOKEN),)
    assert (node.hostname, node.uplink.vlan, str(node.hypervisor), str(node.cvm), node.boot_disk.serial) == (
        "edge-1.example.net", 140, "10.40.1.11/23", "10.40.0.21/23", "DATA-1")
    assert (cluster.name, str(cluster.data_services), cluster.cvm_ntp_servers) == (
        "edge", "10.40.0.31", ("ntp.example.net",))
    assert list(map(str, cluster.cvm_dns_servers)) == list(map(str, site.nameservers)) == ["10.40.0.53", "10.40.0.54"]
    assert site.authorized_keys == (KEY,)


@pytest.mark.parametrize(("before", "wrong", "reason"), [
    (1, "bad_name", "isn't a host name"),
    (2, "10.20.0.1", "has no prefix length"),
    (2, "10.20.0.1/31", "is /31"),
    (2, "192.168.5.1/24", "overlaps 192.168.5.0/24"),
    (2, "10.20.0.0/24", "is the network address"),
    (3, "5000", "out of range"),
    (3, "x", "isn't a whole number"),
    (4, "10.21.0.11", "isn't in 10.20.0.0/24"),
    (4, "10.20.0.1", "give each its own address"),
    (5, "10.20.0.11", "already"),
    (6, "3", "is none of them"),
    (6, "STICK", "is none of them"),
    (7, "0123456789ab", "isn't this disk's token"),
    (9, "10.20.0.11", "already"),
    (10, "10.20.0.53;x", "isn't an IPv4 address"),
    (12, "ssh-dss AAAA", "isn't an OpenSSH public key"),
])
def test_what_is_wrong_is_said_at_once_and_asked_again(terminals, before, wrong, reason):
    terminal = terminals()
    shown = terminal.answer(*USUAL[:before], wrong, *USUAL[before:])
    assert reason in " ".join(shown.split())
    assert terminal.site()["blocks"][0]["nodes"][0]["hypervisor_ip"] == "10.20.0.11"


def test_back_keeps_what_was_said_as_the_default_and_again_starts_over(terminals):
    terminal = terminals()
    shown = terminal.answer("", "first", "10.20.0.1/24", "back", "back", "second", "", "7", "again", "third", "", "",
                            "10.20.0.11", "", "1", "", "", "", "", "", "", "back", KEY, "no", "yes")
    assert "[first]" in shown and "[second]" in shown and "[10.20.0.1/24]" in shown and "[7]" in shown
    site = terminal.site()
    assert site["blocks"][0]["nodes"][0]["hypervisor_hostname"] == "third"
    assert site["current_cvm_vlan_tag"] == 7 and site["cornerstone"]["authorized_keys"] == [KEY]


def test_an_answer_that_a_later_change_makes_wrong_is_asked_for_again(terminals):
    terminal = terminals()
    back = ["back"] * 11
    shown = terminal.answer(*USUAL[:-1], *back, "10.30.0.1/24", "", "", "10.30.0.11", "10.30.0.12", *USUAL[6:])
    assert "10.20.0.11 isn't in 10.30.0.0/24" in " ".join(shown.split())
    assert terminal.site()["clusters"][0]["cluster_members"] == ["10.30.0.12"]


def test_the_console_that_speaks_first_has_the_word(terminals):
    terminal = terminals(3)
    for person in terminal.people:
        assert "press Enter" in (shown := terminal.hear(person, PROMPT))
        terminal.heard[person] = shown
    terminal.answer(*USUAL, person=1)
    for person in (terminal.people[0], terminal.people[2]):
        terminal.hear(person, "answered on another console.")
    assert terminal.site()


def test_a_console_that_hangs_up_is_no_matter_until_it_is_the_last(terminals):
    terminal = terminals(2)
    for person in terminal.people:
        terminal.hear(person, "press Enter on this console.")
    os.close(terminal.people.pop(0))
    os.close(terminal.people.pop(0))
    terminal._thread.join(60)
    assert "no console is left" in terminal.result[0].message


@pytest.mark.parametrize("serial", ["", "To Be Filled By O.E.M."])
def test_a_machine_without_a_serial_is_known_by_its_cards(terminals, serial):
    terminal = terminals(facts=replace(FACTS, dmi=Dmi(serial=serial)))
    terminal.answer(*USUAL)
    [node] = terminal.site()["blocks"][0]["nodes"]
    assert "node_serial" not in node and node["cornerstone"]["nic_macs"] == ["02:00:5e:00:01:01"]


def test_the_only_disk_is_the_default(terminals):
    terminal = terminals(facts=replace(FACTS, disks=DISKS[:1]))
    terminal.answer(*USUAL[:6], "", *USUAL[8:])
    assert terminal.site()["blocks"][0]["nodes"][0]["cornerstone"]["boot_disk"] == {"serial": "BOOT-1"}


def test_the_boot_disk_needs_its_token_when_something_is_on_it(terminals):
    terminal = terminals()
    shown = terminal.answer(*USUAL[:6], "DATA-1", NONE, TOKEN, *USUAL[8:])
    assert "sdc is the boot disk, and isn't empty" in " ".join(shown.split())
    assert f"Erase sdc, serial DATA-1 ({TOKEN} lets all on it go" in " ".join(shown.split())
    assert terminal.site()["blocks"][0]["nodes"][0]["cornerstone"] == {
        "boot_disk": {"serial": "DATA-1"}, "erase_tokens": {"DATA-1": TOKEN}}


def test_a_disk_that_is_to_be_left_alone_is_no_data_disk(terminals):
    more = Disk("sde", 960 << 30, "DATA-2", model="SSD")
    terminal = terminals(facts=replace(FACTS, disks=(*DISKS, more)))
    terminal.answer(*USUAL)
    assert terminal.site()["blocks"][0]["nodes"][0]["cornerstone"]["data_disks"] == [{"serial": "DATA-2"}]


def test_d1_d7_a_disk_is_listed_once_and_what_can_be_taken_for_another_is_not_used(terminals):
    paths = tuple(Disk(name, 960 << 30, "DATA-2", "naa.2", model="SSD", transport="sas") for name in ("sde", "sdf"))
    twins = tuple(Disk(f"sd{name}", 960 << 30, "0000", f"naa.{name}", transport="sas") for name in "gh")
    terminal = terminals(facts=replace(FACTS, disks=(*DISKS[:2], *paths, *twins)))
    shown = terminal.answer(*USUAL[:6], "1", *USUAL[8:])
    assert "2  sde SSD" in shown and "sdf" not in shown
    assert "sdg unknown model, 960.0 GiB, serial 0000: has the serial of sdh (naa.h); it can't be used" in shown
    assert terminal.site()["blocks"][0]["nodes"][0]["cornerstone"]["data_disks"] == [{"serial": "DATA-2"}]


def test_d9_an_osd_is_asked_for_by_what_its_loss_means(terminals):
    osd = replace(DISKS[2], contents=Contents(signatures=(Signature("ceph_bluestore", "C-1", "O-1"),)))
    terminal = terminals(facts=replace(FACTS, disks=(DISKS[0], osd)))
    shown = " ".join(terminal.answer(*USUAL[:7], TOKEN, osd.token, *USUAL[8:]).split())
    assert "it holds a Ceph OSD O-1 of cluster C-1, whose data may be nowhere else; ceph-osd-" in shown
    assert f"'{TOKEN}' isn't this disk's token" in shown
    assert terminal.site()["blocks"][0]["nodes"][0]["cornerstone"]["erase_tokens"] == {"DATA-1": osd.token}


def test_a_console_that_is_not_there_is_left_out(tmp_path):
    with pytest.raises(CornerstoneError, match="no console is left"):
        ask_site(FACTS, [tmp_path / "ttyS7"])

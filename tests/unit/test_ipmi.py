"""The BMC, against OpenIPMI's emulator over its LAN on loopback: what is set, what is put back, what is never shown."""

from __future__ import annotations

import subprocess
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from cornerstone.foundation.installer import ipmi
from cornerstone.foundation.installer.discover import bmc as discover_bmc
from cornerstone.foundation.installer.discover.bmc import read_bmc
from cornerstone.foundation.installer.ipmi import BmcClient
from cornerstone.lab.bmc import ACCOUNT, CHANNEL, MAC, OTHER_ACCOUNT, EmulatedBmc
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.contracts.facts import Bmc as Facts
from cornerstone.model.site.site import Bmc

PASSWORD = "before-1"
WANTED = Bmc(IPv4Interface("10.60.0.11/24"), IPv4Address("10.60.0.1"), MAC, configure=True)
THERE = {"ip_addr_src": "static", "ip_addr": "10.60.0.11", "subnet_mask": "255.255.255.0",
         "default_gw_ip_addr": "10.60.0.1"}
OTHER = {"ip_addr_src": "static", "ip_addr": "10.99.0.7", "subnet_mask": "255.255.0.0",
         "default_gw_ip_addr": "10.99.0.1"}


@pytest.fixture
def bmc(tmp_path):
    with EmulatedBmc(tmp_path, PASSWORD) as emulated:
        yield emulated


@pytest.fixture
def client(bmc, tmp_path):
    (tmp_path / "password").write_text(PASSWORD)
    return BmcClient(bmc.over_lan(tmp_path / "password"), apply_seconds=0)


@pytest.fixture
def several(tmp_path):
    """A BMC with three LAN channels and the way to it: 1 and 2 share the host's cards, 3 is its own port."""
    with EmulatedBmc(tmp_path, PASSWORD, more=(1, 2)) as emulated:
        (tmp_path / "password").write_text(PASSWORD)
        yield emulated, BmcClient(emulated.over_lan(tmp_path / "password"), apply_seconds=0)


def settings(bmc: EmulatedBmc, channel: int = CHANNEL) -> dict[str, str]:
    return {name: bmc.setting(name, channel) for name in THERE}


def refusal(client: BmcClient, wanted: Bmc) -> str:
    with pytest.raises(CornerstoneError) as error:
        client.apply(wanted)
    assert error.value.code is Code.MACHINE and error.value.hint
    return error.value.message


def changed(wanted: Bmc, **fields) -> Bmc:
    return Bmc(**{**vars(wanted), **fields})


def test_an_address_is_set_source_first_and_only_once(bmc, client):
    assert client.apply(WANTED) == "10.60.0.11/24, gateway 10.60.0.1"
    assert settings(bmc) == THERE
    assert [line.split()[0] for line in bmc.changes()] == list(THERE)
    assert client.apply(WANTED).endswith("as it was")
    assert len(bmc.changes()) == 4


def test_a_setting_that_is_not_kept_is_noticed_and_the_old_ones_come_back(bmc, client):
    bmc.put(**OTHER)
    bmc.refuse("default_gw_ip_addr 10.60.0.1")
    message = refusal(client, WANTED)
    assert "told 10.60.0.11, netmask 255.255.255.0, gateway 10.60.0.1, static" in message
    assert message.endswith("it is as it was before")
    assert settings(bmc) == OTHER


def test_dhcp_comes_back_with_what_it_had_leased(bmc, client):
    leased = {**OTHER, "ip_addr_src": "dhcp"}
    bmc.put(**leased)
    bmc.refuse("subnet_mask 255.255.255.0")
    assert refusal(client, WANTED).endswith("it is as it was before")
    assert settings(bmc) == leased


def test_what_can_not_be_put_back_is_said(bmc, client):
    bmc.put(**OTHER)
    bmc.refuse("subnet_mask 255.255.255.0", "ip_addr 10.99.0.7")
    assert refusal(client, WANTED).endswith(
        "it was 10.99.0.7, netmask 255.255.0.0, gateway 10.99.0.1, static before, "
        "and is now 10.60.0.11, netmask 255.255.0.0, gateway 10.99.0.1, static")


def test_m16_of_several_channels_the_one_in_use_is_set(several):
    bmc, client = several
    bmc.put(**OTHER)
    assert client.apply(changed(WANTED, mac="")) == "10.60.0.11/24, gateway 10.60.0.1"
    assert settings(bmc) == THERE
    assert bmc.changes(1) == bmc.changes(2) == []


@pytest.mark.parametrize("channel", [1, 2, 3])
def test_m16_of_several_channels_the_site_names_one_by_its_mac(several, channel):
    bmc, client = several
    for number in (1, 2, 3):
        bmc.put(number, **OTHER)
    client.apply(changed(WANTED, mac=bmc.setting("mac_addr", channel)))
    assert [settings(bmc, number) == THERE for number in (1, 2, 3)] == [number == channel for number in (1, 2, 3)]


@pytest.mark.parametrize("others", [OTHER, {}])
def test_m16_of_several_channels_the_one_that_has_the_address_is_left_as_it_is(several, others):
    bmc, client = several
    bmc.put(1, **others)
    bmc.put(2, **THERE)
    bmc.put(3, **others)
    assert client.apply(changed(WANTED, mac="")).endswith("as it was")
    assert client.apply(changed(WANTED, mac="", configure=False)) == "10.60.0.11/24, as the site says"
    assert [bmc.changes(number) for number in (1, 2, 3)] == [[], [], []]


@pytest.mark.parametrize("others", [OTHER, {}])
def test_m16_when_nothing_says_which_channel_is_in_use_all_are_listed(several, others):
    bmc, client = several
    bmc.put(2, **others)
    bmc.put(3, **others)
    message = refusal(client, changed(WANTED, mac=""))
    assert message.startswith("the BMC has 3 LAN channels, and nothing says which one is in use:")
    assert [line.rpartition(": ")[0] for line in message.splitlines()[1:]] == [
        f"  channel {number}, MAC {bmc.setting('mac_addr', number)}" for number in (1, 2, 3)]
    assert [bmc.changes(number) for number in (1, 2, 3)] == [[], [], []]


def test_m16_a_mac_that_no_channel_has_is_another_machine(several):
    bmc, client = several
    message = refusal(client, changed(WANTED, mac="02:00:5e:00:00:ff"))
    assert all(bmc.setting("mac_addr", number) in message for number in (1, 2, 3))
    assert message.endswith("the site says ipmi_mac 02:00:5e:00:00:ff")


def test_m16_channels_of_one_mac_are_told_apart_by_their_use(several):
    bmc, client = several
    for number in (1, 2):
        bmc.put(number, mac_addr=MAC)
    bmc.put(2, **OTHER)
    client.apply(WANTED)
    assert settings(bmc, 2) == THERE and bmc.changes(1) == bmc.changes(3) == []


def test_m16_the_facts_show_the_channel_in_use_and_know_all_macs(several, tmp_path, monkeypatch):
    bmc, client = several
    bmc.put(**OTHER)
    (tmp_path / "bin").mkdir()
    through = tmp_path / "bin/ipmitool"
    through.write_text(f'#!/bin/sh\nexec /usr/bin/ipmitool {" ".join(client.via)} "$@"\n')
    through.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/ipmi0").touch()
    facts = read_bmc(tmp_path)
    assert (facts.address, facts.mac) == (OTHER["ip_addr"], MAC)
    assert facts.other_macs == tuple(bmc.setting("mac_addr", number) for number in (1, 2))


def test_m16_a_bmc_that_hangs_is_asked_once(tmp_path, monkeypatch):
    (tmp_path / "ipmitool").write_text(f"#!/bin/sh\necho x >>{tmp_path}/asked\nexec sleep 60\n")
    (tmp_path / "ipmitool").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(ipmi, "COMMAND_SECONDS", 1)
    assert "no answer to `exec /dev/stdin` in 1 s" in refusal(BmcClient(), WANTED)
    monkeypatch.setattr(discover_bmc, "SECONDS", 1)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/ipmi0").touch()
    assert read_bmc(tmp_path) == Facts(True)
    assert (tmp_path / "asked").read_text() == "x\n" * 2


@pytest.mark.parametrize("wanted", [WANTED, changed(WANTED, configure=False)])
def test_another_bmc_than_the_site_names_is_left_alone(bmc, client, wanted):
    assert refusal(client, changed(wanted, mac="02:00:5e:00:00:ff")) == (
        f"the BMC has MAC {MAC}, the site says ipmi_mac 02:00:5e:00:00:ff")
    assert bmc.changes() == []


@pytest.mark.parametrize(("address", "shown"), [("10.60.0.11/24", "10.60.0.11/24"), ("10.60.0.11/32", "10.60.0.11")])
def test_an_address_that_is_only_compared_and_equal(bmc, client, address, shown):
    bmc.put(**THERE)
    wanted = Bmc(IPv4Interface(address), None, "", configure=False)
    assert client.apply(wanted) == f"{shown}, as the site says"
    assert bmc.changes() == []


@pytest.mark.parametrize(("address", "difference"), [
    ("10.60.0.12/32", "the BMC has 10.60.0.11, the site says 10.60.0.12"),
    ("10.60.0.11/23", "the BMC has 10.60.0.11/255.255.255.0, the site says 10.60.0.11/23"),
])
def test_an_address_that_is_only_compared_and_differs(bmc, client, address, difference):
    bmc.put(**THERE)
    assert difference in refusal(client, Bmc(IPv4Interface(address), None, "", configure=False))
    assert bmc.changes() == []


# the first can't be quoted in any way that ipmitool knows
@pytest.mark.parametrize("password", ["both'\"and `$\\#", "sixteen-chars-ok"])
def test_a_password_is_set_and_opens_the_account(bmc, client, tmp_path, password):
    told = client.apply(changed(WANTED, user=OTHER_ACCOUNT, password=password))
    assert told.endswith(f"password of {OTHER_ACCOUNT} set") and password not in told.split()
    (tmp_path / "new").write_text(password)
    words = ["ipmitool", *bmc.over_lan(tmp_path / "new", OTHER_ACCOUNT), "mc", "info"]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0


def test_an_account_that_is_not_there_leaves_everything_as_it_was(bmc, client):
    bmc.put(**OTHER)
    message = refusal(client, changed(WANTED, user="nobody", password="secret-pw-1"))
    assert f"it has no account nobody, only {ACCOUNT}, {OTHER_ACCOUNT}" in message and "secret-pw-1" not in message
    assert settings(bmc) == OTHER


RECORDER = """#!/bin/sh
printf '%s ' "$@" >>{folder}/arguments
case "$*" in
    *exec*)
        given=$(cat)
        case $given in
            raw*) ;;
            *) echo "$given" | /usr/bin/ipmitool "$@"; exit ;;
        esac
        echo "$given" >>{folder}/input
        echo "raw bytes on the error output: $(tail -1 {folder}/input)" >&2; exit 1 ;;
esac
exec /usr/bin/ipmitool "$@"
"""


def test_a_password_is_in_no_argument_and_no_message(bmc, client, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    recorder = tmp_path / "bin/ipmitool"
    recorder.write_text(RECORDER.format(folder=tmp_path))
    recorder.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    wanted = changed(WANTED, user=ACCOUNT, password="longer-than-sixteen")
    message = refusal(client, wanted)
    given, arguments = ((tmp_path / name).read_text() for name in ("input", "arguments"))
    assert given.split()[:5] == ["raw", "0x06", "0x47", "0x82", "0x2"] and len(given.split()) == 5 + 20
    assert bytes(int(byte, 16) for byte in given.split()[5:]).rstrip(b"\0").decode() == wanted.password
    for text in (arguments, message, repr(wanted)):
        assert wanted.password not in text and hex(ord("l")) not in text
    assert f"doesn't take the password of {ACCOUNT}" in message and message.endswith("it is as it was before")


def test_a_bmc_that_does_not_answer(tmp_path):
    missing = BmcClient(("-I", "open", "-d", "77"))
    assert refusal(missing, WANTED) == "the BMC doesn't tell its LAN settings: none of its channels is a LAN"


def test_the_lines_for_qemu_name_the_emulators_address(tmp_path):
    one, other = EmulatedBmc(tmp_path, "x"), EmulatedBmc(Path("/"), "x")
    assert one.address != other.address
    # without reconnect QEMU 7.2 crashes
    assert f"host={one.address},port=6231,reconnect=" in one.qemu_arguments[1]

"""The first-boot script, run for real in a sandbox: its tools are fakes that note how they were called.

The script writes to /etc, /root and /run and reads /sys/class/net. It runs in a mount namespace of its own, where
these are folders of the sandbox.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import termios
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from cornerstone.factory.payload.first_boot import STEPS, script
from cornerstone.lib.event import Event
from cornerstone.model.contracts.node import NodeConfig
from cornerstone.model.packet_filter import host_rules
from cornerstone.model.profile.profile import load_profile, profile_names

ROOT = Path(__file__).resolve().parents[2]
PROFILES = profile_names(ROOT)
NODE = json.loads((ROOT / "tests/data/nodes/passthrough.json").read_text())
CVM = NODE["cvm"]["name"]
# the machine's cards: MAC; link; where the device hangs
CARDS = {"eno1": ("02:00:00:00:00:01", True, "pci0000:00/0000:00:03.0"),
         "eno2": ("02:00:00:00:00:02", True, "pci0000:00/0000:00:03.1"),
         "eno3": ("02:00:00:00:00:03", False, "pci0000:00/0000:00:04.0"),
         "usb0": ("02:00:00:00:00:04", True, "pci0000:00/0000:00:14.0/usb1/1-1")}
REAL = ("bash", "cat", "date", "dd", "install", "jq", "mkdir", "mv", "readlink", "rm", "tail", "tee", "touch")
# Notes the call; fails while fail/<tool> has lines left; cuts the power (the whole process group) at call number cut.
FAKE = """#!/bin/sh
tool=${0##*/} count=0 cut='' PATH=/usr/bin:/bin
echo "$tool $*" >>"$BOX/calls"
while read -r _; do count=$((count + 1)); done <"$BOX/calls"
[ ! -e "$BOX/cut" ] || read -r cut <"$BOX/cut"
[ "$count" != "$cut" ] || kill -s KILL -- "-$(cat "$BOX/pid")"
if [ -s "$BOX/fail/$tool" ]; then
    sed -i 1d "$BOX/fail/$tool"
    echo "first line" >&2
    echo "$tool: no 'luck' today" >&2
    exit 1
fi
case "$tool $1" in
    "virsh define") cp "$2" "$BOX/domain.xml" ;;
    "virsh start") echo running >"$BOX/domain.state" ;;
    "virsh domstate") cat "$BOX/domain.state" 2>/dev/null || echo "shut off" ;;
esac
"""
FAKES = ("hostnamectl", "ip", "networkctl", "nft", "ovs-vsctl", "sleep", "sync", "virsh")
# PATH has the fakes and REAL alone: the script finds only what it may use.
# The checkout may lie in a folder that is about to be hidden, such as /root: so it is shown in the box first.
ENTER = """mount --bind "$SOURCE" "$BOX/src" || exit 99
for folder in etc root run sys/class/net; do mount --bind "$BOX/$folder" "/$folder" || exit 99; done
echo $$ >"$BOX/pid"
PATH=$BOX/bin exec bash "$BOX/first-boot.sh"
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace over /etc needs root")


class Box:
    """A machine's worth of folders, and the script in it."""

    def __init__(self, folder: Path, text: str, source: Path = ROOT / "src") -> None:
        self.folder = folder
        self.source = source
        # none
        self.screen = str(folder / "screen")
        for name in ("bin", "etc/systemd/network", "root", "run", "fail", "state", "src"):
            (folder / name).mkdir(parents=True)
        for tool in REAL:
            (folder / "bin" / tool).symlink_to(shutil.which(tool))
        for tool in FAKES:
            path = folder / "bin" / tool
            path.write_text(FAKE)
            path.chmod(0o755)
        # the machine's own: another one may lie below /root, which the script doesn't see
        (folder / "bin" / "python3").symlink_to(shutil.which("python3", path="/usr/bin:/usr/local/bin"))
        self.cards(CARDS)
        (folder / "first-boot.sh").write_text(text)
        (folder / "state" / "cvm.qcow2").write_bytes(b"disk")
        self.node(NODE)

    def node(self, facts: dict) -> None:
        (self.folder / "state" / "node.json").write_text(json.dumps(facts))

    def cards(self, cards: dict[str, tuple[str, bool, str]]) -> None:
        """The machine's network cards, beside what no machine is without."""
        net = self.folder / "sys/class/net"
        shutil.rmtree(net, ignore_errors=True)
        (net / "lo").mkdir(parents=True)
        (net / "lo" / "type").write_text("772\n")
        for name, (mac, link, place) in cards.items():
            device = self.folder / "sys/devices" / place
            device.mkdir(parents=True, exist_ok=True)
            (net / name).mkdir()
            (net / name / "device").symlink_to(device)
            for key, value in {"type": "1", "address": mac, "carrier": str(int(link))}.items():
                (net / name / key).write_text(f"{value}\n")

    def uplink(self, **changes: object) -> None:
        """node.json with another uplink."""
        uplink = NODE["hypervisor"]["uplink"] | changes
        self.node(NODE | {"hypervisor": NODE["hypervisor"] | {"uplink": uplink}})

    def run(self) -> subprocess.CompletedProcess:
        env = {**os.environ, "BOX": str(self.folder), "CORNERSTONE_STATE": str(self.folder / "state"),
               "SOURCE": str(self.source), "PYTHONPATH": str(self.folder / "src"),
               "CORNERSTONE_SCREEN": self.screen}
        return subprocess.run(["unshare", "--mount", "--", "sh", "-c", ENTER], capture_output=True, text=True,
                              timeout=60, env=env, check=False, start_new_session=True)

    def fail(self, tool: str, times: int) -> None:
        (self.folder / "fail" / tool).write_text("x\n" * times)

    def cut_power_at(self, call: int | None) -> None:
        (self.folder / "cut").write_text(f"{call or ''}\n")

    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def forget_calls(self) -> None:
        (self.folder / "calls").unlink(missing_ok=True)

    def markers(self) -> list[str]:
        """Oldest first."""
        found = sorted((self.folder / "state" / "first-boot").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        return [path.name for path in found]

    def told(self) -> list[Event]:
        lines = (self.folder / "state" / "events.jsonl").read_text().splitlines()
        events = [Event.from_json(line) for line in lines]
        assert {event.stage for event in events} == {"first-boot"}
        assert all(abs(event.t - time.time()) < 600 for event in events)
        return events

    def events(self) -> list[tuple[str, str]]:
        return [(event.step, event.state) for event in self.told()]

    def made(self) -> dict[str, str]:
        """What the script leaves behind: every file outside its own state, with its mode."""
        return {f"{path.relative_to(self.folder)} {path.stat().st_mode & 0o7777:o}": path.read_text()
                for part in ("etc", "root", "run") for path in (self.folder / part).rglob("*") if path.is_file()} \
            | {"domain": (self.folder / "domain.xml").read_text(), "state": (self.folder / "domain.state").read_text()}


@pytest.fixture(scope="module")
def text() -> str:
    return script(load_profile("aos-6.8", ROOT))


@pytest.fixture
def box(tmp_path, text) -> Box:
    return Box(tmp_path / "box", text)


# the text, for every profile

def complaints(argv: list[str | Path]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", PROFILES)
def test_script_of_each_profile_is_sound(tmp_path, name):
    profile = load_profile(name, ROOT)
    path = tmp_path / "first-boot.sh"
    path.write_text(script(profile))
    assert complaints(["bash", "-n", path]) == ""
    assert f"profile {name} (AOS {profile.aos}, AHV {profile.ahv}, {profile.payload} payload)" in path.read_text()
    assert f"for step in {' '.join(STEPS)}; do\n" in path.read_text()
    assert "{{" not in path.read_text()


def test_shellcheck(tmp_path):
    for name in PROFILES:
        (tmp_path / f"{name}.sh").write_text(script(load_profile(name, ROOT)))
    assert complaints(["shellcheck", "--severity=warning", *tmp_path.iterdir()]) == ""


def test_every_step_is_a_function(text):
    assert [step for step in STEPS if f"\n{step}() {{\n" not in text] == []


# a run

@needs_root
def test_t59_the_checkout_may_lie_below_root_s_home(tmp_path, text):
    with tempfile.TemporaryDirectory(dir=Path("~root").expanduser(), prefix=".test-") as home:
        source = Path(home) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        box = Box(tmp_path / "box", text, source)
        done = box.run()
    assert done.returncode == 0, done.stderr


@needs_root
def test_what_a_run_does(box):
    host = {path: Path(path).stat().st_mtime_ns for path in ("/etc/systemd", "/root")}
    assert box.run().returncode == 0
    assert host == {path: Path(path).stat().st_mtime_ns for path in host}, "the machine itself isn't touched"
    assert [call for call in box.calls() if not call.startswith("sync")] == [
        "hostnamectl set-hostname node-a",
        "ovs-vsctl --timeout=60 --if-exists del-br br0 -- add-br br0 -- add-port br0 eno1"
        " -- set interface br0 mtu_request=1500 -- set interface eno1 mtu_request=1500",
        "nft --file /etc/nftables.conf", "networkctl reload",
        "virsh define /run/cornerstone-cvm.xml", f"virsh autostart {CVM}",
        f"virsh domstate {CVM}", f"virsh start {CVM}"]
    assert box.events() == [(step, state) for step in STEPS for state in ("started", "done")] + [("complete", "done")]
    assert box.markers() == [*STEPS, "complete"], "in order, complete last"
    assert [event.message for event in box.told() if event.message] == []


@needs_root
def test_a14_the_host_s_filter_is_made_of_its_node(box):
    box.run()
    assert (box.folder / "etc/nftables.conf").read_text() == host_rules(NodeConfig.from_json(json.dumps(NODE)))


@needs_root
def test_identity(box):
    box.run()
    assert (box.folder / "etc/hosts").read_text() == \
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n10.20.0.11 node-a\n"


@needs_root
def test_networks(box):
    box.run()
    network = box.folder / "etc" / "systemd" / "network"
    assert {path.name for path in network.iterdir()} == {
        "10-eno1.link", "20-br0.network", "20-internal.netdev", "20-internal.network", "20-uplinks.network"}
    assert (network / "20-br0.network").read_text() == \
        "[Match]\nName=br0\n\n[Network]\nAddress=10.20.0.11/24\nGateway=10.20.0.1\n" \
        "NTP=ntp1.example.org 10.20.0.4\nIPv6AcceptRA=no\n"
    assert "[Match]\nName=eno1\n" in (network / "20-uplinks.network").read_text()
    assert "KeepMaster=yes\n" in (network / "20-uplinks.network").read_text()
    assert (network / "10-eno1.link").read_text() == \
        "[Match]\nPermanentMACAddress=02:00:00:00:00:01\n\n[Link]\nName=eno1\n"
    assert "Name=virbr-internal\nKind=bridge\n" in (network / "20-internal.netdev").read_text()
    assert "Address=192.168.5.1/24\nConfigureWithoutCarrier=yes\n" in (network / "20-internal.network").read_text()
    assert (box.folder / "etc/resolv.conf").read_text() == "nameserver 10.20.0.2\nnameserver 10.20.0.3\n"


BOND = "--if-exists del-br br0 -- add-br br0{tag} -- add-bond br0 br0-up eno1 eno2 {bond}" \
       " -- set interface br0 mtu_request={mtu} -- set interface eno1 mtu_request={mtu}" \
       " -- set interface eno2 mtu_request={mtu}"
PORT = "--if-exists del-br br0 -- add-br br0{tag} -- add-port br0 {card}{options}" \
       " -- set interface br0 mtu_request=1500 -- set interface {card} mtu_request=1500"
MACS = [mac for mac, *_ in CARDS.values()]


@needs_root
@pytest.mark.parametrize(("uplink", "change"), [
    ({"macs": MACS[:2]},
     BOND.format(tag="", bond="bond_mode=active-backup lacp=off other_config:lacp-time=slow", mtu=1500)),
    ({"macs": MACS[:2], "mode": "balance-tcp", "lacp": "active", "lacp_rate": "fast", "mtu": 9000, "vlan": 205},
     BOND.format(tag=" -- set port br0 tag=205", bond="bond_mode=balance-tcp lacp=active other_config:lacp-time=fast",
                 mtu=9000)),
    ({"macs": MACS[:2], "mode": "balance-slb", "options": ["bond-detect-mode=miimon", "bond-miimon-interval=100"]},
     BOND.format(tag="", bond="bond_mode=balance-slb lacp=off other_config:lacp-time=slow"
                 " -- set port br0-up other_config:bond-detect-mode=miimon"
                 " -- set port br0-up other_config:bond-miimon-interval=100", mtu=1500)),
    ({"macs": [MACS[2]]}, PORT.format(tag="", card="eno3", options="")),
    ({"macs": [MACS[0]], "vlan": 4094}, PORT.format(tag=" -- set port br0 tag=4094", card="eno1", options="")),
    ({"macs": [MACS[3]]}, PORT.format(tag="", card="usb0", options="")),
    ({"macs": []}, BOND.format(tag="", bond="bond_mode=active-backup lacp=off other_config:lacp-time=slow", mtu=1500)),
], ids=["two", "lacp, VLAN, MTU", "options", "one without link", "one, VLAN", "one on USB", "all with a link"])
def test_uplinks(box, uplink, change):
    box.uplink(**uplink)
    assert box.run().returncode == 0
    assert [call for call in box.calls() if call.startswith("ovs-vsctl")] == [f"ovs-vsctl --timeout=60 {change}"]


@needs_root
def test_cards_without_a_link_are_raised_and_waited_for_a_while(box):
    box.uplink(macs=[])
    box.run()
    assert [call for call in box.calls() if call.startswith("ip ")] == [
        f"ip link set {card} up" for card in ("eno1", "eno2", "eno3")]
    assert box.calls().count("sleep 1") == 15


@needs_root
def test_a_wireless_card_is_neither_waited_for_nor_an_uplink(box):
    box.uplink(macs=[])
    box.cards({"eno1": CARDS["eno1"], "wlp1": ("02:00:00:00:00:09", False, "pci0000:00/0000:00:05.0")})
    (box.folder / "sys/class/net/wlp1/phy80211").mkdir()
    assert box.run().returncode == 0
    assert not any(call.startswith("sleep") or "wlp1" in call for call in box.calls())


@needs_root
def test_nobody_waits_when_all_have_a_link(box):
    box.uplink(macs=[])
    box.cards({name: card for name, card in CARDS.items() if name in ("lo", "eno1", "usb0")})
    assert box.run().returncode == 0
    assert "sleep 1" not in box.calls()
    assert f"ovs-vsctl --timeout=60 {PORT.format(tag='', card='eno1', options='')}" in box.calls()


@needs_root
@pytest.mark.parametrize(("macs", "cards", "message"), [
    (["02:00:00:00:00:09"], CARDS, "no network card has the MAC 02:00:00:00:00:09 of br0's uplink"),
    ([], {"eno3": CARDS["eno3"]}, "no network card has a link, of eno3"),
    ([], {}, "no network card has a link, of none"),
    ([], {"usb0": CARDS["usb0"]}, "no network card has a link, of none"),
], ids=["no such card", "no link", "no card", "only the BMC's"])
def test_without_its_uplink_it_stops_and_says_why(box, macs, cards, message):
    box.uplink(macs=macs)
    box.cards(cards)
    done = box.run()
    assert done.returncode == 1
    assert f"first boot stopped: step networks failed 3 times: {message}\n" in done.stderr
    last = box.told()[-1]
    assert (last.step, last.state, last.message) == ("networks", "failed", message)
    assert not any(call.startswith("ovs-vsctl") for call in box.calls())


@needs_root
def test_access(box):
    before = os.umask(0)
    try:
        box.run()
    finally:
        os.umask(before)
    folder = box.folder / "root" / ".ssh"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in folder.iterdir()] == ["authorized_keys"]
    assert (folder / "authorized_keys").stat().st_mode & 0o777 == 0o600
    assert (folder / "authorized_keys").read_text().splitlines() == NODE["authorized_keys"]


@needs_root
def test_controller_s_domain(box):
    """What is in it, test_domain says."""
    box.run()
    domain = ET.parse(box.folder / "domain.xml").getroot()
    assert domain.findtext("name") == CVM
    assert len(domain.findall("devices/hostdev")) == 2
    assert not (box.folder / "run/cornerstone-cvm.xml").exists(), "nothing is left of it"


@needs_root
def test_marker_is_synced_after_the_work_and_again_itself(box):
    box.run()
    markers = f"{box.folder}/state/first-boot"
    assert [call for call in box.calls() if call.startswith("sync")] == [
        line for step in STEPS for line in ("sync ", f"sync {markers}/{step} {markers}")] \
        + [f"sync {markers}/complete {markers}"]


@needs_root
def test_a_second_run_does_nothing(box):
    box.run()
    made, markers = box.made(), box.markers()
    box.forget_calls()
    assert box.run().returncode == 0
    assert [call for call in box.calls() if not call.startswith("sync")] == []
    assert (box.made(), box.markers()) == (made, markers)


@needs_root
def test_a_running_controller_is_left_alone(box):
    (box.folder / "domain.state").write_text("running\n")
    assert box.run().returncode == 0
    assert f"virsh start {CVM}" not in box.calls()


# failures

@needs_root
@pytest.mark.parametrize("times", [1, 2])
def test_a_step_that_fails_is_tried_again(box, times):
    box.fail("networkctl", times)
    assert box.run().returncode == 0
    assert box.calls().count("networkctl reload") == times + 1
    assert box.markers() == [*STEPS, "complete"]
    assert [event for event in box.events() if event[0] == "networks"] == [
        *[("networks", "started"), ("networks", "warning")] * times, ("networks", "started"), ("networks", "done")]


@needs_root
@pytest.mark.parametrize(("tool", "step"), [
    ("hostnamectl", "identity"), ("ovs-vsctl", "networks"), ("virsh", "cvm")])
def test_a_step_that_fails_three_times_stops_it(box, tool, step):
    box.fail(tool, 3)
    done = box.run()
    assert done.returncode == 1
    assert f"first boot stopped: step {step} failed 3 times: {tool}: no 'luck' today\n" in done.stderr
    before = list(STEPS[:STEPS.index(step)])
    assert box.markers() == before, "no later step ran"
    assert box.events()[-7:] == [(step, "started"), (step, "warning")] * 3 + [(step, "failed")]
    assert [event.message for event in box.told()[-7:]] == ["", f"{tool}: no 'luck' today"] * 3 + [
        f"{tool}: no 'luck' today"]
    later = box.run()
    assert later.returncode == 0, "the next boot goes on from there"
    assert box.markers() == [*STEPS, "complete"]


@needs_root
@pytest.mark.parametrize("stopped", [False, True])
def test_the_screen_shows_how_far_it_is_and_what_went_wrong(box, stopped):
    """A terminal that somebody has stopped holds nothing up."""
    near, far = os.openpty()
    try:
        box.screen = os.ttyname(far)
        if stopped:
            termios.tcflow(far, termios.TCOOFF)
        box.fail("hostnamectl", 3)
        assert box.run().returncode == 1
        assert box.run().returncode == 0
        termios.tcflow(far, termios.TCOON)
        os.set_blocking(near, False)
        shown = b"" if stopped else os.read(near, 65536)
    finally:
        os.close(near)
        os.close(far)
    if not stopped:
        lines = shown.decode().split("\r\n")
        assert lines[0] == "First boot: identity started"
        assert lines[6] == "First boot: identity failed: hostnamectl: no 'luck' today"
        assert lines[7].startswith("Mend that and start this machine again: it goes on there.")
        assert lines[-2:] == ["First boot: complete done", ""]


@needs_root
@pytest.mark.parametrize(("missing", "step"), [
    ((".cvm", "name"), "start_cvm"),
    ((".", "authorized_keys"), "access"),
    ((".hypervisor", "hostname"), "identity"),
    ((".hypervisor", "address"), "identity"),
    ((".hypervisor", "gateway"), "networks"),
    ((".hypervisor", "nameservers"), "networks"),
    ((".hypervisor", "uplink"), "networks"),
    ((".cvm", "name"), "cvm"),
    ((".cvm", "passthrough"), "cvm"),
], ids=lambda value: value if isinstance(value, str) else "".join(value))
def test_an_absent_fact_stops_its_step(box, missing, step):
    section, key = missing
    facts = json.loads(json.dumps(NODE))
    del (facts if section == "." else facts[section[1:]])[key]
    box.node(facts)
    # the packet filter reads all of node.json, and the steps after it need it each by itself
    (box.folder / "state" / "first-boot").mkdir()
    for earlier in STEPS[:STEPS.index(step)]:
        (box.folder / "state" / "first-boot" / earlier).touch()
    assert box.run().returncode == 1
    assert box.events()[-1] == (step, "failed")


@needs_root
def test_absent_disk_stops_the_controller(box):
    (box.folder / "state" / "cvm.qcow2").unlink()
    assert box.run().returncode == 1
    assert box.events()[-1] == ("cvm", "failed")
    assert not any(call.startswith("virsh") for call in box.calls())


@needs_root
def test_node_without_its_node_json(box):
    (box.folder / "state" / "node.json").unlink()
    assert box.run().returncode == 1
    assert box.markers() == []


# power cuts

@pytest.fixture(scope="module")
def whole(tmp_path_factory, text) -> Box:
    """A run that nothing disturbed."""
    box = Box(tmp_path_factory.mktemp("whole") / "box", text)
    if os.geteuid() == 0:
        box.run()
    return box


# every call of a run: in the midst of a step, when its work is done, when its marker is written
CALLS = ["hostnamectl", "sync $", "sync .*/identity", "ovs-vsctl", "nft", "networkctl", "sync $", "sync .*/networks",
         "sync $", "sync .*/access", "virsh define", "virsh autostart", "sync $", "sync .*/cvm",
         "virsh domstate", "virsh start", "sync $", "sync .*/start_cvm", "sync .*/complete"]


@needs_root
def test_power_cuts_are_tried_at_every_call(whole):
    assert [what for what, call in zip(CALLS, whole.calls(), strict=True) if not re.match(what, call)] == []


@needs_root
@pytest.mark.parametrize("call", range(1, len(CALLS) + 1), ids=lambda call: f"{call} {CALLS[call - 1]}")
def test_power_cut(box, whole, call):
    box.cut_power_at(call)
    assert box.run().returncode == -signal.SIGKILL
    done_before = box.markers()
    assert done_before == [*STEPS, "complete"][:len(done_before)]
    box.cut_power_at(None)
    box.forget_calls()
    (box.folder / "fail").rename(box.folder / "fail.none")

    assert box.run().returncode == 0
    assert box.markers()[-1] == "complete"
    assert set(box.markers()) == {*STEPS, "complete"}
    again = {step for step, state in box.events() if state == "started"} - set(done_before)
    assert [step for step, state in box.events()[-2 * len(again) - 1:] if state == "started"] == \
        [step for step in STEPS if step not in done_before], "it resumes at the step that was cut"
    here, there = str(box.folder), str(whole.folder)
    assert {name: content.replace(here, there) for name, content in box.made().items()} == whole.made()

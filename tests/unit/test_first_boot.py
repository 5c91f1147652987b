"""The first-boot script, run for real in a sandbox: its tools are fakes that note how they were called.

The script writes to /etc, /root and /run. It runs in a mount namespace of its own, where these are
folders of the sandbox.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from cornerstone.factory.first_boot import STEPS, script
from cornerstone.model.event import Event
from cornerstone.model.profile import load_profile, profile_names

ROOT = Path(__file__).resolve().parents[2]
PROFILES = profile_names(ROOT)
NODE = {
    "hypervisor": {"hostname": "node-a", "address": "10.20.0.11/24", "gateway": "10.20.0.1",
                   "uplinks": ["eth0", "eth1"]},
    "controller": {"name": "cvm-a", "passthrough": ["0000:3b:00.0", "0001:af:1f.7"]},
    "ssh_keys": ["ssh-ed25519 KEY1 a@example.org", "ssh-ed25519 KEY2 b@example.org"],
}
REAL = ("bash", "cat", "chmod", "date", "install", "jq", "mkdir", "mv", "rm", "tee", "touch")
# Notes the call; fails while fail/<tool> has lines left; cuts the power (the whole process group) at call number cut.
FAKE = """#!/bin/sh
tool=${0##*/} count=0 cut='' PATH=/usr/bin:/bin
echo "$tool $*" >>"$BOX/calls"
while read -r _; do count=$((count + 1)); done <"$BOX/calls"
[ ! -e "$BOX/cut" ] || read -r cut <"$BOX/cut"
[ "$count" != "$cut" ] || kill -s KILL -- "-$(cat "$BOX/pid")"
if [ -s "$BOX/fail/$tool" ]; then
    sed -i 1d "$BOX/fail/$tool"
    exit 1
fi
case "$tool $1" in
    "virsh define") cp "$2" "$BOX/domain.xml" ;;
    "virsh start") echo running >"$BOX/domain.state" ;;
    "virsh domstate") cat "$BOX/domain.state" 2>/dev/null || echo "shut off" ;;
esac
"""
FAKES = ("hostnamectl", "ip", "networkctl", "ovs-vsctl", "sync", "virsh")
# PATH has the fakes and REAL alone: the script finds only what it may use.
ENTER = """for folder in etc root run; do mount --bind "$BOX/$folder" "/$folder" || exit 99; done
echo $$ >"$BOX/pid"
PATH=$BOX/bin exec bash "$BOX/first-boot.sh"
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace over /etc needs root")


class Box:
    """A machine's worth of folders, and the script in it."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder = folder
        for name in ("bin", "etc/systemd/network", "root", "run", "fail", "state"):
            (folder / name).mkdir(parents=True)
        for tool in REAL:
            (folder / "bin" / tool).symlink_to(shutil.which(tool))
        for tool in FAKES:
            path = folder / "bin" / tool
            path.write_text(FAKE)
            path.chmod(0o755)
        (folder / "first-boot.sh").write_text(text)
        (folder / "state" / "cvm.qcow2").write_bytes(b"disk")
        self.node(NODE)

    def node(self, facts: dict) -> None:
        (self.folder / "state" / "node.json").write_text(json.dumps(facts))

    def run(self) -> subprocess.CompletedProcess:
        env = {**os.environ, "BOX": str(self.folder), "CORNERSTONE_STATE": str(self.folder / "state")}
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

    def events(self) -> list[tuple[str, str]]:
        lines = (self.folder / "state" / "events.jsonl").read_text().splitlines()
        events = [Event.from_json(line) for line in lines]
        assert {event.stage for event in events} == {"first-boot"}
        assert all(abs(event.t - time.time()) < 600 for event in events)
        return [(event.step, event.state) for event in events]

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
    assert f"readonly cvm_memory_mib={profile.controller.memory >> 20}\n" in path.read_text()
    assert f"readonly cvm_vcpus={profile.controller.vcpus}\n" in path.read_text()
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
@pytest.mark.parametrize("name", PROFILES)
def test_each_profile_comes_to_its_end(tmp_path, name):
    box = Box(tmp_path / "box", script(load_profile(name, ROOT)))
    done = box.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert box.markers() == [*STEPS, "complete"], "in order, complete last"


@needs_root
def test_what_a_run_does(box):
    host = {path: Path(path).stat().st_mtime_ns for path in ("/etc/systemd", "/root")}
    assert box.run().returncode == 0
    assert host == {path: Path(path).stat().st_mtime_ns for path in host}, "the machine itself isn't touched"
    assert [call for call in box.calls() if not call.startswith("sync")] == [
        "hostnamectl set-hostname node-a",
        "ovs-vsctl --may-exist add-br br0",
        "ovs-vsctl --may-exist add-port br0 eth0", "ip link set eth0 up",
        "ovs-vsctl --may-exist add-port br0 eth1", "ip link set eth1 up",
        "networkctl reload",
        "virsh define /run/cornerstone-cvm.xml", "virsh autostart cvm-a",
        "virsh domstate cvm-a", "virsh start cvm-a"]
    assert box.events() == [(step, state) for step in STEPS for state in ("started", "done")] + [("complete", "done")]


@needs_root
def test_networks(box):
    box.run()
    network = box.folder / "etc" / "systemd" / "network"
    assert (network / "20-br0.network").read_text() == \
        "[Match]\nName=br0\n\n[Network]\nAddress=10.20.0.11/24\nGateway=10.20.0.1\n"
    assert "Name=virbr-internal\nKind=bridge\n" in (network / "20-internal.netdev").read_text()
    assert "Address=192.168.5.1/24\nConfigureWithoutCarrier=yes\n" in (network / "20-internal.network").read_text()


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
    assert (folder / "authorized_keys").read_text().splitlines() == NODE["ssh_keys"]


@needs_root
def test_controller_s_domain(box):
    box.run()
    domain = ET.parse(box.folder / "domain.xml").getroot()
    assert domain.findtext("name") == "cvm-a"
    assert (domain.findtext("memory"), domain.find("memory").get("unit")) == (str(20 * 1024), "MiB")
    assert domain.findtext("vcpu") == "8"
    assert domain.find("devices/disk/source").get("file") == str(box.folder / "state" / "cvm.qcow2")
    assert [i.find("source").get("bridge") for i in domain.findall("devices/interface")] == ["br0", "virbr-internal"]
    assert [dict(a.attrib) for a in domain.findall("devices/hostdev/source/address")] == [
        {"type": "pci", "domain": "0x0000", "bus": "0x3b", "slot": "0x00", "function": "0x0"},
        {"type": "pci", "domain": "0x0001", "bus": "0xaf", "slot": "0x1f", "function": "0x7"}]
    assert list((box.folder / "run").iterdir()) == [], "nothing is left of it"


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
def test_no_controllers_to_hand_over(box):
    box.node(NODE | {"controller": {"name": "cvm-a", "passthrough": []}})
    assert box.run().returncode == 0
    assert ET.parse(box.folder / "domain.xml").findall("devices/hostdev") == []


@needs_root
def test_a_running_controller_is_left_alone(box):
    (box.folder / "domain.state").write_text("running\n")
    assert box.run().returncode == 0
    assert "virsh start cvm-a" not in box.calls()


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
@pytest.mark.parametrize(("tool", "step"), [("hostnamectl", "identity"), ("ip", "networks"), ("virsh", "controller")])
def test_a_step_that_fails_three_times_stops_it(box, tool, step):
    box.fail(tool, 3)
    done = box.run()
    assert done.returncode == 1
    assert f"first boot stopped: step {step} failed 3 times" in done.stderr
    before = list(STEPS[:STEPS.index(step)])
    assert box.markers() == before, "no later step ran"
    assert box.events()[-7:] == [(step, "started"), (step, "warning")] * 3 + [(step, "failed")]
    later = box.run()
    assert later.returncode == 0, "the next boot goes on from there"
    assert box.markers() == [*STEPS, "complete"]


@needs_root
@pytest.mark.parametrize(("missing", "step"), [
    ((".controller", "name"), "start_controller"),
    ((".", "ssh_keys"), "access"),
    ((".hypervisor", "hostname"), "identity"),
    ((".hypervisor", "address"), "networks"),
    ((".hypervisor", "gateway"), "networks"),
    ((".hypervisor", "uplinks"), "networks"),
    ((".controller", "name"), "controller"),
    ((".controller", "passthrough"), "controller"),
], ids=lambda value: value if isinstance(value, str) else "".join(value))
def test_an_absent_fact_stops_its_step(box, missing, step):
    section, key = missing
    facts = json.loads(json.dumps(NODE))
    del (facts if section == "." else facts[section[1:]])[key]
    box.node(facts)
    if step == "start_controller":
        # the step before it needs the name, too
        (box.folder / "state" / "first-boot").mkdir()
        (box.folder / "state" / "first-boot" / "controller").touch()
    assert box.run().returncode == 1
    assert box.events()[-1] == (step, "failed")


@needs_root
def test_absent_disk_stops_the_controller(box):
    (box.folder / "state" / "cvm.qcow2").unlink()
    assert box.run().returncode == 1
    assert box.events()[-1] == ("controller", "failed")
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


# in the midst of a step, when its work is done, when its marker is written
CUTS = {1: "hostnamectl", 2: "sync", 3: "sync .*/identity", 6: "ip", 10: "sync", 13: "sync .*/access",
        15: "virsh autostart", 19: "virsh start", 22: "sync .*/complete"}


@needs_root
@pytest.mark.parametrize(("call", "what"), CUTS.items())
def test_power_cut(box, whole, call, what):
    assert re.match(what, whole.calls()[call - 1])
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

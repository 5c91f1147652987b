"""The node that an install ends with is the one that site and machine ask for. `invoke lab.install` runs these too."""

from __future__ import annotations

import json
import re
import subprocess
import time
from ipaddress import IPv4Interface

import pytest

from cornerstone.customize.iso_area import areas_of
from cornerstone.lab.access import Access
from cornerstone.model.contracts.manifest import CVM, HYPERVISOR, SITE_AREA
from cornerstone.model.contracts.site_area import unpack
from cornerstone.model.site.file import read_site, secrets_of
from cornerstone.model.site.site import cvm_name

STATE = "/var/lib/cornerstone"


def told(node, stage: str, step: str, state: str) -> list[dict]:
    """The data of the events of a kind."""
    return [event.data for event in node.installing.verdict.events if (event.stage, event.step, event.state)
            == (stage, step, state)]


@pytest.fixture(scope="module")
def config(node) -> dict:
    return json.loads(node.host.file(f"{STATE}/node.json").content_string)


def hba_of(node) -> str:
    """The PCI address of the controller that has the data disks, as the node sees it."""
    lines = node.host.check_output("lspci -Dn").splitlines()
    return next(line.split()[0] for line in lines if line.split()[2] in ("1af4:1048", "1af4:1004"))


def test_the_root_slot_holds_the_very_bytes_of_the_iso(node):
    entry = node.manifest.entry(HYPERVISOR)
    slot = node.host.check_output("findmnt -no SOURCE /")
    assert node.host.check_output("blkid -s PARTLABEL -o value %s", slot) == "root-a"
    said = node.host.check_output(f"head -c {entry.size} %s | sha256sum", slot)
    assert said.split()[0] == entry.sha256


def screen_of(node) -> list[str]:
    """The lines that stand on the node's screen."""
    columns = node.host.check_output("stty -F /dev/tty1 size").split()[1]
    return [line.rstrip() for line in node.host.check_output("fold -b -w %s /dev/vcs1", columns).splitlines()]


def test_its_screen_is_calm_and_its_serial_port_has_the_kernel_s_words(node):
    lines = screen_of(node)
    assert [line for line in lines if re.search(r"^\[ *(\d+\.\d+|OK|FAILED) *\]|systemd\[1\]:", line)] == []
    assert any("login:" in line for line in lines) and "First boot: complete done" in lines
    log = node.installing.logs / "console.log"
    # the ISO's and the node's own
    assert log.read_text(errors="replace").count("] Linux version ") == 2
    # and what comes after a login at the port has hung it up
    node.host.check_output("echo '<6>a word of the kernel' >/dev/kmsg")
    end = time.monotonic() + 30
    while "] a word of the kernel" not in log.read_text(errors="replace"):
        assert time.monotonic() < end, f"it isn't in {log}"
        time.sleep(0.2)
    assert not any("a word of the kernel" in line for line in screen_of(node))


def test_node_json_is_as_planned(node, config):
    site, planned, shape = node.run.site, node.run.node, node.run.shape
    data = [disk for disk in shape.disks if disk.name != "boot"]
    boot = next(disk for disk in shape.disks if disk.name == "boot")
    assert config["identity"] == node.manifest.identity
    assert (config["serial"], config["block"], config["position"]) == (planned.serial, planned.block_id,
                                                                       planned.position)
    assert config["boot_disk"] == boot.serial
    assert config["hypervisor"]["hostname"] == planned.hostname
    assert config["hypervisor"]["address"] == str(planned.hypervisor)
    assert config["hypervisor"]["gateway"] == str(site.hypervisor_gateway)
    assert config["cvm"]["address"] == str(planned.cvm)
    assert config["cvm"]["memory"] == planned.cvm_memory
    assert {disk["serial"]: disk["size"] for disk in config["cvm"]["disks"]} \
        == {disk.serial: disk.size for disk in data}
    assert config["cvm"]["passthrough"] == [hba_of(node)]
    assert config["cvm"]["scsi"] == []
    assert config["cluster"]["name"] == site.clusters[0].name
    assert tuple(config["authorized_keys"]) == site.authorized_keys or config["authorized_keys"]


def test_no_secret_is_readable(node):
    with areas_of(node.run.iso) as areas:
        secrets = secrets_of(read_site(unpack(areas.read(SITE_AREA))))
    kept = node.host.file(f"{STATE}/bootstrap-secret")
    # while its CVM runs libvirt lends the file to the QEMU that hands it over
    assert kept.user in ("root", "cornerstone-cvm") and kept.mode == 0o600
    # empty once the node has become a member
    assert kept.content_string.strip() in ("", *secrets)
    for name in ("node.json", "events.jsonl"):
        content = node.host.file(f"{STATE}/{name}").content_string
        assert secrets and not any(secret in content for secret in secrets)


def test_a25_the_cvm_has_a_user_of_its_own_and_no_guest_s_reads_its_disk(node):
    pid = node.host.check_output("cat /run/libvirt/qemu/%s.pid", node.run.node.cvm_name)
    assert node.host.check_output("stat --format %%U /proc/%s", pid) == "cornerstone-cvm"
    for name in ("cvm.qcow2", "bootstrap-secret", "initiator.json"):
        read = node.host.run("setpriv --reuid libvirt-qemu --regid kvm --init-groups head -c 1 %s", f"{STATE}/{name}")
        assert read.failed and "Permission denied" in read.stderr, name


def addresses(node, device: str) -> list[str]:
    links = json.loads(node.host.check_output("ip -json -4 address show dev %s", device))
    return [f"{info['local']}/{info['prefixlen']}" for link in links for info in link["addr_info"]]


def test_its_bmc_has_the_address_of_the_site(node):
    planned = node.run.node.bmc
    given = {name: node.installing.bmc[name] for name in ("ip_addr_src", "ip_addr", "subnet_mask",
                                                          "default_gw_ip_addr")}
    assert given == {"ip_addr_src": "static", "ip_addr": str(planned.address.ip),
                     "subnet_mask": str(planned.address.netmask), "default_gw_ip_addr": str(planned.gateway)}


def test_it_has_its_addresses(node):
    planned = node.run.node
    assert node.host.check_output("hostname") == planned.hostname
    assert addresses(node, "br0") == [str(planned.hypervisor)]
    assert addresses(node, "virbr-internal") == ["192.168.5.1/24"]
    route = node.host.check_output("ip -4 route show default")
    assert f"via {node.run.site.hypervisor_gateway} dev br0" in route
    assert "br0" in node.host.check_output("ovs-vsctl list-br").split()
    # its own card is a port of the bridge and has no address
    card = node.host.check_output("basename $(dirname $(grep -il %s /sys/class/net/e*/address))",
                                  node.run.shape.nics[0].mac)
    assert card in node.host.check_output("ovs-vsctl list-ports br0").split()
    assert addresses(node, card) == []
    assert IPv4Interface(str(planned.hypervisor)).network == planned.cvm.network


@pytest.mark.parametrize("unit", ["libvirtd.service", "openvswitch-switch.service", "ssh.service",
                                  "first-boot.service"])
def test_service_is_active(node, unit):
    assert node.host.check_output("systemctl is-active %s", unit) == "active"


def test_no_unit_has_failed(node):
    assert node.host.check_output("systemctl --failed --plain --no-legend") == ""


def test_first_boot_is_complete(node):
    assert node.host.file(f"{STATE}/first-boot/complete").is_file
    steps = [json.loads(line) for line in node.host.file(f"{STATE}/events.jsonl").content_string.splitlines()]
    steps = [step for step in steps if step["stage"] == "first-boot"]
    assert [step for step in steps if step["state"] in ("warning", "failed")] == []
    assert (steps[-1]["step"], steps[-1]["state"]) == ("complete", "done")


def test_the_cvm_is_defined_and_starts_with_the_host(node):
    planned = node.run.node
    name = cvm_name(planned.block_id, planned.serial, planned.hostname, planned.position)
    about = dict(line.split(":", 1) for line in node.host.check_output("virsh dominfo %s", name).splitlines() if ":" in
                 line)
    assert about["Autostart"].strip() == "enable"
    assert about["Max memory"].split() == [str(planned.cvm_memory >> 10), "KiB"]
    bus, slot = hba_of(node).split(":")[1:]
    assert f"bus='0x{bus}' slot='0x{slot.split('.')[0]}'" in node.host.check_output("virsh dumpxml --inactive %s", name)


def test_the_cvms_disk_is_there(node):
    assert node.host.file(f"{STATE}/cvm.qcow2").size >= node.manifest.entry(CVM).size


def test_only_the_key_lets_in(node, tmp_path):
    access = node.run.access
    ssh = ["ssh", "-F", access.config, "-o", "ControlPath=none"]
    assert subprocess.run([*ssh, "node", "true"], check=False).returncode == 0
    stranger = Access(tmp_path / "stranger")
    stranger.draw()
    about = subprocess.run(["ssh", "-G", "-F", access.config, "node"], capture_output=True, text=True,
                           check=True).stdout
    port = dict(line.split(" ", 1) for line in about.splitlines())["port"]
    for other in (["-o", "IdentityFile=none", "-i", stranger.key],
                  ["-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=password,keyboard-interactive"]):
        refused = subprocess.run(["ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o",
                                  f"UserKnownHostsFile={access.folder / 'known_hosts'}", "-o", f"Port={port}",
                                  *other, "root@127.0.0.1", "true"],
                                 capture_output=True, text=True, check=False)
        assert refused.returncode == 255
        assert "Permission denied (publickey)" in refused.stderr


def test_secure_boot_is_on_where_the_firmware_has_it(node):
    # with a BIOS it fails: there are no variables
    said = node.host.run("mokutil --sb-state").stdout
    assert ("SecureBoot enabled" in said) == (node.run.firmware == "secureboot"), said


def test_only_the_boot_disk_was_written(node):
    """Until the node started by itself. Its CVM may write to the data disks after that: they are its own."""
    written = {name: count for name, count in node.installing.written.items() if name != "boot"}
    assert written == {name: 0 for name in written}
    assert node.installing.written["boot"] > node.manifest.entry(HYPERVISOR).size


def test_the_medium_in_the_drive_gave_way_to_the_disk(node):
    console = (node.installing.logs / "console.log").read_text(errors="replace")
    assert "This machine is installed: its own disk starts in" in console
    assert console.count("Foundation:") >= 1


def test_progress_was_told_to_the_end(node):
    phases = {}
    for data in told(node, "foundation", "image", "progress"):
        phases.setdefault(data["phase"], []).append(data)
    entries = {"root": node.manifest.entry(HYPERVISOR).size, "cvm": node.manifest.entry(CVM).size}
    for phase, size in entries.items():
        counts = [data["bytes"] for data in phases[phase]]
        assert counts == sorted(counts)
        assert phases[phase][-1] == {"phase": phase, "percent": 100, "bytes": size, "total": size}


def test_the_timeline_is_written(node):
    timeline = json.loads((node.installing.logs / "timeline.json").read_text())
    assert timeline["ok"] is True
    order = [name for name in ("kernel", "userland", "foundation", "foundation/verify done", "foundation/discover done",
                               "foundation/plan done", "foundation/image started", "installed", "node-reset",
                               "node-kernel") if name in timeline["stages"]]
    times = [timeline["stages"][name] for name in order]
    assert times == sorted(times) and len(order) == 10
    assert timeline["phases"]["root"]["bytes_per_second"] > 0

"""The Controller VM's libvirt domain: node.json and the host's facts in, XML out.

`python3 -m cornerstone.hypervisor.domain node.json` prints it. Format: https://libvirt.org/formatdomain.html. All ids
are derived, so that defining it again changes nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase

from cornerstone.hypervisor.cvm_events import SOCKET
from cornerstone.hypervisor.host import BlockDevice, Host, NumaNode, read_host
from cornerstone.lib.error import ends_in_one_line
from cornerstone.lib.event import PORT
from cornerstone.lib.gpt import derived_id
from cornerstone.model.contracts.iscsi import INITIATOR_CREDENTIAL
from cornerstone.model.contracts.network import BRIDGE, CVM_CARD, CVM_INTERNAL_CARD, INTERNAL_BRIDGE
from cornerstone.model.contracts.node import CVM_FILE, NODE, NODE_CREDENTIAL, SECRET_CREDENTIAL, NodeConfig
from cornerstone.model.contracts.places import STATE
from cornerstone.model.sizing import cvm_vcpus

DISK = f"{STATE}/{Path(CVM_FILE).name}"
# whom its QEMU runs as; all guests have another one, libvirt's default
USER = "cornerstone-cvm"
CONSOLE_LOG = "/var/log/NTNX.serial.out.0"
# as systemd.system-credentials(7) has it
OEM_STRING = f"io.systemd.credential.binary:{NODE_CREDENTIAL}"
CREDENTIALS = "opt/io.systemd.credentials"
BOOTSTRAP_CREDENTIAL = f"{CREDENTIALS}/{SECRET_CREDENTIAL}"


def domain_xml(config: NodeConfig, host: Host) -> str:
    """The domain as libvirt's XML."""
    domain = ET.Element("domain", type="kvm")
    add(domain, "name", config.cvm.name)
    add(domain, "uuid", str(_derived(config, "domain")))
    # VFIO pins all of it, and libvirt raises the limit for that; what is locked as well counts twice against the limit.
    add(domain, "memory", str(config.cvm.memory >> 10), unit="KiB")
    _add_cpus(domain, config, host)
    _add_credentials(domain, config, host)
    system = add(domain, "os")
    add(system, "type", "hvm", arch="x86_64", machine="q35")
    add(system, "smbios", mode="sysinfo")
    features = add(domain, "features")
    add(features, "acpi")
    add(features, "apic")
    add(domain, "cpu", mode="host-passthrough")
    add_clock(domain)
    add(domain, "on_crash", "restart")
    _add_devices(add(domain, "devices"), config, host)
    label = add(domain, "seclabel", type="static", model="dac", relabel="yes")
    add(label, "label", f"{USER}:{USER}")
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode") + "\n"


def add(parent: ET.Element, tag: str, text: str | None = None, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = text
    return element


def add_clock(domain: ET.Element) -> None:
    """A real-time clock in UTC, and no HPET.

    Linux takes its time from another clock, but leaves the HPET as the BIOS had it, interrupting 250 times a second:
    QEMU serves each interrupt, and each stops the guest's processor.
    """
    clock = add(domain, "clock", offset="utc")
    add(clock, "timer", name="rtc", tickpolicy="catchup")
    add(clock, "timer", name="pit", tickpolicy="delay")
    add(clock, "timer", name="hpet", present="no")


def _derived(config: NodeConfig, what: str) -> uuid.UUID:
    # the address as well: a serial may be empty, two blocks may have one name
    return derived_id(config.serial, config.cvm.name, config.cvm.address, what)


def _add_cpus(domain: ET.Element, config: NodeConfig, host: Host) -> None:
    """vCPUs, on the NUMA node of the storage controllers where the host has several and that one has room for them."""
    node = host.nearest or (host.numa[0] if host.numa else NumaNode(0, "", 1, 1))
    vcpus = config.cvm.vcpus or cvm_vcpus(node.cores, sum(each.threads for each in host.numa) or 1)
    near = host.nearest is not None and len(host.numa) > 1 and node.threads >= vcpus
    add(domain, "vcpu", str(vcpus), placement="static", **({"cpuset": node.cpus} if near else {}))
    if near:
        # preferred: memory of the other node is slower, no memory is no CVM
        add(add(domain, "numatune"), "memory", mode="preferred", nodeset=str(node.id))


def _add_credentials(domain: ET.Element, config: NodeConfig, host: Host) -> None:
    """node.json through SMBIOS; secrets as files, for command lines and `virsh dumpxml` are everybody's to read."""
    text = json.dumps(NODE.write(config), separators=(",", ":")).encode()
    strings = add(add(domain, "sysinfo", type="smbios"), "oemStrings")
    add(strings, "entry", f"{OEM_STRING}={base64.b64encode(text).decode()}")
    files = {BOOTSTRAP_CREDENTIAL: host.secret, f"{CREDENTIALS}/{INITIATOR_CREDENTIAL}": host.initiator}
    if any(files.values()):
        entries = add(domain, "sysinfo", type="fwcfg")
        for name, path in files.items():
            if path:
                add(entries, "entry", name=name, file=path)


def _add_devices(devices: ET.Element, config: NodeConfig, host: Host) -> None:
    disk = add(devices, "disk", type="file", device="disk")
    add(disk, "driver", name="qemu", type="qcow2", cache="none", io="native", discard="unmap")
    add(disk, "source", file=DISK)
    add(disk, "target", dev="vda", bus="virtio")
    # the one that it boots, whatever else there is
    add(disk, "boot", order="1")
    _add_single_disks(devices, config, host)
    _add_network(devices, config, CVM_CARD, BRIDGE)
    _add_network(devices, config, CVM_INTERNAL_CARD, INTERNAL_BRIDGE)
    for address in config.cvm.passthrough:
        _add_controller(devices, address)
    serial = add(devices, "serial", type="pty")
    add(serial, "log", file=CONSOLE_LOG, append="on")
    add(serial, "target", port="0")
    add(add(devices, "rng", model="virtio"), "backend", "/dev/urandom", model="random")
    channel = add(devices, "channel", type="unix")
    add(channel, "source", mode="bind", path=str(SOCKET))
    add(channel, "target", type="virtio", name=PORT.name)
    # by it libvirt learns that the guest's kernel has crashed
    add(devices, "panic", model="isa")
    # there is nobody to plug anything in
    add(devices, "controller", type="usb", model="none")
    # memory that is pinned can't be given back
    add(devices, "memballoon", model="none")


def _add_single_disks(devices: ET.Element, config: NodeConfig, host: Host) -> None:
    """Disks whose controller can't be passed through: SCSI ones raw, with their commands; others as block devices."""
    # vda is its own disk
    targets = {"sd": names("sd"), "vd": islice(names("vd"), 1, None)}
    serials = dict.fromkeys(config.cvm.scsi)
    if any(host.disks[serial].scsi for serial in serials):
        add(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    for serial in serials:
        device = host.disks[serial]
        _add_single_disk(devices, serial, device, next(targets["sd" if device.scsi else "vd"]))


def names(prefix: str) -> Iterator[str]:
    """sda … sdz, sdaa … sdzz."""
    return (prefix + "".join(letters) for length in (1, 2) for letters in product(ascii_lowercase, repeat=length))


def _add_single_disk(devices: ET.Element, serial: str, device: BlockDevice, target: str) -> None:
    disk = add(devices, "disk", type="block", device="lun" if device.scsi else "disk")
    add(disk, "driver", name="qemu", type="raw", cache="none", io="native")
    # optional: a dead data disk is no reason to have no CVM
    add(disk, "source", dev=device.path, startupPolicy="optional")
    add(disk, "target", dev=target, bus="scsi" if device.scsi else "virtio")
    if not device.scsi:
        # a LUN tells its own
        add(disk, "serial", serial)


def _add_network(devices: ET.Element, config: NodeConfig, name: str, bridge: str) -> None:
    uplink = config.hypervisor.uplink
    interface = add(devices, "interface", type="bridge")
    # 52: of the locally administered ones
    digest = hashlib.sha256(_derived(config, name).bytes).digest()
    add(interface, "mac", address=":".join(f"{byte:02x}" for byte in b"\x52" + digest[:5]))
    add(interface, "source", bridge=bridge)
    if bridge == BRIDGE:
        if uplink.vlan:
            add(add(interface, "vlan"), "tag", id=str(uplink.vlan))
        add(add(interface, "virtualport", type="openvswitch"), "parameters",
             interfaceid=str(_derived(config, f"port {name}")))
    add(interface, "target", dev=f"cvm-{name}")
    add(interface, "model", type="virtio")
    # it never starts from the network
    add(interface, "rom", enabled="no")
    if bridge == BRIDGE:
        add(interface, "mtu", size=str(uplink.mtu))


def _add_controller(devices: ET.Element, address: str) -> None:
    where, _, function = address.rpartition(".")
    domain, bus, slot = where.split(":")
    hostdev = add(devices, "hostdev", mode="subsystem", type="pci", managed="yes")
    add(hostdev, "driver", name="vfio")
    add(add(hostdev, "source"), "address", domain=f"0x{domain}", bus=f"0x{bus}", slot=f"0x{slot}",
         function=f"0x{function}")
    # its option ROM would only slow the CVM's start
    add(hostdev, "rom", bar="off")


@ends_in_one_line
def main(path: Path) -> int:
    """Print the domain for a node.json; 0, or the error's code with the error in one line."""
    config = NodeConfig.read(path)
    sys.stdout.write(domain_xml(config, read_host(config, path.parent)))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

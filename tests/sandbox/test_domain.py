"""The Controller VM's domain under each suite's own libvirt and QEMU: a real libvirtd, in the root."""

import json
import subprocess
from pathlib import Path
from xml.etree import ElementTree

NODES = Path(__file__).resolve().parents[1] / "data/nodes"
NODE = NODES / "passthrough.json"
# The root stays as it is: what is written goes to a tmpfs over it. All ends with the process namespace.
ENTER = """set -e
mount -t tmpfs tmpfs "$MOUNT"
mkdir "$MOUNT/upper" "$MOUNT/work" "$MOUNT/root"
mount -t overlay -o "lowerdir=$ROOT,upperdir=$MOUNT/upper,workdir=$MOUNT/work" overlay "$MOUNT/root"
mkdir "$MOUNT/root/var/lib/cornerstone"
cp "$NODES"/*.xml "$MOUNT/root/tmp/"
cp "$NODE" "$MOUNT/root/var/lib/cornerstone/node.json"
cd "$MOUNT/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs run run
mount --rbind /dev dev
exec chroot . bash -ec "export PATH=/usr/sbin:/usr/bin LC_ALL=C PYTHONPATH=/usr/lib/cornerstone
virtlogd --daemon
libvirtd --daemon
$INSIDE"
"""
DEFINE = """for domain in /tmp/*.xml; do
    virsh --quiet define --validate "$domain"
done
for name in $(virsh list --all --name); do
    virsh --quiet autostart "$name"
done
virsh list --all --name --autostart
stat --format "%a %n" /etc/libvirt/qemu/*.xml
"""
# A machine with the CVM's name and secret and next to nothing else, emulated: it only has to live and to die.
DIE = """cd /var/lib/cornerstone
(umask 077; echo hush >bootstrap-secret)
cat >/tmp/domain <<XML
<domain type='qemu'>
  <name>NTNX-22SM6D010001-A-CVM</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>
  <sysinfo type='fwcfg'>
    <entry name='opt/io.systemd.credentials/cornerstone.bootstrap-secret' file='/var/lib/cornerstone/bootstrap-secret'/>
  </sysinfo>
  <os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>
  <devices><controller type='usb' model='none'/><memballoon model='none'/></devices>
  <seclabel type='static' model='dac' relabel='yes'><label>cornerstone-cvm:cornerstone-cvm</label></seclabel>
</domain>
XML
virsh --quiet define /tmp/domain
virsh --quiet start NTNX-22SM6D010001-A-CVM
stat --format 'secret %U %a' bootstrap-secret
stat --format 'qemu %U' /proc/$(pidof qemu-system-x86_64)
if setpriv --reuid libvirt-qemu --regid kvm --init-groups cat bootstrap-secret 2>/dev/null; then exit 1; fi
if virsh --readonly dumpxml NTNX-22SM6D010001-A-CVM | grep hush; then exit 1; fi
touch events.jsonl
python3 -m cornerstone.hypervisor.watch node.json &
told() { timeout 100 bash -c 'until [ "$(grep --count "$2" events.jsonl)" -ge "$1" ]; do sleep 0.1; done' - "$@"; }
told 1 running
kill -KILL $(pidof qemu-system-x86_64)
told 2 running
virsh domstate NTNX-22SM6D010001-A-CVM
virsh --quiet destroy NTNX-22SM6D010001-A-CVM
told 1 destroyed
virsh domstate NTNX-22SM6D010001-A-CVM
cat events.jsonl
"""
# A host of whatever memory this machine has; its CVM is promised next to nothing, and no guest may have all.
ADMIT = """cd /var/lib/cornerstone
sed -i 's/"memory": *[0-9]*/"memory": 4194304/' node.json
guest() {
    echo "<domain type='qemu'><name>$1</name><memory unit='KiB'>$2</memory><os><type machine='q35'>hvm</type></os>
          <devices><controller type='usb' model='none'/><memballoon model='none'/></devices></domain>" >/tmp/guest
    virsh --quiet define /tmp/guest
    virsh --quiet start "$1" 2>&1
}
total=$(sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo)
guest small 131072
if guest large $total; then exit 1; fi
if guest medium $((total - 1048576 - 2 * 131072 - 131072)); then exit 1; fi
virsh --quiet list --name
"""


def inside(hypervisor, tmp_path, script):
    """What a script prints in the root, beside its libvirtd; it must succeed."""
    done = subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER],
                          capture_output=True, text=True, timeout=600, check=False,
                          env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "ROOT": str(hypervisor.path),
                               "INSIDE": script, "MOUNT": str(tmp_path), "NODES": str(NODES), "NODE": str(NODE)})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_libvirt_takes_the_domains(hypervisor, tmp_path):
    lines = inside(hypervisor, tmp_path, DEFINE)
    names = [ElementTree.parse(path).findtext("name") for path in NODES.glob("*.xml")]
    # readable to root alone
    assert sorted(filter(None, lines)) == sorted([*names, *(f"600 /etc/libvirt/qemu/{name}.xml" for name in names)])


def test_a_guest_starts_when_its_memory_fits_beside_the_others_d28(hypervisor, tmp_path):
    *said, running = filter(None, inside(hypervisor, tmp_path, ADMIT))
    assert [name for line in said for name in ("large", "medium") if f": {name} needs " in line] == ["large", "medium"]
    assert running == "small"


def test_a_cvm_that_died_is_started_again_and_one_that_was_stopped_is_not(hypervisor, tmp_path):
    lines = [line for line in inside(hypervisor, tmp_path, DIE) if line]
    # whom its QEMU runs as has to read it, for as long as it runs, and no guest's (A25)
    assert lines[:2] == ["secret cornerstone-cvm 600", "qemu cornerstone-cvm"]
    assert lines[2:4] == ["running", "shut off"]
    told = [json.loads(line) for line in lines[4:]]
    name = "NTNX-22SM6D010001-A-CVM"
    assert [(event["state"], event["message"]) for event in told] == [
        ("progress", f"{name}: running (booted)"),
        ("warning", f"{name}: shut off (crashed)"), ("started", f"{name} died and is started again"),
        ("done", f"{name} is started"),
        ("progress", f"{name}: running (booted)"), ("progress", f"{name}: shut off (destroyed)")]

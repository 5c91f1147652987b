"""libvirt of each suite takes the Controller VM's domains, by its schema and by its own reading: a real libvirtd."""

import subprocess
from pathlib import Path
from xml.etree import ElementTree

NODES = Path(__file__).resolve().parents[1] / "data/nodes"
# The root stays as it is: what is written goes to a tmpfs over it. All ends with the process namespace.
ENTER = """set -e
mount -t tmpfs tmpfs "$MOUNT"
mkdir "$MOUNT/upper" "$MOUNT/work" "$MOUNT/root"
mount -t overlay -o "lowerdir=$ROOT,upperdir=$MOUNT/upper,workdir=$MOUNT/work" overlay "$MOUNT/root"
cp "$DOMAINS"/*.xml "$MOUNT/root/tmp/"
cd "$MOUNT/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs tmpfs run
mount --rbind /dev dev
exec chroot . sh -ec "$INSIDE"
"""
INSIDE = """export PATH=/usr/sbin:/usr/bin LC_ALL=C
virtlogd --daemon
libvirtd --daemon
for domain in /tmp/*.xml; do
    virsh --quiet define --validate "$domain"
done
for name in $(virsh list --all --name); do
    virsh --quiet autostart "$name"
done
virsh list --all --name --autostart
stat --format "%a %n" /etc/libvirt/qemu/*.xml
"""


def test_libvirt_takes_the_domains(hypervisor, tmp_path):
    done = subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER],
                          capture_output=True, text=True, timeout=300, check=False,
                          env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "ROOT": str(hypervisor.path), "INSIDE": INSIDE,
                               "MOUNT": str(tmp_path), "DOMAINS": str(NODES)})
    assert done.returncode == 0, done.stdout + done.stderr
    names = [ElementTree.parse(path).findtext("name") for path in sorted(NODES.glob("*.xml"))]
    lines = done.stdout.split("\n")
    assert sorted(filter(None, lines[:-len(names) - 1])) == sorted(names)
    # readable to root alone
    assert sorted(lines[-len(names) - 1:-1]) == sorted(f"600 /etc/libvirt/qemu/{name}.xml" for name in names)

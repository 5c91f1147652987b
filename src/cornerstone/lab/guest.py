"""A guest on a node of the lab, whose disk is a volume of the cluster: it writes to it and reads all of it back.

It boots the host's own kernel with an initramfs made there, and runs fio from the host's root slot, read-only. What it
says is on its console, a file on the host.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from cornerstone.lab.access import Access
from cornerstone.lib.command import run
from cornerstone.lib.error import Code

MEMORY = 384 << 20
KERNEL = "/boot/vmlinuz"
FOLDER = "/run/lab-guest"
STARTED, ENDED = "GUEST fio started", "GUEST fio ended:"

# Each block once, in a random order, and past every cache; then each is read and compared with its checksum.
JOB = """\
[verified]
filename=/dev/sda
rw=randwrite
bs=4k
size={size}
rate_iops={iops}
ioengine=libaio
iodepth=4
direct=1
verify=crc32c
verify_fatal=1
verify_state_save=0
"""

INIT = f"""\
#!/bin/sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in /modules/*; do insmod "$module"; done
until [ -b /dev/sda ] && [ -b /dev/vda ]; do sleep 1; done
mount -t squashfs -o ro /dev/vda /root
for each in proc sys dev; do mount --bind "/$each" "/root/$each"; done
mount -t tmpfs tmp /root/tmp
cp /job.fio /root/tmp
echo "{STARTED}"
chroot /root fio --eta=never /tmp/job.fio
echo "{ENDED} $?"
poweroff -f
"""

INITRAMFS = f"""\
set -eu
rm -rf {FOLDER}
mkdir -p {FOLDER}/tree/bin {FOLDER}/tree/modules
cd {FOLDER}/tree
mkdir proc sys dev root
cp /usr/bin/busybox bin
ln -s busybox bin/sh
for library in $(ldd /usr/bin/busybox | grep -o '/[^ ]*'); do
    mkdir -p ".${{library%/*}}"
    cp -L "$library" ".$library"
done
number=100
for module in $(for name in virtio_blk squashfs virtio_scsi sd_mod; do modprobe --show-depends "$name"; done \\
                | sed -n 's/^insmod //p' | awk '!seen[$1]++ {{print $1}}'); do
    busybox xzcat "$module" >"modules/$number.ko"
    number=$((number + 1))
done
cat ../../lab-guest.init >init
cat ../../lab-guest.job >job.fio
chmod +x init
find . | cpio --quiet -o -H newc | gzip -1 >../initramfs
"""

DEFINITION = """\
import json, sys
from cornerstone.hypervisor.guest import DirectBoot, Guest, guest_xml
words = json.load(sys.stdin)
print(guest_xml(Guest(**words | {"boot": DirectBoot(**words["boot"])})))
"""


# $0: the domain, $1: its console, $2: the word. The console is followed as long as the guest's QEMU lives.
WAIT = """\
if pid=$(cat /run/libvirt/qemu/$0.pid 2>/dev/null); then
    grep -am1 "$2" < <(tail -n +1 -f --pid="$pid" "$1" 2>/dev/null) && exit
fi
grep -am1 "$2" "$1"
"""


@dataclass(frozen=True)
class LabGuest:
    """name: of its domain; node: where it runs, as the access calls it; serial: of the volume that is its disk."""

    access: Access
    node: str
    name: str
    serial: str

    @property
    def console(self) -> str:
        """The file on the host."""
        return f"/var/log/libvirt/qemu/{self.name}.console"

    def start(self, size: int, iops: int) -> None:
        """Write and verify so many bytes, at most so many blocks of 4 KiB a second. CornerstoneError (BOOT)."""
        self._run("cat >/run/lab-guest.init", INIT)
        self._run("cat >/run/lab-guest.job", JOB.format(size=size, iops=iops))
        self._run("bash -s", INITRAMFS)
        slot = self._run("findmnt -no SOURCE /").strip()
        words = {"name": self.name, "memory": MEMORY, "vcpus": 1, "volumes": [self.serial], "read_only": [slot],
                 "boot": {"kernel": KERNEL, "initrd": f"{FOLDER}/initramfs",
                          "arguments": "console=ttyS0 loglevel=4 panic=-1"}}
        self._run(f"PYTHONPATH=/usr/lib/cornerstone python3 -c '{DEFINITION}' >/run/lab-guest.xml", json.dumps(words))
        self._run("virsh create /run/lab-guest.xml")

    def wait_for(self, word: str, seconds: int) -> str:
        """Until its console shows this word; the line with it. CornerstoneError when it ends before, or doesn't."""
        return self._run(f"timeout {seconds} bash -c '{WAIT}' {self.name} {self.console} '{word}'")

    def stop(self) -> None:
        """Turn it off; one that has ended already is no error."""
        self._run(f"virsh destroy {self.name} 2>/dev/null || ! virsh domstate {self.name} 2>/dev/null")

    def words(self) -> str:
        """All that its console has shown."""
        return self._run(f"cat {self.console}")

    def _run(self, command: str, words: str = "") -> str:
        done = run(["ssh", "-F", self.access.config, self.node, command], stdin=words)
        return done.check(what=f"guest {self.name}: `{command:.60}`", hint=f"see {self.console} on {self.node}",
                          code=Code.BOOT).text

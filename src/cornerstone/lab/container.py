"""Controller VMs without a machine: their root's own systemd in namespaces of this kernel, with files as data disks.

What needs no kernel of its own runs here as in the machine, at full speed: genesis, Ceph's daemons, the formation of a
cluster. The kernel's own parts (boot, rbd, the iSCSI target, passthrough) don't. Needs root, a kernel with overlayfs
and loop devices, iproute2 and util-linux. All of it goes with the process that holds it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from cornerstone.lib.command import WITH_US, read
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.contracts.node import NODE_CREDENTIAL, NodeConfig

# until its systemd can be spoken to, on a busy machine
START_SECONDS = 120

# Run in new namespaces, with: FOLDER, LOWER (the root), DISKS (serial,wwn=loop device …).
_INIT = r"""
set -e
mount --make-rprivate /
cd "$FOLDER"
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=upper,workdir=work" root
cd root
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=0755 tmpfs run
mount -t tmpfs -o mode=0755 tmpfs dev
for name in null zero full random urandom tty; do touch dev/$name; mount --bind /dev/$name dev/$name; done
touch dev/console
mount --bind "$FOLDER/console.log" dev/console
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs tmpfs dev/shm
cp -r "$FOLDER/credentials" run/credentials-of-the-machine
touch run/notify-of-the-machine
mount --bind "$FOLDER/notify" run/notify-of-the-machine
# the iSCSI target is the kernel's, which isn't this root's here
mkdir -p run/systemd/system/data-services.service.d
printf '[Unit]\nConditionVirtualization=!container\n' > run/systemd/system/data-services.service.d/container.conf
# the disks as a machine would show them
sectors=$(for disk in $DISKS; do cat "/sys/block/${disk#*=/dev/}/size"; done)
mount -t tmpfs tmpfs sys/block
mount -t tmpfs tmpfs sys/dev/block
letter=a
for disk in $DISKS; do
    mkdir -p sys/block/sd$letter/device
    echo "${disk%%,*}" > sys/block/sd$letter/device/serial
    wwn=${disk%%=*}
    echo "${wwn#*,}" > sys/block/sd$letter/device/wwid
    ln -s ../../block/sd$letter sys/dev/block/$(($(stat -c '0x%t' "${disk#*=}"))):$(($(stat -c '0x%T' "${disk#*=}")))
    echo "${sectors%%[!0-9]*}" > sys/block/sd$letter/size
    sectors=${sectors#*[!0-9]}
    mknod dev/sd$letter b $(stat -c '0x%t 0x%T' "${disk#*=}")
    letter=$(echo $letter | tr a-y b-z)
done
# as systemd does it where it is the first, so that its services see what it mounts for them
mount --make-rshared .
ip link set lo up
# the internal network, with nobody there
ip link add eth1 type veth peer name host
ip link set host up
# the card that hangs at the switch comes from outside
echo here
read -r _
exec env -i container=cornerstone CREDENTIALS_DIRECTORY=/run/credentials-of-the-machine \
    NOTIFY_SOCKET=/run/notify-of-the-machine PATH=/usr/sbin:/usr/bin \
    chroot . /usr/lib/systemd/systemd --show-status=no
"""


class Switch:
    """A bridge in a network namespace of its own, for the containers of a run; for a with statement."""

    def __enter__(self) -> Switch:
        self._process = subprocess.Popen(
            [*WITH_US, "unshare", "--net", "sh", "-ec",
             "ip link add switch type bridge; ip link set switch up; echo here; exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        _check_here(self._process, "no bridge can be made in a network namespace")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def plug(self, pid: int) -> None:
        """Give the namespaces of a process a card eth0 at this switch."""
        self.ip("link", "add", f"port{pid}", "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        self.ip("link", "set", f"port{pid}", "master", "switch", "up")

    def ip(self, *words: str) -> None:
        """Run `ip` in the switch's namespace."""
        read(["nsenter", "--target", self._process.pid, "--net", "ip", *words], code=Code.MACHINE)


class Container:
    """One Controller VM. Its folder keeps what it writes and its disks: started again, it is the same one."""

    def __init__(self, folder: Path, root: Path, config: NodeConfig, switch: Switch,
                 credentials: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._root = root
        self._switch = switch
        self._pid = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._disks: dict[tuple[str, str], Path] = {}
        self._held = contextlib.ExitStack()
        for name in ("upper", "work", "root", "credentials"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "console.log").touch()
        for name, text in {NODE_CREDENTIAL: config.to_json(), **(credentials or {})}.items():
            (folder / "credentials" / name).write_text(text)

    def add_disk(self, serial: str, size: int, wwn: str = "") -> Path:
        """Add a data disk of size bytes, from the next start on; return the file that it is."""
        path = self.folder / f"{serial}{wwn and f'-{wwn}'}.disk"
        if not path.exists():
            with path.open("wb") as disk:
                disk.truncate(size)
        self._disks[serial, wwn] = path
        return path

    def remove_disk(self, serial: str, wwn: str = "") -> Path:
        """Remove a disk from the next start on; return its file, which stays."""
        return self._disks.pop((serial, wwn))

    def start(self) -> None:
        """Start its systemd; genesis runs by itself."""
        # one that nobody reads would hold systemd up, so it's closed after this
        with contextlib.ExitStack() as held, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            (self.folder / "notify").unlink(missing_ok=True)
            notify.bind(str(self.folder / "notify"))
            loops = {disk: held.enter_context(_loop(path)) for disk, path in self._disks.items()}
            environment = {"FOLDER": self.folder, "LOWER": self._root,
                           "DISKS": " ".join(f"{serial},{wwn}={loop}" for (serial, wwn), loop in loops.items())}
            self._process = subprocess.Popen(
                [*WITH_US, "unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--fork",
                 "--kill-child", "bash", "-c", _INIT],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(self.folder / "init.log").open("wb"),
                env={"PATH": os.environ["PATH"], **{key: str(value) for key, value in environment.items()}})
            _check_here(self._process, f"a container can't be started, see {self.folder / 'init.log'}")
            task = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            self._pid = int(task.read_text())
            self._switch.plug(self._pid)
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
            self._wait_for_systemd(notify)
            # the nodes in its /dev are open by now or never; a loop device goes with its last user
            self._held = held.pop_all()

    def _wait_for_systemd(self, notify: socket.socket) -> None:
        end = time.monotonic() + START_SECONDS
        try:
            while True:
                notify.settimeout(max(0.001, end - time.monotonic()))
                if b"X_SYSTEMD_UNIT_ACTIVE=basic.target" in notify.recv(65536):
                    return
        except TimeoutError as error:
            raise CornerstoneError(f"a container's systemd didn't reach basic.target within {START_SECONDS} s",
                                   f"see {self.folder / 'init.log'} and its journal below {self.folder / 'upper'}",
                                   Code.MACHINE) from error

    def kill(self) -> None:
        """As a power cut: all of it ends at once."""
        if self._process is not None:
            if self._pid:
                os.kill(self._pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
            self._process, self._pid = None, 0
            self._held.close()

    def run(self, *words: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        return subprocess.run(self.command(*words), capture_output=True, text=True, timeout=seconds, check=False)

    def command(self, *words: str) -> list[str]:
        """The words that run a command in it."""
        return ["nsenter", "--target", str(self._pid), "--all", "--root", "--wd", "--",
                "env", "-i", "PATH=/usr/sbin:/usr/bin", *words]

    def file(self, path: str) -> Path:
        """A file that it has written, from outside."""
        return self.folder / "upper" / path


def _check_here(process: subprocess.Popen[bytes], otherwise: str) -> None:
    said, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    if not said or process.stdout.readline() != b"here\n":
        process.kill()
        process.communicate()
        raise CornerstoneError(otherwise, "it takes root, and a kernel with overlayfs, bridges and loop devices",
                               Code.MACHINE)


@contextlib.contextmanager
def _loop(path: Path) -> Iterator[str]:
    """Attach a loop device to a file, while this or anything else has it open."""
    device = read(["losetup", "--find", "--show", "--direct-io=off", path], code=Code.MACHINE).strip()
    handle = os.open(device, os.O_RDONLY)
    try:
        # it goes with the last who has it open
        read(["losetup", "--detach", device], code=Code.MACHINE)
        yield device
    finally:
        os.close(handle)

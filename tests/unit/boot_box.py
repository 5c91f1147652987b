"""A box for the initramfs's boot scripts: an initramfs's shells run them, with their absolute paths in the box."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cornerstone.factory.signing.signing import SoftwareKey
from cornerstone.model.contracts.manifest import HYPERVISOR, NAME, SIGNATURE_NAME, Manifest, entry_of
from small_iso import PROFILE

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "elements/root-slot/static/usr/share/initramfs-tools"
SCRIPT, HOOK = TOOLS / "scripts" / "cornerstone", TOOLS / "hooks" / "cornerstone"
HTTP = ROOT / "elements/hypervisor/static/usr/share/initramfs-tools/scripts/cornerstone-http"
IDENTITY = "1c7a3a3e-6d0b-5d0c-9a51-3f2f6a0d8a11"
SQUASHFS = b"hsqs" + bytes(range(256)) * 40
SHELLS = {"dash": ["dash"], "busybox": ["busybox", "ash"]}
# Every place that the script knows by an absolute path.
PLACES = ("/medium", "/carrier", "/manifest.pem", "/run/cornerstone", "/dev/", "/dev/disk", "/sys/class/block",
          "/sys/class/tty", "/sys/class/net", "/state", "/proc/cmdline", "/proc/meminfo", "/etc/resolv.conf",
          "/scripts")
CONSOLES = ("tty1", "ttyS0", "ttyS1")
# Tools that need a kernel. mount notes what it does; everything else is real.
FAKES = """
mount() { echo "mount $*" >>"$BOX/calls"; case "$*" in *"${FAIL_MOUNT:-nothing}"*) return 32 ;; esac; }
umount() { echo "umount $*" >>"$BOX/calls"; }
modprobe() { :; }
udevadm() { echo "udevadm $*" >>"$BOX/calls"; return "${FAIL_UDEV:-0}"; }
blkid() { case "$*" in *"${FORMATTED:-sdb}"*) echo "${FILE_SYSTEM:-iso9660}" ;; esac; }
sleep() { exit 99; }
rootmnt=$BOX/root
"""


class Box:
    """What the script sees; run(code) runs code after it."""

    def __init__(self, folder: Path, shell: list[str]) -> None:
        self.folder, self.shell = folder, shell
        for name in ("medium/.disk", "medium/layers", "root", "dev/disk", "sys/class/block", "proc", "run", "bin",
                     "carrier", "sys/class/tty/console", "sys/class/net/eth0", "etc", "scripts"):
            (folder / name).mkdir(parents=True)
        (folder / "sys/class/tty/console/active").write_text("tty0 ttyS0 ttyS1\n")
        (folder / "script").write_text(self.moved(SCRIPT))
        (folder / "scripts" / HTTP.name).write_text(self.moved(HTTP))
        (folder / "medium/.disk" / IDENTITY).touch()
        for name in ("fd0", "loop0", "ram0", "sda", "sdb", "sr0"):
            (folder / "sys/class/block" / name).touch()
        self.kernel_arguments("quiet")
        self.fsck(0)

    def moved(self, script: Path) -> str:
        """A script's text with the places that it knows in the box."""
        text = script.read_text()
        # longest first, and never inside "$rootmnt/medium" or a longer word
        for place in sorted(PLACES, key=len, reverse=True):
            for before in (" ", ">", "<", "=", '"'):
                text = text.replace(f"{before}{place}", f"{before}{self.folder}{place}")
        return text.replace(f"{self.folder}/dev/null", "/dev/null")

    def kernel_arguments(self, text: str) -> None:
        (self.folder / "proc/cmdline").write_text(f"{text}\n")

    def fsck(self, status: int) -> None:
        path = self.folder / "bin" / "fsck.ext4"
        path.write_text(f'#!/bin/sh\necho "fsck.ext4 $*" >>"$BOX/calls"\nexit {status}\n')
        path.chmod(0o755)

    def run(self, code: str, **environment: str) -> subprocess.CompletedProcess:
        (self.folder / "code").write_text(f". {self.folder}/script\n{FAKES}\n{code}\n")
        env = {"PATH": f"{self.folder}/bin:/usr/bin:/bin", "BOX": str(self.folder), **environment}
        return subprocess.run([*self.shell, self.folder / "code"], capture_output=True, text=True, timeout=20, env=env,
                              check=False)

    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().replace(str(self.folder), "").splitlines() if path.exists() else []

    def in_order(self, expected: list[str]) -> bool:
        """Whether these calls were made in this order, whatever else was called between them."""
        made = iter(self.calls())
        missing = next((call for call in expected if call not in made), None)
        assert missing is None, f"{missing} not in its place among {self.calls()}"
        return True

    def wanted(self) -> str:
        """The digest of the live root, as JSON parsers read it."""
        return Manifest.from_bytes((self.folder / "medium" / NAME).read_bytes()).entry(HYPERVISOR).sha256

    def said(self, console: str = "tty1") -> list[str]:
        """Return what was said on a console, line by line."""
        path = self.folder / "dev" / console
        return path.read_text().splitlines() if path.is_file() else []

    def refusal(self) -> str:
        return next((line for line in self.said() if line.startswith("REFUSED")), "")

    def put_medium(self) -> None:
        """Put a whole and signed medium into the box."""
        (self.folder / "medium" / HYPERVISOR).write_bytes(SQUASHFS)
        (self.folder / "other").write_bytes(b"other")
        entries = (entry_of("boot/bios.img", self.folder / "other", ((8, 56), (2548, 8))),
                   entry_of("boot/layers/hypervisor.squashfs", self.folder / "other"),
                   entry_of(HYPERVISOR, self.folder / "medium" / HYPERVISOR),
                   entry_of("layers/cvm.qcow2", self.folder / "other"))
        profile = PROFILE | {"name": "x", "description": f'"path": "{HYPERVISOR}", "sha256": "{"0" * 64}"'}
        content = Manifest(IDENTITY, profile, "development", 1, entries, 4096).to_bytes()
        key = SoftwareKey(Ed25519PrivateKey.generate(), "development")
        (self.folder / "medium" / NAME).write_bytes(content)
        (self.folder / "medium" / SIGNATURE_NAME).write_bytes(key.sign(content))
        (self.folder / "manifest.pem").write_bytes(key.public_pem())

"""What holds in both roots: the locked packages and nothing forbidden."""

import hashlib
import re
import stat
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cornerstone.factory.authenticode import signatures
from cornerstone.factory.settings import Workspace, find_mirror
from cornerstone.model.error import CornerstoneError

WORKSPACE = Workspace(Path(__file__).resolve().parents[2])

# Programs that run with more rights than who starts them; all are Debian's own.
ELEVATED = {
    "usr/bin/chage", "usr/bin/chfn", "usr/bin/chsh", "usr/bin/expiry", "usr/bin/gpasswd", "usr/bin/mount",
    "usr/bin/newgrp", "usr/bin/passwd", "usr/bin/ssh-agent", "usr/bin/su", "usr/bin/umount",
    "usr/lib/dbus-1.0/dbus-daemon-launch-helper", "usr/lib/openssh/ssh-keysign", "usr/sbin/unix_chkpwd",
    "usr/lib/polkit-1/polkit-agent-helper-1", "usr/bin/pkexec",  # libvirt asks polkit
    "usr/bin/sudo",  # Ceph reads disks' health through it
}
LOCKED = ("*", "!", "!*", "!!")
OUR_PRESETS = {"10-cornerstone.preset", "20-hypervisor.preset", "20-cvm.preset"}
REQUIRED_MODULES = ("squashfs", "overlay", "isofs", "loop", "virtio_blk", "nvme")


def test_every_locked_package_and_no_other_is_installed(root):
    listing = root.run(r"dpkg-query --show --showformat='${Package} ${Version} ${db:Status-Status}\n'")
    assert sorted(listing.splitlines()) == sorted(f"{name} {of} installed" for name, of in root.packages.items())


def test_packages_are_whole(root):
    assert root.run("dpkg --audit") == ""


def test_no_service_waits_for_itself(root):
    """systemd leaves out a service of such a circle, another one at each start."""
    said = root.run("systemd-analyze verify --man=no multi-user.target 2>&1 || true")
    assert [line for line in said.splitlines() if "ordering cycle" in line] == []


def test_no_account_has_a_password(root):
    fields = [line.split(":") for line in root.read("etc/shadow").splitlines()]
    assert {name: password for name, password, *_ in fields if password not in LOCKED} == {}
    assert "root" in {name for name, *_ in fields}
    assert not [line for line in root.read("etc/passwd").splitlines() if line.split(":")[1] != "x"]
    # a group without a password has nothing there
    assert not [line for line in root.read("etc/gshadow").splitlines() if line.split(":")[1] not in ("", *LOCKED)]


def test_only_root_has_root_s_number(root):
    accounts = [line.split(":") for line in root.read("etc/passwd").splitlines()]
    assert [account[0] for account in accounts if account[2] == "0"] == ["root"]


def test_ssh_takes_keys_only(root):
    """sshd's own reading of its configuration, drop-ins and defaults included."""
    settings = sshd_settings(root)
    assert settings["passwordauthentication"] == "no"
    assert settings["kbdinteractiveauthentication"] == "no"
    assert settings["permitrootlogin"] == "without-password"
    assert settings["permitemptypasswords"] == "no"


def sshd_settings(root):
    # it wants its folder and some host key, and gets them for this one command
    said = root.run("mkdir -p /run/sshd && ssh-keygen -q -t ed25519 -N '' -f /run/sshd/key && "
                    "/usr/sbin/sshd -T -h /run/sshd/key; status=$?; rm -rf /run/sshd; exit $status")
    return dict(line.split(" ", 1) for line in said.splitlines() if " " in line)


def test_no_ssh_keys(root):
    names = re.compile(r"authorized_keys\d?|ssh_host_.*|id_(rsa|dsa|ecdsa|ed25519)(\.pub)?")
    assert [root.short(path) for path in root.files("etc", "root", "home", "var", "srv", "opt")
            if names.fullmatch(path.name)] == []


def test_no_storage_identity(root):
    """Names that initiators log in with are each machine's own; the initramfs has a copy of the iSCSI one."""
    assert [name for name in ("hostid", "hostnqn") if (root.path / "etc/nvme" / name).exists()] == []
    initiator = root.path / "etc/iscsi/initiatorname.iscsi"
    assert not initiator.exists() or initiator.read_text() == "GenerateName=yes\n"


def test_no_private_keys_anywhere(root):
    header = re.compile(rb"^-----BEGIN ([A-Z]+ )*PRIVATE KEY-----$", re.MULTILINE)
    found = {root.short(path) for path in root.files() if path.stat().st_size < 1 << 20
             and b"PRIVATE KEY-----" in (content := path.read_bytes()) and header.search(content)}
    # files that speak of keys (scripts, tests) have the words, but not a key below them
    assert {path for path in found if holds_a_key(root.path / path)} == set()


def holds_a_key(path: Path) -> bool:
    """Whether a PEM header has base64 below it."""
    return re.search(rb"PRIVATE KEY-----\r?\n([A-Za-z-]+: .*\r?\n)*\r?\n?[A-Za-z0-9+/=]{40,}", path.read_bytes()) \
        is not None


def test_the_machine_has_no_identity_yet(root):
    assert root.read("etc/machine-id") == ""
    assert root.read("etc/hostname").strip() == "localhost"
    assert not (root.path / "var/lib/dbus/machine-id").exists()
    assert not (root.path / "var/lib/systemd/random-seed").exists()
    assert root.read("etc/resolv.conf") == ""


def test_the_build_left_nothing(root):
    gone = ("lib/diskimage-builder", "usr/lib/diskimage-builder", "etc/apt/sources.list", "etc/dib-manifests",
            "tmp/in_target.d", "etc/resolv.conf.ORIG", "usr/sbin/policy-rc.d", "sbin/policy-rc.d")
    assert [path for path in gone if (root.path / path).exists()] == []
    empty = ("var/lib/apt/lists", "var/cache/apt", "etc/apt/sources.list.d", "var/log", "tmp", "var/tmp")
    assert [root.short(path) for path in root.files(*empty)] == []


def test_the_build_machine_is_not_named(root):
    """Neither its mirror nor its folders nor its name."""
    try:
        mirror = find_mirror()
        hosts = {urlsplit(address).hostname for address in (mirror.main, mirror.security)}
    except CornerstoneError:
        hosts = set()
    words = {word.encode() for word in (*filter(None, hosts), f"{WORKSPACE.root}/", f"{WORKSPACE.cache}/")}
    found = [(root.short(path), word) for path in root.files("etc", "usr/lib/cornerstone", "usr/share/cornerstone",
                                                             "var/lib", "root", "home", "boot")
             for content in [path.read_bytes()] for word in words if word in content]
    assert found == []


def test_programs_with_more_rights_are_the_known_ones(root):
    elevated = {root.short(path) for path in root.files() if path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)}
    assert elevated - ELEVATED == set()
    assert "usr/bin/passwd" in elevated, "unpacking lost the bits"


def test_nobody_else_can_write_programs_or_settings(root):
    loose = [root.short(path) for path in root.files("etc", "usr", "boot") if path.stat().st_mode & stat.S_IWOTH]
    assert loose == []
    foreign = {root.short(path) for path in root.files("usr", "boot") if path.stat().st_uid != 0}
    assert foreign == set()


def test_it_is_debian_and_says_nothing_else(root):
    assert root.host.system_info.distribution == "debian"
    assert root.host.system_info.codename == root.product.suite
    for path in ("etc/os-release", "etc/issue", "etc/issue.net", "etc/motd"):
        if (root.path / path).exists():
            assert "nutanix" not in root.read(path).lower()


def test_our_presets_are_applied(root):
    """Every unit that they enable is enabled, unless the suite has no such unit or it can't be enabled.

    Templates aside: what is enabled of them are instances, and systemd makes the serial consoles' when it starts.
    """
    presets = (root.path / "usr/lib/systemd/system-preset").glob("*.preset")
    named = [line.split()[1] for preset in presets if preset.name in OUR_PRESETS
             for line in preset.read_text().splitlines() if line.startswith("enable ") and "@." not in line]
    assert "ssh.service" in named
    states = unit_states(root)
    assert [unit for unit in named if states.get(unit, ("none", ""))[0] in ("disabled", "masked")] == []


def test_nothing_else_is_enabled(root):
    """A unit is on because a preset says so, or because one that is on takes it along."""
    states = unit_states(root)
    on = {unit for unit, (state, _) in states.items() if state == "enabled"}
    along = {word for unit in on for path in root.path.glob(f"usr/lib/systemd/system/{unit}")
             for line in path.read_text().splitlines() if line.startswith("Also=") for word in line[5:].split()}
    assert {unit for unit in on if states[unit][1] != "enabled"} - along - {"reboot.target"} == set()
    assert "ssh.service" in on


def unit_states(root):
    """Each unit file's state and preset."""
    lines = root.run("systemctl list-unit-files --no-legend --no-pager --plain").splitlines()
    return {words[0]: (words[1], words[2]) for words in map(str.split, lines) if len(words) == 3}


@pytest.mark.parametrize("link", [
    "multi-user.target.wants/ssh.service", "ssh.service.requires/ssh-host-keys.service",
    "multi-user.target.wants/systemd-networkd.service", "sysinit.target.wants/nftables.service"])
def test_what_every_root_starts(root, link):
    assert root.host.file(f"/etc/systemd/system/{link}").is_symlink


def test_the_default_target_is_multi_user(root):
    assert (root.path / "etc/systemd/system/default.target").readlink().name == "multi-user.target"


def test_kernel_and_modules(root):
    modules = root.path / "usr/lib/modules" / root.kernel
    known = (modules / "modules.dep").read_text() + (modules / "modules.builtin").read_text()
    names = {Path(line.split(":")[0]).name.split(".")[0].replace("-", "_") for line in known.splitlines()}
    assert set(REQUIRED_MODULES) - names == set()
    assert (root.path / "boot/vmlinuz").readlink() == Path(f"vmlinuz-{root.kernel}")
    assert (root.path / "boot/initrd.img").readlink() == Path(f"initrd.img-{root.kernel}")


def test_the_kernel_is_signed_by_debian(root):
    found = signatures((root.path / "boot/vmlinuz").read_bytes())
    assert found
    assert all(s.over_these_bytes and any("Debian" in name for name in s.subjects) for s in found)


def test_the_initramfs_boots_slots_and_media(root, public_key):
    """Its boot script, the key that it trusts, and what it needs to check and mount."""
    try:
        # by its real name: bookworm's zstd takes no links
        root.run(f"unmkinitramfs /boot/initrd.img-{root.kernel} /run/initramfs")
        top = root.path / "run/initramfs"
        top = top / "main" if (top / "main").is_dir() else top
        names = {path.name.split(".")[0] for path in top.rglob("*.ko*")}
        assert (top / "manifest.pem").read_bytes() == public_key
        script = (top / "scripts/cornerstone").read_bytes()
        assert script == (root.path / "usr/share/initramfs-tools/scripts/cornerstone").read_bytes()
        builtin = (root.path / "usr/lib/modules" / root.kernel / "modules.builtin").read_text()
        wanted = {"squashfs", "overlay", "ext4", "isofs", "loop", "sr_mod", "sd_mod", "nvme", "virtio_blk"}
        assert {name for name in wanted - names if f"/{name}.ko" not in builtin} == set()
        for program in ("usr/bin/openssl", "usr/sbin/blkid", "usr/sbin/fsck.ext4"):
            assert any((top / name).is_file() for name in (program, program.removeprefix("usr/"),
                                                           f"bin/{Path(program).name}", f"sbin/{Path(program).name}"))
    finally:
        root.run("rm -rf /run/initramfs")


def test_the_public_key_is_the_one_that_signed_the_iso(root, public_key):
    assert (root.path / "usr/share/cornerstone/manifest.pem").read_bytes() == public_key


def test_state_has_its_places(root):
    for name in ("state", "medium"):
        assert (root.path / name).is_dir()
        assert not any((root.path / name).iterdir())


def test_boot_files_are_the_packages_own(root):
    boot = root.path / "usr/share/cornerstone/boot"
    for name, source in (("shimx64.efi", "usr/lib/shim/shimx64.efi.signed"),
                         ("mmx64.efi", "usr/lib/shim/mmx64.efi.signed"),
                         ("gcdx64.efi", "usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed"),
                         ("grubx64.efi", "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"),
                         ("boot_hybrid.img", "usr/lib/grub/i386-pc/boot_hybrid.img"),
                         ("boot.img", "usr/lib/grub/i386-pc/boot.img")):
        assert digest(boot / name) == digest(root.path / source), name


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

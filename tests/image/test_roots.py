"""What holds in both roots: the locked packages and nothing forbidden."""

import re
import stat
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cornerstone.factory.diff.packages import INFO, STATUS
from cornerstone.factory.inspection import initramfs, sshd
from cornerstone.factory.settings import Workspace, find_mirror
from cornerstone.factory.verify.authenticode import signatures
from cornerstone.lib.error import CornerstoneError

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
    assert root.installed == root.packages
    assert set(re.findall("^Package: (.*)$", root.tree.text(STATUS), re.MULTILINE)) == set(root.packages)


def test_packages_are_whole(root):
    """None is half installed or waits for a trigger, dpkg was in the middle of nothing, and has its lists of each."""
    statuses = re.findall("^(Status|Triggers-[A-Z][a-z]*): (.*)$", root.tree.text(STATUS), re.MULTILINE)
    assert set(statuses) == {("Status", "install ok installed")}
    assert root.tree.names("var/lib/dpkg/updates") == []
    lists = {name.removesuffix(".list").partition(":")[0] for name in root.tree.names(INFO) if name.endswith(".list")}
    assert lists == set(root.packages)


def test_no_service_waits_for_itself(root):
    """systemd leaves out a service of such a circle, another one at each start."""
    assert root.units.circle("multi-user.target") == []
    assert "ssh.service" in root.units.pulled("multi-user.target")


def test_no_account_has_a_password(root):
    fields = [line.split(":") for line in root.tree.text("etc/shadow").splitlines()]
    assert {name: password for name, password, *_ in fields if password not in LOCKED} == {}
    assert "root" in {name for name, *_ in fields}
    assert not [line for line in root.tree.text("etc/passwd").splitlines() if line.split(":")[1] != "x"]
    # a group without a password has nothing there
    assert not [line for line in root.tree.text("etc/gshadow").splitlines() if line.split(":")[1] not in ("", *LOCKED)]


def test_only_root_has_root_s_number(root):
    accounts = [line.split(":") for line in root.tree.text("etc/passwd").splitlines()]
    assert [account[0] for account in accounts if account[2] == "0"] == ["root"]


def test_ssh_takes_keys_only(root):
    """By its configuration, with drop-ins and sshd's own defaults."""
    settings = sshd.settings(root.tree)
    assert {name: settings[name] for name in sshd.DEFAULTS} == {
        "passwordauthentication": "no", "kbdinteractiveauthentication": "no", "permitrootlogin": "prohibit-password",
        "permitemptypasswords": "no"}


def test_no_ssh_keys(root):
    names = re.compile(r"authorized_keys\d?|ssh_host_.*|id_(rsa|dsa|ecdsa|ed25519)(\.pub)?")
    assert [path for path in root.tree.below("etc", "root", "home", "var", "srv", "opt")
            if names.fullmatch(path.rpartition("/")[2])] == []


def test_no_storage_identity(root):
    """Names that initiators log in with are each machine's own; the initramfs has a copy of the iSCSI one."""
    assert {"hostid", "hostnqn"} & set(root.tree.names("etc/nvme")) == set()
    initiator = "etc/iscsi/initiatorname.iscsi"
    assert not root.tree.get(initiator) or root.tree.text(initiator) == "GenerateName=yes\n"


def test_no_private_keys_anywhere(root):
    header = re.compile(rb"^-----BEGIN ([A-Z]+ )*PRIVATE KEY-----$", re.MULTILINE)
    # files that speak of keys (scripts, tests) have the words, but no base64 below them
    key = re.compile(rb"PRIVATE KEY-----\r?\n([A-Za-z-]+: .*\r?\n)*\r?\n?[A-Za-z0-9+/=]{40,}")
    assert {path for path in root.tree.below() if root.tree.files[path].size < 1 << 20
            and b"PRIVATE KEY-----" in (content := root.tree.read(path)) and header.search(content)
            and key.search(content)} == set()


def test_the_machine_has_no_identity_yet(root):
    assert root.tree.text("etc/machine-id") == ""
    assert root.tree.text("etc/hostname").strip() == "localhost"
    assert not root.tree.get("var/lib/dbus/machine-id")
    assert not root.tree.get("var/lib/systemd/random-seed")
    assert root.tree.text("etc/resolv.conf") == ""


def test_the_build_left_nothing(root):
    gone = ("lib/diskimage-builder", "usr/lib/diskimage-builder", "etc/apt/sources.list", "etc/dib-manifests",
            "tmp/in_target.d", "etc/resolv.conf.ORIG", "usr/sbin/policy-rc.d", "sbin/policy-rc.d")
    assert [path for path in gone if root.tree.get(path, follow=False)] == []
    empty = ("var/lib/apt/lists", "var/cache/apt", "etc/apt/sources.list.d", "var/log", "tmp", "var/tmp")
    assert list(root.tree.below(*empty)) == []


def test_the_build_machine_is_not_named(root):
    """Neither its mirror nor its folders nor its name."""
    try:
        mirror = find_mirror()
        hosts = {urlsplit(address).hostname for address in (mirror.main, mirror.security)}
    except CornerstoneError:
        hosts = set()
    words = {word.encode() for word in (*filter(None, hosts), f"{WORKSPACE.root}/", f"{WORKSPACE.cache}/")}
    found = [(path, word) for path in root.tree.below("etc", "usr/lib/cornerstone", "usr/share/cornerstone", "var/lib",
                                                      "root", "home", "boot")
             for content in [root.tree.read(path)] for word in words if word in content]
    assert found == []


def test_programs_with_more_rights_are_the_known_ones(root):
    elevated = {path for path in root.tree.below() if root.tree.files[path].mode & (stat.S_ISUID | stat.S_ISGID)}
    assert elevated - ELEVATED == set()
    assert "usr/bin/passwd" in elevated, "reading lost the bits"


def test_nobody_else_can_write_programs_or_settings(root):
    files = root.tree.files
    loose = [path for path in root.tree.below("etc", "usr", "boot") if files[path].mode & stat.S_IWOTH]
    assert loose == []
    foreign = {path for path in root.tree.below("usr", "boot") if files[path].uid != 0}
    assert foreign == set()


def test_it_is_debian_and_says_nothing_else(root):
    release = dict(line.replace('"', "").split("=", 1) for line in root.tree.text("etc/os-release").splitlines())
    assert (release["ID"], release["VERSION_CODENAME"]) == ("debian", root.product.suite)
    for path in ("etc/os-release", "etc/issue", "etc/issue.net", "etc/motd"):
        if root.tree.is_file(path):
            assert "nutanix" not in root.tree.text(path).lower()


def test_our_presets_are_applied(root):
    """Every unit that they enable is enabled, unless the suite has no such unit or it can't be enabled.

    Templates aside: what is enabled of them are instances, and systemd makes the serial consoles' when it starts.
    """
    presets = "usr/lib/systemd/system-preset"
    named = [line.split()[1] for preset in root.tree.names(presets) if preset in OUR_PRESETS
             for line in root.tree.text(f"{presets}/{preset}").splitlines()
             if line.startswith("enable ") and "@." not in line]
    assert "ssh.service" in named
    units = root.units
    assert [unit for unit in named if unit in units.files and units.state(unit) in ("disabled", "masked")] == []


def test_nothing_else_is_enabled(root):
    """A unit is on because a preset says so, or because one that is on takes it along."""
    units = root.units
    on = {unit for unit in units.files if units.state(unit) == "enabled"}
    along = {word for unit in on for word in units.values(unit, "Also", "Install")}
    assert {unit for unit in on if units.preset(unit) != "enable"} - along - {"reboot.target"} == set()
    assert "ssh.service" in on


@pytest.mark.parametrize("link", [
    "multi-user.target.wants/ssh.service", "ssh.service.requires/ssh-host-keys.service",
    "multi-user.target.wants/systemd-networkd.service", "sysinit.target.wants/nftables.service"])
def test_what_every_root_starts(root, link):
    assert root.tree.link(f"etc/systemd/system/{link}")


def test_the_default_target_is_multi_user(root):
    assert Path(root.tree.link("etc/systemd/system/default.target")).name == "multi-user.target"


def test_kernel_and_modules(root):
    assert set(REQUIRED_MODULES) - root.modules == set()
    assert root.tree.link("boot/vmlinuz") == f"vmlinuz-{root.kernel}"
    assert root.tree.link("boot/initrd.img") == f"initrd.img-{root.kernel}"


def test_the_kernel_is_signed_by_debian(root):
    found = signatures(root.tree.read("boot/vmlinuz"))
    assert found
    assert all(s.over_these_bytes and any("Debian" in name for name in s.subjects) for s in found)


def test_the_initramfs_boots_slots_and_media(root, public_key):
    """Its boot script, the key that it trusts, and what it needs to check and mount."""
    found = initramfs.files(root.tree.read("boot/initrd.img"))
    assert found["manifest.pem"] == public_key
    assert found["scripts/cornerstone"] == root.tree.read("usr/share/initramfs-tools/scripts/cornerstone")
    names = {path.rpartition("/")[2].split(".")[0].replace("-", "_") for path in found if ".ko" in path}
    builtin = root.tree.text(f"usr/lib/modules/{root.kernel}/modules.builtin")
    wanted = {"squashfs", "overlay", "ext4", "isofs", "loop", "sr_mod", "sd_mod", "nvme", "virtio_blk"}
    assert {name for name in wanted - names if f"/{name}.ko" not in builtin} == set()
    for program in ("usr/bin/openssl", "usr/sbin/blkid", "usr/sbin/fsck.ext4"):
        places = (program, program.removeprefix("usr/"), f"bin/{Path(program).name}", f"sbin/{Path(program).name}")
        assert found.keys() & set(places), program


def test_the_public_key_is_the_one_that_signed_the_iso(root, public_key):
    assert root.tree.read("usr/share/cornerstone/manifest.pem") == public_key


def test_state_has_its_places(root):
    for name in ("state", "medium"):
        assert root.tree.is_folder(name)
        assert root.tree.names(name) == []


def test_boot_files_are_the_packages_own(root):
    boot = "usr/share/cornerstone/boot"
    for name, source in (("shimx64.efi", "usr/lib/shim/shimx64.efi.signed"),
                         ("mmx64.efi", "usr/lib/shim/mmx64.efi.signed"),
                         ("gcdx64.efi", "usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed"),
                         ("grubx64.efi", "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"),
                         ("boot_hybrid.img", "usr/lib/grub/i386-pc/boot_hybrid.img"),
                         ("boot.img", "usr/lib/grub/i386-pc/boot.img")):
        assert root.tree.read(f"{boot}/{name}") == root.tree.read(source), name

"""The initramfs's boot script, run by the shells that an initramfs has, with its absolute paths moved into a box."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from boot_box import CONSOLES, HOOK, HTTP, IDENTITY, PLACES, SCRIPT, SHELLS, SQUASHFS, Box
from cornerstone.factory.signing.signing import SoftwareKey
from cornerstone.model.contracts.manifest import HYPERVISOR, NAME, SIGNATURE_NAME, Manifest


@pytest.fixture(params=SHELLS.values(), ids=SHELLS.keys())
def shell(request) -> list[str]:
    if not shutil.which(request.param[0]):
        pytest.skip(f"{request.param[0]} isn't installed")
    return request.param


@pytest.fixture
def box(tmp_path, shell) -> Box:
    return Box(tmp_path / "box", shell)


@pytest.fixture
def medium(box) -> Box:
    """A box whose medium is whole and signed."""
    box.put_medium()
    return box


@pytest.mark.parametrize("path", [SCRIPT, HTTP, HOOK], ids=["script", "http", "hook"])
def test_shells_can_read_it(shell, path):
    assert subprocess.run([*shell, "-n", path], capture_output=True, text=True, check=True).stderr == ""


@pytest.mark.parametrize("path", [SCRIPT, HTTP, HOOK], ids=["script", "http", "hook"])
def test_shellcheck(path):
    # rootmnt comes from the initramfs's init
    done = subprocess.run(["shellcheck", "--shell=sh", "--severity=warning", "--exclude=SC2154", path],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_place_was_moved(box):
    """Or a test would look at this machine's own."""
    words = (box.moved(SCRIPT) + box.moved(HTTP)).replace(str(box.folder), "BOX").split()
    outside = [word for word in words for place in PLACES
               if word.lstrip('"$(<>').startswith(place) and not word.endswith("/dev/null")]
    assert outside == []


def test_hook_comes_after_those_whose_files_it_takes_out(shell):
    assert subprocess.run([*shell, HOOK, "prereqs"], capture_output=True, check=True).stdout == b"udev lvm2\n"


@pytest.mark.parametrize(("line", "said"), [
    ("quiet cornerstone.root=abc-def ro", "abc-def\n"), ("cornerstone.root=abc", "abc\n"), ("quiet", ""), ("", ""),
    ("xcornerstone.root=no cornerstone.rootx=no", ""), ("cornerstone.root=a=b", "a=b\n"), ("cornerstone.root=", "\n"),
])
def test_argument(box, line, said):
    box.kernel_arguments(line)
    assert box.run("argument cornerstone.root").stdout == said


def test_layer_digest(medium):
    assert medium.run(f"layer_digest {HYPERVISOR}").stdout == f"{medium.wanted()}\n", "one line, of this path alone"
    assert medium.run("layer_digest layers/none").stdout == ""


def test_sha256_of_is_what_the_manifest_has(medium):
    assert medium.run(f"sha256_of {medium.folder}/medium/{HYPERVISOR}").stdout == f"{medium.wanted()}\n"


def test_m2_what_is_said_is_on_every_console_once(box):
    box.run("say cornerstone: hello")
    assert {name: box.said(name) for name in CONSOLES} == dict.fromkeys(CONSOLES, ["cornerstone: hello"])
    assert not (box.folder / "dev/tty0").exists()


@pytest.mark.parametrize("dead", CONSOLES)
def test_m2_a_console_that_is_not_there_keeps_nothing_from_the_others(box, dead):
    (box.folder / "dev" / dead).mkdir()
    done = box.run("set -e; say first; say second; echo on")
    assert done.stdout == "on\n"
    assert all(box.said(name) == ["first", "second"] for name in CONSOLES if name != dead)


def test_m2_a_refusal_is_on_every_console(medium):
    (medium.folder / "medium" / HYPERVISOR).write_bytes(b"other")
    medium.kernel_arguments(LIVE)
    assert medium.run("mountroot").returncode == 99
    assert {medium.said(name)[-1] for name in CONSOLES} == {
        "REFUSED: layer hypervisor.squashfs does not match the manifest"}


def test_m9_how_far_a_slow_medium_is_read_is_said(medium):
    """A reader that stands at a quarter of its file."""
    medium.run(f"""
        sleep() {{ [ -z "$slept" ] && slept=1; }}
        exec 3<{medium.folder}/medium/{HYPERVISOR}
        dd bs=2561 count=1 <&3 >{medium.folder}/read 2>&1
        report_reading $$ {len(SQUASHFS)}""")
    assert medium.said("ttyS0") == ["cornerstone: checking the medium, 25 %"] == medium.said("tty1")


def test_layer_size(medium):
    assert medium.run(f"layer_size {HYPERVISOR}").stdout == f"{len(SQUASHFS)}\n"


# the live root

OVERLAYS = [f"mount -t overlay -o lowerdir=/root/{name},upperdir=/state/{name}/upper,workdir=/state/{name}/work "
            f"overlay-{name} /root/{name}" for name in ("etc", "var", "root", "home")]
LIVE = f"boot=cornerstone cornerstone.medium={IDENTITY} systemd.unit=foundation.target"


def test_live_root(medium):
    medium.kernel_arguments(LIVE)
    done = medium.run("mountroot")
    assert done.returncode == 0, done.stderr
    assert medium.refusal() == ""
    assert medium.in_order([
        "udevadm wait --timeout=60 --settle /dev/disk/by-label/FOUNDATION",
        "mount -t iso9660 -o ro /dev/sdb /medium",
        "mount -t squashfs -o ro,loop /medium/layers/hypervisor.squashfs /root",
        "mount -t tmpfs -o mode=0755 state /state",
        *OVERLAYS,
        "mount -o move /state /root/state", "mount -o move /medium /root/medium"])
    assert (medium.folder / "run/cornerstone/checked-root").read_text().strip() == medium.wanted()
    for name in ("etc", "var", "root", "home"):
        assert (medium.folder / "state" / name / "upper").is_dir()
        assert (medium.folder / "state" / name / "work").is_dir()


def test_m4_files_copied_onto_fat_are_the_medium_too(medium):
    medium.kernel_arguments(LIVE)
    done = medium.run("mountroot", FILE_SYSTEM="vfat", FAIL_UDEV="1")
    assert done.returncode == 0, done.stderr
    assert "mount -t vfat -o ro /dev/sdb /medium" in medium.calls()
    assert f"cornerstone: medium {medium.folder}/dev/sdb" in medium.said()


def test_m4_an_iso_that_is_a_file_on_a_stick_is_the_medium_too(medium):
    (medium.folder / "carrier/isos").mkdir()
    (medium.folder / "carrier/isos/a.iso").touch()
    medium.kernel_arguments(f"{LIVE} findiso=/isos/a.iso")
    done = medium.run("mountroot", FILE_SYSTEM="exfat")
    assert done.returncode == 0, done.stderr
    assert medium.in_order(["mount -t exfat -o ro /dev/sdb /carrier",
                            "mount -t iso9660 -o ro,loop /carrier/isos/a.iso /medium"])
    assert (medium.folder / "run/cornerstone/medium").read_text() == f"{medium.folder}/dev/sdb\n"


def test_m10_of_a_mapped_medium_the_device_below_it_is_told_too(medium):
    (medium.folder / "sys/class/block/sdb").unlink()
    (medium.folder / "sys/class/block/dm-0/slaves/sdc1").mkdir(parents=True)
    medium.kernel_arguments(LIVE)
    done = medium.run("mountroot", FORMATTED="dm-0")
    assert done.returncode == 0, done.stderr
    assert f"cornerstone: medium {medium.folder}/dev/dm-0" in medium.said()
    assert (medium.folder / "run/cornerstone/medium").read_text() == f"{medium.folder}/dev/sdc1\n"


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


REFUSALS = {
    "first byte": (lambda m: flip(m / HYPERVISOR, 0), "layer hypervisor.squashfs does not match the manifest"),
    "last byte": (lambda m: flip(m / HYPERVISOR, -1), "layer hypervisor.squashfs does not match the manifest"),
    "cut short": (lambda m: (m / HYPERVISOR).write_bytes(SQUASHFS[:-1]), "layer hypervisor.squashfs does not match"),
    "missing": (lambda m: (m / HYPERVISOR).unlink(), "layer hypervisor.squashfs does not match the manifest"),
    "manifest": (lambda m: flip(m / NAME, 10), "manifest.json on the medium isn't signed by the key of this initramfs"),
    "no manifest": (lambda m: (m / NAME).unlink(), "manifest.json on the medium isn't signed"),
    "signature": (lambda m: flip(m / SIGNATURE_NAME, 0), "manifest.json on the medium isn't signed"),
    "no signature": (lambda m: (m / SIGNATURE_NAME).unlink(), "manifest.json on the medium isn't signed"),
    "other medium": (lambda m: (m / ".disk" / IDENTITY).unlink(), f"the Foundation medium {IDENTITY} isn't attached"),
}


@pytest.mark.parametrize(("damage", "message"), REFUSALS.values(), ids=REFUSALS.keys())
def test_live_root_is_refused(medium, damage, message):
    damage(medium.folder / "medium")
    medium.kernel_arguments(LIVE)
    done = medium.run("mountroot")
    assert done.returncode == 99, "it sleeps for ever"
    assert medium.refusal().startswith(f"REFUSED: {message}")
    assert not any("squashfs" in call for call in medium.calls()), "nothing of it was mounted"
    assert not (medium.folder / "run/cornerstone/checked-root").exists()


def test_layer_that_is_signed_without_its_digest(medium):
    """An empty digest must not equal the digest of something unreadable."""
    content = Manifest(IDENTITY, {}, "development", 1, (), 4096).to_bytes()
    key = SoftwareKey(Ed25519PrivateKey.generate(), "development")
    (medium.folder / "medium" / NAME).write_bytes(content)
    (medium.folder / "medium" / SIGNATURE_NAME).write_bytes(key.sign(content))
    (medium.folder / "manifest.pem").write_bytes(key.public_pem())
    (medium.folder / "medium" / HYPERVISOR).unlink()
    medium.kernel_arguments(LIVE)
    assert medium.run("mountroot").returncode == 99
    assert medium.refusal() == "REFUSED: layer hypervisor.squashfs does not match the manifest"


def test_no_medium_at_all(medium):
    medium.kernel_arguments(LIVE)
    assert medium.run("mountroot", FORMATTED="none", FAIL_UDEV="1").returncode == 99
    assert medium.refusal() == f"REFUSED: the Foundation medium {IDENTITY} isn't attached, or can't be read"


def test_a_device_that_can_not_be_mounted_is_passed_over(medium):
    """A USB stick's whole disk and its partition both carry the label."""
    medium.kernel_arguments(LIVE)
    (medium.folder / "sys/class/block/sdb1").touch()
    done = medium.run("mountroot", FAIL_MOUNT="/dev/sdb ")
    assert done.returncode == 0, done.stderr
    assert [call for call in medium.calls() if "iso9660" in call] == [
        "mount -t iso9660 -o ro /dev/sdb /medium", "mount -t iso9660 -o ro /dev/sdb1 /medium"]


def test_live_root_that_can_not_be_mounted(medium):
    medium.kernel_arguments(LIVE)
    assert medium.run("mountroot", FAIL_MOUNT="-t squashfs").returncode == 99
    assert medium.refusal() == "REFUSED: layer hypervisor.squashfs can't be mounted"


# a root slot

SLOT = "boot=cornerstone cornerstone.root=aaaa cornerstone.state=bbbb"


@pytest.mark.parametrize("status", [0, 1, 2])
def test_slot(box, status):
    box.kernel_arguments(SLOT)
    box.fsck(status)
    done = box.run("mountroot")
    assert done.returncode == 0, done.stderr
    assert box.in_order([
        "udevadm wait --timeout=60 --settle /dev/disk/by-partuuid/aaaa",
        "mount -t squashfs -o ro /dev/disk/by-partuuid/aaaa /root",
        "udevadm wait --timeout=60 --settle /dev/disk/by-partuuid/bbbb",
        "fsck.ext4 -p /dev/disk/by-partuuid/bbbb",
        "mount -t ext4 -o rw /dev/disk/by-partuuid/bbbb /state",
        *OVERLAYS, "mount -o move /state /root/state"])
    assert not any("medium" in call for call in box.calls())


@pytest.mark.parametrize(("environment", "fsck", "message"), [
    ({"FAIL_UDEV": "1"}, 0, "root slot aaaa isn't there"),
    ({"FAIL_MOUNT": "-t squashfs"}, 0, "root slot aaaa holds no squashfs"),
    ({}, 4, "state partition bbbb needs repair by hand: fsck.ext4 ended with 4"),
    ({}, 12, "state partition bbbb needs repair by hand: fsck.ext4 ended with 12"),
    ({"FAIL_MOUNT": "-t ext4"}, 0, "state partition bbbb can't be mounted"),
    ({"FAIL_MOUNT": "overlay-var"}, 0, "/var can't be laid over the root"),
])
def test_slot_is_refused(box, environment, fsck, message):
    box.kernel_arguments(SLOT)
    box.fsck(fsck)
    assert box.run("mountroot", **environment).returncode == 99
    assert box.refusal() == f"REFUSED: {message}"


def test_without_arguments_it_refuses(box):
    assert box.run("mountroot", FAIL_UDEV="1").returncode == 99
    assert box.refusal().startswith("REFUSED: root slot")

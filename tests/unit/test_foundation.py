"""The live environment: what it shows, what it verifies, whom it tells."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.foundation.installer import __main__ as live
from cornerstone.foundation.installer import install, site_source
from cornerstone.foundation.installer.discover import discover, network
from cornerstone.foundation.installer.medium import Medium
from cornerstone.foundation.installer.screen import CLEAR, WIDTH, Console, Screen, Terminal, open_consoles
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.contracts import site_area
from cornerstone.model.contracts.facts import Nic
from cornerstone.model.contracts.manifest import HYPERVISOR, NAME, SIGNATURE_NAME, SITE_AREA, Manifest, entry_of
from machine_tree import SERVER, tree

LAB_SITE = Path(__file__).resolve().parents[2] / "sites/lab-one-node.json"

# the screen

def manifest(**profile: str) -> Manifest:
    whole = {"name": "aos-6.8", "aos": "6.8", "ahv": "20230302.100173", "payload": "reference",
             "hypervisor": {"root_slot": 2 << 30},
             "cvm": {"memory": 20 << 30, "vcpus": 8, "disk": 20 << 30, "root_slot": 2 << 30}} | profile
    return Manifest("1c7a3a3e-6d0b-5d0c-9a51-3f2f6a0d8a11", whole, "development", 1, (), 4096)


@pytest.fixture
def consoles() -> tuple[Console, Console]:
    return Console(io.StringIO(), True), Console(io.StringIO(), False)


def test_screen_is_redrawn_and_the_line_goes_on(consoles):
    terminal, line = consoles
    screen = Screen(list(consoles))
    screen.title(manifest())
    screen.row("Memory", "1.0 GiB")
    screen.row("Memory", "2.0 GiB")
    screen.wait("a site file.")
    assert screen.lines()[0] == "Cornerstone Foundation, profile aos-6.8"
    assert screen.lines()[-4:] == ["", "Memory     2.0 GiB", "", "Waiting for a site file."]
    assert terminal.out.getvalue().count(CLEAR) == 4
    assert terminal.out.getvalue().rpartition(CLEAR)[2] == "\n".join(screen.lines()) + "\n"
    assert CLEAR not in line.out.getvalue()
    assert line.out.getvalue().endswith("Memory     1.0 GiB\r\nMemory     2.0 GiB\r\n\r\nWaiting for a site file.\r\n")


@pytest.mark.parametrize(("payload", "said"), [("reference", "an open stack, not Nutanix software"),
                                               ("vendor", "vendor payload")])
def test_title_is_honest_about_the_payload(consoles, payload, said):
    screen = Screen(list(consoles))
    screen.title(manifest(payload=payload))
    for console in consoles:
        text = " ".join(console.out.getvalue().split())
        assert said in text.replace("Vendor", "vendor")
        assert ("not Nutanix" in text) == (payload == "reference")


@pytest.mark.parametrize("error", [
    CornerstoneError("layer hypervisor.squashfs does not match the manifest", "the medium is damaged: write it anew"),
    CornerstoneError("no Foundation medium is mounted"),
])
def test_refusal_is_what_a_watcher_looks_for(consoles, error):
    screen = Screen(list(consoles))
    screen.row("Medium", "x")
    screen.refuse(error)
    for console in consoles:
        assert any(line.startswith(f"REFUSED: {error.message}") for line in console.out.getvalue().split("\n"))
        assert error.hint in console.out.getvalue()


LONG = "word " * 60


@pytest.mark.parametrize("show", [
    lambda screen: screen.row("Disks", LONG), lambda screen: screen.wait(LONG),
    lambda screen: screen.refuse(CornerstoneError("short", LONG)),
    lambda screen: screen.row("Serial", "x" * 300),
    lambda screen: screen.title(manifest()),
    pytest.param(lambda screen: screen.refuse(CornerstoneError(LONG))),
], ids=["row", "wait", "hint", "long word", "title", "refusal"])
def test_no_line_is_wider_than_the_screen(consoles, show):
    screen = Screen(list(consoles))
    show(screen)
    for console in consoles:
        lines = console.out.getvalue().replace(CLEAR, "").replace("\r", "").split("\n")
        assert [line for line in lines if len(line) > WIDTH] == []


def test_continued_rows_are_indented(consoles):
    screen = Screen(list(consoles))
    screen.row("Disks", LONG)
    first, *others = [line for line in screen.lines() if line]
    assert first.startswith("Disks      word")
    assert others
    assert all(line.startswith("           word") for line in others)


def test_row_without_text(consoles):
    screen = Screen(list(consoles))
    screen.row("BMC", "")
    assert "BMC" in screen.lines()


@pytest.mark.parametrize(("active", "expected"), [
    ("tty0 ttyS0", [("tty1", True), ("ttyS0", False)]),
    ("ttyS1 ttyS0", [("tty1", True), ("ttyS1", False), ("ttyS0", False)]),
    ("hvc0", [("tty1", True), ("hvc0", False)]), ("tty0", [("tty1", True)]), (None, [("tty1", True)]),
    ("ttyS7 tty0", [("tty1", True)]),
])
def test_consoles_that_the_kernel_was_told_of(tmp_path, active, expected):
    for name in ("tty1", "ttyS0", "ttyS1", "hvc0"):
        tree(tmp_path, {f"dev/{name}": ""})
    if active:
        tree(tmp_path, {"active": active})
    found = open_consoles(tmp_path / "active", tmp_path / "dev")
    assert [(console.out.name, console.redraws) for console in found] == expected
    for console in found:
        console.out.close()


def test_m1_a_console_that_fails_is_left_out_and_the_others_go_on(consoles):
    whole, line = consoles
    dead = Console(Terminal(Path("/dev/full")), False)
    screen = Screen([whole, dead, line])
    screen.row("Medium", "x")
    assert screen.consoles == [whole, line]
    screen.row("Memory", "1.0 GiB")
    screen.refuse(CornerstoneError("no"))
    dead.out.close()
    assert all("Memory     1.0 GiB" in each.out.getvalue() and "REFUSED: no" in each.out.getvalue()
               for each in consoles)


@pytest.mark.parametrize("carrier", ["", "/dev/sdc1"])
def test_m10_the_medium_is_the_device_that_it_lies_on(tmp_path, carrier):
    tree(tmp_path, {"mounts": f"/dev/dm-0 {tmp_path}/medium iso9660 ro 0 0"})
    if carrier:
        tree(tmp_path, {"carrier": carrier})
    (tmp_path / "medium").mkdir()
    (tmp_path / "medium" / NAME).write_bytes(manifest().to_bytes())
    found = Medium.attached(tmp_path / "medium", tmp_path / "mounts", tmp_path / "carrier")
    assert found.device == (carrier or "/dev/dm-0")


def test_m1_without_any_console_the_screen_goes_on():
    screen = Screen([])
    screen.row("Medium", "x")
    assert "Medium     x" in screen.lines()


def test_m1_a_console_that_can_not_be_opened_is_left_out(tmp_path):
    tree(tmp_path, {"active": "tty0 ttyS0", "dev/tty1": ""})
    # there and no terminal, as a port without hardware is
    (tmp_path / "dev/ttyS0").mkdir()
    (console,) = open_consoles(tmp_path / "active", tmp_path / "dev")
    assert console.out.name == "tty1"
    console.out.close()


def test_m1_a_terminal_that_takes_nothing_holds_nobody_up(monkeypatch, consoles):
    monkeypatch.setattr("cornerstone.foundation.installer.screen.STUCK_SECONDS", 0.05)
    nobody_reads, port = os.openpty()
    stuck = Console(Terminal(Path(os.ttyname(port))), False)
    try:
        screen = Screen([stuck, consoles[1]])
        for number in range(200):
            screen.row("Disks", f"{number} {LONG}")
        assert screen.consoles == [consoles[1]]
        assert "199 word" in consoles[1].out.getvalue()
    finally:
        stuck.out.close()
        os.close(nobody_reads)
        os.close(port)


# the medium

CONTENT = {HYPERVISOR: b"squashfs" * 50_000, "layers/cvm.qcow2": b"qcow2" * 30_000,
           "layers/first-boot.sh": b"#!/bin/bash\n", "boot/empty": b"", "boot/bios.img": bytes(3000)}


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def signed(tmp_path_factory) -> Path:
    """A medium signed by openssl, and the key beside it."""
    folder = tmp_path_factory.mktemp("signed")
    tree(folder / "medium", CONTENT)
    entries = tuple(entry_of(path, folder / "medium" / path, ((8, 56),) if path == "boot/bios.img" else ())
                    for path in CONTENT)
    content = replace(manifest(), key="release", entries=entries).to_bytes()
    (folder / "medium" / NAME).write_bytes(content)
    openssl("genpkey", "-algorithm", "ed25519", "-out", folder / "key")
    openssl("pkey", "-in", folder / "key", "-pubout", "-out", folder / "public")
    openssl("pkeyutl", "-sign", "-rawin", "-inkey", folder / "key", "-in", folder / "medium" / NAME,
            "-out", folder / "medium" / SIGNATURE_NAME)
    return folder


@pytest.fixture
def medium(signed, tmp_path) -> Medium:
    """A copy of it, mounted."""
    subprocess.run(["cp", "-r", signed / "medium", tmp_path / "medium"], check=True)
    (tmp_path / "mounts").write_text(f"/dev/sr0 {tmp_path}/medium iso9660 ro 0 0\nproc /proc proc rw 0 0\n")
    return replace(Medium.attached(tmp_path / "medium", tmp_path / "mounts"), public_key=signed / "public",
                   checked_root=tmp_path / "checked-root")


def flip(path: Path, at: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_attached(medium):
    assert medium.device == "/dev/sr0"
    assert {entry.path for entry in medium.manifest.entries} == CONTENT.keys()


def test_not_attached(tmp_path):
    (tmp_path / "mounts").write_text("/dev/sr0 /elsewhere iso9660 ro 0 0\n")
    with pytest.raises(CornerstoneError, match="no Foundation medium is mounted") as caught:
        Medium.attached(tmp_path / "medium", tmp_path / "mounts")
    assert caught.value.code is Code.VERIFY


@pytest.mark.parametrize("damage", [
    lambda path: path.write_bytes(b"{}"),
    pytest.param(lambda path: path.unlink()),
], ids=["no manifest inside", "missing"])
def test_medium_without_a_manifest(medium, tmp_path, damage):
    damage(tmp_path / "medium" / NAME)
    with pytest.raises(CornerstoneError, match="manifest") as caught:
        Medium.attached(tmp_path / "medium", tmp_path / "mounts")
    assert caught.value.code is Code.VERIFY


def test_good_signature(medium):
    medium.check_signature()


@pytest.mark.parametrize("damage", [
    lambda m: flip(m.mount_point / NAME, 30), lambda m: flip(m.mount_point / SIGNATURE_NAME),
    lambda m: (m.mount_point / SIGNATURE_NAME).unlink(), lambda m: (m.mount_point / SIGNATURE_NAME).write_bytes(b""),
], ids=["manifest", "signature", "no signature", "empty signature"])
def test_bad_signature(medium, damage):
    damage(medium)
    with pytest.raises(CornerstoneError, match="isn't signed by the key of this environment") as caught:
        medium.check_signature()
    assert caught.value.code is Code.VERIFY


def test_signature_of_another_key(medium, tmp_path):
    openssl("genpkey", "-algorithm", "ed25519", "-out", tmp_path / "key")
    openssl("pkeyutl", "-sign", "-rawin", "-inkey", tmp_path / "key", "-in", medium.mount_point / NAME,
            "-out", medium.mount_point / SIGNATURE_NAME)
    with pytest.raises(CornerstoneError, match="isn't signed"):
        medium.check_signature()


def test_all_files_match(medium):
    seen = []
    said = medium.check_files(lambda name, percent: seen.append((name, percent)))
    assert said.startswith("5 files match the manifest (0 MiB, ")
    percents = [percent for _, percent in seen]
    assert percents == sorted(percents)
    assert percents[-1] >= 95
    assert [name for name, _ in seen][0] == "hypervisor.squashfs"
    assert len(seen) <= 21, "at most every five percent"


def test_boot_info_may_differ(medium):
    for at in (8, 40, 63):
        flip(medium.mount_point / "boot/bios.img", at)
    medium.check_files(lambda *_: None)
    flip(medium.mount_point / "boot/bios.img", 64)
    with pytest.raises(CornerstoneError):
        medium.check_files(lambda *_: None)


@pytest.mark.parametrize(("damage", "message"), [
    (lambda m: flip(m / HYPERVISOR, -1), "layer hypervisor.squashfs does not match the manifest"),
    (lambda m: flip(m / "layers/cvm.qcow2"), "layer cvm.qcow2 does not match the manifest"),
    (lambda m: (m / "layers/first-boot.sh").write_bytes(b"#"), "layer first-boot.sh has 1 bytes, the manifest says 12"),
    (lambda m: (m / "boot/empty").write_bytes(b"x"), "layer boot/empty has 1 bytes, the manifest says 0"),
    (lambda m: (m / "layers/cvm.qcow2").unlink(), "layer cvm.qcow2 can't be read: No such file or directory"),
], ids=["hypervisor", "cvm", "cut", "grown", "missing"])
def test_the_layer_that_differs_is_named(medium, damage, message):
    damage(medium.mount_point)
    with pytest.raises(CornerstoneError) as caught:
        medium.check_files(lambda *_: None)
    assert caught.value.message == message
    assert caught.value.code is Code.VERIFY


@pytest.mark.parametrize(("told", "skipped"), [("right", True), ("other", False), (None, False)])
def test_what_the_initramfs_checked_is_not_read_again(medium, told, skipped):
    sha256 = {"right": hashlib.sha256((medium.mount_point / HYPERVISOR).read_bytes()).hexdigest(), "other": "0" * 64}
    if told:
        medium.checked_root.write_text(f"{sha256[told]}\n")
    (medium.mount_point / HYPERVISOR).unlink()
    if skipped:
        medium.check_files(lambda *_: None)
    else:
        with pytest.raises(CornerstoneError, match="hypervisor.squashfs can't be read"):
            medium.check_files(lambda *_: None)


# the whole

@pytest.fixture
def environment(medium, consoles, tmp_path, monkeypatch):
    """main() with the machine, consoles and medium of a test; the first question to a person ends it."""
    # no Exception: that would be a refusal
    class Asked(BaseException):
        pass

    def ask(facts):
        raise Asked
    told, machine = [], tree(tmp_path / "machine", SERVER)
    monkeypatch.setattr(live, "open_listeners", lambda _: told.append)
    monkeypatch.setattr(live, "open_consoles", lambda: list(consoles))
    monkeypatch.setattr(live, "discover", lambda medium: discover(machine, medium))
    monkeypatch.setattr(live, "raise_links", lambda: None)
    monkeypatch.setattr(live, "await_link", lambda: None)
    monkeypatch.setattr(live, "keep_facts", lambda facts: None)
    monkeypatch.setattr(live.Medium, "attached", classmethod(lambda cls: medium))
    (medium.mount_point / SITE_AREA).write_bytes(site_area.pack(None))
    monkeypatch.setattr(live, "Install", functools.partial(live.Install, ask=ask))
    monkeypatch.setattr(site_source, "block_devices", lambda: [])
    return Asked, told


def test_live_environment_comes_to_wait(environment, consoles):
    asked, told = environment
    with pytest.raises(asked):
        live.main()
    steps = [(event.step, event.state) for event in told if event.state != "progress"]
    assert steps == [("verify", "started"), ("verify", "done"), ("discover", "done"), ("validate", "warning"),
                     ("screen", "waiting")]
    for console in consoles:
        text = " ".join(console.out.getvalue().split())
        for words in ("profile aos-6.8", "signature good", "release", "5 files match the manifest",
                      "Example Inc. Node 1", "Waiting for a site file", "21 rules, 3 errors"):
            assert words in text


def test_live_environment_refuses_a_changed_medium(environment, consoles, medium):
    flip(medium.mount_point / "layers/cvm.qcow2", 100)
    _, told = environment
    assert live.main() == 1
    assert (told[-1].step, told[-1].state) == ("verify", "failed")
    assert told[-1].message == "layer cvm.qcow2 does not match the manifest"
    for console in consoles:
        assert "REFUSED: layer cvm.qcow2 does not match the manifest" in console.out.getvalue()
        assert "Example Inc." not in console.out.getvalue(), "it goes no further"


@pytest.fixture
def enter(monkeypatch):
    """A console on which somebody presses Enter as often as it is asked for."""
    ours, theirs = os.openpty()
    monkeypatch.setattr(live, "console_devices", lambda: [Path(os.ttyname(theirs))])
    os.write(ours, b"\r" * 5)
    yield
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize(("error", "words", "code"), [
    (OSError(errno.EIO, "Input/output error", "/dev/sda"), "the step site failed with /dev/sda: Input/output error",
     "step"),
    (ValueError("odd"), "the step site failed by an error of Foundation's own: ValueError: odd", "defect"),
    (UnicodeDecodeError("utf-8", b"\x81", 0, 1, "invalid"), "UnicodeDecodeError", "defect"),
    (RecursionError(), "RecursionError", "defect"),
    (CornerstoneError("disk.changed: sda", "look", Code.REFUSED), "disk.changed: sda", "refused"),
])
@pytest.mark.parametrize("where", ["ask", "discover"])
def test_d32_m22_no_error_ends_the_live_environment(environment, consoles, enter, monkeypatch, capfd, error, words,
                                                    code, where):
    asked, told = environment

    def failing(*_: object, **__: object) -> None:
        if not any(event.state == "failed" for event in told):
            raise error
        raise asked
    if where == "ask":
        monkeypatch.setattr(live, "Install", functools.partial(live.Install.func, ask=failing))
    else:
        monkeypatch.setattr(live, "discover", failing)
    with pytest.raises(asked):
        live.main()
    [failed] = [event for event in told if event.state == "failed"]
    words = words.replace("step site", "step discover") if where == "discover" else words
    assert words in failed.message and failed.data["code"] == code and failed.data["hint"]
    for console in consoles:
        assert f"REFUSED: {words[:40]}" in console.out.getvalue() or words in console.out.getvalue()
    unforeseen = code != "refused"
    assert ("Traceback" in capfd.readouterr().err) == unforeseen
    # a screen has no room for it
    assert ["Traceback" in console.out.getvalue() for console in consoles] == [False, unforeseen]


def test_d32_an_unforeseen_error_of_the_medium_is_told(environment, consoles, monkeypatch):
    def failing(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error", "/medium/manifest.json")
    monkeypatch.setattr(Medium, "check_files", failing)
    assert live.main() == 1
    assert environment[1][-1].message == "the step verify failed with /medium/manifest.json: Input/output error"
    assert "REFUSED: the step verify failed" in consoles[0].out.getvalue()


def assert_told(told, consoles, words: str, code: str) -> None:
    """The last event and all consoles say why it ended."""
    assert (told[-1].step, told[-1].state, told[-1].data["code"]) == ("install", "failed", code)
    assert words in told[-1].message and told[-1].data["hint"]
    for console in consoles:
        assert f"REFUSED: {words[:60]}" in console.out.getvalue()


@pytest.mark.parametrize(("name", "code"), [("kernel_arguments", "defect"), ("console_devices", "defect"),
                                            ("await_mending", "defect"), ("Console", "defect")])
def test_whatever_ends_foundation_is_on_the_screen_and_the_last_event(environment, consoles, monkeypatch, capfd, name,
                                                                      code):
    def failing(*_: object, **__: object) -> None:
        raise KeyError("odd")

    def refused(*_: object, **__: object) -> None:
        raise CornerstoneError("refused", "", Code.REFUSED)
    monkeypatch.setattr(live, "Install", functools.partial(live.Install.func, ask=refused))
    monkeypatch.setattr(live, name, failing)
    assert live.main() == Code.DEFECT == 70
    assert_told(environment[1], consoles, "the step install failed by an error of Foundation's own: KeyError: 'odd'",
                code)
    assert "Traceback" in capfd.readouterr().err


def test_a_machine_that_does_not_restart_says_so(environment, consoles, monkeypatch, tmp_path):
    (tmp_path / "systemctl").write_text("#!/bin/sh\necho 'Failed to talk to init' >&2\nexit 1\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(install.Install, "run", lambda self: None)
    monkeypatch.setattr(live, "Install", install.Install)
    assert live.main() == Code.STEP
    words = ("the node is imaged, and this machine doesn't restart: systemctl reboot failed with exit status 1: "
             "Failed to talk to init")
    assert_told(environment[1], consoles, words, "step")


def test_without_a_console_a_refused_machine_is_looked_at_again_by_itself(environment, consoles, monkeypatch):
    asked, told = environment

    def refused(*_: object, **__: object) -> None:
        if any(event.state == "failed" for event in told):
            raise asked
        raise CornerstoneError("refused", "", Code.REFUSED)
    monkeypatch.setattr(live, "Install", functools.partial(live.Install.func, ask=refused))
    monkeypatch.setattr(live, "console_devices", lambda: [])
    monkeypatch.setattr(live, "UNATTENDED_SECONDS", 0.01)
    with pytest.raises(asked):
        live.main()


def test_a_name_that_is_no_text_ends_no_console(tmp_path):
    ours, theirs = os.openpty()
    try:
        Terminal(Path(os.ttyname(theirs))).write(os.fsdecode(b"M\xfcller\n"))
        assert os.read(ours, 100) == b"M?ller\r\n"
    finally:
        os.close(ours)
        os.close(theirs)


def test_d4_after_the_text_screen_the_machine_is_looked_at_again(environment, medium, consoles, monkeypatch, tmp_path):
    before, after = discover(tmp_path / "machine"), replace(discover(tmp_path / "machine"), boot_medium="sdz")
    planned = []

    class Seen(BaseException):
        pass

    def plan(facts, *_: object) -> None:
        planned.append(facts)
        raise Seen
    monkeypatch.setattr(install, "make_plan", plan)
    asked, site = [], LAB_SITE.read_bytes()
    with pytest.raises(Seen):
        install.Install(medium, before, {}, Screen(list(consoles)), environment[1].append,
                        ask=lambda facts: asked.append(facts) or site, look_again=lambda: after).run()
    assert (asked, planned) == ([before], [after])


ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPHX6cVrw3DdPK1ShVYvqNbXbfPFcYDsvSXL4Q7bdgF6"


def shown_of(medium, consoles, told, content: bytes, monkeypatch) -> str:
    """The screen of a machine, with blanks as one, when it has found its site in the ISO and plans."""
    class Seen(BaseException):
        pass

    def plan(*_: object) -> None:
        raise Seen
    monkeypatch.setattr(install, "make_plan", plan)
    (medium.mount_point / SITE_AREA).write_bytes(site_area.pack(content))
    screen = Screen(list(consoles))
    with pytest.raises(Seen):
        install.Install(medium, None, {}, screen, told.append).run()
    return " ".join(" ".join(screen.lines()).split())


@pytest.mark.parametrize("keys", [[], [ED25519], [f"{ED25519} ops@example.net", f"{ED25519} {'long ' * 40}end"]])
def test_a11_the_screen_shows_whose_keys_get_in_and_the_sites_short_hash(environment, medium, consoles, monkeypatch,
                                                                         tmp_path, keys):
    (tmp_path / "key.pub").write_text(ED25519)
    said = subprocess.run(["ssh-keygen", "-l", "-f", tmp_path / "key.pub"], capture_output=True, text=True, check=True)
    fingerprint = said.stdout.split()[1]
    site = json.loads(LAB_SITE.read_bytes())
    site["cornerstone"] = {"authorized_keys": keys}
    content = json.dumps(site).encode()
    text = shown_of(medium, consoles, environment[1], content, monkeypatch)
    sha256 = hashlib.sha256(content).hexdigest()
    assert f"Site the ISO's reserved area, sha256 {sha256[:16]} " in text
    assert ("SSH keys " + {0: "nobody: the site has no ssh key", 1: fingerprint,
                           2: f"{fingerprint} ops@example.net; {fingerprint} long long"}[len(keys)]) in text
    [found] = [event for event in environment[1] if (event.step, event.state) == ("site", "done")]
    assert found.data == {"origin": "the ISO's reserved area", "sha256": sha256, "keys": [fingerprint] * len(keys)}


@pytest.mark.skipif(os.geteuid() != 0, reason="loop devices take root")
def test_a13_a_volume_that_is_left_aside_is_told_of(environment, medium, consoles, monkeypatch, tmp_path):
    (tmp_path / "volume").write_bytes(bytes(1 << 20))
    subprocess.run(["mkfs.vfat", "-n", "FOUND-SITE", tmp_path / "volume"], check=True, capture_output=True)
    device = subprocess.run(["losetup", "--find", "--show", tmp_path / "volume"], check=True, capture_output=True,
                            text=True).stdout.strip()
    try:
        monkeypatch.setattr(site_source, "block_devices", lambda: [Path(device)])
        text = shown_of(medium, consoles, environment[1], LAB_SITE.read_bytes(), monkeypatch)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    words = f"{device} is labelled FOUND-SITE and isn't removable: no site is read from it"
    assert words in text and "the ISO's reserved area" in text
    assert words in [event.message for event in environment[1] if (event.step, event.state) == ("site", "warning")]


@pytest.mark.parametrize("consoles_there", [True, False])
def test_m13_a_network_that_failed_is_tried_again_without_anybody(environment, monkeypatch, consoles_there):
    asked, told = environment
    ours, theirs = os.openpty()
    monkeypatch.setattr(live, "console_devices", lambda: [Path(os.ttyname(theirs))] if consoles_there else [])
    monkeypatch.setattr(live, "NETWORK_SECONDS", 0.05)
    looks = []

    class Fetched(BaseException):
        pass

    def run(self) -> None:
        looks.append(self.facts)
        if len(looks) < 3:
            raise CornerstoneError("DHCP gave no address", "", Code.NETWORK)
        raise Fetched
    monkeypatch.setattr(install.Install, "run", run)
    try:
        with pytest.raises(Fetched):
            live.main()
    finally:
        os.close(ours)
        os.close(theirs)
    assert len(looks) == 3


def test_m14_a_card_on_usb_does_not_end_the_wait_for_links(monkeypatch):
    """It is the BMC's way to its host and always has a link; the wired card is still negotiating."""
    usb, wired = Nic("usb0", "02:00:5e:00:01:01", usb=True, link=True), Nic("eno1", "02:00:5e:00:01:02", link=False)
    looks = [(usb, wired), (usb, wired), (usb, replace(wired, link=True))]
    monkeypatch.setattr(network, "read_nics", lambda sys: looks.pop(0) if len(looks) > 1 else looks[0])
    monkeypatch.setattr(network.select, "select", lambda *_: ([1], [], []))
    monkeypatch.setattr(network.socket, "socket", lambda *_: contextlib.nullcontext(Silent()))
    network.await_link()
    assert len(looks) == 1


class Silent:
    """A socket that has always something to say of no interest."""

    def bind(self, _: object) -> None: ...

    def recv(self, _: int) -> None: ...


def test_m14_with_nothing_but_usb_there_is_nothing_to_wait_for(monkeypatch):
    monkeypatch.setattr(network, "read_nics", lambda sys: (Nic("usb0", "02:00:5e:00:01:01", usb=True),))
    began = time.monotonic()
    network.await_link(30)
    assert time.monotonic() - began < 10


def test_a_refused_machine_is_looked_at_again(environment, consoles, medium, monkeypatch):
    asked, told = environment
    area = medium.mount_point / SITE_AREA
    area.write_bytes(site_area.pack(b"{}"))
    ours, theirs = os.openpty()
    monkeypatch.setattr(live, "console_devices", lambda: [Path(os.ttyname(theirs))])
    os.write(ours, b"\r")

    def looked_at_again(seconds: float = 0) -> None:
        # the second look begins: what was wrong has been mended
        if any(event.state == "failed" for event in told):
            area.write_bytes(site_area.pack(None))
    monkeypatch.setattr(live, "await_link", looked_at_again)
    try:
        with pytest.raises(asked):
            live.main()
        assert b"press Enter: the machine is looked at again" in os.read(ours, 4096)
    finally:
        os.close(ours)
        os.close(theirs)
    steps = [(event.step, event.state) for event in told if event.state != "progress"]
    assert steps[4:] == [("site", "started"), ("site", "failed"), ("discover", "done"), ("validate", "warning"),
                         ("screen", "waiting")]
    for console in consoles:
        assert "REFUSED: " in console.out.getvalue()

"""The initramfs's script kernel-log: who writes the kernel's and systemd's words to which console."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from boot_box import SHELLS
from cornerstone.factory.payload.render import ipxe_script, menus
from cornerstone.model.disk.slot_disk import (
    CALM,
    CVM_ARGUMENTS,
    HYPERVISOR_ARGUMENTS,
    MIB,
    VERBOSE,
    grub_config,
    layout,
)
from small_iso import IDENTITY
from small_iso import PROFILE as VALUES

PROFILE = SimpleNamespace(**VALUES)
ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "elements/hypervisor/static/usr/share/initramfs-tools"
SCRIPT, HOOK = TOOLS / "scripts/init-top/kernel-log", TOOLS / "hooks/kernel-log"
READER = '#!/bin/sh\necho "[    0.000000] Linux version"\necho "$*" >>"$BOX/calls"\n'


@pytest.fixture(params=SHELLS.values(), ids=SHELLS.keys())
def shell(request) -> list[str]:
    if not shutil.which(request.param[0]):
        pytest.skip(f"{request.param[0]} isn't installed")
    return request.param


class Box:
    """A folder in place of /, with a kernel's log that has one line."""

    def __init__(self, folder: Path, shell: list[str]) -> None:
        self.folder, self.shell = folder, shell
        for name in ("dev", "proc/sys/kernel", "sys/class/tty/console", "run", "bin"):
            (folder / name).mkdir(parents=True)
        text = SCRIPT.read_text()
        for place in ("/sys/class", "/proc/sys", "/dev/$", "/dev/tty1", "/run/systemd"):
            text = text.replace(place, f"{folder}{place}")
        (folder / "script").write_text(text)
        (folder / "bin/@kernel-log").write_text(READER)
        (folder / "bin/@kernel-log").chmod(0o755)

    def run(self, level: int, consoles: str) -> dict[str, str]:
        """Run the script to the end of all that it starts; returns what each console got."""
        (self.folder / "proc/sys/kernel/printk").write_text(f"{level}\t4\t1\t7\n")
        (self.folder / "sys/class/tty/console/active").write_text(f"{consoles}\n")
        env = {"PATH": f"{self.folder}/bin:/usr/bin:/bin", "BOX": str(self.folder)}
        done = subprocess.run([*self.shell, "-c", f". {self.folder}/script; wait"], capture_output=True, text=True,
                              timeout=20, env=env, check=True)
        assert done.stdout + done.stderr == ""
        return {path.name: path.read_text() for path in (self.folder / "dev").iterdir() if path.is_file()}

    @property
    def status(self) -> str:
        return (self.folder / "run/systemd/system.conf.d/console.conf").read_text()


@pytest.fixture
def box(tmp_path, shell) -> Box:
    return Box(tmp_path, shell)


LINE = "[    0.000000] Linux version\n"
SCREEN = "Cornerstone: the kernel runs and looks for this machine's devices\n"


@pytest.mark.parametrize(("consoles", "written", "status"), [
    ("tty0 ttyS0", ["console"], "yes"), ("tty0 ttyS1 ttyS0", ["console", "ttyS1"], "yes"),
    ("ttyS0", ["console"], "yes"), ("tty0 hvc0", ["console"], "yes"),
    # the last is /dev/console: systemd's words would be on the screen
    ("ttyS0 tty0", ["ttyS0"], "error"), ("tty0", [], "error"), ("", [], "yes"),
])
def test_a_quiet_kernel_s_words_go_to_each_serial_port_and_to_no_screen(box, consoles, written, status):
    assert box.run(1, consoles) == {"tty1": SCREEN, **dict.fromkeys(written, LINE)}
    assert box.status == f"[Manager]\nShowStatus={status}\n"


@pytest.mark.parametrize("level", [4, 7, 10, 15])
def test_a_kernel_that_was_told_to_speak_is_not_repeated(box, level):
    assert box.run(level, "tty0 ttyS0") == {}
    assert box.status == "[Manager]\nShowStatus=yes\n"


def test_a_machine_without_a_screen_starts_all_the_same(box):
    (box.folder / "dev/tty1").mkdir()
    assert box.run(1, "tty0 ttyS0") == {"console": LINE}


def test_a_port_that_can_not_be_opened_keeps_nothing_from_the_others(box):
    (box.folder / "dev/console").mkdir()
    assert box.run(1, "tty0 ttyS1 ttyS0") == {"tty1": SCREEN, "ttyS1": LINE}


def test_it_reads_what_the_kernel_itself_does_not_write(box):
    """Not emergencies, which it writes at any loglevel, and no debugging, which none of our menus shows."""
    box.run(1, "tty0 ttyS0")
    words = (box.folder / "calls").read_text().split()
    levels = next(word for word in words if word.startswith("--level=")).partition("=")[2].split(",")
    assert levels == ["alert", "crit", "err", "warn", "notice", "info"]
    # and with these words util-linux's own dmesg takes them
    words.remove("--follow")
    done = subprocess.run(["dmesg", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "Operation not permitted" in done.stderr, done.stderr


@pytest.mark.parametrize("path", [SCRIPT, HOOK], ids=["script", "hook"])
def test_shells_can_read_it_and_initramfs_tools_gets_no_prerequisites(shell, path):
    assert subprocess.run([*shell, path, "prereqs"], capture_output=True, check=True).stdout == b""
    done = subprocess.run(["shellcheck", "--shell=sh", "--severity=warning", path], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout


# the menus

def starts(menu: str) -> dict[str, str]:
    """By the title of a menu's entry, its line with the kernel."""
    entries = [entry.partition("\n}")[0] for entry in menu.split('menuentry "')[1:]]
    return {entry.partition('"')[0]: line.strip() for entry in entries for line in entry.splitlines()
            if line.strip().startswith("linux ")}


@pytest.mark.parametrize("path", ["boot/grub/grub.cfg", "boot/grub/loopback.cfg"])
def test_the_iso_starts_quietly_unless_the_entry_for_it_is_chosen(path):
    menu = menus(IDENTITY, PROFILE, "development")[path].decode()
    arguments = next(line for line in menu.splitlines() if line.startswith("set arguments="))
    # what is customised comes after, so loglevel= of its own counts
    assert arguments.index(CALM) < arguments.index("$kernel_arguments")
    verbose = [title for title, line in starts(menu).items() if VERBOSE in line]
    assert verbose == ["Foundation, kernel messages on the screen"]
    assert all("$arguments" in line for line in starts(menu).values())
    assert starts(menu)[verbose[0]].endswith(f" {VERBOSE}")


@pytest.mark.parametrize("path", ["boot/grub/grub.cfg", "boot/grub/loopback.cfg"])
def test_each_entry_says_what_it_starts_before_it_reads_the_kernel(path):
    lines = [line.strip() for line in menus(IDENTITY, PROFILE, "development")[path].decode().splitlines()]
    kernels = [at for at, line in enumerate(lines) if line.startswith("linux ")]
    assert {lines[at - 1] for at in kernels} == {
        f'echo "Cornerstone Foundation, profile {PROFILE.name}: loading its kernel"'}


def test_a_start_over_the_network_is_quiet_unless_it_is_told_otherwise():
    line = next(line for line in ipxe_script(IDENTITY, PROFILE, "development", "0" * 64).splitlines()
                if line.startswith("kernel "))
    assert line.index(CALM) < line.index("${arguments}")


def test_an_installed_node_starts_quietly_unless_the_entry_for_it_is_chosen():
    menu = grub_config(layout("any", 64 << 30, 2048 * MIB), HYPERVISOR_ARGUMENTS)
    assert list(starts(menu)) == ["Slot A", "Slot B", "Slot A, kernel messages on the screen",
                                  "Slot B, kernel messages on the screen"]
    assert [VERBOSE in line for line in starts(menu).values()] == [False, False, True, True]
    assert all(CALM in line for line in starts(menu).values())
    assert 'echo "Starting this machine from root slot B: loading its kernel"' in menu


def test_the_cvm_s_console_is_its_serial_port_and_stays_as_it_was():
    assert CALM not in CVM_ARGUMENTS and "loglevel=6" in CVM_ARGUMENTS

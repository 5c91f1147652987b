"""The ISO boots to the Foundation screen, its content verified.

The refusals start it from USB with UEFI, and the node tier installs from USB with Secure Boot.
"""

from __future__ import annotations

import contextlib
import re

import pytest

from cornerstone.customize.iso_image import Image
from cornerstone.lab.boot import boot
from cornerstone.lab.framebuffer import kernel_font, screen_text
from cornerstone.lab.running import RunningMachine
from cornerstone.lab.verdict import Goal, Limits
from cornerstone.lib.event import Event

WAYS = [("bios", "cd"), ("secureboot", "cd"), pytest.param("bios", "usb", marks=pytest.mark.nightly),
        pytest.param("uefi", "cd", marks=pytest.mark.nightly)]

# when the screen is looked at, beside the lab's milestones and Foundation's events
# GRUB paints its menu on the serial port before it does so on the screen; a second later it is on both
MENU = Goal(console=re.compile(r"executed automatically in [12]s"), name="menu")
MOMENTS = (MENU, Goal(console=re.compile("cornerstone: looking for the medium"), name="medium"),
           Goal(console=re.compile("checking hypervisor"), name="checking"),
           Goal(console=re.compile("starting Foundation"), name="root"))
KERNEL = re.compile(r"^\[ *\d+\.\d+\]|EFI stub:|Decompressing Linux")
SYSTEMD = re.compile(r"^\[ *(OK|FAILED|DEPEND|\*+) *\]|^ +(Starting|Mounting|Stopping) |systemd\[1\]:|"
                     r"^Welcome to .*Linux")
# Ctrl-N: GRUB's menu takes it for the key that goes down
NEXT_ENTRY = "\x0e"


def assert_arrived(verdict, firmware: str) -> None:
    assert verdict.ok, f"{verdict.sentence}; see {verdict.console_log}"
    assert verdict.secure_boot == (firmware == "secureboot")
    told = {(event.stage, event.step, event.state): event for event in verdict.events}
    assert ("foundation", "verify", "done") in told
    waiting = told["foundation", "screen", "waiting"]
    assert waiting.data["firmware"] == ("bios" if firmware == "bios" else "uefi")


def assert_calm(lines: list[str]) -> None:
    """No line of the kernel's is on a screen, and none of systemd's."""
    assert [line for line in lines if KERNEL.search(line) or SYSTEMD.search(line)] == []


@pytest.fixture(scope="module")
def font(iso):
    """The font of the ISO's kernel."""
    with contextlib.closing(Image(iso)) as image:
        return kernel_font(image.content("boot/vmlinuz"))


@pytest.mark.parametrize(("firmware", "media"), WAYS)
def test_boots_to_a_calm_screen(iso, font, firmware, media, logs):
    """What the screen shows at the end stays beside the logs as a picture."""
    picture, screens = logs / "screen.png", {}

    def watch(machine: RunningMachine, event: Event) -> None:
        moment = event.step if event.stage == "boot" else f"{event.stage}/{event.step} {event.state}"
        if moment not in screens:
            screens[moment] = screen_text(machine, font)
    verdict = boot(iso, firmware=firmware, media=media, log_dir=logs, passing=MOMENTS, watch=watch,
                   look=lambda machine: machine.save_picture(picture))
    (logs / "screens.txt").write_text("".join(f"--- {name}\n" + "\n".join(filter(None, lines)) + "\n"
                                              for name, lines in screens.items()))
    assert_arrived(verdict, firmware)
    assert picture.read_bytes().startswith(b"\x89PNG")
    for lines in screens.values():
        assert_calm(lines)
    # what it is, what it does, and how far it is; UEFI's own font, which GRUB uses, isn't the kernel's
    wanted = {"menu": "Foundation: aos-"} if firmware == "bios" else {}
    wanted |= {"kernel": "Cornerstone: the kernel runs", "medium": "cornerstone: looking for the medium",
               "checking": "checking hypervisor.squashfs", "root": "starting Foundation",
               "foundation/verify progress": "Layers     checking ", "foundation/verify done": "Layers     ",
               "foundation/screen waiting": "site"}
    for moment, words in wanted.items():
        text = "\n".join(screens[moment])
        assert words in text, f"{moment}: {text}"
        assert moment == "kernel" or "Foundation" in text
    # and all of it is on the serial port: the kernel's from its first line, once, in its order, and systemd's
    said = verdict.console_log.read_text(errors="replace")
    places = [said.index(words) for words in ("] Linux version ", "Run /init as init process", "Reached target ")]
    assert places == sorted(places)
    assert said.count("] Linux version ") == 1
    order = ["grub", "kernel", "initrd", "userland"]
    assert [name for name in verdict.timeline if name in order] == order


@pytest.mark.parametrize("firmware", ["bios", pytest.param("uefi", marks=pytest.mark.nightly)])
def test_the_menu_s_entry_shows_the_kernel_s_messages_on_the_screen(iso, font, firmware, logs):
    shown = []

    def choose(machine: RunningMachine, event: Event) -> None:
        if event.step == MENU.name:
            machine.type(f"{NEXT_ENTRY}\r")
    verdict = boot(iso, firmware=firmware, media="cd", log_dir=logs, passing=(MENU,),
                   until=re.compile("manifest signature good"), watch=choose,
                   look=lambda machine: shown.extend(screen_text(machine, font)))
    assert verdict.ok, f"{verdict.sentence}; see {verdict.console_log}"
    assert len([line for line in shown if KERNEL.search(line)]) > 5
    assert "cornerstone: looking for the medium" in "\n".join(shown)
    assert verdict.console_log.read_text(errors="replace").count("] Linux version ") == 1


def test_m1_a_machine_without_a_serial_port_boots_to_the_screen(iso, logs):
    # nothing is heard of it before Foundation tells by its port
    limits = Limits(stall=400.0, ceiling=900.0)
    assert_arrived(boot(iso, firmware="uefi", media="usb", serial=False, limits=limits, log_dir=logs), "uefi")


@pytest.mark.parametrize(("firmware", "media"), [("secureboot", "usb"),
                                                 pytest.param("bios", "cd", marks=pytest.mark.nightly)])
def test_older_suite_boots_to_the_screen(older_iso, firmware, media, logs):
    assert_arrived(boot(older_iso, firmware=firmware, media=media, log_dir=logs), firmware)

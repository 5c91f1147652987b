"""The ISO boots to the Foundation screen, its content verified.

The refusals start it from USB with UEFI, and the node tier installs from USB with Secure Boot.
"""

from __future__ import annotations

import pytest

from cornerstone.lab.boot import boot
from cornerstone.lab.verdict import Limits

WAYS = [("bios", "cd"), ("secureboot", "cd"), pytest.param("bios", "usb", marks=pytest.mark.nightly),
        pytest.param("uefi", "cd", marks=pytest.mark.nightly)]


def assert_arrived(verdict, firmware: str) -> None:
    assert verdict.ok, f"{verdict.sentence}; see {verdict.console_log}"
    assert verdict.secure_boot == (firmware == "secureboot")
    told = {(event.stage, event.step, event.state): event for event in verdict.events}
    assert ("foundation", "verify", "done") in told
    waiting = told["foundation", "screen", "waiting"]
    assert waiting.data["firmware"] == ("bios" if firmware == "bios" else "uefi")


@pytest.mark.parametrize(("firmware", "media"), WAYS)
def test_boots_to_the_screen(iso, firmware, media, logs):
    """What the screen shows then stays beside the logs as a picture."""
    picture = logs / "screen.png"
    assert_arrived(boot(iso, firmware=firmware, media=media, log_dir=logs,
                        look=lambda machine: machine.save_picture(picture)), firmware)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_m1_a_machine_without_a_serial_port_boots_to_the_screen(iso, logs):
    # nothing is heard of it before Foundation tells by its port
    limits = Limits(stall=400.0, ceiling=900.0)
    assert_arrived(boot(iso, firmware="uefi", media="usb", serial=False, limits=limits, log_dir=logs), "uefi")


@pytest.mark.parametrize(("firmware", "media"), [("secureboot", "usb"),
                                                 pytest.param("bios", "cd", marks=pytest.mark.nightly)])
def test_older_suite_boots_to_the_screen(older_iso, firmware, media, logs):
    assert_arrived(boot(older_iso, firmware=firmware, media=media, log_dir=logs), firmware)

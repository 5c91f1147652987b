"""An ISO that `customize --console` has given another serial port: all that a person has to know is on that one."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest

from cornerstone.customize.customize import customize
from cornerstone.lab.boot import QUIET_SECONDS, boot
from cornerstone.lab.hotplug import SECONDS
from cornerstone.lab.machine import quoted
from cornerstone.lab.running import RunningMachine
from cornerstone.lab.verdict import Limits
from cornerstone.model.contracts.boot_area import BootSettings
from refused import PROMPT, refused

# of the other port nothing is heard before Foundation tells by its port for events
LIMITS = Limits(stall=400.0, ceiling=900.0)
# what a person sees of a start that ends in a refusal, in this order, by who says it
SAID = (
    r"Foundation: aos-6\.8 \(reference payload",  # GRUB's menu
    r"Linux version ",  # the kernel, as long as its words go to the serial port
    r"cornerstone: medium /dev/",  # the initramfs
    r"Cornerstone Foundation, profile aos-6\.8",
    r"Manifest +signature good",
    r"Layers +\d+ files match the manifest",
    r"Checks +\d+ rules, \d+ errors",
    r"Site +the ISO's reserved area, sha256 [0-9a-f]{16}",
    r"REFUSED: ",
    r"give the node that this is meant to be its node_serial",
    PROMPT.decode(),
)


@pytest.mark.parametrize("firmware", ["uefi", pytest.param("bios", marks=pytest.mark.nightly)])
def test_another_serial_port_has_all_that_a_person_has_to_know(iso, site_file, tmp_path, logs, firmware):
    customised, second = tmp_path / "customised.iso", logs / "second-port.log"
    shutil.copyfile(iso, customised)
    customize(customised, site_file, boot=BootSettings("ttyS1,115200"))
    # the screen of a BIOS is repeated on the second port of the machines of the lab
    port = "ttyS2" if firmware == "bios" else "ttyS1"
    if firmware == "bios":
        customize(customised, boot=BootSettings(f"{port},115200"))
    logs.mkdir(parents=True, exist_ok=True)

    def hear_out(running: RunningMachine) -> None:
        end = time.monotonic() + SECONDS
        while PROMPT not in second.read_bytes() and running.status is None and time.monotonic() < end:
            running.wait(QUIET_SECONDS)

    # no node of the site is this machine
    verdict = boot(customised, firmware=firmware, media="usb", limits=LIMITS, log_dir=logs, look=hear_out, extra=(
        "-chardev", f"file,id=second,path={quoted(second)}", "-serial", "chardev:second"))
    refused(verdict, "plan", r"node\.identity: no node of the site matches this machine .*(?s:.*)")
    assert_in_order(second)


def assert_in_order(log: Path) -> None:
    text, at = log.read_text(errors="replace"), 0
    for pattern in SAID:
        found = re.compile(pattern).search(text, at)
        assert found, f"{pattern} isn't there after byte {at} of {log}"
        at = found.start()

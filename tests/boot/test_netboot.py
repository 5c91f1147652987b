"""The folder netboot, served over HTTP, starts a machine by its network card to the Foundation screen.

The card has QEMU's own iPXE as its boot ROM, and QEMU's user network names the script as DHCP's boot file. Nobody is
in that network but a server on this machine's loopback.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cornerstone.factory.build.netboot import SCRIPT, folder_of
from cornerstone.lab.boot import boot
from cornerstone.lab.machine import NETWORK
from cornerstone.model.contracts.manifest import CVM, HYPERVISOR
from test_boot_ways import assert_arrived

ROM = Path("/usr/lib/ipxe/qemu/efi-virtio.rom")
MAC = "52:54:00:4c:00:01"
# what docs/media.md says suffices, and less than the files and what runs beside them
ENOUGH_MIB, TOO_LITTLE_MIB = 2304, 1536


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder without a word."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on the loopback while the block runs; yields its address as a machine of QEMU's sees it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
        thread.start()
        try:
            yield f"http://10.0.2.2:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def card(address: str) -> tuple[str, ...]:
    """A network card that starts the machine by the script at an address."""
    # the ROM has an image for each firmware, both for the card as it is without its older interface
    return ("-netdev", f"user,id=net0,ipv6=off,bootfile={address}/{SCRIPT}", "-device",
            f"virtio-net-pci,netdev=net0,mac={MAC},romfile={ROM},disable-legacy=on,bootindex=0")


def with_one_byte_changed(folder: Path, path: str, copy: Path) -> Path:
    """A copy of the folder, of links, in which one bit in the middle of a file is another."""
    for source in folder.rglob("*"):
        at = copy / source.relative_to(folder)
        at.parent.mkdir(parents=True, exist_ok=True)
        if source.is_file():
            at.symlink_to(source)
    (copy / path).unlink()
    shutil.copyfile(folder / path, copy / path)
    with (copy / path).open("r+b") as file:
        file.seek((folder / path).stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 0x10]))
    return copy


@pytest.mark.parametrize("firmware", [pytest.param("bios", marks=pytest.mark.nightly), "uefi"])
def test_starts_over_the_network_to_the_screen(iso, firmware, logs):
    with served(folder_of(iso)) as address:
        verdict = boot(None, firmware=firmware, media=NETWORK, memory_mib=ENOUGH_MIB, log_dir=logs,
                       extra=card(address))
    assert_arrived(verdict, firmware)
    said = verdict.console_log.read_text(errors="replace")
    assert f"cornerstone: medium {address}" in said
    assert "files match the manifest" in said


@pytest.mark.nightly
def test_the_older_suite_starts_over_the_network_to_the_screen(older_iso, logs):
    with served(folder_of(older_iso)) as address:
        verdict = boot(None, firmware="bios", media=NETWORK, memory_mib=ENOUGH_MIB, log_dir=logs, extra=card(address))
    assert_arrived(verdict, "bios")


def test_a_changed_root_is_refused_on_serial_port_and_screen(iso, tmp_path, logs):
    folder = with_one_byte_changed(folder_of(iso), HYPERVISOR, tmp_path / "netboot")
    # without a driver for the screen's graphics, so that the text is there to be read
    script = folder / SCRIPT
    text = script.read_text().replace("${arguments}", "nomodeset")
    script.unlink()
    script.write_text(text)
    shown = []
    try:
        with served(folder) as address:
            verdict = boot(None, firmware="bios", media=NETWORK, memory_mib=ENOUGH_MIB, log_dir=logs,
                           extra=card(address), look=lambda machine: shown.extend(machine.screen_text()))
    finally:
        (folder / HYPERVISOR).unlink()
    assert not verdict.ok
    refusal = ("REFUSED: layer hypervisor.squashfs does not match the manifest; serve the folder netboot as the build "
               "made it, whole")
    assert refusal in verdict.console_log.read_text(errors="replace")
    assert refusal in "".join(line.ljust(80) for line in shown)


@pytest.mark.nightly
def test_a_changed_disk_of_the_cvm_is_refused_by_foundation(iso, tmp_path, logs):
    folder = with_one_byte_changed(folder_of(iso), CVM, tmp_path / "netboot")
    try:
        with served(folder) as address:
            verdict = boot(None, firmware="bios", media=NETWORK, memory_mib=ENOUGH_MIB, log_dir=logs,
                           extra=card(address))
    finally:
        (folder / CVM).unlink()
    assert not verdict.ok
    assert "layer cvm.qcow2 does not match the manifest" in verdict.sentence
    assert "serve the folder netboot as the build made it, whole" in verdict.hint


@pytest.mark.nightly
def test_a_machine_with_too_little_memory_is_refused(iso, logs):
    with served(folder_of(iso)) as address:
        verdict = boot(None, firmware="bios", media=NETWORK, memory_mib=TOO_LITTLE_MIB, log_dir=logs,
                       extra=card(address))
    assert not verdict.ok
    assert "to start over the network" in verdict.sentence
    assert "add memory, or start it from the ISO" in verdict.sentence

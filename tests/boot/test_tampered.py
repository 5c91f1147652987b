"""One changed byte in a layer, and nothing runs from the medium: the refusal names the layer."""

from __future__ import annotations

import shutil

import pycdlib

from cornerstone.customize.customize import customize
from cornerstone.lab.boot import boot
from cornerstone.model.contracts.boot_area import BootSettings

BLOCK = 2048


def with_one_byte_changed(iso, path, copy):
    """A copy of an ISO in which one bit in the middle of a file is another."""
    reader = pycdlib.PyCdlib()
    reader.open(str(iso))
    record = reader.get_record(rr_path=f"/{path}")
    at = record.extent_location() * BLOCK + record.get_data_length() // 2
    reader.close()
    shutil.copyfile(iso, copy)
    with copy.open("r+b") as image:
        image.seek(at)
        byte = image.read(1)[0]
        image.seek(at)
        image.write(bytes([byte ^ 0x10]))
    return copy


def test_a_changed_layer_is_refused_by_name(iso, tmp_path, logs):
    tampered = with_one_byte_changed(iso, "layers/cvm.qcow2", tmp_path / "tampered.iso")
    try:
        verdict = boot(tampered, firmware="uefi", media="cd", log_dir=logs)
    finally:
        tampered.unlink()
    assert not verdict.ok
    assert "layer cvm.qcow2 does not match the manifest" in verdict.sentence


def test_m2_a_refusal_of_the_initramfs_is_on_the_screen_too(iso, tmp_path, logs):
    """Without a driver for the screen's graphics, so that the text is there to be read."""
    tampered = with_one_byte_changed(iso, "layers/hypervisor.squashfs", tmp_path / "tampered.iso")
    customize(tampered, boot=BootSettings(arguments=("nomodeset",)))
    shown = []
    try:
        verdict = boot(tampered, firmware="bios", media="cd", log_dir=logs,
                       look=lambda machine: shown.extend(machine.screen_text()))
    finally:
        tampered.unlink()
    assert not verdict.ok
    assert "layer hypervisor.squashfs does not match the manifest" in verdict.sentence
    assert "REFUSED: layer hypervisor.squashfs does not match the manifest" in shown


def test_a_changed_manifest_is_refused(iso, tmp_path, logs):
    tampered = with_one_byte_changed(iso, "manifest.json", tmp_path / "tampered.iso")
    try:
        verdict = boot(tampered, firmware="uefi", media="cd", log_dir=logs)
    finally:
        tampered.unlink()
    assert not verdict.ok
    assert "manifest.json on the medium isn't signed" in verdict.sentence

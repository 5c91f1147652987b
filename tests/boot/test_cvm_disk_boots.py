"""The CVM's disk boots by itself from root slot A, with BIOS and with UEFI, up to its login."""

from __future__ import annotations

import re
import subprocess

import pycdlib
import pytest

from cornerstone.lab.boot import boot
from cornerstone.model.manifest import CVM


@pytest.fixture(scope="module", params=["iso", "older_iso"])
def cvm_disk(request, tmp_path_factory):
    """The disk as it is on the ISO, unpacked to the raw disk that a machine sees."""
    folder = tmp_path_factory.mktemp("cvm")
    packed, raw = folder / "cvm.qcow2", folder / "cvm.raw"
    reader = pycdlib.PyCdlib()
    reader.open(str(request.getfixturevalue(request.param)))
    reader.get_file_from_iso(str(packed), rr_path=f"/{CVM}")
    reader.close()
    subprocess.run(["qemu-img", "convert", "-O", "raw", packed, raw], check=True)
    packed.unlink()
    yield raw
    raw.unlink()


@pytest.mark.parametrize("firmware", ["bios", "secureboot"])
def test_boots_to_its_login(cvm_disk, firmware, logs):
    verdict = boot(cvm_disk, firmware=firmware, media="disk", log_dir=logs, until=re.compile(r"\blogin: *$"))
    assert verdict.ok, f"{verdict.sentence}; see {verdict.console_log}"

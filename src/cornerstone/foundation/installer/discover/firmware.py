"""The firmware: BIOS or UEFI, Secure Boot, TPM, version."""

from __future__ import annotations

from pathlib import Path

from cornerstone.lib.sysfs import read
from cornerstone.model.contracts.facts import Firmware

SECURE_BOOT = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
TPM_VERSIONS = {"1": "1.2", "2": "2.0"}


def read_firmware(sys: Path) -> Firmware:
    """mode is how this environment was booted, which says nothing of what else the firmware can do."""
    dmi, efi = sys / "class/dmi/id", sys / "firmware/efi"
    return Firmware(
        "uefi" if efi.is_dir() else "bios", _secure_boot(efi / "efivars" / SECURE_BOOT),
        TPM_VERSIONS.get(read(sys / "class/tpm/tpm0/tpm_version_major"), ""),
        read(dmi / "bios_vendor"), read(dmi / "bios_version"), read(dmi / "bios_date"))


def _secure_boot(variable: Path) -> bool:
    try:
        # four bytes of attributes, then the value
        return variable.read_bytes()[4:5] == b"\1"
    except OSError:
        return False

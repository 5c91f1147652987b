"""A disk's serial number as sysfs has it: the same on the host and, passed through, in the Controller VM."""

from __future__ import annotations

from pathlib import Path


def disk_serial(block: Path) -> str:
    """Of a folder of /sys/block: NVMe's, virtio's, or SCSI's (VPD page 0x80: four bytes of header, then ASCII)."""
    try:
        page = (block / "device/vpd_pg80").read_bytes()[4:].decode("ascii", "replace").strip("\0 ")
    except OSError:
        page = ""
    return _read(block / "device/serial") or _read(block / "serial") or page


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

"""The CVM's boot disk (model/disk/slot_disk.py), kept as qcow2 so that holes cost nothing.

Root A holds the very bytes of the CVM's squashfs; root B is empty until the first upgrade. The boot
loader is the same signed shim and GRUB as the ISO's for UEFI, and GRUB's BIOS image beside it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from cornerstone.lib import process
from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.fat import make_fat
from cornerstone.lib.gpt import Partition, derived_id, write_gpt
from cornerstone.model.disk.slot_disk import (
    CVM_ARGUMENTS,
    ESP_SIZE,
    MIB,
    Layout,
    esp_sources,
    grub_config,
    install_bios_grub,
    layout,
)


def build_disk(target: Path, *, squashfs: Path, boot: Path, size: int, slot: int, epoch: int, log: Path,
               arguments: Sequence[str] = ()) -> None:
    """Write the CVM's disk to target (qcow2). size, slot: bytes; boot: a folder of boot files of the CVM's root.

    arguments: a profile's own for the CVM's kernel, after ours.
    """
    disk_layout = layout("cvm", size, slot)
    if squashfs.stat().st_size > slot:
        raise CornerstoneError(f"the CVM's root has {squashfs.stat().st_size // MIB} MiB and doesn't fit a root slot "
                               f"of {slot // MIB} MiB", "raise .cvm.root_slot in the profile")
    raw, fat = (target.with_name(f"{target.name}.{part}") for part in ("raw", "esp"))
    try:
        _make_esp(fat, boot, disk_layout, " ".join((CVM_ARGUMENTS, *arguments)), epoch, log)
        with raw.open("wb") as disk:
            disk.truncate(size)
            write_gpt(disk, size, derived_id("cvm", "disk"), disk_layout.partitions, bootable_mbr=True)
            install_bios_grub(disk, disk_layout.bios, (boot / "boot.img").read_bytes(),
                              (boot / "disk.img").read_bytes())
            for partition, content in ((disk_layout.esp, fat), (disk_layout.root_a, squashfs)):
                disk.seek(partition.offset)
                with content.open("rb") as source:
                    shutil.copyfileobj(source, disk, MIB)
        _make_state(raw, disk_layout.state, epoch, log)
        process.run(["qemu-img", "convert", "-m", "1", "-f", "raw", "-O", "qcow2", raw, target], log=log)
    finally:
        for scratch in (raw, fat):
            scratch.unlink(missing_ok=True)


def _make_esp(fat: Path, boot: Path, disk_layout: Layout, arguments: str, epoch: int, log: Path) -> None:
    config = fat.with_name(f"{fat.name}.grub.cfg")
    config.write_text(grub_config(disk_layout, arguments))
    try:
        make_fat(fat, ESP_SIZE, "ESP", esp_sources(boot, boot, config), epoch=epoch, log=log)
    finally:
        config.unlink(missing_ok=True)


def _make_state(disk: Path, state: Partition, epoch: int, log: Path) -> None:
    process.run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "state", "-U", state.identity, "-m", "1",
                 "-E", f"offset={state.offset},hash_seed={state.identity},lazy_itable_init=1,root_owner=0:0",
                 disk, f"{state.size // 1024}k"],
                # the tool's built-in defaults, not this machine's /etc/mke2fs.conf
                log=log, env={"E2FSPROGS_FAKE_TIME": str(epoch), "MKE2FS_CONFIG": str(disk.parent / "none")})

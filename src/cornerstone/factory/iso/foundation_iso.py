"""The Foundation ISO: which files of which layers lie on it, their signed manifest, and the image itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cornerstone.customize.iso_image import BIOS_IMAGE, BIOS_IMAGE_MASK, EFI_IMAGE
from cornerstone.factory.payload.render import menus
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.fat import MIB
from cornerstone.lib.gpt import derived_id
from cornerstone.model.contracts import boot_area, site_area
from cornerstone.model.contracts.boot_area import BootSettings
from cornerstone.model.contracts.manifest import (
    BOOT_AREA,
    BOOT_CODE,
    CVM,
    FIRST_BOOT,
    HYPERVISOR,
    NAME,
    SIGNATURE_NAME,
    SITE_AREA,
    Entry,
    Manifest,
    entry_of,
)

if TYPE_CHECKING:
    from cornerstone.factory.build.plan import Plan


def master_iso(plan: Plan, layers: Mapping[str, Path], target: Path, scratch: Path,
               progress: Callable[[int, int], None], contents: Mapping[Path, tuple[int, str]]) -> None:
    """Master the ISO of a plan into target and read it back.

    layers: the layers' folders by name; scratch: a folder for small files; contents: size and sha256 by path of the
    layers' files, as the store has read them, with which what goes onto the ISO is compared. Raises CornerstoneError
    (VERIFY) when one has changed meanwhile, or the ISO reads back wrong.
    """
    # pycdlib takes a while to import
    from cornerstone.factory.iso import mastering

    boot, profile = layers["hypervisor-boot"], plan.profile
    files = {
        HYPERVISOR: layers["hypervisor"] / "hypervisor.squashfs",
        CVM: layers["cvm-disk"] / "cvm.qcow2",
        FIRST_BOOT: layers["first-boot"] / "first-boot.sh",
        "boot/vmlinuz": boot / "vmlinuz",
        "boot/initrd.img": boot / "initrd.img",
        BIOS_IMAGE: boot / "cd.img",
        EFI_IMAGE: layers["efi-image"] / "efi.img",
        "EFI/BOOT/BOOTX64.EFI": boot / "shimx64.efi",
        "EFI/BOOT/grubx64.efi": boot / "gcdx64.efi",
        "EFI/BOOT/mmx64.efi": boot / "mmx64.efi",
    }
    size, slot = files[HYPERVISOR].stat().st_size, profile.hypervisor.root_slot
    if size > slot:
        raise CornerstoneError(f"the hypervisor's root has {size // MIB} MiB and doesn't fit a root slot of "
                               f"{slot // MIB} MiB", "raise .hypervisor.root_slot in the profile")
    identity = str(derived_id("iso", *(f"{name} {value}" for name, value in sorted(plan.iso_inputs.items()))))
    scratch.mkdir(parents=True, exist_ok=True)

    def put(path: str, content: bytes) -> None:
        at = scratch / hashlib.sha256(path.encode()).hexdigest()
        at.write_bytes(content)
        files[path] = at

    for path, menu in menus(identity, profile, plan.key.kind, profile.hypervisor.extra.kernel_arguments).items():
        put(path, menu)
    put(".disk/info", f"Cornerstone Foundation, {profile.name}, {profile.payload} payload\n".encode())
    put(f".disk/{identity}", b"")
    entries = tuple(entry_of(path, source, BIOS_IMAGE_MASK if path == BIOS_IMAGE else ())
                    for path, source in sorted(files.items()))
    boot_hybrid = (boot / "boot_hybrid.img").read_bytes()
    require_unchanged(contents, {files[entry.path]: entry for entry in entries if not entry.masked},
                      {boot / "boot_hybrid.img": boot_hybrid, files[BIOS_IMAGE]: files[BIOS_IMAGE].read_bytes()})
    manifest = Manifest(identity, profile.resolved(), plan.key.kind, plan.epoch, entries, site_area.SIZE,
                        boot_area.SIZE, hashlib.sha256(boot_hybrid[:BOOT_CODE]).hexdigest())
    put(NAME, manifest.to_bytes())
    put(SIGNATURE_NAME, plan.key.sign(manifest.to_bytes()))
    put(SITE_AREA, site_area.pack(None))
    put(BOOT_AREA, boot_area.pack(BootSettings()))

    mastering.master(target, files, boot_hybrid=boot_hybrid, identity=identity, epoch=plan.epoch, progress=progress)
    if wrong := mastering.read_back(target, manifest):
        raise CornerstoneError(f"the ISO read back wrong: {'; '.join(wrong)}",
                               "build again; if it stays, the disk or memory of this machine is bad", Code.VERIFY)


def require_unchanged(contents: Mapping[Path, tuple[int, str]], entries: Mapping[Path, Entry],
                      small: Mapping[Path, bytes]) -> None:
    """Raise CornerstoneError (VERIFY) when files of layers aren't what the store has read, now that they are signed."""
    read = {path: (entry.size, entry.sha256) for path, entry in entries.items()}
    read |= {path: (len(content), hashlib.sha256(content).hexdigest()) for path, content in small.items()}
    for path, wanted in contents.items():
        if read.get(path, wanted) != wanted:
            raise CornerstoneError(f"{path} was changed while the ISO was made",
                                   "see who else writes to the cache, and build again", Code.VERIFY)

"""The plan: from a profile to the graph of layers, each with everything that can change it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from cornerstone.factory.packages import elements
from cornerstone.factory.packages.lock import Lock, check_covers, lock_path, read_lock, requests
from cornerstone.factory.payload import additions, boot_files, cvm_disk, first_boot, netboot_initrd, rooms, root
from cornerstone.factory.settings import Workspace
from cornerstone.factory.signing.signing import SigningKey
from cornerstone.factory.store.layers import Layer
from cornerstone.lib import process
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.fat import MIB, make_fat
from cornerstone.model.profile.profile import Profile

# Debian packages whose version can show in the bytes they make.
TOOLS = ("apt-utils", "dosfstools", "e2fsprogs", "kmod", "mmdebstrap", "mtools", "qemu-utils", "squashfs-tools",
         "zstd")

EFI_IMAGE_SIZE = 8 * MIB


@dataclass(frozen=True)
class Plan:
    """All layers of one profile's ISO by name, needed ones first, and what the ISO itself depends on."""

    profile: Profile
    key: SigningKey
    locks: Mapping[str, Lock]
    layers: Mapping[str, Layer]
    iso_inputs: Mapping[str, str]

    @property
    def epoch(self) -> int:
        """SOURCE_DATE_EPOCH of the whole ISO: its youngest lock's."""
        return max(lock.epoch for lock in self.locks.values())


def make_plan(workspace: Workspace, profile: Profile, key: SigningKey, keep: bool = False) -> Plan:
    """Read the locks and name every input. Raises CornerstoneError when a lock is missing or doesn't fit."""
    logs = workspace.output / profile.name / "logs"
    locks = read_locks(workspace, profile)
    roots = {name: _root_layer(workspace, profile, lock, key, logs, keep) for name, lock in locks.items()}
    boots = {name: _boot_layer(name, layer, logs) for name, layer in roots.items()}
    layers = [*roots.values(), *boots.values(), _efi_layer(boots["hypervisor"], locks["hypervisor"], logs),
              _cvm_disk_layer(profile, roots["cvm"], boots["cvm"], locks["cvm"], logs), _first_boot_layer(profile),
              _netboot_layer(roots["hypervisor"], boots["hypervisor"], logs)]
    iso_inputs = {
        "code": code_digest("build/build", "iso/mastering", "build/netboot", "payload/render",
                            "../model/contracts/boot_area", "../lib/gpt", "../model/contracts/manifest",
                            "../model/contracts/site_area", "../model/disk/slot_disk",
                            "payload/templates/boot.ipxe.j2", "payload/templates/iso-grub.cfg.j2",
                            "payload/templates/iso-loopback.cfg.j2"),
        "profile": json.dumps(profile.resolved()),
        "signing key": hashlib.sha256(key.public_pem()).hexdigest(),
        "signing key kind": key.kind,
        "pycdlib": metadata.version("pycdlib"),
        **{f"layer {layer.name}": layer.key for layer in layers},
    }
    return Plan(profile, key, locks, {layer.name: layer for layer in layers}, iso_inputs)


def read_locks(workspace: Workspace, profile: Profile) -> dict[str, Lock]:
    """The locks of a profile's roots by name. Raises CornerstoneError when one is missing or doesn't fit."""
    suite = profile.reference.suite
    locks = {name: read_lock(workspace.locks, name, suite, profile) for name in elements.ROOTS}
    for name, lock in locks.items():
        check_covers(lock, requests(workspace.elements, name, suite, profile), profile)
    return locks


def _root_layer(workspace: Workspace, profile: Profile, lock: Lock, key: SigningKey, logs: Path, keep: bool) -> Layer:
    name, extra = lock.root, profile.additions(lock.root)
    inputs = {
        "lock": hashlib.sha256(lock_path(workspace.locks, name, lock.suite, lock.profile).read_bytes()).hexdigest(),
        "elements": elements.fingerprint(workspace.elements, name),
        "public key": hashlib.sha256(key.public_pem()).hexdigest(),
        "code": code_digest("payload/root", "payload/rooms", "packages/repository"),
        "compression": " ".join(root.COMPRESSION),
        "diskimage-builder": metadata.version("diskimage-builder"),
        **tool_versions("mmdebstrap", "squashfs-tools", "apt-utils"),
    }
    if travelling := rooms.modules(workspace.source, rooms.ROOMS[name]):
        inputs["rooms"] = elements.tree_digest(travelling, workspace.source)
    inputs |= additions.inputs(workspace, name, extra)

    def make(folder: Path, _: Mapping[str, Path]) -> None:
        public, log = folder / "key.pem", fresh(logs / f"{name}.log")
        public.write_bytes(key.public_pem())
        with additions.laid(workspace, name, extra) as laid:
            try:
                root.build_root(laid, lock, public, folder / f"{name}.squashfs", log, keep)
            except CornerstoneError as error:
                raise additions.explained(error, log, name) from error
        public.unlink()

    return Layer(name, inputs, make)


def _boot_layer(name: str, layer: Layer, logs: Path) -> Layer:
    def make(folder: Path, needed: Mapping[str, Path]) -> None:
        boot_files.extract(needed[name] / f"{name}.squashfs", folder, fresh(logs / f"{name}-boot.log"))

    return Layer(f"{name}-boot", {"code": code_digest("payload/boot_files")}, make, (layer,))


def _efi_layer(boot: Layer, lock: Lock, logs: Path) -> Layer:
    def make(folder: Path, needed: Mapping[str, Path]) -> None:
        source = needed[boot.name]
        make_fat(folder / "efi.img", EFI_IMAGE_SIZE, "ESP", {
            "EFI/BOOT/BOOTX64.EFI": source / "shimx64.efi",
            "EFI/BOOT/grubx64.efi": source / "gcdx64.efi",
            "EFI/BOOT/mmx64.efi": source / "mmx64.efi",
        }, epoch=lock.epoch, log=fresh(logs / "efi-image.log"))

    inputs = {"code": code_digest("../lib/fat", "build/plan"), **tool_versions("dosfstools", "mtools")}
    return Layer("efi-image", inputs, make, (boot,))


def _cvm_disk_layer(profile: Profile, cvm: Layer, boot: Layer, lock: Lock, logs: Path) -> Layer:
    sizes, arguments = profile.cvm, profile.cvm.extra.kernel_arguments

    def make(folder: Path, needed: Mapping[str, Path]) -> None:
        cvm_disk.build_disk(folder / "cvm.qcow2", squashfs=needed[cvm.name] / "cvm.squashfs", boot=needed[boot.name],
                            size=sizes.disk, slot=sizes.root_slot, epoch=lock.epoch, log=fresh(logs / "cvm-disk.log"),
                            arguments=arguments)

    return Layer("cvm-disk", {
        "code": code_digest("payload/cvm_disk", "../lib/fat", "../lib/gpt", "../model/disk/slot_disk"),
        "disk size": str(sizes.disk), "root slot size": str(sizes.root_slot),
        **({"kernel arguments": " ".join(arguments)} if arguments else {}),
        **tool_versions("dosfstools", "mtools", "e2fsprogs", "qemu-utils"),
    }, make, (cvm, boot))


def _netboot_layer(root_layer: Layer, boot: Layer, logs: Path) -> Layer:
    def make(folder: Path, needed: Mapping[str, Path]) -> None:
        netboot_initrd.make(needed[root_layer.name] / f"{root_layer.name}.squashfs", needed[boot.name] / "initrd.img",
                            folder / "initrd.img", fresh(logs / "netboot-initrd.log"))

    return Layer("netboot-initrd", {"code": code_digest("payload/netboot_initrd"), **tool_versions("kmod", "zstd")},
                 make, (root_layer, boot))


def _first_boot_layer(profile: Profile) -> Layer:
    def make(folder: Path, _: Mapping[str, Path]) -> None:
        (folder / "first-boot.sh").write_text(first_boot.script(profile))

    return Layer("first-boot", {"script": hashlib.sha256(first_boot.script(profile).encode()).hexdigest()}, make)


def code_digest(*modules: str) -> str:
    """Return the sha256 over modules, or other files, by their path from the room."""
    here = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for module in modules:
        path = here / (module if Path(module).suffix else f"{module}.py")
        digest.update(f"{module} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def tool_versions(*packages: str) -> dict[str, str]:
    """The installed versions of some of TOOLS, as a layer's inputs."""
    return {f"tool {package}": _all_tool_versions()[package] for package in packages}


@cache
def _all_tool_versions() -> dict[str, str]:
    asked = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status} ${Version}\\n", *TOOLS]
    listing = process.call(asked).text
    found = {package: version for package, status, version in (line.split(" ", 2) for line in listing.splitlines())
             if status == "installed"}
    if missing := sorted(set(TOOLS) - found.keys()):
        raise CornerstoneError(f"this machine lacks {', '.join(missing)}",
                               "run ./invoke, which installs what is missing", Code.MACHINE)
    return found


def fresh(log: Path) -> Path:
    """A log's path, with what an earlier build wrote into it gone."""
    log.unlink(missing_ok=True)
    return log

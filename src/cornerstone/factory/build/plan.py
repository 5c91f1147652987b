"""The plan: from a profile to the graph of layers, each with everything that can change it."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from cornerstone.factory.build import netboot
from cornerstone.factory.iso import foundation_iso
from cornerstone.factory.packages import elements
from cornerstone.factory.packages.lock import Lock, check_covers, lock_path, read_lock, requests
from cornerstone.factory.payload import (
    additions,
    boot_files,
    cvm_disk,
    efi_image,
    first_boot,
    netboot_initrd,
    package_tree,
    render,
    rooms,
    root,
)
from cornerstone.factory.settings import Workspace
from cornerstone.factory.signing.signing import SigningKey
from cornerstone.factory.store.code import ROOMS, code_inputs, module_inputs
from cornerstone.factory.store.layers import Layer
from cornerstone.lib import process
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.profile.profile import Profile

# Debian packages whose version can show in the bytes they make.
TOOLS = ("apt-utils", "dosfstools", "e2fsprogs", "kmod", "mmdebstrap", "mtools", "qemu-utils", "squashfs-tools",
         "zstd")


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
    """Read the locks and name every input. Raises CornerstoneError when a lock is missing or doesn't fit.

    What a layer is made by is a function of a module of its own, whose code its key covers (code.py). The functions
    here only hand it what the layer's other inputs say.
    """
    logs = workspace.output / profile.name / "logs"
    locks = read_locks(workspace, profile)
    packages = {name: _packages_layer(workspace, lock, logs) for name, lock in locks.items()}
    roots = {name: _root_layer(workspace, profile, lock, packages[name], key, logs, keep)
             for name, lock in locks.items()}
    boots = {name: _boot_layer(name, layer, logs) for name, layer in roots.items()}
    drivers = _drivers_layer(packages["hypervisor"], roots["hypervisor"], logs) \
        if drivers_are_packaged(workspace, profile, "hypervisor") else \
        _drivers_layer(roots["hypervisor"], roots["hypervisor"], logs)
    layers = [*packages.values(), *roots.values(), *boots.values(),
              _efi_layer(boots["hypervisor"], locks["hypervisor"], logs),
              _cvm_disk_layer(profile, roots["cvm"], boots["cvm"], locks["cvm"], logs), _first_boot_layer(profile),
              drivers, _netboot_layer(drivers, boots["hypervisor"])]
    iso_inputs = {
        **code_inputs(foundation_iso.master_iso, netboot.write),
        **{f"template {name}": _sha256(render.TEMPLATES / f"{name}.j2") for name in render.OF_THE_ISO},
        "profile": json.dumps(profile.resolved()),
        "signing key": hashlib.sha256(key.public_pem()).hexdigest(),
        "signing key kind": key.kind,
        **{name: metadata.version(name) for name in ("jinja2", "pycdlib")},
        **{f"layer {layer.name}": layer.key for layer in layers if layer.kept},
    }
    return Plan(profile, key, locks, {layer.name: layer for layer in layers}, iso_inputs)


def read_locks(workspace: Workspace, profile: Profile) -> dict[str, Lock]:
    """The locks of a profile's roots by name. Raises CornerstoneError when one is missing or doesn't fit."""
    suite = profile.reference.suite
    locks = {name: read_lock(workspace.locks, name, suite, profile) for name in elements.ROOTS}
    for name, lock in locks.items():
        check_covers(lock, requests(workspace.elements, name, suite, profile), profile)
    return locks


def _packages_layer(workspace: Workspace, lock: Lock, logs: Path) -> Layer:
    name = elements.packages_layer(lock.root)
    inputs = {
        "lock": _sha256(lock_path(workspace.locks, lock.root, lock.suite, lock.profile)),
        **code_inputs(package_tree.install_packages),
        **tool_versions("mmdebstrap", "squashfs-tools", "apt-utils"),
    }

    def make(folder: Path, _: Mapping[str, Path]) -> None:
        package_tree.install_packages(workspace.pool, lock, folder / package_tree.NAME, workspace.temporary,
                                      fresh(logs / f"{name}.log"))

    return Layer(name, inputs, make, kept=False)


def _root_layer(workspace: Workspace, profile: Profile, lock: Lock, packages: Layer, key: SigningKey, logs: Path,
                keep: bool) -> Layer:
    name, extra = lock.root, profile.additions(lock.root)
    inputs = {
        "elements": elements.fingerprint(workspace.elements, name),
        "public key": hashlib.sha256(key.public_pem()).hexdigest(),
        **code_inputs(root.build_root, *([additions.laid] if extra.files else [])),
        **module_inputs(rooms.modules(workspace.source, rooms.ROOMS[name]), workspace.source, ROOMS),
        "diskimage-builder": metadata.version("diskimage-builder"),
        **tool_versions("squashfs-tools"),
        **additions.inputs(workspace, name, extra),
    }

    def make(folder: Path, needed: Mapping[str, Path]) -> None:
        public, log = folder / "key.pem", fresh(logs / f"{name}.log")
        public.write_bytes(key.public_pem())
        with additions.laid(workspace, name, extra) as laid:
            try:
                root.build_root(laid, lock, needed[packages.name] / package_tree.NAME, public,
                                folder / f"{name}.squashfs", log, keep)
            except CornerstoneError as error:
                raise additions.explained(error, log, name) from error
        public.unlink()

    return Layer(name, inputs, make, (packages,))


def _boot_layer(name: str, layer: Layer, logs: Path) -> Layer:
    def make(folder: Path, needed: Mapping[str, Path]) -> None:
        boot_files.extract(needed[name] / f"{name}.squashfs", folder, fresh(logs / f"{name}-boot.log"))

    return Layer(f"{name}-boot", code_inputs(boot_files.extract), make, (layer,))


def _efi_layer(boot: Layer, lock: Lock, logs: Path) -> Layer:
    def make(folder: Path, needed: Mapping[str, Path]) -> None:
        efi_image.make_efi_image(folder / "efi.img", needed[boot.name], lock.epoch, fresh(logs / "efi-image.log"))

    return Layer("efi-image", {**code_inputs(efi_image.make_efi_image), **tool_versions("dosfstools", "mtools")}, make,
                 (boot,))


def _cvm_disk_layer(profile: Profile, cvm: Layer, boot: Layer, lock: Lock, logs: Path) -> Layer:
    sizes, arguments = profile.cvm, profile.cvm.extra.kernel_arguments

    def make(folder: Path, needed: Mapping[str, Path]) -> None:
        cvm_disk.build_disk(folder / "cvm.qcow2", squashfs=needed[cvm.name] / "cvm.squashfs", boot=needed[boot.name],
                            size=sizes.disk, slot=sizes.root_slot, epoch=lock.epoch, log=fresh(logs / "cvm-disk.log"),
                            arguments=arguments)

    return Layer("cvm-disk", {
        **code_inputs(cvm_disk.build_disk),
        "disk size": str(sizes.disk), "root slot size": str(sizes.root_slot),
        **({"kernel arguments": " ".join(arguments)} if arguments else {}),
        **tool_versions("dosfstools", "mtools", "e2fsprogs", "qemu-utils"),
    }, make, (cvm, boot))


def drivers_are_packaged(workspace: Workspace, profile: Profile, name: str) -> bool:
    """Whether all drivers and firmware of a root come from its packages: no element and no file of a profile has any.

    Then the archive of drivers is made from the packages, and a change of the rest of the root leaves it alone.
    """
    short = [place.removeprefix("usr/") for place in (netboot_initrd.MODULES, netboot_initrd.FIRMWARE)]
    files = profile.additions(name).files
    if files and any(entry.path.removeprefix("usr/").startswith(f"{place}/") for entry in files.entries
                     for place in short):
        return False
    statics = [workspace.elements / element / "static" for element in elements.closure(workspace.elements, name)]
    return not any((static / above / place).exists() for static in statics for above in ("", "usr") for place in short)


def _drivers_layer(source: Layer, hypervisor: Layer, logs: Path) -> Layer:
    squashfs = f"{hypervisor.name}.squashfs" if source is hypervisor else package_tree.NAME

    def make(folder: Path, needed: Mapping[str, Path]) -> None:
        netboot_initrd.pack_drivers(needed[source.name] / squashfs, folder / netboot_initrd.PACKED,
                                    fresh(logs / "netboot-drivers.log"))

    return Layer("netboot-drivers", {**code_inputs(netboot_initrd.pack_drivers), **tool_versions("kmod", "zstd")}, make,
                 (source,), kept=False)


def _netboot_layer(drivers: Layer, boot: Layer) -> Layer:
    def make(folder: Path, needed: Mapping[str, Path]) -> None:
        netboot_initrd.join(needed[boot.name] / "initrd.img", needed[drivers.name] / netboot_initrd.PACKED,
                            folder / netboot.INITRD)

    return Layer(netboot.LAYER, code_inputs(netboot_initrd.join), make, (drivers, boot))


def _first_boot_layer(profile: Profile) -> Layer:
    script = first_boot.script(profile).encode()

    def make(folder: Path, _: Mapping[str, Path]) -> None:
        (folder / "first-boot.sh").write_bytes(script)

    return Layer("first-boot", {"script": hashlib.sha256(script).hexdigest()}, make)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tool_versions(*packages: str) -> dict[str, str]:
    """The installed versions of some of TOOLS, as a layer's inputs."""
    return {f"tool {package}": _all_tool_versions()[package] for package in packages}


@cache
def _all_tool_versions() -> dict[str, str]:
    asked = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status} ${Version}\\n", *TOOLS]
    listing = subprocess.run(asked, env=process.environment(), capture_output=True, text=True, check=False).stdout
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

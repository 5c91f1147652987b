"""The folder netboot of a small ISO, its iPXE script, and the archive of drivers."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from build_plans import Told, plan_of
from cornerstone.factory.build import build as build_module
from cornerstone.factory.build import netboot
from cornerstone.factory.inspection import initramfs
from cornerstone.factory.payload import netboot_initrd
from cornerstone.factory.payload.render import ipxe_script
from cornerstone.factory.signing.signing import SoftwareKey, check_signature
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.contracts.manifest import CVM, HYPERVISOR, NAME, SIGNATURE_NAME, Manifest
from cornerstone.model.profile.additions import Additions
from small_iso import KEY, PROFILE, Workshop

# the script


def script(**changed: str) -> str:
    return ipxe_script("an-identity", SimpleNamespace(**PROFILE), **{"key": "release", "manifest": "a" * 64, **changed})


def test_the_script_starts_the_medium_that_it_pins():
    lines = script().splitlines()
    assert lines[0] == "#!ipxe"
    (kernel,) = (line.split() for line in lines if line.startswith("kernel "))
    assert kernel[1] == "boot/vmlinuz"
    assert {"initrd=initrd.img", "boot=cornerstone", "cornerstone.medium=an-identity", "cornerstone.http=${base}",
            f"cornerstone.manifest.sha256={'a' * 64}", "systemd.unit=foundation.target", "console=tty0",
            "console=${serial-console}", "${arguments}",
            "cornerstone.net=${netX/mac},${netX/ip}/${netX/netmask},${netX/gateway},${netX/dns}"} <= set(kernel)
    assert "initrd initrd.img || goto failed" in lines


def test_each_label_that_the_script_goes_to_is_there():
    text = script()
    goals = {word.split()[0] for word in text.split("goto ")[1:]}
    assert goals == {line[1:] for line in text.splitlines() if line.startswith(":")}


def test_the_script_leaves_no_variable_of_grub_s():
    assert "$serial_console" not in script()
    assert "$kernel_arguments" not in script()


@pytest.mark.parametrize(("key", "said"), [("development", True), ("release", False)])
def test_the_script_names_a_development_key(key, said):
    assert ("development-signed" in script(key=key)) == said


# the folder


@pytest.fixture
def made(tmp_path):
    """A small ISO, a plan and the layers that it was made from."""
    workshop = Workshop(tmp_path / "workshop")
    workshop.folder.mkdir()
    target = workshop.master()
    layers = {name: tmp_path / "layers" / name for name in ("hypervisor", "cvm-disk", netboot.LAYER)}
    for name, file, content in (("hypervisor", "hypervisor.squashfs", workshop.content[HYPERVISOR]),
                                ("cvm-disk", "cvm.qcow2", workshop.content[CVM]),
                                (netboot.LAYER, netboot.INITRD, b"initramfs and drivers")):
        layers[name].mkdir(parents=True)
        (layers[name] / file).write_bytes(content)
    contents = {path: (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
                for folder in layers.values() for path in folder.iterdir()}
    profile = SimpleNamespace(**PROFILE | {"hypervisor": SimpleNamespace(extra=Additions())})
    plan = SimpleNamespace(key=KEY, profile=profile)
    return SimpleNamespace(plan=plan, layers=layers, target=target, contents=contents,
                           folder=netboot.folder_of(target))


def write(made) -> dict:
    return netboot.write(made.plan, made.layers, made.target, made.contents)


def test_the_folder_has_the_manifest_s_files_and_signed_sums(made):
    record = write(made)
    manifest = Manifest.from_bytes((made.folder / NAME).read_bytes())
    assert record.keys() == {entry.path for entry in manifest.entries} | {
        NAME, SIGNATURE_NAME, netboot.SCRIPT, netboot.INITRD, netboot.SUMS, netboot.SUMS_SIGNATURE}
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", netboot.SUMS], cwd=made.folder, check=True)
    check_signature(KEY.public_pem(), (made.folder / netboot.SUMS).read_bytes(),
                    (made.folder / netboot.SUMS_SIGNATURE).read_bytes(), netboot.SUMS)
    pin = hashlib.sha256((made.folder / NAME).read_bytes()).hexdigest()
    assert f"cornerstone.manifest.sha256={pin}" in (made.folder / netboot.SCRIPT).read_text()
    assert (made.folder / HYPERVISOR).samefile(made.layers["hypervisor"] / "hypervisor.squashfs")
    assert netboot.is_record(record)
    assert list(made.target.parent.glob(".netboot*")) == []


def test_all_may_read_it_whatever_the_umask(made):
    before = os.umask(0o077)
    try:
        write(made)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o055 for path in (made.folder, *made.folder.rglob("*")) if path.is_dir()} == {0o055}
    linked = {HYPERVISOR, CVM, netboot.INITRD}
    assert {path.stat().st_mode & 0o777 for path in made.folder.rglob("*")
            if path.is_file() and path.relative_to(made.folder).as_posix() not in linked} == {0o644}


def test_where_no_link_can_be_had_files_are_copied(made, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")
    monkeypatch.setattr(os, "link", refuse)
    write(made)
    assert (made.folder / HYPERVISOR).read_bytes() == (made.layers["hypervisor"] / "hypervisor.squashfs").read_bytes()
    assert not (made.folder / HYPERVISOR).samefile(made.layers["hypervisor"] / "hypervisor.squashfs")


def test_written_again_it_is_the_same_and_what_was_put_into_it_is_gone(made):
    write(made)
    before = {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    (made.folder / "layers/strange").write_text("x")
    (made.target.parent / ".netboot.killed").mkdir()
    write(made)
    assert {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()} == before
    assert not (made.target.parent / ".netboot.killed").exists()


@pytest.mark.parametrize("change", [
    lambda folder: (folder / CVM).unlink(),
    lambda folder: (folder / netboot.SCRIPT).write_text("#!ipxe\n"),
    lambda folder: (folder / "more").write_text(""),
    lambda folder: folder.rename(folder.with_name("elsewhere")),
    lambda folder: os.utime(folder / NAME, (1, 1)),
], ids=["file gone", "script", "file too many", "folder gone", "time"])
def test_it_is_current_until_something_changes(made, change):
    record = write(made)
    assert netboot.is_current(made.target, record)
    change(made.folder)
    assert not netboot.is_current(made.target, record)
    assert not netboot.is_current(made.target, None)


@pytest.mark.parametrize("name", ["hypervisor/hypervisor.squashfs", "cvm-disk/cvm.qcow2", "netboot-initrd/initrd.img"])
def test_a_layer_that_was_changed_is_refused_and_the_old_folder_stays(made, name):
    write(made)
    path = made.layers["hypervisor"].parent / name
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(b"EVIL" + content[4:])
    record = netboot._stamps(made.folder)
    with pytest.raises(CornerstoneError, match=f"{path.name} was changed while the build ran") as caught:
        write(made)
    assert caught.value.code is Code.VERIFY
    assert netboot._stamps(made.folder) == record


def test_layers_of_another_iso_are_refused(made):
    (made.layers["cvm-disk"] / "cvm.qcow2").write_bytes(b"another")
    made.contents.clear()
    with pytest.raises(CornerstoneError, match="layer cvm.qcow2 has 7 bytes") as caught:
        write(made)
    assert caught.value.code is Code.VERIFY
    assert not made.folder.exists()


def test_an_iso_that_another_key_signed_is_refused(made):
    made.plan.key = SoftwareKey(Ed25519PrivateKey.generate(), "development")
    with pytest.raises(CornerstoneError) as caught:
        write(made)
    assert caught.value.code is Code.VERIFY


def test_a_record_of_another_shape_is_none():
    assert netboot.is_record(None)
    assert not any(map(netboot.is_record, ([], 7, {"a": 1}, {"a": [1]}, {"a": ["1", "2"]})))


def test_a_missing_folder_is_written_anew_and_the_iso_stays(workspace, made, monkeypatch):
    plan, told = plan_of(workspace), Told()
    target = build_module.iso_path(workspace, plan.profile)
    target.parent.mkdir(parents=True)
    target.write_bytes(b"an iso")
    build_module.remember(plan, target, {"files": {}}, None)
    monkeypatch.setattr(build_module, "write_iso", lambda *_: 1 / 0)
    monkeypatch.setattr(netboot, "write", lambda *_: {"a": [1, 2]})
    build_module.put_iso(plan, SimpleNamespace(contents=None), target, workspace.temporary, told)
    assert told == [("iso", "cached"), ("netboot", "started"), ("netboot", "done")]
    assert build_module.recall(target)["netboot"] == {"a": [1, 2]}
    assert build_module.is_current(plan, target)


# the drivers


@pytest.fixture
def root(tmp_path) -> Path:
    """The modules and the firmware of a root, with modules that modinfo can read."""
    release = tmp_path / "root/usr/lib/modules/6.1"
    firmware = tmp_path / "root/usr/lib/firmware"
    for path, asks in (("drivers/net/ethernet/a/a", "a/a.fw"), ("drivers/net/virtio_net", ""), ("lib/crc", ""),
                       ("drivers/net/wireless/w", "w.fw"), ("net/core/failover", "")):
        at = release / f"kernel/{path}.ko"
        at.parent.mkdir(parents=True, exist_ok=True)
        text = f'__asm__(".section .modinfo\\n.asciz \\"firmware={asks}\\"\\n");' if asks else \
            '__asm__(".section .modinfo\\n.asciz \\"license=GPL\\"\\n");'
        subprocess.run(["gcc", "-c", "-x", "c", "-", "-o", at], input=text, text=True, check=True)
    (release / "modules.dep").write_text(
        "kernel/drivers/net/ethernet/a/a.ko: kernel/lib/crc.ko\nkernel/lib/crc.ko:\n"
        "kernel/drivers/net/wireless/w.ko:\nkernel/drivers/net/virtio_net.ko: kernel/net/core/failover.ko\n"
        "kernel/net/core/failover.ko:\n")
    (release / "modules.alias.bin").write_bytes(b"index")
    (firmware / "a").mkdir(parents=True)
    (firmware / "a/a-1.fw").write_bytes(b"firmware")
    (firmware / "a/a.fw").symlink_to("a-1.fw")
    (firmware / "w.fw").write_bytes(b"wireless")
    return tmp_path / "root"


def test_drivers_with_what_they_need_and_their_firmware(root):
    assert set(netboot_initrd.drivers(root)) == {
        "usr/lib/modules/6.1/kernel/drivers/net/ethernet/a/a.ko", "usr/lib/modules/6.1/kernel/lib/crc.ko",
        "usr/lib/modules/6.1/kernel/drivers/net/virtio_net.ko", "usr/lib/modules/6.1/kernel/net/core/failover.ko",
        "usr/lib/modules/6.1/modules.dep", "usr/lib/modules/6.1/modules.alias.bin", "usr/lib/firmware/a/a.fw",
        "usr/lib/firmware/a/a-1.fw"}


@pytest.mark.parametrize("target", ["../../../../../etc/passwd", "/etc/passwd", "a.fw", "gone"])
@pytest.mark.parametrize("name", ["a/a.fw", "a"])
def test_a_link_that_leads_nowhere_or_out_of_the_root_brings_nothing(root, target, name):
    link = root / "usr/lib/firmware" / name
    shutil.rmtree(link) if link.is_dir() else link.unlink()
    link.symlink_to(target)
    assert not any("firmware" in path for path in netboot_initrd.drivers(root))


def test_a_folder_that_is_a_link_out_of_the_root_brings_nothing(root, tmp_path):
    shutil.move(root / "usr/lib/firmware/a", tmp_path / "outside")
    (root / "usr/lib/firmware/a").symlink_to(tmp_path / "outside")
    assert not any("firmware" in path for path in netboot_initrd.drivers(root))


def test_a_root_without_drivers_is_an_error(root):
    (root / "usr/lib/modules/6.1/modules.dep").write_text("")
    with pytest.raises(CornerstoneError, match="no drivers of network cards"):
        netboot_initrd.drivers(root)


def test_the_initramfs_is_the_old_one_and_the_drivers_behind_it(root, tmp_path):
    initrd, log = tmp_path / "old.img", tmp_path / "log"
    (tmp_path / "hello").write_bytes(b"hello")
    initrd.write_bytes(b"".join(netboot_initrd.cpio({"a/hello": tmp_path / "hello"})) + b"\0\0\0")
    squashfs = tmp_path / "root.squashfs"
    subprocess.run(["mksquashfs", root, squashfs, "-quiet", "-no-progress", "-exit-on-error"], check=True,
                   capture_output=True)
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        packed = tmp_path / name / netboot_initrd.PACKED
        netboot_initrd.pack_drivers(squashfs, packed, log)
        assert [path.name for path in (tmp_path / name).iterdir()] == [netboot_initrd.PACKED]
        netboot_initrd.join(initrd, packed, tmp_path / name / "initrd.img")
        made.append((tmp_path / name / "initrd.img").read_bytes())
    assert made[0] == made[1]
    assert made[0].startswith(initrd.read_bytes())
    found = initramfs.files(made[0])
    assert found["a/hello"] == b"hello"
    assert found["usr/lib/firmware/a/a.fw"] == b"a-1.fw"
    assert found["usr/lib/firmware/a/a-1.fw"] == b"firmware"
    assert "usr/lib/modules/6.1/modules.alias.bin" in found

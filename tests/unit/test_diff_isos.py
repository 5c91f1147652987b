"""`invoke diff` on small ISOs with real roots (mksquashfs) and a real CVM disk (qcow2)."""

import json
import shutil
import struct
import subprocess
from types import SimpleNamespace

import pytest

from cornerstone.customize.iso_image import Extent
from cornerstone.factory.diff import diff_isos
from cornerstone.factory.inspection.roots import copy_disk
from cornerstone.factory.iso import mastering
from cornerstone.factory.iso.iso_checks import GRUB, INITRAMFS, KERNEL, MOK_MANAGER, SHIM
from cornerstone.factory.payload.cvm_disk import build_disk
from cornerstone.factory.verify.boot_checks import fat
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.fat import MIB
from cornerstone.model.contracts.manifest import CVM, FIRST_BOOT, HYPERVISOR, NAME
from cornerstone.model.disk.slot_disk import CVM_ARGUMENTS
from small_iso import PROFILE, Workshop

BOOT = ("vmlinuz", "initrd.img", "boot.img", "disk.img", "shimx64.efi", "mmx64.efi", "grubx64.efi")


def pack(folder, version, files):
    """A squashfs of a root with one package, tool, that owns usr/bin/tool."""
    tree = folder / "tree"
    content = {"usr/bin/tool": "tool", "etc/motd": "none", "var/lib/dpkg/info/tool.list": "/usr/bin/tool\n",
               "var/lib/dpkg/status": f"Package: tool\nStatus: install ok installed\nVersion: {version}\n"} | files
    for path, text in content.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    subprocess.run(["mksquashfs", tree, folder / "root", "-quiet", "-no-progress", "-noappend", "-all-root",
                    "-all-time", "1"], check=True, capture_output=True)
    shutil.rmtree(tree)
    return (folder / "root").read_bytes()


def disk(folder, root, size=2048 * MIB):
    """The CVM's disk with a root in slot A, as qcow2."""
    for name in BOOT:
        (folder / name).write_bytes(name.encode().ljust(2048))
    (folder / "root").write_bytes(root)
    build_disk(folder / "cvm.qcow2", squashfs=folder / "root", boot=folder, size=size, slot=64 * MIB, epoch=1,
               log=folder / "log")
    return (folder / "cvm.qcow2").read_bytes()


def sbat(component, version):
    return f"code\nsbat,1,x\n{component}.debian,1,Debian,{component},{version},https://example.org\n".encode()


def kernel(release):
    return struct.pack("<514xI8xH", 0x53726448, 0x100).ljust(0x300) + f"{release} (builder) #1\0".encode()


class Factory:
    """Makes ISOs, each from its own workshop, and keeps the disk that most of them share."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0
        self.root = pack(folder, "1", {})
        self.disk = disk(folder, self.root)

    def __call__(self, profile=PROFILE, **content):
        self.count += 1
        folder = self.folder / str(self.count)
        folder.mkdir()
        workshop = Workshop(folder)
        workshop.content |= {HYPERVISOR: self.root, CVM: self.disk, SHIM: b"shim", GRUB: sbat("grub", "2.12-9"),
                             MOK_MANAGER: sbat("shim", "16.1"), KERNEL: kernel("6.12.1-amd64"), **content}
        workshop.fat = {path: b"same" for path in (SHIM, GRUB, MOK_MANAGER)}
        workshop.profile = profile
        return workshop.master()


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    return Factory(tmp_path_factory.mktemp("isos"))


@pytest.fixture(scope="module")
def plain_iso(make):
    return make()


@pytest.fixture
def told(tmp_path, capsys):
    """The JSON of a difference."""
    def tell(a, b, **options):
        diff_isos(a, b, tmp_path / "scratch", format="json", files=True, **options)
        assert list((tmp_path / "scratch").iterdir()) == [], "what was written for a while is gone"
        return json.loads(capsys.readouterr().out, object_hook=lambda fields: SimpleNamespace(**fields))
    return tell


def test_what_a_profile_adds_is_told_by_its_key(make, plain_iso, told):
    extra = {"packages": ["tree"], "files": "a" * 64, "kernel_arguments": ["nosmt"]}
    found = told(plain_iso, make(profile=PROFILE | {"hypervisor": PROFILE["hypervisor"] | {"extra": extra}}))
    rows = {change.name: (change.a, change.b) for change in found.manifest}
    assert rows["profile.hypervisor.extra.packages"] == (None, '["tree"]')
    assert rows["profile.hypervisor.extra.files"] == (None, "a" * 64)
    assert rows["profile.hypervisor.extra.kernel_arguments"] == (None, '["nosmt"]')


def test_a_cvm_disk_starts_both_slots_with_what_the_profile_adds(make, tmp_path):
    texts = {}
    for name, arguments in (("plain", ()), ("added", ("pci=noaer", "nosmt"))):
        folder = tmp_path / name
        folder.mkdir()
        build_disk(folder / "cvm.qcow2", squashfs=make.folder / "root", boot=make.folder, size=2048 * MIB,
                   slot=64 * MIB, epoch=1, log=folder / "log", **({"arguments": arguments} if arguments else {}))
        disk = copy_disk(folder / "cvm.qcow2", Extent(0, (folder / "cvm.qcow2").stat().st_size), folder / "raw")
        texts[name] = [fat(disk.path, disk.partition("esp").start, "mtype", f"::/{path}").decode()
                       for path in ("boot/grub/grub.cfg", "EFI/debian/grub.cfg")]
    for plain, added in zip(texts["plain"], texts["added"], strict=True):
        assert plain.count(f" {CVM_ARGUMENTS}\n") == 2
        assert added == plain.replace(f" {CVM_ARGUMENTS}", f" {CVM_ARGUMENTS} pci=noaer nosmt")


def test_the_same_iso(plain_iso, tmp_path, capsys):
    diff_isos(plain_iso, plain_iso, tmp_path, max_growth="0%")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("equal: both are 0c2f7a52")
    assert said[1:] == ["", "nothing grew by more than 0%"]


def test_equal_isos_are_told_by_the_manifest_alone(plain_iso, make, tmp_path, capsys, monkeypatch):
    other = make()
    monkeypatch.setenv("PATH", "")  # no tool can be started
    diff_isos(plain_iso, other, tmp_path)
    assert capsys.readouterr().out.count("\n") == 1


def test_a_site_area_that_was_written_to(plain_iso, told, tmp_path):
    from cornerstone.customize.iso_image import Image
    other = shutil.copy(plain_iso, tmp_path / "other.iso")
    with other.open("r+b") as file:
        file.seek(Image(plain_iso).place("site.area").start)
        file.write(b"secret")
    found = told(plain_iso, other)
    assert (found.equal, found.site_area, found.entries, found.roots) == (False, True, [], [])
    assert "secret" not in str(found)


def test_the_hypervisor_s_root(plain_iso, make, told, tmp_path):
    root = pack(tmp_path, "1.1", {"usr/bin/tool": "tool, longer", "etc/new": "1"})
    found = told(plain_iso, make(**{HYPERVISOR: root}))
    (hypervisor,) = found.roots
    assert hypervisor.name == "hypervisor"
    assert [(p.name, p.state, p.a, p.b) for p in hypervisor.packages] == [
        ("tool", "upgraded", "1", "1.1"), ("", "none", "", "")]
    assert [(f.path, f.state, f.growth) for p in hypervisor.packages for f in p.files] == [
        ("usr/bin/tool", "changed", 8), ("etc/new", "added", 1), ("var/lib/dpkg/status", "changed", 2)]
    assert (found.disk, found.boot, found.texts) == ([], [], [])


def test_the_cvm_s_root_is_in_its_disk(plain_iso, make, told, tmp_path):
    found = told(plain_iso, make(**{CVM: disk(tmp_path, pack(tmp_path, "0.9", {"etc/motd": "other"}))}))
    (cvm,) = found.roots
    assert cvm.name == "cvm"
    assert [(p.name, p.state, [f.path for f in p.files]) for p in cvm.packages] == [
        ("tool", "downgraded", []), ("", "none", ["etc/motd", "var/lib/dpkg/status"])]
    assert [change.name for change in found.disk] == ["content of root-a"]


def test_another_layout_of_the_cvm_s_disk_with_the_same_root(plain_iso, make, told, tmp_path):
    found = told(plain_iso, make(**{CVM: disk(tmp_path, make.root, size=3072 * MIB)}))
    assert found.roots == []
    assert [change.name for change in found.disk] == ["size", "partition 5 state"]
    assert (found.disk[0].a, found.disk[0].b) == ("2147483648 bytes", "3221225472 bytes")


def test_boot_files_and_texts_and_profile(plain_iso, make, told):
    other = make({**PROFILE, "aos": "7.0"}, **{
        KERNEL: kernel("6.12.2-amd64"), GRUB: sbat("grub", "2.14-1"), MOK_MANAGER: b"none", INITRAMFS: b"short",
        mastering.BIOS_IMAGE: bytes(4000), FIRST_BOOT: b"#!/bin/bash\nfalse\n"})
    found = told(plain_iso, other)
    boot = {change.name: (change.a.partition(" bytes")[0], change.b.partition(" bytes")[0]) for change in found.boot}
    assert boot == {
        "boot/vmlinuz": ("Linux 6.12.1-amd64, 794", "Linux 6.12.2-amd64, 794"), "boot/initrd.img": ("891", "5"),
        "EFI/BOOT/grubx64.efi": ("grub 2.12-9, 67", "grub 2.14-1, 67"),
        "EFI/BOOT/BOOTX64.EFI": ("shim 16.1, 4", "shim, 4"),
        "EFI/BOOT/mmx64.efi": ("65", "4"), "boot/bios.img": ("3557", "4000")}
    assert [(change.name, change.a, change.b) for change in found.manifest] == [("profile.aos", "6.8", "7.0")]
    assert [(text.name, text.lines[-1]) for text in found.texts] == [(FIRST_BOOT, "+false")]
    assert found.roots == []


def test_a_gate_fails_after_telling(plain_iso, make, told, tmp_path, capsys):
    larger = make(**{HYPERVISOR: make.root + bytes(4096)})
    assert told(plain_iso, larger, max_growth="4KiB").verdict.passed
    output = tmp_path / "report.txt"
    sentence = r"hypervisor.squashfs grew by 4.0 KiB \(.*%\): more than 4095B"
    with pytest.raises(CornerstoneError, match=sentence) as caught:
        diff_isos(plain_iso, larger, tmp_path, max_growth="4095B", output=output)
    assert caught.value.code == Code.FAILED
    assert "\n" not in str(caught.value)
    assert caught.value.message in output.read_text()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("options", "problem"), [
    ({"format": "yaml"}, "text, json, html"), ({"max_growth": "5"}, "neither a percentage")])
def test_bad_arguments(plain_iso, tmp_path, options, problem):
    with pytest.raises(CornerstoneError, match=problem) as caught:
        diff_isos(plain_iso, plain_iso, tmp_path, **options)
    assert caught.value.code == Code.INPUT


@pytest.mark.parametrize("place", [".", "none/report"])
def test_an_output_that_can_t_be_written(plain_iso, tmp_path, place):
    with pytest.raises(CornerstoneError, match="can't be written"):
        diff_isos(plain_iso, plain_iso, tmp_path, output=tmp_path / place)


def damaged(make, tmp_path, kind):
    """An ISO, or what isn't one."""
    if kind == "text":
        (tmp_path / "bad.iso").write_text("no ISO")
    elif kind == "another ISO":
        (tmp_path / "some").write_text("file")
        subprocess.run(["xorriso", "-as", "mkisofs", "-R", "-J", "-o", tmp_path / "bad.iso", tmp_path / "some"],
                       check=True, capture_output=True)
    elif kind == "squashfs":
        shutil.move(make(**{HYPERVISOR: make.root[:200] + bytes(len(make.root) - 200)}), tmp_path / "bad.iso")
    elif kind == "qcow2":
        shutil.move(make(**{CVM: b"QFI\xfb" * 777}), tmp_path / "bad.iso")
    elif kind == "a file of this machine":
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/hostname", "-F", "raw",
                        tmp_path / "x.qcow2"], check=True)
        shutil.move(make(**{CVM: (tmp_path / "x.qcow2").read_bytes()}), tmp_path / "bad.iso")
    elif kind == "no squashfs in slot A":
        shutil.move(make(**{CVM: disk(tmp_path, b"none")}), tmp_path / "bad.iso")
    else:
        old, new = {"manifest": (b'{"schema"', b'["schema"'), "size": (b'"size": 4,', b'"size":"",'),
                    "part": (b'"path": "layers/cvm.qcow2"', b'"path": "layers/CVM.qcow2"')}[kind]
        (tmp_path / "bad.iso").write_bytes(make().read_bytes().replace(old, new))
    return tmp_path / "bad.iso"


@pytest.mark.parametrize(("kind", "problem"), [
    ("text", "can't be read as an ISO"), ("another ISO", f"has no {NAME}"), ("squashfs", "the squashfs can't be read"),
    ("qcow2", "is a qcow2 of version"), ("a file of this machine", "names another file as its backing file"),
    ("no squashfs in slot A", "holds no squashfs"),
    ("manifest", "not a Foundation manifest"),
    ("part", "doesn't name layers/cvm.qcow2"), ("size", r"\.files\[[0-9]+\]\.size has to be a whole number")])
def test_an_iso_that_is_no_good_is_one_error_with_its_name(plain_iso, make, tmp_path, kind, problem):
    bad = damaged(make, tmp_path, kind)
    for pair in ((plain_iso, bad), (bad, plain_iso)):
        with pytest.raises(CornerstoneError, match=problem) as caught:
            diff_isos(*pair, tmp_path / "scratch")
        assert caught.value.message.startswith("bad.iso")
        assert caught.value.code == Code.VERIFY
        assert list((tmp_path / "scratch").iterdir()) == []

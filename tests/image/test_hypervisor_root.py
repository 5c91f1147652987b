"""The hypervisor's root: what runs virtual machines, and the live environment. What holds in both is in test_roots."""

import lzma
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from cornerstone.factory import iso_image
from cornerstone.factory.iso_checks import GRUB, INITRAMFS, KERNEL, MOK_MANAGER, SHIM
from cornerstone.model.facts import Facts

REQUIRED = ("libvirt-daemon-system", "libvirt-clients", "qemu-system-x86", "qemu-utils", "ovmf", "openvswitch-switch",
            "open-iscsi", "multipath-tools", "ipmitool", "nvme-cli", "gdisk", "squashfs-tools", "linux-image-amd64",
            "openssh-server", "shim-signed", "grub-efi-amd64-signed", "intel-microcode", "amd64-microcode")


@pytest.mark.parametrize("name", REQUIRED)
def test_package(hypervisor, name):
    package = hypervisor.host.package(name)
    assert package.is_installed
    assert package.version == hypervisor.packages[name]


@pytest.mark.parametrize("unit", ["libvirtd.service", "openvswitch-switch.service", "first-boot.service",
                                  "cvm-watch.service", "domains-end.service"])
def test_service(hypervisor, unit):
    assert hypervisor.host.file(f"/etc/systemd/system/multi-user.target.wants/{unit}").is_symlink


def test_socket_of_the_iscsi_initiator(hypervisor):
    assert hypervisor.host.file("/etc/systemd/system/sockets.target.wants/iscsid.socket").is_symlink


def test_the_live_environment_is_a_target_and_is_not_on_by_default(hypervisor):
    assert hypervisor.host.file("/usr/lib/systemd/system/foundation.target").is_file
    assert "ConditionKernelCommandLine=cornerstone.medium" in hypervisor.read(
        "usr/lib/systemd/system/foundation.service")
    wants = (hypervisor.path / "etc/systemd/system").rglob("foundation.*")
    assert list(wants) == []


def test_only_the_rooms_that_run_here(hypervisor):
    rooms = hypervisor.path / "usr/lib/cornerstone/cornerstone"
    assert {path.name for path in rooms.iterdir()} - {"__pycache__"} == {
        "__init__.py", "model", "foundation", "hypervisor"}
    assert [path.name for path in (hypervisor.path / "usr/lib/cornerstone").iterdir()] == ["cornerstone"]


def test_foundation_starts_with_the_root_s_own_python(hypervisor):
    """Every module that it imports is in the root: no package of PyPI is."""
    said = hypervisor.run("env PYTHONPATH=/usr/lib/cornerstone PYTHONDONTWRITEBYTECODE=1 python3 -c "
                          "'import cornerstone.foundation.__main__ as main; print(main.__file__)'")
    assert said == "/usr/lib/cornerstone/cornerstone/foundation/__main__.py"


@pytest.mark.parametrize("module", ["domain", "watch"])
def test_the_cvm_is_cared_for_with_the_root_s_own_python(hypervisor, module):
    said = hypervisor.run("env PYTHONPATH=/usr/lib/cornerstone PYTHONDONTWRITEBYTECODE=1 python3 -c "
                          f"'import cornerstone.hypervisor.{module} as module; print(module.__file__)'")
    assert said == f"/usr/lib/cornerstone/cornerstone/hypervisor/{module}.py"


def test_byte_code_is_made_and_valid_by_content(hypervisor):
    """The root is read-only: what isn't compiled now never is."""
    rooms = hypervisor.path / "usr/lib/cornerstone"
    sources = {path.with_suffix("").relative_to(rooms) for path in rooms.rglob("*.py")}
    compiled = list(rooms.rglob("*.pyc"))
    assert {path.parent.parent.relative_to(rooms) / path.name.split(".")[0] for path in compiled} == sources
    # flags after the magic number: 1 is an unchecked hash instead of a time
    assert {path.read_bytes()[4:8] for path in compiled} == {b"\x01\0\0\0"}


def test_the_root_s_own_command_writes_facts(hypervisor):
    """There is no /proc and no /sys here, so the clock is all that it can tell."""
    facts = Facts.from_json(hypervisor.run("foundation discover"))
    assert facts.clock.system > 0
    assert facts.disks == ()


@pytest.mark.parametrize("tool", ["wipefs", "debugfs", "ip", "ipmitool"])
def test_tool_of_discovery(hypervisor, tool):
    assert hypervisor.host.exists(tool)


def test_multipath_knows_each_word_of_its_configuration_d17(hypervisor):
    """It warns of those that it doesn't, and goes on without them."""
    said = hypervisor.run("multipath -t 2>&1")
    assert "invalid keyword" not in said
    overrides = said[said.index("overrides {"):]
    assert 'recheck_wwid "yes"' in overrides[:overrides.index("}")]


def test_passthrough(hypervisor):
    modules = (hypervisor.path / "usr/lib/modules" / hypervisor.kernel / "modules.dep").read_text()
    assert "/vfio-pci.ko" in modules
    assert "vfio-pci" in hypervisor.read("etc/modules-load.d/passthrough.conf").split()
    assert "intel_iommu=on iommu=pt" in hypervisor.product.content("boot/grub/grub.cfg").decode()


@pytest.mark.parametrize(("path", "source"), [
    (KERNEL, "boot/vmlinuz"), (INITRAMFS, "boot/initrd.img"), (SHIM, "usr/share/cornerstone/boot/shimx64.efi"),
    (GRUB, "usr/share/cornerstone/boot/gcdx64.efi"), (MOK_MANAGER, "usr/share/cornerstone/boot/mmx64.efi")])
def test_what_the_iso_boots_is_this_root_s(hypervisor, path, source):
    assert hypervisor.product.content(path) == (hypervisor.path / source).read_bytes()


def test_bios_boots_this_root_s_grub(hypervisor):
    """The MBR and the CD's boot image, but for the places that mastering writes into them."""
    boot = hypervisor.path / "usr/share/cornerstone/boot"
    with hypervisor.product.image() as image:
        assert image.at(0, 0x1B0) == (boot / "boot_hybrid.img").read_bytes()[:0x1B0]
    assert unmasked(hypervisor.product.content(iso_image.BIOS_IMAGE)) == unmasked((boot / "cd.img").read_bytes())


def unmasked(content: bytes) -> bytes:
    changed = bytearray(content)
    for offset, length in iso_image.BIOS_IMAGE_MASK:
        changed[offset:offset + length] = bytes(length)
    return bytes(changed)


@pytest.mark.parametrize("firmware", ["intel/ice/ddp/ice.pkg", "cxgb4/t6fw.bin", "netronome", "liquidio"])
def test_m11_the_firmware_of_fast_network_cards_is_there(hypervisor, firmware):
    folder = hypervisor.path / "usr/lib/firmware"
    assert list(folder.glob(f"{firmware}*")) or list((hypervisor.path / "lib/firmware").glob(f"{firmware}*"))


CHECKOUT = Path(__file__).resolve().parents[2]
# where drivers of storage controllers and network cards are
SERVERS = ("ata", "block", "infiniband", "message", "net/ethernet", "net/phy", "nvme", "scsi")


def table_of(page: str, mark: str) -> list[list[str]]:
    """The rows of the table behind a mark in docs/hardware.md."""
    lines = page.split(f"<!-- {mark}:")[1].split("\n\n")[1].splitlines()
    # without its head
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def modules_of(root: Path) -> dict[str, list[str]]:
    """Each driver of a controller or a network card, and the firmware files that it names."""
    found = {}
    for folder in SERVERS:
        for path in root.glob(f"usr/lib/modules/*/kernel/drivers/{folder}/**/*.ko*"):
            content = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
            names = re.findall(rb"(?<=\0)firmware=([^\0]+)(?=\0)", b"\0" + content)
            found[path.name.partition(".ko")[0]] = [name.decode() for name in names]
    return found


def missing_in(root: Path) -> dict[str, list[str]]:
    """By driver, the firmware files that are in no form in the root. A name may be a pattern."""
    there = root / "usr/lib/firmware"
    lacking = {driver: [name for name in names
                        if not any(any(there.glob(f"{name}{end}")) for end in ("", ".xz", ".zst"))]
               for driver, names in modules_of(root).items()}
    return {driver: names for driver, names in lacking.items() if names}


def test_m11_each_firmware_that_a_driver_names_is_there_or_has_a_reason(hypervisor):
    page = (CHECKOUT / "docs" / "hardware.md").read_text()
    known = {driver: re.findall("`([^`]+)`", files) for drivers, files, why in table_of(page, "firmware") if why
             for driver in re.findall("`([^`]+)`", drivers)}
    left = {driver: [name for name in names if not any(fnmatch(name, pattern) for pattern in known.get(driver, ()))]
            for driver, names in missing_in(hypervisor.path).items()}
    assert {driver: names for driver, names in left.items() if names} == {}


def test_the_drivers_in_the_docs_are_in_the_root(hypervisor):
    page = (CHECKOUT / "docs" / "hardware.md").read_text()
    named = {driver for _, drivers in table_of(page, "drivers") for driver in re.findall("`([^`]+)`", drivers)}
    there = {path.name.partition(".ko")[0]
             for path in hypervisor.path.glob("usr/lib/modules/*/kernel/drivers/**/*.ko*")}
    assert named and named - there == set()

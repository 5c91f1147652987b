"""The hypervisor's root: what runs virtual machines, and the live environment. What holds in both is in test_roots."""

import fnmatch
import lzma
import re
from pathlib import Path

import pytest

from cornerstone.customize import iso_image
from cornerstone.factory.inspection import elf, imports, initramfs
from cornerstone.factory.inspection.tree import Tree
from cornerstone.factory.iso.iso_checks import GRUB, INITRAMFS, KERNEL, MOK_MANAGER, SHIM

REQUIRED = ("libvirt-daemon-system", "libvirt-clients", "qemu-system-x86", "qemu-utils", "ovmf", "openvswitch-switch",
            "open-iscsi", "multipath-tools", "ipmitool", "nvme-cli", "gdisk", "squashfs-tools", "linux-image-amd64",
            "openssh-server", "shim-signed", "grub-efi-amd64-signed", "intel-microcode", "amd64-microcode")


@pytest.mark.parametrize("name", REQUIRED)
def test_package(hypervisor, name):
    assert hypervisor.installed[name] == hypervisor.packages[name]


@pytest.mark.parametrize("unit", ["libvirtd.service", "openvswitch-switch.service", "first-boot.service",
                                  "cvm-watch.service", "domains-end.service"])
def test_service(hypervisor, unit):
    assert hypervisor.tree.link(f"etc/systemd/system/multi-user.target.wants/{unit}")


def test_socket_of_the_iscsi_initiator(hypervisor):
    assert hypervisor.tree.link("etc/systemd/system/sockets.target.wants/iscsid.socket")


def test_the_live_environment_is_a_target_and_is_not_on_by_default(hypervisor):
    assert hypervisor.tree.is_file("usr/lib/systemd/system/foundation.target")
    assert "ConditionKernelCommandLine=cornerstone.medium" in hypervisor.tree.text(
        "usr/lib/systemd/system/foundation.service")
    assert [path for path in hypervisor.tree.files if path.startswith("etc/systemd/system/")
            and path.rpartition("/")[2].startswith("foundation.")] == []


def test_only_the_rooms_that_run_here(hypervisor):
    assert set(hypervisor.tree.names("usr/lib/cornerstone/cornerstone")) - {"__pycache__"} == {
        "__init__.py", "lib", "model", "foundation", "hypervisor"}
    assert hypervisor.tree.names("usr/lib/cornerstone") == ["cornerstone"]


@pytest.mark.parametrize("module", ["foundation.installer.__main__", "hypervisor.domain", "hypervisor.watch"])
def test_the_root_s_own_python_has_what_our_code_imports(hypervisor, module):
    """Every module that it imports is in the root: no package of PyPI is."""
    assert imports.missing(hypervisor.tree, f"cornerstone.{module}") == []


def test_byte_code_is_made_and_valid_by_content(hypervisor):
    """The root is read-only: what isn't compiled now never is."""
    rooms = list(hypervisor.tree.below("usr/lib/cornerstone"))
    sources = {path.removesuffix(".py") for path in rooms if path.endswith(".py")}
    compiled = [path for path in rooms if path.endswith(".pyc")]
    assert {re.sub(r"__pycache__/([^/.]*)\..*", r"\1", path) for path in compiled} == sources
    # flags after the magic number: 1 is an unchecked hash instead of a time
    assert {hypervisor.tree.read(path)[4:8] for path in compiled} == {b"\x01\0\0\0"}


def test_the_command_that_writes_facts_can_start(hypervisor):
    """Its interpreter is there; that it does write them is for tests/sandbox and tests/node."""
    program = hypervisor.tree.program("foundation")
    assert program
    assert elf.missing(hypervisor.tree, program) == []


@pytest.mark.parametrize("tool", ["wipefs", "debugfs", "ip", "ipmitool"])
def test_tool_of_discovery(hypervisor, tool):
    assert hypervisor.tree.program(tool)


def test_multipath_knows_each_word_of_its_configuration_d17(hypervisor):
    """It warns of those that it doesn't, and goes on without them. Each is the end of a string in its library."""
    lines = [line.split() for line in hypervisor.tree.text("etc/multipath.conf").splitlines()]
    words = [line[0] for line in lines if line and line[0][0] not in "#}"]
    library = hypervisor.tree.read("lib/libmultipath.so.0")
    assert [word for word in words if f"{word}\0".encode() not in library] == []
    overrides = lines[lines.index(["overrides", "{"]):]
    assert ["recheck_wwid", "yes"] in overrides[:overrides.index(["}"])]


def test_passthrough(hypervisor):
    modules = hypervisor.tree.text(f"usr/lib/modules/{hypervisor.kernel}/modules.dep")
    assert "/vfio-pci.ko" in modules
    assert "vfio-pci" in hypervisor.tree.text("etc/modules-load.d/passthrough.conf").split()
    assert "intel_iommu=on iommu=pt" in hypervisor.product.content("boot/grub/grub.cfg").decode()


def test_the_initramfs_brings_the_kernel_s_words_to_the_serial_port(hypervisor):
    """Before udev, whose first step is the first that could be waited for."""
    found = initramfs.files(hypervisor.tree.read("boot/initrd.img"))
    assert found["usr/bin/@kernel-log"] == hypervisor.tree.read("usr/bin/dmesg")
    steps = re.findall(r"^/scripts/init-top/(\S+)", found["scripts/init-top/ORDER"].decode(), re.MULTILINE)
    assert steps.index("kernel-log") < steps.index("udev")


@pytest.mark.parametrize(("path", "source"), [
    (KERNEL, "boot/vmlinuz"), (INITRAMFS, "boot/initrd.img"), (SHIM, "usr/share/cornerstone/boot/shimx64.efi"),
    (GRUB, "usr/share/cornerstone/boot/gcdx64.efi"), (MOK_MANAGER, "usr/share/cornerstone/boot/mmx64.efi")])
def test_what_the_iso_boots_is_this_root_s(hypervisor, path, source):
    assert hypervisor.product.content(path) == hypervisor.tree.read(source)


def test_bios_boots_this_root_s_grub(hypervisor):
    """The MBR and the CD's boot image, but for the places that mastering writes into them."""
    boot = "usr/share/cornerstone/boot"
    with hypervisor.product.image() as image:
        assert image.at(0, 0x1B0) == hypervisor.tree.read(f"{boot}/boot_hybrid.img")[:0x1B0]
    assert unmasked(hypervisor.product.content(iso_image.BIOS_IMAGE)) == unmasked(
        hypervisor.tree.read(f"{boot}/cd.img"))


def unmasked(content: bytes) -> bytes:
    changed = bytearray(content)
    for offset, length in iso_image.BIOS_IMAGE_MASK:
        changed[offset:offset + length] = bytes(length)
    return bytes(changed)


@pytest.mark.parametrize("firmware", ["intel/ice/ddp/ice.pkg", "cxgb4/t6fw.bin", "netronome", "liquidio"])
def test_m11_the_firmware_of_fast_network_cards_is_there(hypervisor, firmware):
    folder = hypervisor.tree.real("lib/firmware")
    assert [path for path in hypervisor.tree.files if path.startswith(f"{folder}/{firmware}")]


CHECKOUT = Path(__file__).resolve().parents[2]
# where drivers of storage controllers and network cards are
SERVERS = ("ata", "block", "infiniband", "message", "net/ethernet", "net/phy", "nvme", "scsi")


def table_of(page: str, mark: str) -> list[list[str]]:
    """The rows of the table behind a mark in docs/hardware.md."""
    lines = page.split(f"<!-- {mark}:")[1].split("\n\n")[1].splitlines()
    # without its head
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def drivers_of(tree: Tree, *folders: str) -> dict[str, str]:
    """Each driver in some folders of the kernel's drivers, by its name: the path of its module."""
    (release,) = tree.names("usr/lib/modules")
    drivers = f"usr/lib/modules/{release}/kernel/drivers"
    return {path.rpartition("/")[2].partition(".ko")[0]: path
            for path in tree.below(*(f"{drivers}/{folder}" for folder in folders)) if ".ko" in path}


def firmware_of(tree: Tree, module: str) -> list[str]:
    """The firmware files that a module names."""
    content = tree.read(module)
    content = lzma.decompress(content) if module.endswith(".xz") else content
    return [name.decode() for name in re.findall(rb"(?<=\0)firmware=([^\0]+)(?=\0)", b"\0" + content)]


def missing_in(tree: Tree) -> dict[str, list[str]]:
    """By driver, the firmware files that are in no form in the root. A name may be a pattern."""
    folder = f"{tree.real('lib/firmware')}/"
    there = [path.removeprefix(folder) for path in tree.files if path.startswith(folder)]
    names = {*there, *(path.removesuffix(end) for path in there for end in (".xz", ".zst"))}
    lacking = {driver: [name for name in firmware_of(tree, module) if not fnmatch.filter(names, name)]
               for driver, module in drivers_of(tree, *SERVERS).items()}
    return {driver: names for driver, names in lacking.items() if names}


def test_m11_each_firmware_that_a_driver_names_is_there_or_has_a_reason(hypervisor):
    page = (CHECKOUT / "docs" / "hardware.md").read_text()
    known = {driver: re.findall("`([^`]+)`", files) for drivers, files, why in table_of(page, "firmware") if why
             for driver in re.findall("`([^`]+)`", drivers)}
    left = {driver: [name for name in names
                     if not any(fnmatch.fnmatchcase(name, pattern) for pattern in known.get(driver, ()))]
            for driver, names in missing_in(hypervisor.tree).items()}
    assert {driver: names for driver, names in left.items() if names} == {}


def test_the_drivers_in_the_docs_are_in_the_root(hypervisor):
    page = (CHECKOUT / "docs" / "hardware.md").read_text()
    named = {driver for _, drivers in table_of(page, "drivers") for driver in re.findall("`([^`]+)`", drivers)}
    assert named and named - drivers_of(hypervisor.tree, "").keys() == set()

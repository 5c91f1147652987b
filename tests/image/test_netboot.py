"""The folder netboot: the same bytes as on the ISO, what pins them, and the drivers that are behind the initramfs.

`invoke verify` looks at an ISO, which may have travelled without the folder: it leaves this file out.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from cornerstone.factory.build import netboot
from cornerstone.factory.inspection import initramfs
from cornerstone.factory.iso.iso_checks import INITRAMFS
from cornerstone.factory.signing.signing import check_signature
from cornerstone.model.contracts.manifest import NAME, SIGNATURE_NAME, difference, digest

# cards of servers, those of virtual machines, and a PHY that r8169 asks for by name
DRIVERS = {"bnx2x", "bnxt_en", "e1000e", "hv_netvsc", "i40e", "ice", "igb", "ixgbe", "mlx5_core", "qede", "r8169",
           "tg3", "virtio_net", "vmxnet3", "realtek"}
FIRMWARE = ("bnx2x/bnx2x-e2-", "intel/ice/ddp/ice.pkg", "qed/qed_init_values", "rtl_nic/rtl8168h-2.fw")


@pytest.fixture(scope="session")
def folder(product) -> Path:
    if product.layers is None:
        pytest.skip("this ISO wasn't built by this test run, so its folder netboot may not be there")
    return netboot.folder_of(product.iso)


@pytest.fixture(scope="session")
def archives(folder) -> dict[str, bytes]:
    """What the kernel unpacks of the folder's initramfs."""
    return initramfs.files((folder / netboot.INITRD).read_bytes())


def test_it_holds_what_the_manifest_names_and_a_few_files_more(folder, product):
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    assert found == {entry.path for entry in product.manifest.entries} | {
        NAME, SIGNATURE_NAME, netboot.SCRIPT, netboot.INITRD, netboot.SUMS, netboot.SUMS_SIGNATURE}


def test_the_manifest_s_files_are_as_it_says_and_as_on_the_iso(folder, product):
    with product.image() as image:
        for entry in product.manifest.entries:
            with (folder / entry.path).open("rb") as ours, image.open(entry.path) as theirs:
                assert difference(entry, *digest(ours, entry.masked)) == ""
                ours.seek(0)
                assert digest(ours) == digest(theirs), entry.path
        for name in (NAME, SIGNATURE_NAME):
            assert (folder / name).read_bytes() == image.content(name)


def test_the_script_pins_the_manifest(folder, product):
    script = (folder / netboot.SCRIPT).read_text()
    (pin,) = re.findall(r" cornerstone\.manifest\.sha256=(\S+) ", script)
    assert pin == hashlib.sha256((folder / NAME).read_bytes()).hexdigest()
    assert f" cornerstone.medium={product.manifest.identity} " in script


def test_its_checksums_are_signed_and_name_every_file(folder, product):
    sums = (folder / netboot.SUMS).read_bytes()
    check_signature(product.key.read_bytes(), sums, (folder / netboot.SUMS_SIGNATURE).read_bytes(), netboot.SUMS)
    listed = dict(reversed(line.split("  ", 1)) for line in sums.decode().splitlines())
    for path, sha256 in listed.items():
        with (folder / path).open("rb") as file:
            assert digest(file)[1] == sha256, path
    assert listed.keys() == {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()} - {
        netboot.SUMS, netboot.SUMS_SIGNATURE}


def test_the_initramfs_is_the_iso_s_with_drivers_behind_it(folder, product, archives):
    own = product.content(INITRAMFS)
    assert (folder / netboot.INITRD).read_bytes()[:len(own)] == own
    before = initramfs.files(own)
    changed = {path for path in before if archives[path] != before[path]}
    assert {path for path in changed if not re.fullmatch(r"usr/lib/modules/[^/]+/modules\.[a-z.]+", path)} == set()
    added = archives.keys() - before.keys()
    assert {path for path in added if not path.startswith(("usr/lib/modules/", "usr/lib/firmware/"))} == set()


def test_it_has_the_drivers_of_network_cards_with_all_that_they_need(archives):
    modules = {path.split("/", 4)[4]: path for path in archives if ".ko" in path}
    names = {Path(path).name.split(".")[0].replace("-", "_") for path in modules}
    assert DRIVERS - names == set()
    (index,) = (content.decode() for path, content in archives.items() if path.endswith("/modules.dep"))
    needs = {name: others.split() for name, _, others in (line.partition(":") for line in index.splitlines())}
    assert {other for path in modules for other in needs[path] if other not in modules} == set()
    for start in FIRMWARE:
        assert any(path.startswith(f"usr/lib/firmware/{start}") for path in archives), start


def test_it_fetches_by_a_script_that_the_iso_s_own_has(archives):
    assert b"fetch_manifest" in archives["scripts/cornerstone-http"]

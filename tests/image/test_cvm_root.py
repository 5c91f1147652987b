"""The CVM's root: Ceph and the iSCSI target. What holds in both roots is in test_roots."""

import pytest

from cornerstone.controller.membership.authority import Authority

REQUIRED = ("ceph-mon", "ceph-mgr", "ceph-osd", "ceph-common", "python3-rados", "python3-rbd", "targetcli-fb",
            "python3-cryptography", "python3-rtslib-fb", "lvm2", "smartmontools", "linux-image-amd64",
            "openssh-server", "shim-signed", "grub-efi-amd64-signed")


@pytest.mark.parametrize("name", REQUIRED)
def test_package(cvm, name):
    package = cvm.host.package(name)
    assert package.is_installed
    assert package.version == cvm.packages[name]


@pytest.mark.parametrize("name", ["qemu-system-x86", "libvirt-daemon-system", "openvswitch-switch"])
def test_it_runs_no_machines(cvm, name):
    assert not cvm.host.package(name).is_installed


def test_the_iscsi_target_is_genesis_s_to_start(cvm):
    """And nothing restores one: it is made anew from the catalogue of volumes."""
    for unit in ("rtslib-fb-targetctl", "data-services"):
        assert not cvm.host.file(f"/etc/systemd/system/multi-user.target.wants/{unit}.service").exists


def test_the_data_services_load_with_the_root_s_own_python(cvm):
    cvm.run("env PYTHONPATH=/usr/lib/cornerstone PYTHONDONTWRITEBYTECODE=1 python3 -c "
            "'import cornerstone.controller.data_services.service'")


def test_lvm_sees_no_guest_s_disks(cvm):
    assert 'global_filter = [ "r|.*|" ]' in cvm.read("etc/lvm/lvmlocal.conf")


def test_only_the_room_that_runs_here(cvm):
    rooms = cvm.path / "usr/lib/cornerstone/cornerstone"
    assert {path.name for path in rooms.iterdir()} - {"__pycache__"} == {"__init__.py", "model", "controller"}


def test_it_learns_who_it_is_with_the_root_s_own_python(cvm):
    said = cvm.run("env PYTHONPATH=/usr/lib/cornerstone PYTHONDONTWRITEBYTECODE=1 python3 -c "
                   "'import cornerstone.controller.identity as identity; print(identity.__file__)'")
    assert said == "/usr/lib/cornerstone/cornerstone/controller/identity.py"
    assert cvm.host.file("/etc/systemd/system/multi-user.target.wants/cvm-identity.service").is_symlink


def test_its_cryptography_derives_the_authority_that_other_suites_do(cvm):
    said = cvm.run("env PYTHONPATH=/usr/lib/cornerstone PYTHONDONTWRITEBYTECODE=1 python3 -c "
                   "'from cornerstone.controller.membership.authority import Authority\n"
                   "print(Authority(bytes(32), \"lab\").certificate)'")
    assert said.strip() == Authority(bytes(32), "lab").certificate.strip()


def test_members_are_served_and_the_command_is_there(cvm):
    assert cvm.host.file("/etc/systemd/system/multi-user.target.wants/membership.service").is_symlink
    assert "this is no CVM of a node" in cvm.run("cluster status 2>&1 || true")


def test_it_takes_the_node_s_keys_beside_its_own(cvm):
    assert "AuthorizedKeysFile .ssh/authorized_keys /run/cornerstone/authorized_keys/%u\n" in \
        cvm.read("etc/ssh/sshd_config.d/20-keys.conf")


@pytest.mark.parametrize("program", ["ceph-mon", "ceph-mgr", "ceph-osd", "ceph", "rbd", "ceph-volume"])
def test_ceph_is_whole(cvm, program):
    """Every library that it needs is there."""
    at = cvm.run(f"command -v {program}")
    assert "not found" not in cvm.run(f"ldd {at} 2>&1 || true")


def test_ceph_has_no_cluster_yet(cvm):
    assert [cvm.short(path) for path in cvm.files("etc/ceph", "var/lib/ceph") if path.name != "rbdmap"] == []


@pytest.mark.parametrize("module", ["rbd", "target_core_mod", "iscsi_target_mod", "dm_mod", "nvme", "mpt3sas",
                                    "megaraid_sas", "ahci", "virtio_scsi"])
def test_module(cvm, module):
    folder = cvm.path / "usr/lib/modules" / cvm.kernel
    known = ((folder / "modules.dep").read_text() + (folder / "modules.builtin").read_text()).replace("-", "_")
    assert f"/{module}.ko" in known

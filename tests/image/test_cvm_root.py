"""The CVM's root: Ceph and the iSCSI target. What holds in both roots is in test_roots."""

import pytest

from cornerstone.factory.inspection import elf, imports

REQUIRED = ("ceph-mon", "ceph-mgr", "ceph-osd", "ceph-common", "python3-rados", "python3-rbd", "targetcli-fb",
            "python3-cryptography", "python3-rtslib-fb", "lvm2", "smartmontools", "linux-image-amd64",
            "openssh-server", "shim-signed", "grub-efi-amd64-signed")


@pytest.mark.parametrize("name", REQUIRED)
def test_package(cvm, name):
    assert cvm.installed[name] == cvm.packages[name]


@pytest.mark.parametrize("name", ["qemu-system-x86", "libvirt-daemon-system", "openvswitch-switch"])
def test_it_runs_no_machines(cvm, name):
    assert name not in cvm.installed


def test_the_iscsi_target_is_genesis_s_to_start(cvm):
    """And nothing restores one: it is made anew from the catalogue of volumes."""
    for unit in ("rtslib-fb-targetctl", "data-services"):
        assert not cvm.tree.link(f"etc/systemd/system/multi-user.target.wants/{unit}.service")


@pytest.mark.parametrize("module", ["commands.cluster", "iscsi_target.service", "genesis", "identity",
                                    "membership.authority"])
def test_the_root_s_own_python_has_what_our_code_imports(cvm, module):
    assert imports.missing(cvm.tree, f"cornerstone.cvm.{module}") == []


def test_lvm_sees_no_guest_s_disks(cvm):
    assert 'global_filter = [ "r|.*|" ]' in cvm.tree.text("etc/lvm/lvmlocal.conf")


def test_only_the_room_that_runs_here(cvm):
    assert set(cvm.tree.names("usr/lib/cornerstone/cornerstone")) - {"__pycache__"} == {
        "__init__.py", "lib", "model", "cvm"}


@pytest.mark.parametrize("unit", ["cvm-identity.service", "membership.service"])
def test_service(cvm, unit):
    assert cvm.tree.link(f"etc/systemd/system/multi-user.target.wants/{unit}")


@pytest.mark.parametrize("command", ["cluster", "genesis", "acli"])
def test_command(cvm, command):
    program = cvm.tree.program(command)
    assert program
    assert elf.missing(cvm.tree, program) == []


def test_it_takes_the_node_s_keys_beside_its_own(cvm):
    assert "AuthorizedKeysFile .ssh/authorized_keys /run/cornerstone/authorized_keys/%u\n" in \
        cvm.tree.text("etc/ssh/sshd_config.d/20-keys.conf")


@pytest.mark.parametrize("program", ["ceph-mon", "ceph-mgr", "ceph-osd", "ceph", "rbd", "ceph-volume"])
def test_ceph_is_whole(cvm, program):
    """Every library that it needs is there."""
    at = cvm.tree.program(program)
    assert at
    assert elf.missing(cvm.tree, at) == []


def test_ceph_has_no_cluster_yet(cvm):
    assert [path for path in cvm.tree.below("etc/ceph", "var/lib/ceph") if not path.endswith("/rbdmap")] == []


@pytest.mark.parametrize("module", ["rbd", "target_core_mod", "iscsi_target_mod", "dm_mod", "nvme", "mpt3sas",
                                    "megaraid_sas", "ahci", "virtio_scsi"])
def test_module(cvm, module):
    assert module in cvm.modules

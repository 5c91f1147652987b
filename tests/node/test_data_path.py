"""From a guest's disk to the cluster and back: a volume, its paths on the host, and I/O that is verified."""

from __future__ import annotations

import re

import pytest

from cornerstone.lab.guest import ENDED

SIZE = 64 << 20
# emulated in an emulated host, a guest writes a block a second
WRITTEN = 256 << 10
# how iscsiadm(8) ends when there are none
NO_OBJECTS_FOUND = 21
# $0: a map's device, $1: so many paths it has to have; of what happens to block devices, each line is a reason to look
ALL_PATHS = """
while read -r _; do
    [ "$(ls "/sys/class/block/$0/slaves" | wc -l)" = "$1" ] && kill $! && exit
done < <(exec timeout 600 udevadm monitor --udev --subsystem-match=block)
exit 1
"""


@pytest.fixture(scope="module")
def guest(new_guest):
    """A guest that has run to its end."""
    new_guest.start(WRITTEN, 1000)
    new_guest.wait_for(ENDED, 1800)
    return new_guest


def test_each_host_is_logged_in_to_every_cvm(members, device):
    for member in members:
        assert len(member.host.check_output("iscsiadm --mode session").splitlines()) == len(members)


def test_the_volume_is_a_raw_scsi_disk_with_a_path_to_every_cvm(members, device):
    for host in (member.host for member in members):
        host.check_output("udevadm wait --timeout=600 %s", device)
        host.check_output("bash -c %s $(basename $(readlink %s)) %s", ALL_PATHS, device, str(len(members)))
        shown = host.check_output("multipath -ll %s", device)
        assert len(re.findall(r"\d+:\d+:\d+:\d+ sd\w+", shown)) == len(members)
        # each in a group of its own, for all of a group are asked to serve it
        assert len(re.findall(r"policy='service-time 0'", shown)) == len(members)
        assert host.check_output("blockdev --getsize64 %s", device) == str(SIZE)


def test_no_host_looks_into_a_volume(members, device):
    """It would take it from the CVM that serves it to another host's guest."""
    for member in members:
        read, *_ = member.host.check_output("cat /sys/class/block/$(basename $(readlink %s))/stat", device).split()
        assert read == "0"


def test_a_stranger_is_shown_no_target(members, device):
    """Not even the host itself, when it comes by another name."""
    host = members[0].host
    host.check_output("iscsiadm --mode iface --op new --interface stranger")
    try:
        host.check_output("iscsiadm --mode iface --op update --interface stranger --name iface.initiatorname"
                          " --value iqn.2026-11.org.example:stranger")
        found = host.run("iscsiadm --mode discovery --type sendtargets --portal 192.168.5.2 --interface stranger"
                         " --op nonpersistent")
        assert (found.rc, found.stdout) == (NO_OBJECTS_FOUND, "")
    finally:
        host.check_output("iscsiadm --mode iface --op delete --interface stranger")


@pytest.mark.nightly
def test_a_guest_reads_back_what_it_wrote(guest):
    said = guest.words()
    assert re.search(rf"{ENDED} 0\b", said), said[-3000:]
    assert re.search(r"^\s*READ: .*io=256KiB", said, re.MULTILINE), said[-3000:]
    assert re.search(r"^\s*WRITE: .*io=256KiB", said, re.MULTILINE), said[-3000:]


@pytest.mark.nightly
def test_the_cluster_holds_what_the_host_reads(members, guest, device):
    """By two ways: iSCSI on the host, and librbd in the CVM."""
    host = members[0].host.check_output("dd if=%s iflag=direct bs=1M status=none | sha256sum", device)
    pool = members[0].cvm.check_output("ceph osd pool ls | grep ^default-container")
    (image,) = members[0].cvm.check_output("rbd --pool %s ls", pool).splitlines()
    assert members[0].cvm.check_output("rbd --no-progress export %s/%s - | sha256sum", pool, image) == host
    zeros = members[0].host.check_output("head -c %s /dev/zero | sha256sum", str(SIZE))
    assert host != zeros

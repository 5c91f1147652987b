"""Volumes in a real cluster: two slow writers, a catalogue that is lost, what is in use or deleted, a full cluster.

The iSCSI target isn't here: who serves a volume is played by a client of librbd that has the image's lock.
"""

from __future__ import annotations

import json
import re

import pytest

from cornerstone.cvm.ceph.cluster import wait_until
from cornerstone.model.contracts.node import DataDisk

DISK = 5 << 30
DISKS = (DataDisk("DATA-1", "", DISK), DataDisk("DATA-2", "", DISK))
OBJECT = "--namespace cornerstone"
# each script begins with this; run by the CVM's Python
BEGIN = """
import contextlib, os, subprocess, sys, time
import rados, rbd
from cornerstone.cvm.iscsi_target import container, images, store
from cornerstone.lib.error import CornerstoneError
def acli(*words):
    done = subprocess.run(["acli", *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    print(done.returncode, done.stdout, done.stderr)
"""


@pytest.fixture(scope="module")
def node(cvm):
    """A node that is ready; its cluster has two disks and two copies."""
    node = cvm(*DISKS)
    node.start()
    node.become_ready()
    return node


@pytest.fixture(scope="module")
def pool(node) -> str:
    return next(name for name in node.ceph("osd", "pool", "ls") if name.startswith("default-"))


def acli(node, *words: str) -> str:
    done = node.run("acli", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(node, *words: str) -> str:
    """What acli says when it doesn't do what it is asked for."""
    done = node.run("acli", *words)
    assert done.returncode != 0, done.stdout
    return done.stderr


def script(node, text: str) -> str:
    """What a script prints."""
    done = node.run("env", "PYTHONPATH=/usr/lib/cornerstone", "python3", "-c", BEGIN + text)
    assert done.returncode == 0, done.stderr
    return done.stdout


def images(node, pool: str) -> list[str]:
    return json.loads(node.run("rbd", "--pool", pool, "ls", "--format", "json").stdout)


def luns(node, name: str) -> list[int]:
    return [int(lun) for lun in re.findall(r"lun (\d+)", acli(node, "vg.get", name))]


def look(node) -> list[str]:
    """Have genesis look at everything; the warnings of the state `ready`."""
    # a reload doesn't wait for the look that it asks for
    assert node.run("systemctl", "stop", "genesis").returncode == 0
    node.become_ready()
    return node.state("ready")["warnings"]


def wait_for_health(node, code: str, summary: str = "", there: bool = True) -> None:
    """Wait until the cluster has a health check with this summary, or, with there=False, until it hasn't."""
    def found() -> bool:
        checks = node.ceph("health")["checks"]
        return code in checks and summary in ("", checks[code]["summary"]["message"])
    assert wait_until(lambda: found() == there, 60), \
        f"waited 60 s for {code} {summary} to {'come' if there else 'go'}: {node.ceph('health', 'detail')}"


def test_d21_a_container_without_volumes_has_an_empty_catalogue(node, pool):
    assert "sold 0.0M" in acli(node, "vg.list")
    assert node.run("sh", "-c", f"rados --pool {pool} {OBJECT} ls").stdout == ""
    # as a service of an older release made it
    assert node.run("sh", "-c", f"rados --pool {pool} {OBJECT} create volumes").returncode == 0
    acli(node, "vg.create", "a")
    assert "a  0 disks" in acli(node, "vg.list")


def test_d20_two_slow_writers_both_get_their_volumes(node, pool):
    """The first is making its image for as long as the second needs to begin and end."""
    said = script(node, """
is_making, making = os.pipe()
may_end, end = os.pipe()
make = store.Store._make_image
def slow(self, *words):
    os.write(making, b"x")
    os.read(may_end, 1)
    return make(self, *words)
def create(group):
    with store.Store(container()) as opened:
        print(group, opened.create_disk(group, 64 << 20).lun, flush=True)
with store.Store(container()) as opened:
    opened.create_group("b")
first = os.fork()
if not first:
    store.Store._make_image = slow
    create("a")
    os._exit(0)
os.close(making)
assert os.read(is_making, 1), "the first has ended too early"
create("b")
os.write(end, b"x")
assert os.waitpid(first, 0)[1] == 0
""")
    assert said.split() == ["b", "0", "a", "1"]
    assert (luns(node, "a"), luns(node, "b")) == ([1], [0])
    assert len(images(node, pool)) == 2


def test_d20_many_writers_at_once_lose_nothing(node, pool):
    script(node, """
children = []
for number in range(6):
    child = os.fork()
    if not child:
        with store.Store(container()) as opened:
            opened.create_disk("b", 64 << 20)
        os._exit(0)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
""")
    assert sorted(luns(node, "b")) == [0, *range(2, 8)]
    assert len(images(node, pool)) == 8


def test_d20_a_volume_whose_group_goes_meanwhile_leaves_no_image(node, pool):
    before = images(node, pool)
    said = script(node, """
with store.Store(container()) as opened:
    opened.create_group("c")
    make = opened._make_image
    def slow(*words):
        image = make(*words)
        acli("vg.delete", "c", "--yes")
        return image
    opened._make_image = slow
    try:
        opened.create_disk("c", 64 << 20)
    except CornerstoneError as error:
        print(error.message)
""")
    assert "c: deleted" in said and "there is no volume group 'c'" in said
    assert images(node, pool) == before


@pytest.mark.parametrize("damage", ["truncate volumes 0", "truncate volumes 40", "rm volumes"])
def test_d21_a_catalogue_that_is_lost_beside_images_is_an_error_that_names_them(node, pool, damage):
    rados = f"rados --pool {pool} {OBJECT}"
    assert node.run("sh", "-c", f"{rados} get volumes /tmp/kept && {rados} {damage}").returncode == 0
    for words in (("vg.list",), ("vg.create", "d"), ("vg.disk_create", "a", "create_size=64M")):
        said = refused(node, *words)
        assert "the catalogue of volumes is" in said and all(image in said for image in images(node, pool))
    # as the service begins
    assert "missing" in script(node, """
with store.Store(container()) as opened:
    with contextlib.suppress(rados.ObjectNotFound):
        print("before", opened.objects.stat("volumes")[0])
    for ask in (opened.begin, opened.catalogue):
        try:
            ask()
        except CornerstoneError:
            print("missing or damaged")
""")
    assert node.run("sh", "-c", f"{rados} put volumes /tmp/kept").returncode == 0
    assert luns(node, "a") == [1]


def test_d19_a_volume_in_use_is_not_deleted(node, pool):
    acli(node, "vg.create", "used")
    acli(node, "vg.disk_create", "used", "create_size=64M")
    assert "was changed meanwhile" not in refused(node, "vg.delete", "used")
    assert "there is nobody to ask" in refused(node, "vg.delete", "used")
    said = script(node, """
with store.Store(container()) as opened:
    (disk,) = opened.catalogue().group("used").disks
    with rbd.Image(opened.images, disk.image) as image:
        image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
        acli("vg.delete", "used", "--yes")
    images.SETTLE_SECONDS = -1
    print("then:", opened.volumes.user(disk.image))
    opened.volumes.set_idle(disk.image)
    time.sleep(1)
    images.SETTLE_SECONDS = 5
    print("idle:", opened.volumes.user(disk.image))
""")
    assert said.startswith("8 ") and "used is in use: disk 0: 10.20.0.31:0/" in said
    assert re.search(r"then: it was in use \d s ago$", said, re.MULTILINE)
    assert re.search(r"idle: $", said, re.MULTILINE)


def test_d19_detaching_takes_a_volume_from_a_client_that_is_dead(node):
    said = script(node, """
with store.Store(container()) as opened:
    (disk,) = opened.catalogue().group("used").disks
    inside, outside = os.pipe()
    dead = os.fork()
    if not dead:
        with store.Store(container()) as other:
            image = rbd.Image(other.images, disk.image)
            image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
            os.write(outside, b"x")
            time.sleep(600)
    os.read(inside, 1)
    os.kill(dead, 9)
    acli("vg.delete", "used", "--yes")
    acli("vg.detach", "used")
""")
    assert said.startswith("8 ") and "0 used: detached" in said


def test_d19_a_deleted_group_comes_back_from_the_trash_with_its_data(node, pool):
    (image,) = set(images(node, pool)) - {name for group in "ab" for name in in_group(node, group)}
    assert node.run("rbd", "bench", "--io-type", "write", "--io-size", "4K", "--io-total", "64K",
                    f"{pool}/{image}").returncode == 0
    before = node.run("sh", "-c", f"rbd --no-progress export {pool}/{image} - | sha256sum").stdout
    old = luns(node, "used")
    said = acli(node, "vg.delete", "used", "--yes")
    assert re.match(r"used: deleted; until \d{4}-\d\d-\d\d \d\d:\d\d UTC: acli vg.restore used", said)
    assert image not in images(node, pool)
    assert "used  1 disks  64M  kept until " in acli(node, "vg.trash_list")
    assert "used" not in acli(node, "vg.list")
    acli(node, "vg.restore", "used")
    assert acli(node, "vg.trash_list").strip() == ""
    assert luns(node, "used")[0] > old[0], "a LUN isn't given again"
    assert node.run("sh", "-c", f"rbd --no-progress export {pool}/{image} - | sha256sum").stdout == before
    acli(node, "vg.delete", "used", "--yes")
    assert "there is nobody to ask" in refused(node, "vg.purge", "used")
    acli(node, "vg.purge", "used", "--yes")
    assert acli(node, "vg.trash_list").strip() == ""
    assert node.run("rbd", "trash", "ls", pool).stdout == ""


def in_group(node, group: str) -> list[str]:
    return script(node, f"""
with store.Store(container()) as opened:
    print(*(disk.image for disk in opened.catalogue().group({group!r}).disks))
""").split()


def test_d26_capacity_is_shown_and_not_sold_without_end(node):
    shown = re.search(r"free ([\d.]+)G of 4.0G, sold [\d.]+M of at most 40.0G, in the trash 0.0M",
                      acli(node, "vg.list"))
    assert shown and 4 < float(shown[1]) < 5
    acli(node, "vg.create", "big")
    said = refused(node, "vg.disk_create", "big", "create_size=40G")
    assert "would be more than 10 times" in said
    assert acli(node, "vg.get", "big") == "big\n"
    assert node.ceph("osd", "dump")["nearfull_ratio"] == pytest.approx(0.8)


def test_d26_an_operator_s_ratio_is_kept(node):
    node.ceph("osd", "set-nearfull-ratio", "0.7")
    look(node)
    assert node.ceph("osd", "dump")["nearfull_ratio"] == pytest.approx(0.7)


def test_d25_a_full_cluster_is_warned_of_and_freed_by_deleting_a_group(node, pool):
    acli(node, "vg.create", "vm1")
    acli(node, "vg.disk_create", "vm1", "create_size=1G")
    acli(node, "vg.create", "vm2")
    acli(node, "vg.disk_create", "vm2", "create_size=64M")
    (image,) = in_group(node, "vm1")
    assert node.run("rbd", "--pool", pool, "bench", "--io-type", "write", "--io-size", "4M", "--io-total", "256M",
                    "--io-pattern", "seq", image).returncode == 0
    assert look(node) == []
    node.ceph("osd", "set-nearfull-ratio", "0.01")
    # each OSD finds it out by itself
    wait_for_health(node, "OSD_NEARFULL", "2 nearfull osd(s)")
    said = look(node)
    assert any(warning.startswith("OSD_NEARFULL: osd.0 is near full, osd.1 is near full; ") for warning in said), said
    for command in ("genesis status", "cluster status"):
        assert "OSD_NEARFULL: osd.0 is near full" in node.run(*command.split()).stdout
    for name, ratio in (("backfillfull", "0.015"), ("full", "0.02")):
        node.ceph("osd", f"set-{name}-ratio", ratio)
    wait_for_health(node, "POOL_FULL")
    assert node.run("systemctl", "reload", "genesis").returncode == 0
    full = f"container {pool} is full: volumes can't be written"
    assert wait_until(lambda: node.state("ready")["error"] == full, 60), \
        f"waited 60 s for genesis to say that {full}: {node.state('ready')}"
    assert "the cluster is full" in refused(node, "vg.disk_create", "vm2", "create_size=64M")
    assert acli(node, "vg.delete", "vm1", "--yes") == "vm1: deleted\n"
    assert image not in images(node, pool) and node.run("rbd", "trash", "ls", pool).stdout == ""
    assert node.ceph("osd", "dump")["full_ratio"] == pytest.approx(0.02)
    wait_for_health(node, "OSD_FULL", there=False)
    assert "vm1" not in acli(node, "vg.list") and "vm2" in acli(node, "vg.list")
    for name, ratio in (("full", "0.95"), ("backfillfull", "0.9"), ("nearfull", "0.8")):
        node.ceph("osd", f"set-{name}-ratio", ratio)
    wait_for_health(node, "OSD_NEARFULL", there=False)
    node.become_whole()


def test_d33_a_single_copy_is_warned_of_as_long_as_it_lasts(node):
    missing = node.osd_on("sdb")
    node.kill()
    node.remove_disk("DATA-2")
    node.start()
    node.become_ready()
    said = node.state("ready")["warnings"]
    assert said == [f"down: osd.{missing} of NTNX-22SM6D010001-A-CVM (data disk DATA-2); bring it back, or replace its "
                    "disk (docs/cvm.md)", f"1 of 2 copies can be written, on osd.{1 - missing}: one more "
                    "failure may lose what is written meanwhile"]
    assert look(node) == said
    assert said[1] in node.run("cluster", "status").stdout
    node.kill()
    node.add_disk("DATA-2", DISK)
    node.start()
    node.become_ready()
    assert node.state("ready")["warnings"] == []

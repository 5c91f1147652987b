"""Fences with the real daemons: librados and librbd, for the kernel's client, which is fenced alike."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import threading
from collections.abc import Iterator

import pytest

from cornerstone.cvm.ceph.cluster import wait_until
from cornerstone.model.contracts.node import DataDisk

POOL, IMAGE = "fencing", "volume-a"
# until a fence ends, in the run that shows what happens then
OLD_FENCE_SECONDS = 10
# of a watch whose client is away; Ceph's own is 30
WATCH_SECONDS = 5
# until a client says what it is waited for: TCP tries again after up to two minutes when a network is back
ANSWER_SECONDS = 180
END_SECONDS = 20
# a client in a network namespace that can be cut off from the node
NETWORK = """
set -e
ip netns add cut
ip link add near type veth peer name far netns cut
ip address add 10.99.0.1/24 dev near
ip link set near up
ip -n cut address add 10.99.0.2/24 dev far
ip -n cut link set far up
ip -n cut route add default via 10.99.0.1
# Ceph is for the members, and the node's own packet filter sees to that
nft insert rule inet node input iifname near accept
"""
CONNECT = f"""
import errno, json, sys, rados, rbd
cluster = rados.Rados(conffile="/etc/ceph/ceph.conf", name="client.admin", conf={{"rados_osd_op_timeout": sys.argv[1]}})
cluster.connect()
objects = cluster.open_ioctx("{POOL}")
"""
# has the image's lock; at a line it begins to write, and says how that ended
OLD_CLIENT = CONNECT + f"""
image = rbd.Image(objects, "{IMAGE}")
image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
image.write(b"OLD  ", 0)
print("ready", flush=True)
input()
image.aio_write(b"STALE", 0, lambda done: print(done.get_return_value(), flush=True))
print("begun", flush=True)
input()
"""
# what data-services does when a volume is taken
NEW_CLIENT = f"""
import rbd
from cornerstone.cvm.iscsi_target.catalogue import Disk
from cornerstone.cvm.iscsi_target.clients import Clients
from cornerstone.cvm.iscsi_target.fences import RadosFences
from cornerstone.cvm.iscsi_target.locks import ImageLocks
from cornerstone.cvm.iscsi_target.store import Store
with Store("{POOL}") as store:
    clients = Clients(RadosFences(store), "machine", "boot")
    print(ImageLocks(store, 1, clients).break_all(Disk(0, 0, "{IMAGE}", "serial", 1 << 26)))
    with rbd.Image(store.images, "{IMAGE}") as image:
        image.write(b"NEW  ", 0)
"""
# writes one thing after the other, each at a line, and says how that ended
OLD_WRITER = CONNECT + """
objects.write_full("written", b"OLD")
print("ready", flush=True)
print(next(iter(cluster.get_addrs().split())), flush=True)
for number, _ in enumerate(sys.stdin):
    try:
        objects.write_full("written", b"STALE %d" % number)
        print("written", flush=True)
    except rados.Error as error:
        print(error.errno, flush=True)
"""
# as the kernel's client of an image that was just taken: it knows the cluster's map since then
NEW_WRITER = CONNECT + """
print("ready", flush=True)
objects.aio_write_full("written", b"NEW", oncomplete=lambda done: print("written", flush=True))
print("begun", flush=True)
input()
"""
READ = f"""
import rbd
from cornerstone.cvm.iscsi_target.store import Store
with Store("{POOL}") as store, rbd.Image(store.images, "{IMAGE}", read_only=True) as image:
    print(image.read(0, 5).decode())
"""
WATCH = CONNECT + """
import threading
from cornerstone.cvm.iscsi_target.watch import LastingWatch
objects.write_full("watched", b"")
watch = LastingWatch(lambda lost: objects.watch("watched", lambda *heard: print("heard", flush=True), lost),
                     lambda: print("look", flush=True), lambda event: print(event.state, flush=True), 5)
watch.open()
threading.Thread(target=watch.run, daemon=True).start()
print("ready", flush=True)
input()
"""
RECORDS = f"""
from cornerstone.cvm.iscsi_target.clients import Client, Clients
from cornerstone.cvm.iscsi_target.fences import RadosFences
from cornerstone.cvm.iscsi_target.locks import RadosRegister
from cornerstone.cvm.iscsi_target.store import Store
with Store("{POOL}") as store:
    fences = RadosFences(store)
    assert fences.clients() == []
    one, two = (Client(image, "10.20.0.31:0/314159265" + image[-1], "m", "b") for image in ("volume-1", "volume-2"))
    for client in (one, two):
        fences.note(client)
    assert set(fences.clients()) == {{one, two}} and fences.clients("volume-1") == [one]
    Clients(fences, "n", "c").fence_former("volume-1")
    assert one.address in fences.fenced() and two.address not in fences.fenced()
    # the same machine, two boots later; volume-2 is gone
    Clients(fences, "m", "d").end_fences(["volume-1"])
    assert fences.clients() == [] and one.address not in fences.fenced()
    register = RadosRegister(store.objects, "address")
    assert register.read() == "" and register.swap("", "a 1")
    assert not register.swap("", "b 1") and register.read() == "a 1"
    assert register.swap("a 1", "a 2") and register.read() == "a 2"
print("done")
"""


class Client:
    """A Python program on the node, in the namespace that can be cut off; op_seconds: rados_osd_op_timeout."""

    def __init__(self, node, program: str, op_seconds: int = 0) -> None:
        self._process = subprocess.Popen(
            # it goes with nsenter, which is what is killed
            node.command("setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", "cut",
                         "env", "PYTHONPATH=/usr/lib/cornerstone", "python3", "-c", program, str(op_seconds)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line.strip())
        self._lines.put("(it has ended)")

    def go_on(self) -> None:
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def line(self, what: str) -> str:
        """What it says next; what: that it is waited for, for people."""
        try:
            return self._lines.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            pytest.fail(f"waited {ANSWER_SECONDS} s for a client to say {what}")

    def expect(self, *lines: str) -> None:
        """Wait until it says these lines, and nothing else before or between them."""
        for line in lines:
            assert self.line(repr(line)) == line

    @property
    def silent(self) -> bool:
        """Whether it has said no more than what was read."""
        return self._lines.empty()

    def end(self) -> None:
        # of one that is killed Ceph keeps the watch of its image for half a minute
        self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(ANSWER_SECONDS)
        assert not self._reader.is_alive(), f"waited {ANSWER_SECONDS} s for a client that was killed to end"
        self._process.stdout.close()


@pytest.fixture(scope="module")
def node(cvm):
    node = cvm(DataDisk("DATA-1", "", 5 << 30), factor=1)
    node.start()
    node.become_ready()
    made = node.run("sh", "-c", NETWORK)
    assert made.returncode == 0, made.stderr
    for words in (("osd", "pool", "create", POOL, "8"), ("osd", "pool", "application", "enable", POOL, "rbd")):
        assert node.run("ceph", *words).returncode == 0
    return node


@pytest.fixture
def client(node):
    """Starts clients, and ends them; afterwards the network is as before."""
    running = []

    def start(program: str, op_seconds: int = 0) -> Client:
        running.append(Client(node, program, op_seconds))
        running[-1].expect("ready")
        return running[-1]
    yield start
    node.run("ip", "link", "set", "near", "up")
    for each in running:
        each.end()


@pytest.fixture
def image(node):
    made = node.run("rbd", "create", "--size", "64M", "--image-feature", "layering,exclusive-lock", f"{POOL}/{IMAGE}")
    assert made.returncode == 0, made.stderr
    yield
    for address in fenced(node):
        node.run("ceph", "osd", "blocklist", "rm", address)
    assert wait_until(lambda: node.run("rbd", "rm", f"{POOL}/{IMAGE}").returncode == 0, 120), \
        f"waited 120 s until nobody watches {IMAGE} and it can be removed"


def fenced(node) -> list[str]:
    """Return the addresses on the blocklist."""
    return list(node.ceph("osd", "dump")["blocklist"])


def python(node, program: str) -> str:
    done = node.run("env", "PYTHONPATH=/usr/lib/cornerstone", "python3", "-c", program)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def let_fences_end_after(node, seconds: float) -> None:
    assert node.run("ceph", "tell", "mon.*", "config", "set", "mon_osd_blocklist_default_expire",
                    str(seconds)).returncode == 0


@pytest.mark.parametrize("ends", [False, True])
def test_d13_a_write_that_hung_for_longer_than_fences_used_to_live(node, image, client, ends):
    """With the fences that ceph.conf asks for NEW stays. With one that ends, as before, STALE comes back."""
    told = node.run("ceph", "config", "show", "mon.10-20-0-31", "mon_osd_blocklist_default_expire")
    assert float(told.stdout) > 10 * 365 * 86400
    old = client(OLD_CLIENT)
    if ends:
        let_fences_end_after(node, OLD_FENCE_SECONDS)
    assert node.run("ip", "link", "set", "near", "down").returncode == 0
    old.go_on()
    old.expect("begun")
    assert python(node, NEW_CLIENT) == "1"
    if ends:
        let_fences_end_after(node, float(told.stdout))
        assert wait_until(lambda: not fenced(node), OLD_FENCE_SECONDS + 30), \
            f"waited {OLD_FENCE_SECONDS + 30} s for the fence to end: {fenced(node)}"
    assert node.run("ip", "link", "set", "near", "up").returncode == 0
    old.expect("0" if ends else "-108")
    assert python(node, READ) == ("STALE" if ends else "NEW")


def test_d13_a_write_without_an_answer_ends_with_an_error_in_bounded_time(node, image, client):
    old = client(OLD_CLIENT, op_seconds=3)
    assert node.run("ip", "link", "set", "near", "down").returncode == 0
    old.go_on()
    old.expect("begun", "-110")


@contextlib.contextmanager
def maps_delayed(node) -> Iterator[None]:
    """With an OSD that gets what monitors send only hours later; afterwards it has all that it missed."""
    try:
        delay(node, type="mon", max="1e9", probability="1")
        yield
    finally:
        delay(node, probability="0")


def delay(node, **how: str) -> None:
    for key, value in how.items():
        assert node.run("ceph", "tell", "osd.0", "config", "set", f"ms_inject_delay_{key}", value).returncode == 0
    # it is a connection's from its beginning on
    assert node.run("systemctl", "restart", "ceph-mon@10-20-0-31").returncode == 0
    assert wait_until(lambda: node.run("ceph", "--connect-timeout", "5", "mon", "stat").returncode == 0, 60), \
        "waited 60 s for the monitor to answer"


def test_d16_a_writer_s_own_map_brings_the_fence_to_an_osd_that_has_not_heard_of_it(node, client):
    """The writer isn't who fenced. Its write waits for the OSD to have the fence, and all before it is older."""
    old = client(OLD_WRITER)
    address = old.line("its address")
    with maps_delayed(node):
        assert node.run("ceph", "osd", "blocklist", "add", address).returncode == 0
        old.go_on()
        old.expect("written")
        new = client(NEW_WRITER)
        new.expect("begun")
        old.go_on()
        old.expect("written")
        known, fenced_since = node.ceph("tell", "osd.0", "status")["newest_map"], node.ceph("osd", "dump")["epoch"]
        assert known < fenced_since and new.silent
    new.expect("written")
    old.go_on()
    old.expect("108")
    assert node.run("rados", "--pool", POOL, "get", "written", "-").stdout == "NEW"
    assert node.run("ceph", "osd", "blocklist", "rm", address).returncode == 0


def test_d13_records_and_fences_and_registers_are_kept(node):
    assert python(node, RECORDS) == "done"


def test_d22_a_watch_is_there_again_when_the_network_is(node, client):
    assert node.run("ceph", "tell", "osd.*", "config", "set", "osd_client_watch_timeout",
                    str(WATCH_SECONDS)).returncode == 0

    def watchers() -> list[str]:
        return node.run("rados", "--pool", POOL, "listwatchers", "watched").stdout.splitlines()
    watching = client(WATCH)
    (before,) = watchers()
    assert node.run("ip", "link", "set", "near", "down").returncode == 0
    assert wait_until(lambda: watchers() == [], 60), f"waited 60 s for the watch to be dropped: {watchers()}"
    assert node.run("ip", "link", "set", "near", "up").returncode == 0
    watching.expect("warning", "done", "look")
    (after,) = watchers()
    assert after != before
    assert node.run("rados", "--pool", POOL, "notify", "watched", "x").returncode == 0
    watching.expect("heard")

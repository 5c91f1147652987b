"""The members' clocks, kept by real chronyds on loopback addresses: a wrong one moves no other, whoever's it is."""

from __future__ import annotations

import contextlib
import itertools
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from cornerstone.cvm import clocks, identity
from cornerstone.cvm.waiting import Waiting
from cornerstone.model.contracts.node import NodeConfig

NODE = Path(__file__).resolve().parents[1] / "data/nodes/passthrough.json"
SHIFTED_CLOCK = Path(__file__).with_name("shifted_clock.c")
TEN_YEARS = 315_360_000
# chrony asks every 16 seconds at first, and wants some answers
SECONDS = 150
# between two questions of identity.py's minpoll, and some
ASKED_SECONDS = 20
# what is off by less than a second isn't set but slewed, which these clocks can't be
NEAR_SECONDS = 2
IN_ROOT = """
mount --make-rprivate /
mount --bind "$1" "$2/mnt"
shift; root=$1; shift
exec chroot "$root" /usr/bin/env "$@"
"""
networks = itertools.count(1)


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("library") / "shifted_clock.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-nostdlib", "-o", made, SHIFTED_CLOCK], check=True)
    return made


@dataclass
class Chronyd:
    """A chronyd of the CVM's root, and genesis's look at the clocks beside it. off: the furthest that its time was.

    follows: the address that it said last.
    """

    root: Path
    library: Path
    folder: Path
    address: str
    text: str
    shift: int
    members: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    off: float = 0
    last: float = TEN_YEARS
    follows: str = ""
    said: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        (self.folder / "shifted_clock.so").write_bytes(self.library.read_bytes())
        if not (self.folder / "clock").exists():
            self.set_clock(self.shift)
        (self.folder / "chrony.conf").write_text(
            self.text.replace("/var/lib/chrony/", "/mnt/")
            + f"bindaddress {self.address}\nbindacqaddress {self.address}\npidfile /mnt/chronyd.pid\n"
            "bindcmdaddress /mnt/chronyd.sock\n")
        self.process = self._in_root("LD_PRELOAD=/mnt/shifted_clock.so", "CLOCK_FILE=/mnt/clock", "chronyd", "-d",
                                     "-u", "root", "-f", "/mnt/chrony.conf")

    def set_clock(self, shift: int) -> None:
        """Set the clock so many seconds off this machine's."""
        clock = self.folder / "clock"
        clock.touch()
        with clock.open("r+b") as file:
            file.write(struct.pack("q", shift * 10**9))

    def _in_root(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "sh", "-ec", IN_ROOT, "sh",
                                     self.folder, self.root, *words], stdout=log, stderr=log)

    def end(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            (self.folder / "chronyd.pid").unlink(missing_ok=True)

    def chronyc(self, words: tuple[str, ...]) -> None:
        self._in_root("chronyc", "-h", "/mnt/chronyd.sock", *words).wait(SECONDS)

    def restart(self) -> None:
        self.end()
        self.start()

    def look(self) -> None:
        """Do what genesis does, and note how far the clock is from this machine's."""
        now = time.time()
        if clock := clocks.read_clock(self.address, self.address, now):
            self.last = abs(clock.offset + time.monotonic() - time.time())
            self.off = max(self.off, self.last)
            self.follows = clock.follows
        try:
            clocks.settle(self.address, self.members, self.servers, now - 86400, self.chronyc, self.restart)
        except Waiting as waiting:
            self.said.append(waiting.message)


def members_of(root: Path, library: Path, folder: Path, shifts: tuple[int, ...], *, server: bool) -> list[Chronyd]:
    """The chronyds of a cluster whose clocks are wrong by so many seconds; and, at the end, that of a time server."""
    network = f"127.123.{next(networks)}"
    addresses = tuple(f"{network}.{number + 1}" for number in range(len(shifts)))
    made = []
    for address, shift in zip(addresses, shifts, strict=True):
        config = NodeConfig.from_json(NODE.read_text())
        config = replace(config, cluster=replace(config.cluster, members=addresses), cvm=replace(
            config.cvm, address=f"{address}/8", ntp_servers=(f"{network}.99",) if server else ()))
        made.append(Chronyd(root, library, folder / address, address,
                            identity.files(config)["etc/chrony/chrony.conf"], shift, addresses,
                            config.cvm.ntp_servers))
    if server:
        made.append(Chronyd(root, library, folder / f"{network}.99", f"{network}.99",
                            "local stratum 2\nallow 127.0.0.0/8\ncmdport 0\n", 0))
    for each in made:
        each.folder.mkdir(mode=0o700)
    return made


@contextlib.contextmanager
def running(chronyds: list[Chronyd]) -> Iterator[None]:
    """With the chronyds, and a thread for each member that looks every second as genesis does."""
    ended = threading.Event()

    def look_on(each: Chronyd) -> None:
        while not ended.wait(1):
            each.look()
    with ThreadPoolExecutor(len(chronyds)) as threads:
        try:
            for each in chronyds:
                each.start()
            looking = [threads.submit(look_on, each) for each in chronyds if each.members]
            yield
        finally:
            ended.set()
            for each in chronyds:
                each.end()
    for each in looking:
        each.result()


def jump(chronyds: list[Chronyd], by: int, who: int) -> None:
    """Have one clock jump, as that of a machine that was suspended, or restored; the others' counts begin anew."""
    for each in chronyds:
        each.off = 0
    chronyds[who].set_clock(by)
    # a look that has begun before has seen nothing of it
    wait_until(lambda: chronyds[who].off >= NEAR_SECONDS, f"{chronyds[who].address} is seen to have jumped")


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Wait at most SECONDS."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, f"waited {SECONDS} s until {what}"
        time.sleep(0.1)


def wait_until_right(chronyds: list[Chronyd]) -> None:
    """Wait at most SECONDS; assert_right says who isn't right then."""
    end = time.monotonic() + SECONDS
    while any(each.last > NEAR_SECONDS for each in chronyds if each.members):
        if time.monotonic() > end:
            return
        time.sleep(1)


def assert_right(chronyds: list[Chronyd], wrong: int, case: object) -> None:
    """All are right by now, and none but the wrong one ever wasn't."""
    for number, each in enumerate(chronyds):
        if each.members:
            log = (each.folder / "log").read_text()
            assert each.last < NEAR_SECONDS, (case, each.address, each.last, log)
            assert number == wrong or each.off < NEAR_SECONDS, (case, each.address, each.off, log)


def test_d24_no_wrong_clock_leads_whichever_member_it_is(root, library, tmp_path):
    """Nor does one that jumps when all follow it."""
    cases = {}
    for server, shift, wrong in itertools.product((False, True), (-TEN_YEARS, TEN_YEARS, -300), range(3)):
        shifts = tuple(shift if number == wrong else 0 for number in range(3))
        cases[(server, shift, wrong)] = members_of(root, library, tmp_path, shifts, server=server)
    everybody = list(itertools.chain(*cases.values()))
    with running(everybody):
        wait_until_right(everybody)
        for (server, shift, wrong), chronyds in cases.items():
            assert_right(chronyds, wrong, (server, shift, wrong))
            jump(chronyds, shift, wrong)
        wait_until_right(everybody)
        # so long that whoever asks the one that jumped has asked it
        time.sleep(ASKED_SECONDS)
    for (server, shift, wrong), chronyds in cases.items():
        assert_right(chronyds, wrong, ("jumped", server, shift, wrong))


def test_d24_one_that_led_and_comes_back_with_a_wrong_clock_has_the_others_time(root, library, tmp_path):
    """They have followed it: chrony takes no time from those who say that they have theirs from it."""
    three = members_of(root, library, tmp_path, (0, 0, 0), server=False)
    leader, *others = three
    with running(three):
        wait_until(lambda: all(each.follows == leader.address for each in others), "all follow the first")
        leader.end()
        leader.set_clock(300)
        leader.start()
        wait_until(lambda: leader.off > NEAR_SECONDS, "the first is seen to be wrong")
        wait_until_right(three)
    assert_right(three, 0, "came back")


def test_d24_of_two_with_a_time_server_one_that_jumps_gets_its_time_back(root, library, tmp_path):
    """Neither is a majority; chrony starts anew, and takes the server's time."""
    two = members_of(root, library, tmp_path, (0, 0), server=True)
    with running(two):
        wait_until_right(two)
        assert_right(two, -1, "at first")
        jump(two, -3600, 0)
        wait_until_right(two)
    assert_right(two, 0, "jumped")


def test_d24_of_two_neither_leads_when_they_differ_unless_one_is_known_to_be_wrong(root, library, tmp_path):
    apart = members_of(root, library, tmp_path, (TEN_YEARS, 0), server=False)
    old = members_of(root, library, tmp_path, (-TEN_YEARS, 0), server=False)
    with running([*apart, *old]):
        wait_until_right(old)
    assert_right(old, 0, "old")
    assert [each.off > NEAR_SECONDS for each in apart] == [True, False]
    for each in apart:
        assert each.said[-1].startswith("no majority of the members' clocks agrees")
        assert "Selected source" not in (each.folder / "log").read_text()

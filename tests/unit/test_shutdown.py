"""When the host goes down: guests, sessions with their volumes, Controller VM, in this order."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from cornerstone.hypervisor import command
from cornerstone.hypervisor.shutdown import CONTROLLER_SECONDS, GUEST_SECONDS, LOOK_SECONDS, Shutdown
from cornerstone.lib.command import NOT_FOUND, TIMED_OUT

CVM = "NTNX-LAB-A-CVM"


class Host:
    """Domains that end when they are asked to, but the stubborn ones; its clock goes on while it is listened to.

    fails: the answer to commands that begin with this word.
    """

    def __init__(self, *running: str, stubborn: tuple[str, ...] = (),
                 fails: Mapping[str, tuple[int, str]] | None = None) -> None:
        self.fails = fails or {}
        self.running = set(running)
        self.stubborn = stubborn
        self.asked: list[str] = []
        self.told: list[str] = []
        self.now = 0.0

    def virsh(self, *words: str) -> tuple[int, str]:
        if words[0] == "list":
            return 0, " ".join(sorted(self.running))
        if words[0] == "event":
            self.now += LOOK_SECONDS
            return 0, ""
        self.asked.append(" ".join(words))
        if words[0] in self.fails:
            return self.fails[words[0]]
        if words[0] == "destroy" or words[1] not in self.stubborn:
            self.running.discard(words[1])
        return 0, ""

    def run(self, *words: str) -> tuple[int, str]:
        self.asked.append(" ".join(words))
        return self.fails.get(words[0], (0, ""))

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def goes_down(self) -> list[str]:
        Shutdown(CVM, lambda event: self.told.append(f"{event.state} {event.message}".strip()), self.virsh, self.run,
                 lambda: self.now, self.sleep).end_all()
        return self.asked


QUEUEING = "multipathd disablequeueing maps"
SESSIONS = ["multipath -F", "iscsiadm --mode node --logoutall=all"]


def test_the_controller_is_last():
    host = Host("b", CVM, "a")
    assert host.goes_down() == ["shutdown a", "shutdown b", QUEUEING, *SESSIONS, f"shutdown {CVM}"]
    assert (host.now, host.running, host.told) == (0.0, set(), ["started", "done"])


def test_who_does_not_end_is_turned_off():
    host = Host("a", "b", CVM, stubborn=("b", CVM))
    assert host.goes_down() == ["shutdown a", "shutdown b", QUEUEING, "destroy b", *SESSIONS,
                                f"shutdown {CVM}", f"destroy {CVM}"]
    assert host.now == GUEST_SECONDS + CONTROLLER_SECONDS
    assert host.told == ["started", "warning b didn't end within 180 s and is turned off",
                         f"warning {CVM} didn't end within 300 s and is turned off", "done"]


def test_what_virsh_says_of_its_failure_is_no_domain():
    host = Host("a", CVM)
    host.virsh = lambda *words: (1, "error: failed to connect to the hypervisor")
    assert host.goes_down() == [QUEUEING, *SESSIONS]
    assert "warning libvirt doesn't say what runs: error: failed to connect to the hypervisor" in host.told


def test_a_controller_that_is_off_stays_so():
    assert Host("a").goes_down() == ["shutdown a", QUEUEING, *SESSIONS]


def test_what_fails_is_told_and_the_host_goes_down_all_the_same_d34():
    """The fault's own sample: a guest that can't be turned off keeps its volume."""
    host = Host("vm1", CVM, stubborn=("vm1",), fails={
        "destroy": (1, "error: Failed to terminate process 77 with SIGKILL: Device or resource busy"),
        "multipath": (1, "36001405e7159402b3b2567d864b1174a: map in use"),
        "iscsiadm": (8, "iscsiadm: initiator reported error")})
    assert host.goes_down() == ["shutdown vm1", QUEUEING, "destroy vm1", *SESSIONS, f"shutdown {CVM}"]
    assert host.told == [
        "started", "warning vm1 didn't end within 180 s and is turned off",
        "warning vm1 can't be turned off: error: Failed to terminate process 77 with SIGKILL: Device or resource busy",
        "warning multipath doesn't let go of all volumes: 36001405e7159402b3b2567d864b1174a: map in use",
        "warning iSCSI doesn't log out everywhere: iscsiadm: initiator reported error", "done"]


def test_nothing_queues_before_a_guest_is_turned_off_d34():
    host = Host("a", CVM, stubborn=("a",))
    assert host.goes_down().index(QUEUEING) < host.asked.index("destroy a")


def test_without_multipathd_the_kernel_is_told_for_each_map_d34():
    host = Host(CVM, fails={"multipathd": (1, "timeout receiving packet"),
                            "dmsetup": (0, "36001405a\t(254:0)\n36001405b\t(254:1)")})
    assert [each for each in host.goes_down() if each.startswith("dmsetup message")] == [
        "dmsetup message 36001405a 0 fail_if_no_path", "dmsetup message 36001405b 0 fail_if_no_path"]
    assert "warning multipathd doesn't stop queueing: timeout receiving packet" in host.told


def test_no_maps_and_no_sessions_are_no_failure_d34():
    host = Host(CVM, fails={"iscsiadm": (21, "iscsiadm: No matching sessions found"),
                            "multipathd": (1, "x"), "dmsetup": (0, "No devices found")})
    host.goes_down()
    assert host.told == ["started", "warning multipathd doesn't stop queueing: x", "done"]


def test_a_guest_that_cannot_be_asked_is_turned_off_d34():
    host = Host("a", CVM, stubborn=("a",), fails={"shutdown": (1, "error: Requested operation is not valid")})
    host.goes_down()
    assert "warning a can't be asked to end: error: Requested operation is not valid" in host.told
    assert {"destroy a", f"destroy {CVM}"} <= set(host.asked)


def test_one_that_ends_before_it_is_asked_is_no_failure_d34():
    host = Host("a", CVM, fails={"shutdown": (1, "error: Requested operation is not valid: domain is not running")})
    answers = iter([(0, f"a {CVM}")])
    host.running.clear()
    ask = host.virsh
    host.virsh = lambda *words: next(answers, (0, "")) if words[0] == "list" else ask(*words)
    host.goes_down()
    assert host.told == ["started", "done"]


def test_a_libvirt_that_stops_answering_is_no_end_of_its_domains_d34():
    host = Host("a", CVM, stubborn=("a",))
    answers = iter([(0, f"a {CVM}")])
    ask = host.virsh
    host.virsh = lambda *words: next(answers, (1, "error: broken pipe")) if words[0] == "list" else ask(*words)
    assert "destroy a" in host.goes_down()
    assert host.told.count("warning libvirt doesn't say what runs: error: broken pipe") == 1


@pytest.mark.parametrize("words", [("sleep", "60"), ("sh", "-c", "sleep 60 & wait")])
def test_a_command_that_hangs_is_left_behind_d34(words, monkeypatch):
    monkeypatch.setattr("cornerstone.lib.command.KILLED_SECONDS", 0.1)
    assert command.run(*words, seconds=0.2) == (TIMED_OUT, f"{words[0]} hasn't ended within 0 s")


def test_a_command_that_is_not_there_is_an_answer_d34(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert command.run("multipath", "-F") == (NOT_FOUND, "multipath: No such file or directory")
    assert command.virsh("list") == (NOT_FOUND, "virsh: No such file or directory")


def test_what_a_command_says_in_any_bytes_is_text_d34():
    assert command.run("printf", r"a\377b\n") == (0, "a\ufffdb")
    assert command.run("sh", "-c", "echo out; echo err >&2; exit 3") == (3, "out\nerr")

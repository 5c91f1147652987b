"""When the host goes down: guests, sessions with their volumes, Controller VM, in this order."""

from __future__ import annotations

from cornerstone.hypervisor.shutdown import CONTROLLER_SECONDS, GUEST_SECONDS, LOOK_SECONDS, Shutdown

CVM = "NTNX-LAB-A-CVM"


class Host:
    """Domains that end when they are asked to, but the stubborn ones; its clock goes on while it is listened to."""

    def __init__(self, *running: str, stubborn: tuple[str, ...] = ()) -> None:
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
        if words[0] == "destroy" or words[1] not in self.stubborn:
            self.running.discard(words[1])
        return 0, ""

    def run(self, *words: str) -> tuple[int, str]:
        self.asked.append(" ".join(words))
        return 0, ""

    def goes_down(self) -> list[str]:
        Shutdown(CVM, lambda event: self.told.append(f"{event.state} {event.message}".strip()), self.virsh, self.run,
                 lambda: self.now).end_all()
        return self.asked


SESSIONS = ["multipath -F", "iscsiadm --mode node --logoutall=all"]


def test_the_controller_is_last():
    host = Host("b", CVM, "a")
    assert host.goes_down() == ["shutdown a", "shutdown b", *SESSIONS, f"shutdown {CVM}"]
    assert (host.now, host.running, host.told) == (0.0, set(), ["started", "done"])


def test_who_does_not_end_is_turned_off():
    host = Host("a", "b", CVM, stubborn=("b", CVM))
    assert host.goes_down() == ["shutdown a", "shutdown b", "destroy b", *SESSIONS, f"shutdown {CVM}",
                                f"destroy {CVM}"]
    assert host.now == GUEST_SECONDS + CONTROLLER_SECONDS
    assert host.told == ["started", "warning b didn't end within 180 s and is turned off",
                         f"warning {CVM} didn't end within 300 s and is turned off", "done"]


def test_what_virsh_says_of_its_failure_is_no_domain():
    host = Host("a", CVM)
    host.virsh = lambda *words: (1, "error: failed to connect to the hypervisor")
    assert host.goes_down() == SESSIONS
    assert "warning libvirt doesn't say what runs: error: failed to connect to the hypervisor" in host.told


def test_a_controller_that_is_off_stays_so():
    assert Host("a").goes_down() == ["shutdown a", *SESSIONS]

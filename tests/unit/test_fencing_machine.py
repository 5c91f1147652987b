"""No acknowledged write is lost, whatever happens to CVMs, networks and time, in whatever order."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fencing_world import Cvm, Volume, World

MINUTE, YEAR = 60.0, 365 * 86400.0
CVMS = st.integers(0, 1)
VOLUMES = st.integers(0, 1)
# shorter and longer than a lease, a request, Ceph's own fence; and two years of a cable that nobody puts back
SPANS = st.sampled_from([20.0, 61.0, 61 * MINUTE, 2 * YEAR])


class DataPath(RuleBasedStateMachine):
    """Two CVMs, and hosts that write by any path."""

    @initialize()
    def start(self) -> None:
        self.world = World(2)
        self.world.create()

    def volume(self, number: int) -> Volume:
        """One of the volumes that there are."""
        present = [volume for volume in self.world.volumes if not volume.deleted]
        return present[number % len(present)]

    @rule(number=VOLUMES, by=CVMS, times=st.integers(1, 3))
    def write(self, number: int, by: int, times: int) -> None:
        for _ in range(times):
            self.world.write(self.volume(number), self.world.cvms[by])

    @rule(number=VOLUMES, pause=st.booleans())
    def cut_with_a_write_under_way(self, number: int, pause: bool) -> None:
        volume = self.volume(number)
        if server := self.world.server(volume):
            server.connected = False
            self.world.write(volume, server)
            server.paused = pause

    @rule(number=VOLUMES, pause=st.booleans(), seconds=SPANS)
    def cut_for_a_time(self, number: int, pause: bool, seconds: float) -> None:
        """With a write under way, while the host writes by the other path."""
        volume = self.volume(number)
        if server := self.world.server(volume):
            self.cut_with_a_write_under_way(number, pause)
            for _ in range(2):
                self.world.write(volume, self.world.cvms[1 - server.number])
            self.pass_time(seconds)
            self.connect(server.number, True)

    @rule(number=VOLUMES)
    def write_by_another_path_while_it_is_being_taken(self, number: int) -> None:
        """A host that gave up waiting goes elsewhere, and that CVM lets go again."""
        volume = self.volume(number)

        def during(taker: Cvm) -> None:
            other = self.world.cvms[1 - taker.number]
            for _ in range(2):
                self.world.write(volume, other)
            if not other.paused:
                self.world.give(volume, other)
        self.world.during = during

    @rule(number=VOLUMES, by=CVMS)
    def give(self, number: int, by: int) -> None:
        """With a late command that reaches the device after that."""
        if not self.world.cvms[by].paused:
            self.world.give(self.volume(number), self.world.cvms[by])

    @rule(by=CVMS, sent=st.booleans())
    def connect(self, by: int, sent: bool) -> None:
        self.world.cvms[by].resume()
        self.world.cvms[by].connect()
        if sent:
            self.world.cvms[by].send_unsent()

    @rule(by=CVMS)
    def resume(self, by: int) -> None:
        self.world.cvms[by].resume()

    @rule(by=CVMS)
    def retransmit(self, by: int) -> None:
        """TCP's pauses between tries grow to minutes, so this may come late."""
        self.world.cvms[by].send_unsent()

    @rule(by=CVMS)
    def restart(self, by: int) -> None:
        self.world.cvms[by].start()

    @rule(by=CVMS)
    def restart_the_service(self, by: int) -> None:
        if not self.world.cvms[by].paused:
            self.world.cvms[by].start_service()

    @rule(by=CVMS)
    def have_the_service_hang(self, by: int) -> None:
        self.world.cvms[by].deaf = True

    @rule(seconds=SPANS)
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(by=CVMS)
    def check(self, by: int) -> None:
        self.world.cvms[by].check()

    @rule(by=CVMS)
    def end_fences(self, by: int) -> None:
        self.world.cvms[by].end_fences()
        self.world.cvms[by].end_fences()

    @rule(by=CVMS)
    def look(self, by: int) -> None:
        self.world.cvms[by].look()

    @rule(number=VOLUMES)
    def make_another_volume(self, number: int) -> None:
        """In the place of one that is deleted."""
        self.world.delete(self.volume(number))
        self.world.create()

    @invariant()
    def promises_are_kept(self) -> None:
        if hasattr(self, "world"):
            self.world.check()


TestDataPath = DataPath.TestCase
TestDataPath.settings = settings(derandomize=True, max_examples=200, stateful_step_count=30, deadline=None,
                                 database=None, suppress_health_check=list(HealthCheck))

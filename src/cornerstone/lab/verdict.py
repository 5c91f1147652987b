"""What a boot came to, and the judge that decides it. Pure: the judge is told what came and when, and never waits."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from cornerstone.lab import qmp
from cornerstone.lab.console import Failure, Matcher
from cornerstone.lib.error import Code
from cornerstone.lib.event import Event, Listener

EVENT_LINE_LIMIT = 1 << 20

# A stage that tries again what failed, for ever, and waits for what is missing: neither is an end.
TRIED_AGAIN = ("genesis",)

# In the order in which a boot passes them; each is noted when it is first seen.
MILESTONES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("grub", re.compile(r"GNU GRUB|Welcome to GRUB|^\s*Booting [`'\"]|^Loading Linux")),
    ("kernel", re.compile(r"\bLinux version \d|Decompressing Linux|Command line: BOOT_IMAGE")),
    ("initrd", re.compile(r"Run /init as init process|Loading, please wait|[Rr]unning in (?:the )?initrd|"
                          r"[Rr]unning in initial RAM disk")),
    ("userland", re.compile(r"Run /sbin/init as init process|systemd\[1\]: Detected architecture|"
                            r"Welcome to .*(?:GNU/Linux|Foundation|Cornerstone)|Reached target .*(?:Basic System|"
                            r"Multi-User System)")),
)


@dataclass(frozen=True)
class Limits:
    """Seconds: stall is the longest time without anything new; ceiling is for the whole way to one goal."""

    stall: float
    ceiling: float

    @classmethod
    def of(cls, accel: str) -> Limits:
        """Emulation is three to four times slower than KVM in what a boot does."""
        return cls(40.0, 300.0) if accel == "kvm" else cls(120.0, 900.0)


@dataclass(frozen=True)
class Goal:
    """What counts as arrived: a guest event (stage, step, state), or a pattern in a console line, if one is given.

    phase: of imaging, if given, and at least how many percent of it; name: the milestone that this is.
    """

    stage: str = "foundation"
    step: str = "screen"
    state: str = "waiting"
    console: re.Pattern[str] | None = None
    phase: str = ""
    percent: int = 0
    name: str = "arrived"

    def by_event(self, event: Event) -> bool:
        return (self.console is None and (event.stage, event.step, event.state) == (self.stage, self.step, self.state)
                and (not self.phase or (self.phase == event.data.get("phase")
                                        and event.data.get("percent", 0) >= self.percent)))

    def by_line(self, line: str) -> bool:
        return self.console is not None and self.console.search(line) is not None

    def __str__(self) -> str:
        if self.console is not None:
            return f"the console line /{self.console.pattern}/"
        return f"the event {self.stage}/{self.step} {self.state} {self.phase}".rstrip()


@dataclass(frozen=True)
class Leg:
    """A part of a machine's way, from power-on or a reset until all its goals are reached, in any order.

    name: put before the names of its milestones, with a dash; never: a stage that it has to do without.
    """

    goals: tuple[Goal, ...]
    name: str = ""
    never: str = ""


@dataclass(frozen=True)
class Verdict:
    """How a boot ended. timeline: milestone to seconds since power-on. secure_boot: what the guest proved, None if
    it said nothing."""

    ok: bool
    reason: str
    sentence: str
    hint: str
    firmware: str
    media: str
    accel: str
    seconds: float
    timeline: dict[str, float]
    console_log: Path
    events: tuple[Event, ...] = ()
    secure_boot: bool | None = None
    last_lines: tuple[str, ...] = ()

    @property
    def code(self) -> int:
        """For whoever started the machine: 0, or what the machine itself said when it refused, else BOOT."""
        if self.ok:
            return 0
        said = self.events[-1].data.get("code") if self.reason == "guest-failed" else None
        return Code.__members__.get(str(said).upper(), Code.BOOT)

    def to_dict(self) -> dict[str, object]:
        """The same as plain data, for JSON; without the events, which have a file of their own."""
        record = {key: value for key, value in vars(self).items() if key != "events"}
        return {**record, "console_log": str(self.console_log), "last_lines": list(self.last_lines)}


@dataclass
class Judge:
    """Follows one machine on its way, leg by leg. Times are seconds of one monotonic clock; start is power-on.

    outcome is set once: None is arrived, a Failure is not. Before that, `decided` is false.
    """

    firmware: str
    legs: tuple[Leg, ...]
    limits: Limits
    start: float
    listener: Listener | None = None
    timeline: dict[str, float] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    secure_boot: bool | None = None
    decided: bool = False
    outcome: Failure | None = None
    power: str = ""

    def __post_init__(self) -> None:
        self.console = Matcher()
        self.screen = Matcher()
        # Which of the two shows why it ended.
        self._shown = self.console
        self._event_rest = b""
        self._qmp_rest = b""
        self._seen: set[str] = set()
        self._progress = self.start
        self._leg, *self._legs_to_come = self.legs
        self._to_reach = list(self._leg.goals)
        # When this leg began, and whether the reset that it begins with is still to come.
        self._since = self.start
        self._before_reset = False

    def feed(self, source: str, data: bytes, now: float) -> bool:
        """Take what one channel brought ("console", "screen", "events", "qmp"); true once the boot is decided."""
        {"console": self._feed_console, "screen": self._feed_screen,
         "events": self._feed_events, "qmp": self._feed_qmp}[source](data, now)
        return self.decided

    def deadline(self) -> float:
        """When the patience ends, unless something new comes before."""
        return min(self._progress + self._patience(), self._since + self.limits.ceiling)

    def _patience(self) -> float:
        # While GRUB reads the kernel and the initrd nothing can speak, and through a BIOS that is slow.
        loading = self._named("grub") in self.timeline and self._named("kernel") not in self.timeline
        return self.limits.stall * (2 if loading else 1)

    def expired(self, now: float) -> bool:
        """Decide if the deadline has passed."""
        if not self.decided and now >= self.deadline():
            self.console.close()
            if now >= self._since + self.limits.ceiling:
                self._fail("too-slow", f"{self._to_reach[0]} didn't come within {self.limits.ceiling:.0f} s, "
                           f"{self._where()}",
                           "the machine still did something: give it more time, or see what it repeats")
            else:
                self._fail("no-progress", f"nothing new for {self._patience():.0f} s, {self._where()}",
                           "the last console lines show where it hangs")
        return self.decided

    def exited(self, status: int | None, complaints: str) -> None:
        """QEMU has ended, and all its output was fed."""
        failure = self.console.close() or self.screen.close()
        if self.decided:
            return
        if failure is not None:
            self._decide(failure)
        elif self.power == "guest-reset":
            self._fail("guest-reset", f"the machine reset itself, {self._where()}",
                       "a reset this early is a triple fault or a script that reboots")
        elif self.power.startswith("guest"):
            self._fail("guest-off", f"the machine turned itself off, {self._where()}",
                       "the last console lines say who asked for it")
        else:
            last = complaints.splitlines()[-1:] or ["it said nothing"]
            self._fail("qemu-exit", f"QEMU ended with status {status}, {self._where()}: {last[0]}",
                       "see qemu.log beside the console log")

    def verdict(self, media: str, accel: str, now: float, logs: Path) -> Verdict:
        """Sum up; only once decided. logs: the machine's directory of logs."""
        if not self.decided:
            raise ValueError("the boot isn't decided yet")
        ok = self.outcome is None
        failure = self.outcome or Failure("", f"{self._leg.goals[-1]} came after {now - self.start:.1f} s", "", "")
        if not self._shown.tail():
            self._shown = self.screen
        return Verdict(ok, failure.id, failure.sentence, failure.hint, self.firmware, media, accel,
                       round(now - self.start, 3), dict(self.timeline),
                       logs / ("screen.log" if self._shown is self.screen else "console.log"), tuple(self.events),
                       self.secure_boot, tuple(self._shown.tail()))

    def _feed_console(self, data: bytes, now: float) -> None:
        self._milestone("firmware", now)
        failure = self.console.feed(data)
        for line in self.console.fresh:
            self._new_words(line, now)
            for name, pattern in MILESTONES:
                if pattern.search(line):
                    self._milestone(name, now)
            if not self._before_reset and ("Secure boot enabled" in line or "locked down from EFI Secure Boot" in line):
                self.secure_boot = True
        if failure is not None:
            self._decide(failure)
        # A login prompt never ends its line.
        for line in (*self.console.fresh, self.console.unfinished):
            self._reach(lambda goal, line=line: goal.by_line(line), now)

    def _feed_screen(self, data: bytes, now: float) -> None:
        self._milestone("firmware", now)
        failure = self.screen.feed(data)
        if failure is not None and not self.decided:
            self._shown = self.screen
        for line in self.screen.fresh:
            self._new_words(line, now)
            if MILESTONES[0][1].search(line):
                self._milestone("grub", now)
        if failure is not None:
            self._decide(failure)

    def _new_words(self, line: str, now: float) -> None:
        # A counter or a spinner that goes round isn't progress: only words that weren't there yet are.
        self._note(re.sub(r"[\d*.:/\s]+", " ", line), now)

    def _note(self, what: str, now: float) -> None:
        if what not in self._seen:
            self._seen.add(what)
            self._progress = now

    def _feed_events(self, data: bytes, now: float) -> None:
        *lines, self._event_rest = (self._event_rest + data).split(b"\n")
        if len(self._event_rest) > EVENT_LINE_LIMIT:
            self._fail("bad-event", "the events port carries something that has no line ends", "")
        for line in lines:
            if line.strip():
                self._event_line(line.decode(errors="replace").strip(), now)

    def _event_line(self, line: str, now: float) -> None:
        try:
            event = Event.from_json(line)
            proof = event.data.get("secure_boot")
        except (ValueError, KeyError, TypeError, AttributeError):
            self._fail("bad-event", f"the events port carries a line that isn't an event: {line[:120]}",
                       "its sender and the schema in lib/event.py differ")
            return
        self._note(replace(event, t=0.0).to_json(), now)
        self.events.append(event)
        self._milestone(event.stage, now)
        if isinstance(proof, bool):
            self.secure_boot = proof
        if self.listener is not None:
            self.listener(event)
        if event.stage in TRIED_AGAIN:
            self._reach(lambda goal: goal.by_event(event), now)
        elif event.state == "failed":
            self._fail("guest-failed", f"{event.stage}/{event.step} failed: {event.message or 'it gave no reason'}",
                       str(event.data.get("hint", "")))
        elif event.stage == self._leg.never and not self._before_reset:
            self._fail("wrong-way", f"the machine started {event.stage} again", "it should have started from its disk: "
                       "see what the boot loader on the medium says")
        elif self._reach(lambda goal: goal.by_event(event), now):
            return
        elif event.state == "waiting" and not self._before_reset:
            self._fail("guest-waits", f"{event.stage}/{event.step} waits for {event.message or 'somebody'}",
                       "nobody will come: what it waits for has to be there before")

    def _feed_qmp(self, data: bytes, now: float) -> None:
        *lines, self._qmp_rest = (self._qmp_rest + data).split(b"\n")
        for line in lines:
            message = qmp.message(line)
            name, about = message.get("event"), message.get("data", {})
            if name == "SHUTDOWN":
                self.power = about.get("reason", "")
            elif name == "RESET" and about.get("guest"):
                self._reset(now)
            elif name == "STOP":
                # Nobody asked for it: KVM gave up on an instruction, or the disk of this computer is full.
                self._fail("machine-stopped", f"QEMU stopped the machine, {self._where()}",
                           "see qemu.log beside the console log")

    def _reset(self, now: float) -> None:
        # Linux tries one way after the other, and so may reset twice before the firmware speaks.
        again = self._named("reset") in self.timeline and self._named("firmware") not in self.timeline
        if not (self._before_reset or again):
            self._fail("guest-reset", f"the machine reset itself, {self._where()}",
                       "a reset this early is a triple fault or a script that reboots")
            return
        self._before_reset = False
        self._milestone("reset", now)

    def _named(self, milestone: str) -> str:
        return f"{self._leg.name}-{milestone}" if self._leg.name else milestone

    def _milestone(self, name: str, now: float) -> None:
        if not self._before_reset:
            self._mark(self._named(name), now)

    def _mark(self, name: str, now: float) -> None:
        if name not in self.timeline:
            self.timeline[name] = round(now - self.start, 3)
            self._progress = now
            if self.listener is not None:
                self.listener(Event("boot", name, "progress", f"{name} reached", {"seconds": self.timeline[name]}))

    def _reach(self, reached: Callable[[Goal], bool], now: float) -> bool:
        if self.decided or self._before_reset:
            return False
        found = [goal for goal in self._to_reach if reached(goal)]
        for goal in found:
            self._mark(goal.name, now)
            self._to_reach.remove(goal)
        if not self._to_reach:
            self._end_of_leg(now)
        return bool(found)

    def _end_of_leg(self, now: float) -> None:
        if self.firmware == "secureboot" and self.secure_boot is not True:
            said = "says that Secure Boot is off" if self.secure_boot is False else "didn't say that Secure Boot is on"
            self._fail("secureboot-unproven", f"the machine arrived, but {said}",
                       'the event that it arrived must carry {"secure_boot": true}')
        elif not self._legs_to_come:
            self.decided = True
        else:
            # What comes next has to be proven, and may be said, anew.
            self._before_reset, self.secure_boot = True, None
            self._seen.clear()
            self._since = self._progress = now
            self._leg, *self._legs_to_come = self._legs_to_come
            self._to_reach = list(self._leg.goals)

    def _fail(self, id: str, sentence: str, hint: str) -> None:
        self._decide(Failure(id, sentence, hint, ""))

    def _decide(self, failure: Failure) -> None:
        if not self.decided:
            self.decided, self.outcome = True, failure
        elif self.outcome is not None and self.outcome.id == "refused" and failure.id == "guest-failed":
            # The same refusal: the console's line is cut to the screen's width, the event is whole.
            self.outcome = failure

    def _where(self) -> str:
        names = list(self.timeline)
        return f"last seen at: {names[-1]}" if names else "before the firmware said anything"

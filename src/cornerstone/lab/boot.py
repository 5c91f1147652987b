"""Boot an image in a machine of its own and say how it ended."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

from cornerstone.lab.accel import Accel, choose
from cornerstone.lab.machine import Disk, Machine
from cornerstone.lab.running import RunningMachine
from cornerstone.lab.verdict import Goal, Judge, Leg, Limits, Verdict
from cornerstone.lib.atomic import put
from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.event import Event, JsonLines, Listener

# One when they are emulated: a kernel with two waited without end for a timer of the second, once in dozens of boots.
CPUS = {"kvm": 2, "tcg": 1}
QUIET_SECONDS = 0.5
LAST_WORDS_SECONDS = 2.0

# What a guest says on the console can be the cause of what it then says by event: so the console is heard first.
# A reset that it announced by an event comes after that.
_ORDER = {"screen": 0, "console": 1, "events": 2, "qmp": 3, "exit": 4}


def boot(image: Path | None, *, firmware: str, media: str, memory_mib: int = 4096, log_dir: Path,
         listener: Listener | None = None, until: re.Pattern[str] | None = None, limits: Limits | None = None,
         accel: Accel | None = None, disks: tuple[Disk, ...] = (), iommu: bool = False,
         extra: tuple[str, ...] = (), unplugged: tuple[str, ...] = (), serial: bool = True,
         passing: tuple[Goal, ...] = (), watch: Callable[[RunningMachine, Event], object] = lambda running, event: None,
         look: Callable[[RunningMachine], object] = lambda running: None) -> Verdict:
    """Boot image until it arrives or fails; blocks for as long as that takes, at most limits.ceiling seconds.

    firmware: bios, uefi or secureboot. media: cd, usb or disk, or network for a machine without an image, whose card
    extra has. The image is never changed. until: a pattern in a console line that means arrived, instead of the guest's
    event foundation/screen waiting. passing: what else it has to reach, each a milestone. watch: is given the machine
    with each milestone and each of its events, as they come. extra, unplugged, serial: see Machine. look: is given the
    machine when it has arrived or failed, before it is ended. log_dir gets console.log, screen.log (bios), events.log,
    qemu.log and verdict.json; they stay. A failed boot is a Verdict, not an error: CornerstoneError is for what keeps a
    machine from being run at all (MACHINE, INPUT) and for a signal (INTERRUPTED).
    """
    accel = accel or choose()
    machine = Machine(accel, firmware=firmware, media=media, memory_mib=memory_mib, cpus=CPUS[accel.name], image=image,
                      disks=disks, iommu=iommu, extra=extra, unplugged=unplugged, serial=serial)
    tell = listener or (lambda event: None)
    started = f"{image.name if image else 'no image'}: {firmware}, {media}, {memory_mib} MiB, {accel}"
    tell(Event("boot", "machine", "started", started,
               {"firmware": firmware, "media": media, "accel": accel.name, "reason": accel.reason}))
    with RunningMachine(machine, log_dir) as running:
        def heard(event: Event) -> None:
            tell(event)
            watch(running, event)

        judge = Judge(firmware, (Leg((*passing, Goal(console=until))),), limits or Limits.of(accel.name),
                      time.monotonic(), heard)
        verdict = judge.verdict(media, accel.name, follow(running, judge), log_dir)
        look(running)
    write_verdict(log_dir / "verdict.json", verdict)
    tell(Event("boot", "verdict", "done" if verdict.ok else "failed", verdict.sentence,
               {"ok": verdict.ok, "reason": verdict.reason, "seconds": verdict.seconds,
                "secure_boot": verdict.secure_boot}))
    return verdict


def follow(running: RunningMachine, judge: Judge) -> float:
    """Tell the judge all that comes until it has decided; returns when that was, on the monotonic clock."""
    while not judge.decided:
        chunks = running.wait(judge.deadline() - time.monotonic())
        now = time.monotonic()
        for chunk in sorted(chunks, key=lambda chunk: _ORDER[chunk.source]):
            if chunk.source == "exit":
                judge.exited(running.status, running.complaints())
            else:
                judge.feed(chunk.source, chunk.data, now)
        judge.expired(now)
    decided = time.monotonic()
    if judge.outcome is not None:
        _hear_out(running, judge)
    return decided


def boot_task(image: Path, *, firmware: str, media: str, memory_mib: int = 4096, log_dir: Path,
              until: str | None = None, plain: bool | None = None) -> int:
    """What `invoke boot` calls: boot, print progress and the verdict, return the exit code (0, or one of Code).

    plain: lines without colours; None takes plain when the output isn't a terminal. until: see boot, as text; for
    media "disk", whose guest sends no event, it is a login prompt if nothing else is said.
    events.jsonl in log_dir gets every event, ours and the guest's.
    """
    # Imported here: who only wants a verdict needs no terminal.
    from cornerstone.lab.terminal import Terminal

    if media == "disk" and until is None:
        until = "login: ?$"
    log_dir.mkdir(parents=True, exist_ok=True)
    (log_dir / "events.jsonl").unlink(missing_ok=True)
    record = JsonLines(log_dir / "events.jsonl")
    with Terminal(plain) as terminal:
        def both(event: Event) -> None:
            record(event)
            terminal.event(event)

        try:
            verdict = boot(image, firmware=firmware, media=media, memory_mib=memory_mib, log_dir=log_dir,
                           until=_pattern(until), listener=both)
        except CornerstoneError as error:
            terminal.error(error)
            return int(error.code)
        finally:
            record.close()
        return terminal.verdict(verdict)


def _hear_out(running: RunningMachine, judge: Judge) -> None:
    """Take what still comes after a failure (a call trace, a second error), until it is quiet or time is up."""
    end = time.monotonic() + LAST_WORDS_SECONDS
    while (now := time.monotonic()) < end and running.status is None:
        chunks = running.wait(min(QUIET_SECONDS, end - now))
        if not chunks:
            break
        for chunk in chunks:
            if chunk.source != "exit":
                judge.feed(chunk.source, chunk.data, time.monotonic())


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise CornerstoneError(f"the pattern {text!r} isn't a regular expression: {error}",
                               "quote what has a meaning there, for example \\. for a dot") from error


def write_verdict(path: Path, verdict: Verdict) -> None:
    """Write a verdict as JSON; who watches never reads half of one."""
    put(path, json.dumps(verdict.to_dict(), indent=2) + "\n", durable=False)

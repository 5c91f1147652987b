"""The judge: what came, and when, decides. No machine, no clock; the terminal's words too."""

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from cornerstone.lab import boot as boot_module
from cornerstone.lab.boot import boot_task
from cornerstone.lab.running import Chunk
from cornerstone.lab.terminal import Terminal
from cornerstone.lab.verdict import Goal, Judge, Leg, Limits, Verdict
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.event import Event

CONSOLES = Path(__file__).parent.parent / "data" / "consoles"
LIMITS = Limits(stall=100, ceiling=1000)


def judge(firmware="uefi", goal=None, listener=None) -> Judge:
    return Judge(firmware, (Leg((goal or Goal(),)),), LIMITS, 0.0, listener)


def line(state="waiting", stage="foundation", step="screen", **more) -> bytes:
    return Event(stage, step, state, **more).to_json().encode() + b"\n"


def reason(subject: Judge) -> str:
    return subject.verdict("cd", "tcg", 1.0, Path("logs")).reason


def test_a_healthy_boot():
    told = []
    subject = judge("secureboot", listener=told.append)
    assert not subject.feed("console", (CONSOLES / "healthy.trial-secureboot.log").read_bytes(), 5.0)
    assert not subject.feed("events", line("progress", step="verify", data={"percent": 40}), 20.0)
    whole = line(data={"secure_boot": True})
    assert not subject.feed("events", whole[:20], 30.0)
    assert subject.feed("events", whole[20:], 31.0)
    verdict = subject.verdict("cd", "tcg", 31.0, Path("logs"))
    assert verdict.ok and verdict.secure_boot is True and verdict.reason == ""
    assert verdict.sentence == "the event foundation/screen waiting came after 31.0 s"
    assert verdict.timeline == {"firmware": 5.0, "grub": 5.0, "kernel": 5.0, "initrd": 5.0, "foundation": 20.0,
                                "arrived": 31.0}
    assert [event.step for event in verdict.events] == ["verify", "screen"]
    assert verdict.console_log == Path("logs/console.log")
    assert [event.step for event in told if event.stage == "boot"] == list(verdict.timeline)
    assert json.loads(json.dumps(verdict.to_dict()))["seconds"] == 31.0


@pytest.mark.parametrize(("data", "found"), [({"secure_boot": False}, "secureboot-unproven"),
                                             ({}, "secureboot-unproven"), ({"secure_boot": True}, "")])
def test_secureboot_has_to_be_proven(data, found):
    subject = judge("secureboot")
    assert subject.feed("events", line(data=data), 1.0)
    assert reason(subject) == found


def test_the_kernels_own_word_is_proof_too():
    subject = judge("secureboot", Goal(console=re.compile("login:")))
    subject.feed("console", b"[    0.0] secureboot: Secure boot enabled\r\n", 1.0)
    assert subject.feed("console", b"cvm login: ", 2.0)
    assert subject.verdict("disk", "tcg", 2.0, Path("logs")).ok


def test_a_console_failure_decides_at_once_and_stays():
    subject = judge()
    assert subject.feed("console", b"REFUSED: layer cvm.qcow2 does not match the manifest\r\n", 3.0)
    subject.feed("events", line(), 3.1)
    verdict = subject.verdict("cd", "tcg", 3.1, Path("logs"))
    assert (verdict.ok, verdict.reason) == (False, "refused")
    assert verdict.sentence == "the machine refused: layer cvm.qcow2 does not match the manifest"


def test_a_refusal_is_told_in_the_words_of_its_event():
    subject = judge()
    subject.feed("console", b"REFUSED: disk.not-empty: sda QEMU HARDDISK, 8.0\r\n", 3.0)
    subject.feed("events", line("failed", step="plan", message="disk.not-empty: the whole", data={"hint": "h"}), 3.1)
    subject.feed("events", line("failed", step="plan", message="another"), 3.2)
    verdict = subject.verdict("cd", "tcg", 3.2, Path("logs"))
    assert (verdict.reason, verdict.hint) == ("guest-failed", "h")
    assert verdict.sentence == "foundation/plan failed: disk.not-empty: the whole"


def test_a_failure_on_the_bioss_screen_names_its_own_log():
    subject = judge("bios")
    assert subject.feed("screen", (CONSOLES / "nothing-boots.bios-screen.log").read_bytes(), 1.0)
    verdict = subject.verdict("cd", "tcg", 1.0, Path("logs"))
    assert verdict.console_log == Path("logs/screen.log")
    assert verdict.last_lines[-1] == "No bootable device."


@pytest.mark.parametrize("state", ["failed", "waiting"])
def test_what_genesis_tries_again_is_no_end(state):
    subject = judge()
    event = Event("genesis", "disks", state, "no disk yet")
    assert not subject.feed("events", event.to_json().encode() + b"\n", 1.0)
    assert not subject.decided and subject.events[-1].message == "no disk yet"


def test_a_failed_event_of_the_guest():
    subject = judge()
    assert subject.feed("events", line("failed", step="verify", message="manifest signature", data={"hint": "h"}), 1.0)
    verdict = subject.verdict("cd", "tcg", 1.0, Path("logs"))
    assert (verdict.reason, verdict.hint) == ("guest-failed", "h")
    assert verdict.sentence == "foundation/verify failed: manifest signature"


@pytest.mark.parametrize(("data", "code"), [
    ({"code": "verify"}, Code.VERIFY), ({"code": "odd"}, Code.BOOT), ({}, Code.BOOT)])
def test_what_the_guest_refused_by_is_the_exit_code(data, code):
    subject = judge()
    subject.feed("events", line("failed", step="plan", data=data), 1.0)
    assert subject.verdict("cd", "tcg", 1.0, Path("logs")).code == code


@pytest.mark.parametrize("garbage", [b"hello\n", b"[1]\n", b'{"v": 1}\n', b"\xff\n",
                                     b'{"v":1,"t":0,"stage":"a","step":"b","state":"done","data":[]}\n',
                                     b"x" * (2 << 20)])
def test_garbage_on_the_events_port(garbage):
    subject = judge()
    assert subject.feed("events", garbage, 1.0)
    assert reason(subject) == "bad-event"


def test_login_prompt_after_a_failed_unit_is_no_success():
    subject = judge(goal=Goal(console=re.compile("login:")))
    subject.feed("console", b"[FAILED] Failed to start foundation.service - Foundation.\r\nnode login: ", 1.0)
    assert reason(subject) == "unit-failed"


def test_the_event_is_no_goal_when_a_pattern_is():
    subject = judge(goal=Goal(console=re.compile("login:")))
    assert not subject.feed("events", line("done"), 1.0)


def test_only_new_words_are_progress():
    subject = judge()
    subject.feed("console", b"Welcome to GRUB!\r\nLinux version 6.12\r\n", 10.0)
    assert subject.deadline() == 110.0
    for second in range(1, 90):
        subject.feed("console", b"[ *** ] A start job is running (%ds / no limit)\r" % second, 10.0 + second)
    assert subject.deadline() == pytest.approx(112.0, abs=1)
    for second in range(50, 60):
        subject.feed("events", line("progress", step="heartbeat"), float(second))
    assert subject.deadline() == 150.0
    assert not subject.expired(149.9)
    assert subject.expired(150.0)
    verdict = subject.verdict("cd", "tcg", 150.0, Path("logs"))
    assert verdict.reason == "no-progress"
    assert verdict.sentence == "nothing new for 100 s, last seen at: foundation"


def test_grub_may_load_for_twice_as_long():
    subject = judge()
    subject.feed("console", b"Loading Linux\r\n", 10.0)
    assert subject.deadline() == 210.0


def test_the_ceiling_holds_whatever_happens():
    subject = judge()
    for second in range(0, 1000, 50):
        subject.feed("events", line("progress", message=f"layer {second}"), float(second))
    assert subject.deadline() == 1000.0
    assert subject.expired(1000.0)
    assert reason(subject) == "too-slow"


def test_limits_follow_the_accelerator():
    assert Limits.of("tcg") == Limits(120, 900)
    assert Limits.of("kvm").stall < Limits.of("tcg").stall


@pytest.mark.parametrize(("qmp", "found", "says"), [
    (b'{"event": "SHUTDOWN", "data": {"reason": "guest-reset"}}\r\n', "guest-reset", "reset itself"),
    (b'{"event": "SHUTDOWN", "data": {"reason": "guest-shutdown"}}\r\n', "guest-off", "turned itself off"),
    (b'{"QMP": {}}\r\n{"return": {}}\r\n', "qemu-exit",
     "QEMU ended with status 1, before the firmware said anything: boom"),
])
def test_the_ways_that_a_machine_ends(qmp, found, says):
    subject = judge()
    subject.feed("qmp", qmp[:9], 1.0)
    subject.feed("qmp", qmp[9:], 1.0)
    subject.exited(1, "warm\nboom")
    verdict = subject.verdict("cd", "tcg", 1.0, Path("logs"))
    assert verdict.reason == found
    assert says in verdict.sentence


def test_the_line_that_never_ended_is_a_reason_too():
    subject = judge()
    subject.feed("console", b"[    1.0] Kernel panic - not syncing: x", 1.0)
    subject.exited(0, "")
    assert reason(subject) == "kernel-panic"


def test_a_machine_that_qemu_stopped():
    subject = judge()
    assert subject.feed("qmp", b'{"event": "STOP"}\r\n', 1.0)
    assert reason(subject) == "machine-stopped"


INSTALL = (Leg((Goal(step="install", state="done", name="installed"),)),
           Leg((Goal(console=re.compile("login:"), name="login"), Goal("first-boot", "complete", "done", name="ready")),
               "node", never="foundation"))
RESET = b'{"event": "RESET", "data": {"guest": true, "reason": "guest-reset"}}\r\n'
SECURE = b"[    0.0] secureboot: Secure boot enabled\r\n"


@pytest.mark.parametrize("login_first", [True, False])
def test_a_way_of_two_legs(login_first):
    subject = Judge("secureboot", INSTALL, LIMITS, 0.0)
    subject.feed("console", b"Welcome to GRUB!\r\n" + SECURE + b"live login: \r\n", 5.0)
    assert not subject.feed("events", line("done", step="install"), 800.0)
    subject.feed("console", b"live login: \r\n" + SECURE, 801.0)
    subject.feed("qmp", RESET + RESET, 802.0)
    subject.feed("console", b"Welcome to GRUB!\r\n" + SECURE, 810.0)
    login, ready = ("console", b"node login: "), ("events", line("done", "first-boot", "complete"))
    first, second = (login, ready) if login_first else (ready, login)
    assert not subject.feed(*first, 900.0)
    assert subject.feed(*second, 1700.0)
    verdict = subject.verdict("cd", "tcg", 1700.0, Path("logs"))
    assert verdict.ok and verdict.secure_boot
    assert {"grub": 5.0, "installed": 800.0, "node-reset": 802.0, "node-grub": 810.0}.items() \
        <= verdict.timeline.items()
    assert verdict.timeline["login" if login_first else "ready"] == 900.0


def test_the_second_leg_has_to_prove_secure_boot_anew():
    subject = Judge("secureboot", INSTALL, LIMITS, 0.0)
    subject.feed("console", SECURE, 5.0)
    subject.feed("events", line("done", step="install"), 6.0)
    subject.feed("qmp", RESET, 7.0)
    subject.feed("events", line("done", "first-boot", "complete"), 8.0)
    subject.feed("console", b"node login: ", 9.0)
    assert reason(subject) == "secureboot-unproven"


@pytest.mark.parametrize(("data", "arrived"), [
    ({"phase": "root", "percent": 39}, False), ({"phase": "root", "percent": 41}, True),
    ({"phase": "check", "percent": 90}, False), ({}, False)])
def test_a_goal_within_imaging(data, arrived):
    subject = judge(goal=Goal("foundation", "image", "progress", phase="root", percent=40))
    assert subject.feed("events", line("progress", step="image", data=data), 1.0) == arrived


def test_who_waits_for_somebody_waits_in_vain():
    subject = Judge("bios", INSTALL, LIMITS, 0.0)
    assert subject.feed("events", line(message="site"), 5.0)
    verdict = subject.verdict("cd", "tcg", 5.0, Path("logs"))
    assert (verdict.reason, verdict.sentence) == ("guest-waits", "foundation/screen waits for site")


def test_a_reset_before_its_time_is_a_failure():
    subject = Judge("bios", INSTALL, LIMITS, 0.0)
    assert subject.feed("qmp", RESET, 5.0)
    assert reason(subject) == "guest-reset"


def test_the_medium_that_starts_again_is_seen_at_once():
    subject = Judge("bios", INSTALL, LIMITS, 0.0)
    subject.feed("events", line("done", step="install") + line("progress", step="late"), 5.0)
    subject.feed("qmp", RESET, 7.0)
    assert subject.feed("events", line("started", step="verify"), 8.0)
    assert reason(subject) == "wrong-way"


def test_a_leg_has_a_ceiling_of_its_own():
    subject = Judge("bios", INSTALL, LIMITS, 0.0)
    subject.feed("events", line("done", step="install"), 90.0)
    assert subject.deadline() == 190.0
    assert subject.expired(190.0)
    assert reason(subject) == "no-progress"


def test_no_verdict_before_the_end():
    with pytest.raises(ValueError, match="isn't decided"):
        judge().verdict("cd", "tcg", 1.0, Path("logs"))


def terminal() -> tuple[Terminal, io.StringIO]:
    out = io.StringIO()
    return Terminal(True, Console(file=out, width=200)), out


def test_the_terminal_shows_the_last_lines_and_the_reason():
    show, out = terminal()
    verdict = Verdict(False, "kernel-panic", "kernel panic: [x]", "look above", "bios", "cd", "tcg", 9.0, {},
                      Path("logs/console.log"), last_lines=tuple(f"line {number}" for number in range(40)))
    show.event(Event("boot", "kernel", "progress", "kernel reached", {"seconds": 12.34}))
    assert show.verdict(verdict) == Code.BOOT
    lines = out.getvalue().splitlines()
    assert lines[0].split() == ["kernel", "12.3", "s"]
    assert lines[1:16] == [f"  | line {number}" for number in range(25, 40)]
    assert lines[16:] == ["FAILED   bios, cd, tcg: kernel panic: [x] [kernel-panic]", "  hint: look above",
                          "console  logs/console.log"]


class FakeMachine:
    """Brings what it was given, one batch a wait; an exception in the list is raised."""

    def __init__(self, script):
        self.script, self.status = list(script), None

    def __call__(self, machine, logs):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def complaints(self):
        return "boom"

    def wait(self, timeout):
        step = self.script.pop(0) if self.script else []
        if isinstance(step, Exception):
            raise step
        self.status = 1 if any(chunk.source == "exit" for chunk in step) else None
        return step


@pytest.mark.parametrize(("script", "code", "last"), [
    ([[Chunk("console", b"x\n")], [Chunk("events", line())]], 0, "console"),
    # Both in one batch: what the console says is the cause, and is heard first.
    ([[Chunk("events", line()), Chunk("console", b"REFUSED: no\n")]], Code.BOOT, "console"),
    ([[Chunk("exit")]], Code.BOOT, "console"),
    ([CornerstoneError("interrupted by SIGTERM", "again", Code.INTERRUPTED)], Code.INTERRUPTED, "  hint: again"),
])
def test_boot_task_exit_codes(tmp_path, monkeypatch, capsys, script, code, last):
    monkeypatch.setattr(boot_module, "RunningMachine", FakeMachine(script))
    assert boot_task(tmp_path / "x.iso", firmware="bios", media="cd", log_dir=tmp_path / "logs", plain=True) == code
    assert capsys.readouterr().out.splitlines()[-1].startswith(last)
    events = [Event.from_json(text) for text in (tmp_path / "logs" / "events.jsonl").read_text().splitlines()]
    assert events[0].step == "machine"
    if code != Code.INTERRUPTED:
        assert json.loads((tmp_path / "logs" / "verdict.json").read_text())["ok"] == (code == 0)
        assert events[-1].state == ("done" if code == 0 else "failed")


def test_boot_task_refuses_a_broken_pattern(tmp_path, capsys):
    assert boot_task(tmp_path / "x", firmware="bios", media="disk", log_dir=tmp_path, until="(", plain=True) == 2
    assert "isn't a regular expression" in capsys.readouterr().out

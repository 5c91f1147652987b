"""A machine's command line, the choice of KVM or TCG, and the life of a machine (with a stand-in for QEMU)."""

import os
import queue
import re
import signal
import stat
import sys
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from cornerstone.lab import running as running_module
from cornerstone.lab.accel import Accel, choose
from cornerstone.lab.machine import Disk, Machine, Paths
from cornerstone.lab.running import RunningMachine
from cornerstone.lab.verdict import Limits
from cornerstone.lab.watch import Watch
from cornerstone.lib.error import Code, CornerstoneError

TCG = Accel("tcg", "test")
PATHS = Paths(Path("/run/m"), Path("/logs"))


def words(machine: Machine) -> str:
    return " ".join(machine.argv(PATHS))


@pytest.fixture
def ovmf(tmp_path):
    for name in ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd", "OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


@pytest.mark.parametrize(("cpuinfo", "device", "name", "reason"), [
    ("flags\t\t: fpu svm sse\n", True, "kvm", "the CPU has svm and .* opens read-write"),
    ("flags\t\t: fpu vmx sse\n", False, "tcg", "doesn't open read-write: No such file"),
    ("flags\t\t: fpu sse\nvmx flags\t: vnmi\n", True, "tcg", "neither vmx nor svm"),
    ("", True, "tcg", "neither vmx nor svm"),
    (None, True, "tcg", "can't be read"),
])
def test_accel(tmp_path, cpuinfo, device, name, reason):
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    if device:
        (tmp_path / "kvm").touch()
    accel = choose(tmp_path / "cpuinfo", tmp_path / "kvm")
    assert accel.name == name
    assert re.search(reason, accel.reason), accel.reason


def test_every_machine_is_quiet_offline_and_watched():
    text = words(Machine(TCG, image=Path("/x.iso")))
    assert "-nodefaults" in text and "-display none" in text and "-no-reboot" in text
    assert "netdev" not in text and "-nic" not in text
    assert "-machine q35,kernel-irqchip=split -cpu EPYC-Rome-v2,+svm,+npt,-erms,-fsrm -smp 2 -m 4096" in text
    assert "name=org.cornerstone.events" in text
    assert "-chardev pipe,id=console,path=/run/m/console,logfile=/logs/console.log,logappend=off" in text
    assert "-chardev socket,id=qmp,path=/run/m/qmp.sock -device virtserialport" in text


def test_a_clock_can_be_wrong():
    at = datetime(2026, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=1)))
    assert words(Machine(TCG)).count("-rtc") == 1 and "-rtc base=utc " in words(Machine(TCG))
    assert "-rtc base=2026-02-03T03:05:06 " in words(Machine(TCG, clock=at))


def test_kvm_uses_the_host_cpu():
    assert "-accel kvm -machine q35,kernel-irqchip=split -cpu host" in words(Machine(Accel("kvm", "")))


def test_a_machine_that_starts_over_the_network_has_no_medium_but_its_card():
    said = words(Machine(TCG, media="network", extra=("-device", "virtio-net-pci,bootindex=0")))
    assert "id=medium" not in said
    assert said.endswith("virtio-net-pci,bootindex=0")


@pytest.mark.parametrize(("media", "expected"), [
    ("cd", "if=none,id=medium,format=raw,readonly=on,file=/a,,b.iso -device ide-cd,bus=ide.0,drive=medium,bootindex=0"),
    ("usb", "readonly=on,file=/a,,b.iso -device qemu-xhci,id=xhci -device usb-storage,bus=xhci.0,drive=medium,"
            "removable=on,serial=CSLABUSB,bootindex=0"),
    ("disk", "snapshot=on,file=/a,,b.iso -device virtio-blk-pci,drive=medium,serial=CSLABBOOT,bootindex=0"),
])
def test_media_never_change_the_image(media, expected):
    assert expected in words(Machine(TCG, image=Path("/a,b.iso"), media=media))


def test_a_qcow2_disk_is_taken_for_what_it_is():
    assert "id=medium,format=qcow2," in words(Machine(TCG, image=Path("/cvm.qcow2"), media="disk"))


def test_bios_repeats_its_screen_on_the_second_port():
    text = words(Machine(TCG))
    assert "-fw_cfg name=etc/sercon-port,file=/run/m/sercon-port" in text
    assert text.index("-serial chardev:console") < text.index("-serial chardev:screen")
    assert "pflash" not in text


def test_uefi_has_its_own_variables(ovmf):
    text = words(Machine(TCG, firmware="uefi", ovmf_dir=ovmf))
    assert f"readonly=on,file={ovmf}/OVMF_CODE_4M.fd" in text
    assert "unit=1,format=raw,file=/run/m/vars.fd" in text
    assert "smm" not in text and "chardev:screen" not in text


def test_secureboot_takes_the_enrolled_keys_and_locks_the_flash(ovmf):
    text = words(Machine(TCG, firmware="secureboot", ovmf_dir=ovmf))
    assert "OVMF_CODE_4M.ms.fd" in text
    assert "-machine q35,kernel-irqchip=split,smm=on" in text
    assert "driver=cfi.pflash01,property=secure,value=on" in text


def test_disks_carry_their_serials():
    text = words(Machine(TCG, iommu=True, reboots=True, disks=(
        Disk(Path("/d0"), "S0"), Disk(Path("/d1"), "S1", "scsi"), Disk(Path("/d2"), "S2", "nvme", bootindex=3))))
    assert "virtio-blk-pci,drive=disk0,serial=S0 " in text
    assert "scsi-hd,bus=disk1-bus.0,drive=disk1,serial=S1" in text
    assert "nvme,drive=disk2,serial=S2,bootindex=3" in text
    assert "intel-iommu,intremap=on,caching-mode=on" in text
    assert "-no-reboot" not in text


@pytest.mark.parametrize(("make", "code", "says"), [
    (lambda: Machine(TCG, firmware="efi"), Code.INPUT, "use one of bios, uefi, secureboot"),
    (lambda: Machine(TCG, media="floppy"), Code.INPUT, "use one of cd, usb, disk"),
    (lambda: Machine(TCG, media="network", image=Path("/a.iso")), Code.INPUT, "give it no image"),
    (lambda: Machine(TCG, memory_mib=64), Code.INPUT, "at least 256 MiB"),
    (lambda: Disk(Path("/d"), "S", "mfm"), Code.INPUT, "virtio, scsi, nvme"),
    (lambda: Machine(TCG, firmware="uefi", ovmf_dir=Path("/none")).argv(PATHS), Code.MACHINE, "package ovmf"),
])
def test_wrong_machines_are_refused(make, code, says):
    with pytest.raises(CornerstoneError, match=says) as refused:
        make()
    assert refused.value.code == code


# Connects as QEMU would, says a word on each channel, then does what STAND_IN asks.
STAND_IN = '''#!{python}
import os, signal, socket, sys, json
paths = {{}}
for arg in sys.argv:
    parts = dict(part.split("=", 1) for part in arg.split(",") if "=" in part)
    if arg.startswith(("pipe,", "socket,")):
        paths[parts["id"]] = parts["path"]
mode = os.environ["STAND_IN"]
if mode == "refuses":
    sys.exit("stand-in: no such device")
console = os.open(paths["console"] + ".out", os.O_RDWR)
links = {{}}
for name in ("events", "qmp"):
    links[name] = socket.socket(socket.AF_UNIX)
    links[name].connect(paths[name])
links["qmp"].sendall(b'{{"QMP": {{}}}}\\r\\n')
os.write(console, b"hello\\r\\n")
if mode == "dies":
    links["qmp"].sendall(b'{{"event": "SHUTDOWN", "data": {{"reason": "guest-reset"}}}}\\r\\n')
    os.write(console, b"last words\\r\\n")
    sys.exit(3)
if mode == "reads":
    with open(paths["console"] + ".in", "rb", buffering=0) as keys:
        os.write(console, b"heard: " + keys.read(4))
if mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(console, b"deaf\\r\\n")
    while True:
        signal.pause()
for line in links["qmp"].makefile():
    command = json.loads(line)
    if command["execute"] == "set_link":
        os.write(console, f"{{command['arguments']}}\\r\\n".encode())
    if command["execute"] == "quit":
        sys.exit(0)
    if command["execute"] in ("talk", "hang"):
        bad = {{"talk": b"Kernel panic - not syncing: x", "hang": b"watchdog: BUG: soft lockup"}}
        os.write(console, b"[    1.0] " + bad[command["execute"]] + b"\\r\\n" + b"more " * 400000)
        said = {{"v": 1, "t": 0, "stage": "a", "step": "b", "state": "done"}}
        links["events"].sendall(json.dumps(said).encode() + b"\\n")
    if "id" in command:
        known = command["execute"] == "echo"
        answer = {{"return": command["arguments"]}} if known else {{"error": {{"desc": "never heard of it"}}}}
        for message in ({{"event": "RESUME"}}, answer | {{"id": command["id"]}}):
            links["qmp"].sendall(json.dumps(message).encode() + b"\\r\\n")
'''


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    path = tmp_path / "qemu"
    path.write_text(STAND_IN.format(python=sys.executable))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    scratch = Path(tempfile.mkdtemp(prefix="cs-"))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def make(mode: str, **more: object) -> RunningMachine:
        monkeypatch.setenv("STAND_IN", mode)
        return RunningMachine(Machine(TCG, memory_mib=256, binary=str(path), **more), tmp_path / "logs")

    yield make
    assert list(scratch.iterdir()) == []
    scratch.rmdir()


def hear(machine: RunningMachine, word: bytes) -> bytes:
    heard = b""
    while word not in heard:
        chunks = machine.wait(20)
        assert chunks, heard
        heard += b"".join(chunk.data for chunk in chunks if chunk.source == "console")
    return heard


def gone(machine: RunningMachine) -> bool:
    try:
        os.kill(machine.pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_machine_quits_when_asked(stand_in):
    with stand_in("stays") as machine:
        hear(machine, b"hello")
    assert machine.status == 0 and gone(machine)


def test_cables_are_out_from_the_start(stand_in):
    with stand_in("stays", unplugged=("nic0", "nic1")) as machine:
        heard = hear(machine, b"nic1")
    assert b"{'name': 'nic0', 'up': False}" in heard


def test_a_machine_that_hears_nothing_is_killed(stand_in, monkeypatch):
    monkeypatch.setattr(running_module, "QUIT_SECONDS", 0.05)
    monkeypatch.setattr(running_module, "TERM_SECONDS", 0.05)
    with stand_in("deaf") as machine:
        hear(machine, b"deaf")
    assert machine.status == -signal.SIGKILL and gone(machine)


def test_its_last_words_come_before_its_end(stand_in):
    with stand_in("dies") as machine:
        chunks = []
        while not chunks or chunks[-1].source != "exit":
            chunks += machine.wait(20)
        assert b"".join(chunk.data for chunk in chunks if chunk.source == "console") == b"hello\r\nlast words\r\n"
        assert any(b"guest-reset" in chunk.data for chunk in chunks if chunk.source == "qmp")
        assert machine.status == 3
        assert [chunk.source for chunk in machine.wait(0)] == ["exit"]


def test_a_machine_that_refuses_says_why(stand_in):
    with pytest.raises(CornerstoneError, match="stand-in: no such device") as refused, stand_in("refuses"):
        pass
    assert refused.value.code == Code.MACHINE


def test_a_question_is_answered_and_nothing_else_is_lost(stand_in):
    with stand_in("stays") as machine:
        assert machine.ask("echo", word=1) == {"word": 1}
        with pytest.raises(CornerstoneError, match="QEMU refused shout: never heard of it"):
            machine.ask("shout")
        heard = b""
        while heard.count(b"RESUME") < 2 or b"hello" not in heard:
            heard += b"".join(chunk.data for chunk in machine.wait(20))
        assert b"return" not in heard


def test_a_machine_that_is_gone_answers_nothing(stand_in):
    with stand_in("dies") as machine:
        with pytest.raises(CornerstoneError, match="QEMU didn't answer to echo"):
            machine.ask("echo")
        assert any(b"last words" in chunk.data for chunk in machine.wait(0))


def test_what_is_typed_arrives(stand_in):
    with stand_in("reads") as machine:
        hear(machine, b"hello")
        machine.type("yes\r")
        assert b"heard: yes" in hear(machine, b"heard: yes")


def test_a_killed_machine_is_gone(stand_in):
    with stand_in("stays") as machine:
        hear(machine, b"hello")
        machine.kill()
        assert [chunk.source for chunk in machine.wait(20)][-1] == "exit"
        assert machine.status == -signal.SIGKILL


def test_a_watched_machine_is_heard_while_something_else_is_done(stand_in):
    told = queue.Queue()
    with stand_in("stays") as machine:
        before = signal.getsignal(signal.SIGTERM)
        with Watch(machine, told.put) as watch:
            assert signal.getsignal(signal.SIGTERM) is not before
            # More than its console's pipe holds: it would stop here if nobody listened.
            machine.tell("talk")
            assert told.get(timeout=20).step == "b"
        assert watch.failure.id == "kernel-panic" and not watch.ended.is_set()
        assert signal.getsignal(signal.SIGTERM) == before


def test_a_lockup_is_the_reason_only_of_what_does_not_go_on(stand_in):
    with stand_in("stays") as machine, Watch(machine, print) as watch:
        machine.tell("hang")
        watch.wait_for("a word", lambda event: event.step == "b", Limits(20, 20))
        with pytest.raises(CornerstoneError, match=r"nothing was told .*, and before a CPU .* hangs \[lockup\]"):
            watch.wait_for("another", lambda event: False, Limits(0.1, 20), since=1)


def test_a_watch_sees_the_end(stand_in):
    with stand_in("stays") as machine, Watch(machine, print) as watch:
        machine.kill()
        watch.ended.wait(20)
    assert watch.ended.is_set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_machine_in_order(stand_in, number):
    before = signal.getsignal(number)
    if before is signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored, as by nohup or in a job of the background; so it stays")
    with pytest.raises(CornerstoneError, match=f"interrupted by {number.name}") as stopped, \
            stand_in("stays") as machine:
        hear(machine, b"hello")
        os.kill(os.getpid(), number)
        machine.wait(20)
    assert stopped.value.code == Code.INTERRUPTED
    assert machine.status == 0 and gone(machine)
    assert signal.getsignal(number) is before


def test_an_error_in_the_body_ends_the_machine(stand_in):
    with pytest.raises(ZeroDivisionError), stand_in("stays") as machine:
        hear(machine, b"hello")
        _ = 1 / 0
    assert gone(machine)


def test_what_is_missing_is_named_before_anything_starts(tmp_path):
    for machine, code, says in (
        (Machine(TCG, binary="no-such-qemu"), Code.MACHINE, "package qemu-system-x86"),
        (Machine(TCG, binary="true", image=tmp_path / "x.iso"), Code.INPUT, "there is no image"),
        (Machine(TCG, binary="true", memory_mib=1 << 30), Code.MACHINE, "MiB are available"),
    ):
        with pytest.raises(CornerstoneError, match=says) as refused, RunningMachine(machine, tmp_path / "logs"):
            pass
        assert refused.value.code == code

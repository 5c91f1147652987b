"""A machine that runs: QEMU as a child, its channels, and an end that leaves nothing behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from cornerstone.lab import qmp
from cornerstone.lab.interrupts import Interrupts
from cornerstone.lab.machine import SERCON_PORT, SOCKETS, Machine, Paths
from cornerstone.lib.command import WITH_US
from cornerstone.lib.error import Code, CornerstoneError

# QEMU connects to its sockets before it does anything slow; this is for a machine that is out of memory.
CONNECT_SECONDS = 60.0
QUIT_SECONDS = 10.0
TERM_SECONDS = 5.0
# Saving a machine's memory is the slowest thing that is asked for.
ANSWER_SECONDS = 120.0
# What QEMU itself needs beside the guest's memory.
OVERHEAD_MIB = 256
# Where a VGA card has its text, each cell a character and its colours, how many bytes of it, and how wide a line is.
VGA_TEXT, VGA_TEXT_BYTES, SCREEN_COLUMNS = 0xB8000, 0x8000, 80


@dataclass(frozen=True)
class Chunk:
    """What one wait brought: bytes from a channel, or source "exit" (always the last one)."""

    source: str
    data: bytes = b""


class RunningMachine:
    """Context manager: QEMU runs from enter to exit, whatever the reason for leaving.

    Logs stay in logs (console.log, screen.log for bios, events.log, qemu.log); all else was in a private directory
    and goes. The machine also dies when this process is killed outright.
    """

    def __init__(self, machine: Machine, logs: Path) -> None:
        self.machine = machine
        self.logs = logs
        self.status: int | None = None
        self._stack = contextlib.ExitStack()
        self._selector: selectors.DefaultSelector
        self.interrupts: Interrupts
        self._process: subprocess.Popen[bytes]
        self._channels: dict[str, int] = {}
        self._console_in: Path
        self._pidfd = -1
        # Of QMP: a line that isn't whole yet, the answers by their ids, and what came while one was waited for.
        self._line = b""
        self._answers: dict[int, dict] = {}
        self._held: list[Chunk] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> RunningMachine:
        _check_host(self.machine)
        with contextlib.ExitStack() as stack:
            # First in, so last out: signals are held back until everything else is gone.
            self.interrupts = stack.enter_context(Interrupts())
            self.logs.mkdir(parents=True, exist_ok=True)
            run = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cornerstone-lab-")))
            paths = Paths(run, self.logs.absolute())
            self._console_in = Path(f"{paths.pipe('console')}.in")
            _prepare(self.machine, paths)
            self._selector = stack.enter_context(selectors.DefaultSelector())
            listeners = {name: stack.enter_context(_listener(paths.socket(name))) for name in SOCKETS}
            self._channels = {port: stack.enter_context(_pipe(paths.pipe(port))) for port in self.machine.ports}
            # Before the end is pushed, so closed after it: the end still needs QMP.
            sockets = stack.enter_context(contextlib.ExitStack())
            self._start(paths)
            stack.callback(self._end)
            self._accept(listeners, sockets)
            for name, channel in self._channels.items():
                self._selector.register(channel, selectors.EVENT_READ, name)
            self._selector.register(self._pidfd, selectors.EVENT_READ, "exit")
            self._selector.register(self.interrupts, selectors.EVENT_READ, "signal")
            self.tell("qmp_capabilities")
            for device in self.machine.unplugged:
                self.tell("set_link", name=device, up=False)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)

    def wait(self, timeout: float) -> list[Chunk]:
        """Sleep until a channel has something, the machine ends or timeout seconds pass (then the list is empty).

        Raises CornerstoneError INTERRUPTED after a signal.
        """
        if self._held:
            held, self._held = self._held, []
            return held
        return self._wait(timeout)

    def tell(self, command: str, **arguments: object) -> None:
        """Give QEMU a command by QMP, whatever comes of it."""
        self._send({"execute": command, "arguments": arguments})

    def ask(self, command: str, **arguments: object) -> Any:
        """Give QEMU a command by QMP and return its answer. CornerstoneError when it refuses, or is gone."""
        number = len(self._answers) + 1
        self._send({"execute": command, "id": number, "arguments": arguments})
        end = time.monotonic() + ANSWER_SECONDS
        while number not in self._answers:
            self._held += self._wait(end - time.monotonic())
            if self.status is not None or time.monotonic() >= end:
                raise CornerstoneError(f"QEMU didn't answer to {command}", f"see {self.logs / 'qemu.log'}",
                                       Code.MACHINE)
        answer = self._answers[number]
        if "error" in answer:
            raise CornerstoneError(f"QEMU refused {command}: {answer['error'].get('desc')}", "", Code.MACHINE)
        return answer["return"]

    def _wait(self, timeout: float) -> list[Chunk]:
        if self.status is not None:
            return [Chunk("exit")]
        chunks = []
        ended = False
        for key, _ in self._selector.select(max(0.0, timeout)):
            if key.data == "signal":
                self.interrupts.check()
            elif key.data == "exit":
                ended = True
            else:
                chunks += self._read(key.data)
        if ended:
            # The last words are often the reason: they come before the end is told.
            for name in list(self._channels):
                while more := self._read(name):
                    chunks += more
            self.status = self._process.wait()
            chunks.append(Chunk("exit"))
        return chunks

    def complaints(self) -> str:
        """What QEMU wrote to its error output, without its warnings."""
        text = (self.logs / "qemu.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(line for line in text.splitlines() if line.strip() and "warning:" not in line)

    def screen_text(self) -> list[str]:
        """Read the VGA card's text line by line: what stands on the screen, and what has just scrolled out of it.

        It has to be in text mode, as after a BIOS when the kernel was told nomodeset.
        """
        with tempfile.NamedTemporaryFile(prefix="cornerstone-screen-") as file:
            self.ask("pmemsave", val=VGA_TEXT, size=VGA_TEXT_BYTES, filename=file.name)
            cells = file.read()[::2].decode("cp437")
        return [cells[at:at + SCREEN_COLUMNS].rstrip() for at in range(0, len(cells), SCREEN_COLUMNS)]

    def save_picture(self, path: Path) -> None:
        """Write what the VGA screen shows to path, as PNG."""
        self.ask("screendump", filename=str(path.absolute()), format="png")

    def type(self, text: str) -> None:
        """Type on the serial console; a line ends with a carriage return, as from a keyboard."""
        with self._console_in.open("wb", buffering=0) as keys:
            keys.write(text.encode())

    def kill(self) -> None:
        """Cut the power, as it were; returns when the machine is gone. wait() then brings its last words and "exit"."""
        self._process.kill()
        self._gone(TERM_SECONDS)

    def _start(self, paths: Paths) -> None:
        argv = self.machine.argv(paths)
        with paths.log("qemu").open("wb") as log:
            # Its own session: Ctrl-C must reach this process only, which then ends QEMU in order.
            self._process = subprocess.Popen([*WITH_US, *argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                             start_new_session=True)
        self._pidfd = os.pidfd_open(self._process.pid)

    def _accept(self, listeners: dict[str, socket.socket], sockets: contextlib.ExitStack) -> None:
        for name, listener in listeners.items():
            with selectors.DefaultSelector() as either:
                for source in (listener, self._pidfd, self.interrupts):
                    either.register(source, selectors.EVENT_READ)
                ready = [key.fileobj for key, _ in either.select(CONNECT_SECONDS)]
            self.interrupts.check()
            if listener not in ready:
                why = self.complaints() or ("it ended at once" if ready else f"no word in {CONNECT_SECONDS:.0f} s")
                raise CornerstoneError(f"QEMU didn't start: {why}", f"see {self.logs / 'qemu.log'}", Code.MACHINE)
            channel = sockets.enter_context(listener.accept()[0])
            channel.setblocking(False)
            self._channels[name] = channel.fileno()

    def _read(self, name: str) -> list[Chunk]:
        if name not in self._channels:
            return []
        try:
            data = os.read(self._channels[name], 65536)
        except BlockingIOError:
            return []
        except ConnectionError:
            data = b""
        if data and name == "qmp":
            data = self._events_in(data)
            return [Chunk(name, data)] if data else []
        if data:
            return [Chunk(name, data)]
        self._selector.unregister(self._channels.pop(name))
        return []

    def _events_in(self, data: bytes) -> bytes:
        """Take the answers out of what QMP brought; the other whole lines are returned."""
        *lines, self._line = (self._line + data).split(b"\n")
        others = []
        for line in lines:
            message = qmp.message(line)
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                others.append(line + b"\n")
        return b"".join(others)

    def _send(self, message: dict[str, object]) -> None:
        # A machine that is gone hears nothing; its pidfd tells that.
        with contextlib.suppress(KeyError, BlockingIOError, ConnectionError):
            os.write(self._channels["qmp"], json.dumps(message).encode() + b"\n")

    def _end(self) -> None:
        """Quit by QMP; if that isn't heard, by the pid that we started. Every log is whole when this returns."""
        try:
            if self.status is None:
                self.tell("quit")
            for insist, seconds in ((self._process.terminate, QUIT_SECONDS), (self._process.kill, TERM_SECONDS)):
                if self.status is None and not self._gone(seconds):
                    insist()
            if self.status is None:
                self.status = self._process.wait()
        finally:
            os.close(self._pidfd)

    def _gone(self, seconds: float) -> bool:
        with selectors.DefaultSelector() as end:
            end.register(self._pidfd, selectors.EVENT_READ)
            return bool(end.select(seconds))


@contextlib.contextmanager
def _pipe(path: Path) -> Iterator[int]:
    for end in ("in", "out"):
        os.mkfifo(f"{path}.{end}", 0o600)
    reader = os.open(f"{path}.out", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # Room for a kernel that says much while this computer is busy; more than allowed is refused, and no matter.
        with contextlib.suppress(OSError):
            fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 1 << 20)
        yield reader
    finally:
        os.close(reader)


@contextlib.contextmanager
def _listener(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            listener.bind(str(path))
        except OSError as error:
            raise CornerstoneError(f"the socket {path} can't be made: {error}",
                                   "set TMPDIR to a short path that is writable", Code.MACHINE) from error
        listener.listen(1)
        yield listener


def _prepare(machine: Machine, paths: Paths) -> None:
    files = machine.firmware_files()
    if files is None and machine.serial:
        paths.sercon_port.write_bytes(SERCON_PORT)
    elif files is not None:
        shutil.copyfile(files[1], paths.firmware_vars)


def _check_host(machine: Machine) -> None:
    if shutil.which(machine.binary) is None:
        raise CornerstoneError(f"{machine.binary} isn't installed", "install the Debian package qemu-system-x86",
                               Code.MACHINE)
    for path in (machine.image, *(disk.path for disk in machine.disks)):
        if path is not None and not path.is_file():
            raise CornerstoneError(f"there is no image {path}", "build it first, or name another one", Code.INPUT)
    free = _available_mib()
    if free is not None and free < machine.memory_mib + OVERHEAD_MIB:
        raise CornerstoneError(
            f"the machine needs {machine.memory_mib + OVERHEAD_MIB} MiB of memory, and {free} MiB are available",
            "end something, or give the machine less memory", Code.MACHINE)


def _available_mib() -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) // 1024
    return None

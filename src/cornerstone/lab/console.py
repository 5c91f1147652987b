"""The catalogue of console failures, and the matcher that finds the first of them in a running machine's output.

A failing boot thus fails in seconds with a reason, and not at a time limit without one.
"""

from __future__ import annotations

import codecs
import re
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

TAIL_LINES = 200
LINE_LIMIT = 4096
# Rules of which a machine recovers at times: an emulated one lost an interrupt, or this computer was busy elsewhere.
PASSING = frozenset({"lockup", "hung-task"})


@dataclass(frozen=True)
class Rule:
    """One known failure. In sentence, {0}, {1} … stand for the groups of the pattern.

    unfinished: the machine stops within this line, so it is looked for before the line's end arrives.
    """

    id: str
    pattern: re.Pattern[str]
    sentence: str
    hint: str
    unfinished: bool = False


@dataclass(frozen=True)
class Failure:
    """A rule that matched, with its sentence filled in and the console line that shows it."""

    id: str
    sentence: str
    hint: str
    line: str


def _rule(id: str, pattern: str, sentence: str, hint: str, *, unfinished: bool = False) -> Rule:
    return Rule(id, re.compile(pattern), sentence, hint, unfinished)


# What a line may begin with: the kernel's clock, and the name of the program that speaks.
_LEAD = r"^(?:\[\s*\d+\.\d+\]\s*)?(?:[\w.@-]+(?:\[\d+\])?: )?"
_DISK = r"(?:sr|sd|vd|nvme)\w*"
# Units without which the live environment or a node is none.
_CRITICAL = (r"(?i:foundation|cornerstone|genesis|first.?boot|ceph|openvswitch|ovs-vswitchd|libvirt(?! guests)|"
             r"switch root|/sysroot|remount root|udev kernel device|systemd-udevd|d-bus system|"
             r"local file systems|local-fs|basic system|journal service)")

# The order counts: of two rules that fit one line, the first is the reason.
CATALOGUE: tuple[Rule, ...] = (
    _rule("refused", _LEAD + r"REFUSED: (.+)", "the machine refused: {0}",
          "it stopped on purpose: run invoke verify on the medium; if that passes, the lines before say more"),

    # Firmware
    _rule("secureboot-access-denied", r"BdsDxe: failed to (?:load|start) Boot\w+ \"(?!EFI Internal Shell)(.*?)\".*"
          r"(?:Access Denied|Security Violation)",
          "Secure Boot refused the boot loader on {0}",
          "BOOTX64.EFI on the medium must be the distribution's signed shim"),
    _rule("secureboot-shim", r"(?:bad shim signature|has invalid signature|Verification failed: \(0x1A\)|"
          r"SBAT self-check failed|^(?!BdsDxe).*Security (?:Policy )?Violation)",
          "Secure Boot: shim refused the next stage (GRUB or the kernel)",
          "take shim, GRUB and the kernel signed, all from the same release", unfinished=True),
    _rule("nothing-boots", r"BdsDxe: No bootable option or device was found|No bootable device|"
          r"UEFI Interactive Shell v|^Shell> ",
          "the firmware found nothing to boot",
          "look at the medium's boot entries: El Torito for CD, MBR and the EFI partition for USB",
          unfinished=True),

    # GRUB
    _rule("grub-rescue", r"^grub rescue>|Entering rescue mode\.\.\.", "GRUB found neither its modules nor its root",
          "its prefix or the search for the medium in its embedded configuration is wrong", unfinished=True),
    _rule("grub-no-kernel", r"error: .*you need to load the kernel first", "GRUB couldn't load the kernel",
          "the error before this line says why: a wrong path in grub.cfg, or a file cut short"),
    _rule("grub-prompt", r"^grub> ?$", "GRUB stopped at its prompt: it found no menu",
          "grub.cfg isn't where the prefix says, or has a syntax error", unfinished=True),

    # Kernel and initrd
    _rule("no-root", r"VFS: (?:Unable to mount root fs|Cannot open root device)|"
          r"Kernel panic - not syncing: No working init found",
          "the kernel couldn't mount its root", "the initrd is missing, cut short, or lacks the root's driver"),
    _rule("kernel-panic", r"Kernel panic - not syncing: (.*)", "kernel panic: {0}",
          "the lines before it in the console log say where"),
    _rule("no-live-medium", r"Unable to find a (?:live |medium containing)",
          "the initrd didn't find the medium that it came from",
          "the medium's label or id isn't the one that the kernel command line names"),
    _rule("initramfs-shell", r"^\(initramfs\) ?|ALERT!\s+(.+?) does not exist|Dropping to a shell",
          "the initrd gave up and opened a shell", "the lines before it in the console log say what it missed",
          unfinished=True),
    _rule("squashfs-error", r"SQUASHFS error: (.*)", "the squashfs can't be read: {0}",
          "the layer is damaged or cut short, or the kernel lacks its compression"),
    _rule("io-error", rf"(?:I/O error,? (?:on )?|critical medium error, )dev(?:ice)? ({_DISK})", "reading {0} failed",
          "the medium or its image is damaged or cut short"),
    _rule("out-of-memory", r"Out of memory: Killed process \d+ \(([^)]*)\)|invoked oom-killer|"
          r"Initramfs unpacking failed: write error", "the machine ran out of memory",
          "give it more memory, or find out what took it"),
    _rule("lockup", r"BUG: soft lockup|hard LOCKUP",
          "a CPU of the machine hangs", "if this computer was overloaded, run it again alone"),
    _rule("hung-task", r"INFO: task (\S+) blocked for more than", "a task of the machine hangs: {0}",
          "what it waits for, mostly a disk, doesn't answer; if this computer was overloaded, run it again alone"),
    _rule("kernel-bug", r"kernel BUG at|BUG: unable to handle|Oops: \d+|general protection fault.*PREEMPT",
          "the kernel hit a bug", "the lines after it in the console log say where"),

    # systemd
    _rule("systemd-freeze", r"systemd\[1\]: Freezing execution|\[!!!!!!\] ", "systemd gave up and froze",
          "the lines before it in the console log say why"),
    _rule("emergency-shell", r"You are in (?:emergency|rescue) mode|Give root password for maintenance|"
          r"Reached target .*(?:emergency\.target|rescue\.target|Emergency Mode|Rescue Mode)|"
          r"Cannot open access to console, the root account is locked",
          "systemd stopped in its emergency shell", "a unit that the system needs failed before this line",
          unfinished=True),
    _rule("ordering-cycle", r"(?i)found ordering cycle|to break ordering cycle starting with (\S+)",
          "systemd found an ordering cycle and left a unit out", "the units' After= and Before= go round in a circle"),
    _rule("unit-failed", rf"(?:Failed to start|Failed to mount|Dependency failed for) (.*{_CRITICAL}.*)",
          "a unit that the machine can't do without failed: {0}", "its journal says why"),
)


def match(line: str, *, finished: bool = True) -> Failure | None:
    """The first rule of the catalogue that fits the line; of an unfinished line only those that are made for it."""
    for rule in CATALOGUE:
        if (finished or rule.unfinished) and (found := rule.pattern.search(line)):
            groups = [(group or "").strip(" .") for group in found.groups()]
            return Failure(rule.id, rule.sentence.format(*groups), rule.hint, line)
    return None


class Lines:
    """Turns terminal output, in pieces of any size, into plain lines: no escapes, no control characters.

    A carriage return or a move of the cursor ends a line too, because firmware and GRUB paint their screens; a move
    to where the cursor is anyway, or one back, doesn't (SeaBIOS makes such in the middle of a word when it was slow).
    """

    _ESCAPE = re.compile(r"\x1b(?:\[([0-?]*)[ -/]*([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|"
                         r"[ -/]+[0-~]|[0-Z\\^-~])")
    _MOVES = frozenset("ABEFHJdf")
    _CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

    def __init__(self) -> None:
        # Firmware paints its boxes with bytes that are no UTF-8; the words inside are what counts.
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._held = ""
        self.unfinished = ""

    def feed(self, data: bytes) -> list[str]:
        """The lines that data completes; empty ones are left out."""
        text = self._held + self._decoder.decode(data)
        # An escape that is cut in two waits for its other half, unless it is too long to be one.
        at = text.rfind("\x1b")
        cut = at >= 0 and len(text) - at < 128 and not self._ESCAPE.match(text, at)
        text, self._held = (text[:at], text[at:]) if cut else (text, "")
        text = self._unescape(self.unfinished + text.replace("\r", "\n").replace("\t", " "))
        text = self._CONTROL.sub("", text)
        *lines, rest = text.split("\n")
        if len(rest) > LINE_LIMIT:
            lines.append(rest)
            rest = ""
        self.unfinished = rest
        return [line.rstrip() for line in lines if line.strip()]

    def _unescape(self, text: str) -> str:
        out, done = "", 0
        for escape in self._ESCAPE.finditer(text):
            out += text[done:escape.start()]
            done = escape.end()
            if escape[2] in self._MOVES:
                column = re.fullmatch(r"\d+;(\d+)", escape[1]) if escape[2] in "Hf" else None
                here = len(out) - out.rfind("\n")
                if column is None or int(column[1]) not in (here - 1, here):
                    out += "\n"
        return out + text[done:]


class Matcher:
    """Reads a console as it comes. failure is the first one found, and stays so; fresh are the last feed's lines.

    expected: ids of rules that are no failure here; doubt is the last of their lines.
    """

    def __init__(self, expected: Collection[str] = ()) -> None:
        self._expected = expected
        self._lines = Lines()
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.fresh: list[str] = []
        self.failure: Failure | None = None
        self.doubt: Failure | None = None

    def feed(self, data: bytes) -> Failure | None:
        """Take the next bytes; returns the first failure, if there was one so far."""
        self.fresh = self._lines.feed(data)
        self._tail.extend(self.fresh)
        for line in self.fresh:
            self.failure = self.failure or self._match(line)
        if self._lines.unfinished.strip():
            self.failure = self.failure or self._match(self._lines.unfinished.strip(), finished=False)
        return self.failure

    def close(self) -> Failure | None:
        """Nothing more will come: judge the line that never ended."""
        if rest := self._lines.unfinished.strip():
            self._tail.append(rest)
            self.failure = self.failure or self._match(rest)
            self._lines.unfinished = ""
        return self.failure

    def _match(self, line: str, *, finished: bool = True) -> Failure | None:
        found = match(line, finished=finished)
        if found is not None and found.id in self._expected:
            self.doubt = found
            return None
        return found

    @property
    def unfinished(self) -> str:
        return self._lines.unfinished.strip()

    def tail(self, count: int = 15) -> list[str]:
        """The last lines, oldest first, with the unfinished one."""
        lines = [*self._tail, *([self.unfinished] if self.unfinished else [])]
        return lines[-count:]

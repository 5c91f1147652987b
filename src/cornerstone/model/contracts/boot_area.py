"""The ISO's boot area: the serial port and further kernel arguments that GRUB hands to the kernel beside its own.

It is a GRUB environment block, a file of fixed size that `load_env` reads, outside the signed content as the site area
is: whoever can write the medium can choose them. So only words are allowed that GRUB and the kernel take as single
words, and none that would start something else than what was verified. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.printable import quoted
from cornerstone.model.disk.slot_disk import SERIAL

SIZE = 1024
"""Bytes of the area, the size that GRUB's own tools give it."""
# The names are what the templates of GRUB's menu load, and nothing else is loaded.
CONSOLE, ARGUMENTS = "serial_console", "kernel_arguments"
_HEADER = "# GRUB Environment Block\n"
_PORT = re.compile(r"ttyS([0-9]|[12][0-9]|3[01]),(9600|19200|38400|57600|115200)")
# Without blanks, quotes, backslashes, semicolons and $, which are GRUB's, and without what it takes for a pattern. No
# name begins with a capital: what the kernel doesn't know becomes a variable of the first process, as LD_PRELOAD.
_ARGUMENT = re.compile(r"[a-z0-9][A-Za-z0-9_.-]*(=[A-Za-z0-9_.,:/@%+=!~-]*)?")
_OTHER_SYSTEM = "it would start something else than what was verified"
_REFUSED = {
    **dict.fromkeys(("init", "rdinit", "initrd", "noinitrd", "boot", "root", "rootflags", "rootfstype", "nfsroot",
                     "loop", "loopflags", "loopfstype", "resume", "resume_offset", "break", "recovery", "rescue",
                     "emergency", "single", "s", "1", "2", "3", "4", "5"), _OTHER_SYSTEM),
    "findiso": "GRUB's menu says where the medium is",
    **dict.fromkeys(("lockdown", "module.sig_enforce"), "it decides which code the kernel takes"),
    "console": "it is set by --console, so that GRUB uses the same port",
    "foundation.reinstall": "an installed node would be installed anew at each start; type it at the boot menu, once",
}
_REFUSED_BEGINNINGS = {"cornerstone.": "it says which medium is verified", "initramfs.": _OTHER_SYSTEM,
                       "systemd.": _OTHER_SYSTEM, "rd.": _OTHER_SYSTEM}
# what systemd is to tell changes nothing that it does
_TAKEN_BEGINNINGS = ("systemd.log_", "systemd.show_status", "systemd.journald.")


@dataclass(frozen=True)
class BootSettings:
    """console: as in ttyS1,115200, "" for the ISO's own; arguments: kernel arguments that come after the ISO's own."""

    console: str = ""
    arguments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "; ".join([f"serial port {self.console}"] * bool(self.console)
                         + [f"kernel arguments {' '.join(self.arguments)}"] * bool(self.arguments))


def read_settings(console: str, arguments: Sequence[str]) -> BootSettings:
    """Check what somebody wants to be set. Raises CornerstoneError, which says what is wrong and why."""
    console = console.removesuffix("n8")
    if console and (wrong := _wrong_console(console)):
        raise CornerstoneError(f"--console {wrong}", f"write it as {SERIAL}, the ISO's own")
    for word in arguments:
        if wrong := reason_against(word):
            raise CornerstoneError(f"--kernel-argument {wrong}", "write NAME or NAME=VALUE, in letters, digits and "
                                   "_.,:/@%+=!~- and once for each argument; docs/site.md has what isn't taken")
    return BootSettings(console, tuple(arguments))


def pack(settings: BootSettings, size: int = SIZE) -> bytes:
    """The whole area, size bytes. Raises CornerstoneError when the settings don't fit."""
    lines = [f"{CONSOLE}={settings.console}\n"] * bool(settings.console)
    lines += [f"{ARGUMENTS}={' '.join(settings.arguments)}\n"] * bool(settings.arguments)
    text = (_HEADER + "".join(lines)).encode("ascii")
    if len(text) > size:
        raise CornerstoneError(f"the kernel arguments are {len(text) - size} bytes too long for the ISO's boot area",
                               "leave some out")
    return text.ljust(size, b"#")


def unpack(area: bytes) -> BootSettings:
    """The settings in an area. Raises CornerstoneError (VERIFY) when it isn't byte for byte what pack makes of them."""
    text = area.decode("ascii", "replace")
    found = re.fullmatch(rf"{_HEADER}(?:{CONSOLE}=(.+)\n)?(?:{ARGUMENTS}=(.+)\n)?#*", text)
    if found is None:
        raise _refused("it isn't of the form that customize writes")
    settings = BootSettings(found[1] or "", tuple((found[2] or "").split(" ")) if found[2] else ())
    wrong = [_wrong_console(settings.console)] if settings.console else []
    for problem in filter(None, [*wrong, *map(reason_against, settings.arguments)]):
        raise _refused(problem)
    return settings


def _wrong_console(console: str) -> str:
    return "" if _PORT.fullmatch(console) else f"{quoted(console)} is no serial port with its speed"


def reason_against(word: str) -> str:
    """Why a word can't be a kernel argument, as a clause that quotes it; empty when it can."""
    if not _ARGUMENT.fullmatch(word):
        return f"{quoted(word)} isn't one word that GRUB and the kernel take as it is"
    # the kernel makes no difference between the two
    name = word.partition("=")[0].replace("-", "_")
    beginnings = {} if name.startswith(_TAKEN_BEGINNINGS) else _REFUSED_BEGINNINGS
    why = _REFUSED.get(name) or next((why for start, why in beginnings.items() if name.startswith(start)), "")
    return f"{quoted(word)} isn't taken: {why}" if why else ""


def _refused(reason: str) -> CornerstoneError:
    return CornerstoneError(f"the ISO's boot area can't be trusted: {reason}",
                            "invoke customize ISO --console or --kernel-argument writes it anew, --reset empties it",
                            Code.VERIFY)

"""The catalogue of console failures against golden consoles; the file's name up to the first dot is the expected id."""

import re
from pathlib import Path

import pytest

from cornerstone.lab.console import CATALOGUE, Lines, Matcher, match

CONSOLES = sorted((Path(__file__).parent.parent / "data" / "consoles").glob("*.log"))


def feed(data: bytes, size: int) -> Matcher:
    matcher = Matcher()
    for at in range(0, len(data), size):
        if matcher.feed(data[at:at + size]):
            break
    return matcher


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("path", CONSOLES, ids=lambda path: path.stem)
def test_golden_console(path, size):
    matcher = feed(path.read_bytes(), size)
    found = matcher.failure.id if matcher.failure else "healthy"
    assert found == path.name.split(".")[0], matcher.failure


def test_every_rule_has_a_golden_console():
    assert {rule.id for rule in CATALOGUE} == {path.name.split(".")[0] for path in CONSOLES} - {"healthy"}


def test_ids_are_unique_and_sentences_fill_in():
    assert len({rule.id for rule in CATALOGUE}) == len(CATALOGUE)
    for rule in CATALOGUE:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.id)
        assert rule.sentence.format(*["x"] * rule.pattern.groups)
        assert rule.hint


@pytest.mark.parametrize(("line", "sentence"), [
    ("REFUSED: layer hypervisor.squashfs does not match the manifest",
     "the machine refused: layer hypervisor.squashfs does not match the manifest"),
    ("[    2.88] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
     "kernel panic: Attempted to kill init! exitcode=0x00000100"),
    ('BdsDxe: failed to load Boot0001 "UEFI QEMU DVD-ROM" from PciRoot(0x0): Access Denied',
     "Secure Boot refused the boot loader on UEFI QEMU DVD-ROM"),
    ("[    9.4] I/O error, dev sr0, sector 302144", "reading sr0 failed"),
])
def test_sentences_name_what_failed(line, sentence):
    assert match(line).sentence == sentence


@pytest.mark.parametrize("line", [
    'BdsDxe: failed to load Boot0001 "UEFI QEMU DVD-ROM" from PciRoot(0x0): Not Found',
    'BdsDxe: failed to start Boot0002 "EFI Internal Shell" from Fv(7CB8): Security Violation',
    "error: file `/boot/grub/fonts/unicode.pf2' not found.",
    "Boot failed: could not read the boot disk",
    "[FAILED] Failed to start systemd-binfmt.service - Set Up Additional Binary Formats.",
    "[    1.0] Kernel command line: panic=0 rescue=no",
    "Nothing was REFUSED: all is well",
    "[    2.0] floppy: I/O error, dev fd0, sector 0",
    "      before booting or `c' for a command-line.",
])
def test_harmless_lines(line):
    assert match(line) is None


def test_a_prompt_is_found_before_its_line_ends_and_other_words_are_not():
    assert Matcher().feed(b"grub> ").id == "grub-prompt"
    matcher = Matcher()
    assert matcher.feed(b"[FAILED] Failed to start foundation") is None
    assert matcher.feed(b"-motd.service") is None
    assert matcher.close().id == "unit-failed"


def test_the_first_failure_stays():
    matcher = Matcher()
    matcher.feed(b"(initramfs) ")
    assert matcher.feed(b"\r\nKernel panic - not syncing: x\r\n").id == "initramfs-shell"


def test_what_is_expected_is_no_failure():
    matcher = Matcher(("io-error",))
    assert matcher.feed(b"I/O error, dev sda, sector 0\r\n") is None
    assert matcher.doubt.sentence == "reading sda failed"
    assert matcher.feed(b"INFO: task mount:412 blocked for more than 120 seconds.\r\n").id == "hung-task"


def test_lines_lose_escapes_wherever_they_are_cut():
    data = (b"\x1b[0;1;31mred\x1b[0m \x1b]0;title\x07one\x1b(B\r\n\x1b[2;24HGNU\x1b[?25l GRUB\x1b[Htwo\r"
            b"three\x08\n\xff\xfe\nNo boot\x1b[07;07H\x1b[07;08Hable\x1b[7;2Hdevice\n")
    for size in range(1, len(data)):
        lines = Lines()
        got = [line for at in range(0, len(data), size) for line in lines.feed(data[at:at + size])]
        assert got == ["red one", "GNU GRUB", "two", "three", "No bootable", "device"], size


def test_a_stray_escape_and_an_endless_line_hold_nothing_back_for_ever():
    lines = Lines()
    assert lines.feed(b"\x1b\x01" + b"a" * 200 + b"\nnext\n")[-1] == "next"
    assert lines.feed(b"b" * 10000) == ["b" * 10000]


def test_tail_ends_with_the_unfinished_line():
    matcher = Matcher()
    matcher.feed(b"".join(b"line %d\n" % number for number in range(500)) + b"login: ")
    assert matcher.tail(2) == ["line 499", "login:"]

"""The boot area: what GRUB's environment block on the ISO may hold, and what is refused."""

import random

import pytest

from cornerstone.factory.payload.render import LIVE_ARGUMENTS
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.contracts.boot_area import ARGUMENTS, CONSOLE, SIZE, BootSettings, pack, read_settings, unpack

SETTINGS = [
    BootSettings(), BootSettings("ttyS1,115200"), BootSettings("", ("nomodeset",)),
    BootSettings("ttyS31,9600", ("pci=nocrs,noaer", "8250.nr_uarts=8", "usb-storage.quirks=0781:5580:u", "debug")),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_what_is_packed_is_unpacked(settings):
    area = pack(settings)
    assert len(area) == SIZE and area.startswith(b"# GRUB Environment Block\n") and area.endswith(b"#")
    assert unpack(area) == settings
    assert read_settings(settings.console, settings.arguments) == settings


def test_the_block_has_grubs_form():
    """A first line by which GRUB knows it, `name=value` lines, and # to the end (GRUB 2.12, lib/envblk.c)."""
    assert pack(BootSettings("", ("a",))) == b"# GRUB Environment Block\nkernel_arguments=a\n".ljust(1024, b"#")


def test_a_port_may_be_written_as_the_kernel_has_it():
    assert read_settings("ttyS1,115200n8", ()) == BootSettings("ttyS1,115200")


@pytest.mark.parametrize("console", ["ttyS1", "ttyS32,115200", "ttyS1,115201", "tty0", "COM2", "ttyS1,115200 init=/x",
                                     "ttyS1,115200\n", "ttyUSB0,115200", "ttyS01,9600"])
def test_another_port_is_refused(console):
    with pytest.raises(CornerstoneError, match="--console .* is no serial port with its speed") as caught:
        read_settings(console, ())
    assert caught.value.code is Code.INPUT and "ttyS0,115200" in caught.value.hint


# quotes, separators and patterns are GRUB's; a capital first is an environment variable of init's
@pytest.mark.parametrize("word", [
    "", "a b", "a;b", "a'b", 'a"b', "a\\b", "a$b", "a&b", "a|b", "a`b", "a#b", "a*", "a?", "a[b]", "{a}", "a(b)", "a<b",
    "a\nb", "a\tb", "a\0b", "ä", "a=ä", "--", "-b", "=x", "LD_PRELOAD=/medium/x", "PATH=/medium", "a=b\ninit=/x"])
def test_what_is_no_single_word_is_refused(word):
    with pytest.raises(CornerstoneError, match="--kernel-argument .* isn't one word") as caught:
        read_settings("", [word])
    assert caught.value.code is Code.INPUT


@pytest.mark.parametrize(("word", "why"), [
    ("init=/bin/sh", "start something else"), ("rdinit=/bin/sh", "start something else"),
    ("boot=local", "start something else"), ("root=/dev/sda1", "start something else"),
    ("break=premount", "start something else"), ("break", "start something else"),
    ("single", "start something else"), ("1", "start something else"), ("initrd=/x", "start something else"),
    ("systemd.unit=rescue.target", "start something else"), ("systemd.debug-shell", "start something else"),
    ("systemd.debug_shell=1", "start something else"), ("systemd.run=/medium/x", "start something else"),
    ("systemd.mask=foundation.service", "start something else"), ("rd.break", "start something else"),
    ("cornerstone.medium=0", "which medium is verified"), ("cornerstone.root=x", "which medium is verified"),
    ("findiso=/x.iso", "where the medium is"), ("console=ttyS1", "--console"), ("lockdown=none", "which code"),
    ("module.sig-enforce=0", "which code"), ("foundation.reinstall=token", "anew at each start"),
])
def test_what_would_start_something_else_is_refused_with_its_reason(word, why):
    with pytest.raises(CornerstoneError, match="isn't taken: ") as caught:
        read_settings("", [word])
    assert why in caught.value.message
    # and the same by whoever writes the area by hand
    area = f"# GRUB Environment Block\n{ARGUMENTS}=quiet {word}\n".encode().ljust(SIZE, b"#")
    with pytest.raises(CornerstoneError, match="can't be trusted: .* isn't taken") as caught:
        unpack(area)
    assert caught.value.code is Code.VERIFY


@pytest.mark.parametrize("word", ["systemd.log_level=debug", "systemd.show_status=1", "foundation.site=http://h/s.json",
                                  "foundation.address=10.0.0.5/24,10.0.0.1", "intel_iommu=off", "panic=10", "bootx=1"])
def test_what_only_tells_or_tunes_is_taken(word):
    assert read_settings("", [word]).arguments == (word,)


def test_what_does_not_fit_is_refused():
    assert len(pack(read_settings("", ["a" * 900]))) == SIZE
    with pytest.raises(CornerstoneError, match="19 bytes too long"):
        pack(read_settings("", ["a" * 1000]))


@pytest.mark.parametrize("area", [
    b"", bytes(SIZE), b"#" * SIZE, b"# GRUB Environment Block\n".ljust(SIZE, b"\0"),
    b"# GRUB Environment Block\nroot=hd1\n".ljust(SIZE, b"#"),
    f"# GRUB Environment Block\n{ARGUMENTS}=a\n{CONSOLE}=ttyS1,9600\n".encode().ljust(SIZE, b"#"),
    f"# GRUB Environment Block\n{ARGUMENTS}=a\n{ARGUMENTS}=b\n".encode().ljust(SIZE, b"#"),
    f"# GRUB Environment Block\n{ARGUMENTS}=a  b\n".encode().ljust(SIZE, b"#"),
    f"# GRUB Environment Block\n{ARGUMENTS}= \n".encode().ljust(SIZE, b"#"),
    f"# GRUB Environment Block\n{ARGUMENTS}=\n".encode().ljust(SIZE, b"#"),
    f"# GRUB Environment Block\n{CONSOLE}=ttyS1,1\n".encode().ljust(SIZE, b"#"),
    f"# GRUB Environment Block\n{ARGUMENTS}=a".encode().ljust(SIZE, b"#"),
    f"# GRUB Environment Block\n#\n{ARGUMENTS}=a\n".encode().ljust(SIZE, b"#"),
])
def test_an_area_of_another_form_is_refused(area):
    with pytest.raises(CornerstoneError, match="can't be trusted") as caught:
        unpack(area)
    assert caught.value.code is Code.VERIFY


def test_damage_is_refused_or_seen():
    whole, chance = pack(SETTINGS[-1]), random.Random(18)
    for _ in range(3000):
        area = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            area[chance.randrange(160)] = chance.choice((0, 10, 32, 35, 61, chance.randrange(256)))
        try:
            found = unpack(bytes(area))
        except CornerstoneError as error:
            assert error.code is Code.VERIFY
        else:
            assert pack(found) == bytes(area)


def test_the_isos_own_port_is_gone_from_the_arguments_that_grub_adds():
    assert f"console=tty0 console=${CONSOLE} " in LIVE_ARGUMENTS and "ttyS" not in LIVE_ARGUMENTS

"""The reserved area: what is packed comes out again, and damage anywhere is named."""

import hashlib
import random

import pytest

from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.contracts.site_area import SIZE, pack, unpack

CONTENT = b'{"blocks": []}\n' * 60


def damage(area: bytes) -> str:
    """What unpack finds wrong, empty when nothing."""
    try:
        unpack(area)
    except CornerstoneError as error:
        assert error.code is Code.VERIFY and error.hint
        return error.message
    return ""


@pytest.mark.parametrize("content", [None, b"x", b"\n", b"\0", b"{}\0", CONTENT, bytes(range(256)) * 100])
def test_what_is_packed_comes_out(content):
    area = pack(content)
    assert len(area) == SIZE == 256 << 10
    assert unpack(area) == content


def test_the_form_of_an_area():
    assert pack(None, 64) == b"FOUNDATION-SITE 1 empty\n" + bytes(40)
    sha256 = hashlib.sha256(b"{}\n").hexdigest()
    assert pack(b"{}\n", 128) == f"FOUNDATION-SITE 1 3 {sha256}\n{{}}\n".encode().ljust(128, b"\0")


def test_a_site_fills_the_area_to_its_last_byte_and_no_further():
    line = len(pack(b"x" * 1000, 2048).partition(b"\n")[0]) + 1
    room = 2048 - line
    assert unpack(pack(b"x" * room, 2048)) == b"x" * room
    with pytest.raises(CornerstoneError, match=f"the site has {room + 1} bytes, the ISO has room for {room}"):
        pack(b"x" * (room + 1), 2048)


def test_one_changed_byte_anywhere_is_damage():
    area = pack(CONTENT, 4096)
    for at in range(4096):
        for bit in (1, 0x80):
            changed = bytearray(area)
            changed[at] ^= bit
            assert damage(bytes(changed)), (at, bit)


def test_one_changed_byte_of_an_empty_area_is_damage():
    area = pack(None, 512)
    for at in range(512):
        changed = bytearray(area)
        changed[at] ^= 1
        assert damage(bytes(changed)), at


@pytest.mark.parametrize(("before", "after"), [(None, CONTENT), (CONTENT, None), (CONTENT, CONTENT[::-1]),
                                               (CONTENT[:99], CONTENT), (CONTENT, CONTENT[:99])])
def test_a_write_cut_short_is_the_old_area_the_new_one_or_damage(before, after):
    """A power cut leaves any mixture of old and new sectors."""
    old, new = pack(before, 4096), pack(after, 4096)
    sectors = range(0, 4096, 512)
    for chosen in range(1 << len(sectors)):
        torn = b"".join((new if chosen >> index & 1 else old)[at:at + 512] for index, at in enumerate(sectors))
        if torn not in (old, new):
            assert damage(torn), bin(chosen)


@pytest.mark.parametrize(("area", "said"), [
    (b"", "it doesn't begin with its line"), (bytes(4096), "it doesn't begin with its line"),
    (b"FOUNDATION-SITE", "it doesn't begin with its line"),
    (b"FOUNDATION-SITE 1 empty", "it doesn't begin with its line"),
    (b"FOUNDATION-SITE 1 \n", "it doesn't begin with its line"),
    (b"FOUNDATION-SITE 1 full\n", "its line can't be read"), (b"FOUNDATION-SITE 01 empty\n", "is of version 01"),
    (b"FOUNDATION-SITE 2 anything that comes later\n", "is of version 2, this release reads 1"),
    (b"FOUNDATION-SITE 1 0 " + b"0" * 64 + b"\n", "its line can't be read"),
    (b"FOUNDATION-SITE 1 7 " + b"0" * 64 + b"\nabc", "7 bytes are said to be in it, it has room for 3"),
    (b"FOUNDATION-SITE 1 3 " + b"0" * 64 + b"\nabc", "its content isn't what its checksum says"),
    (b"FOUNDATION-SITE 1 empty\n" + bytes(100) + b"x", "something is behind its content"),
    (pack(CONTENT, 4096)[:500], "900 bytes are said to be in it"),
])
def test_damage_is_named(area, said):
    assert said in damage(area)


def test_random_bytes_are_damage_and_nothing_else():
    chance = random.Random(5)
    for _ in range(300):
        assert damage(b"FOUNDATION-SITE 1 " * chance.randrange(2) + chance.randbytes(chance.randrange(200)))

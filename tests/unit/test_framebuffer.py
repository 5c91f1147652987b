"""Text is read off pictures of screens by the font that a kernel has."""

from __future__ import annotations

import lzma
import random
import struct
import subprocess

import pytest

from cornerstone.lab.framebuffer import HEIGHT, UNKNOWN, WIDTH, kernel_font, text_of
from cornerstone.lib.error import CornerstoneError

# font_8x16.c's own; the other letters are drawn
A, B = bytes.fromhex("000010386cc6c6fec6c6c6c600000000"), bytes.fromhex("0000fc6666667c66666666fc00000000")
PACKERS = {"xz": lzma.compress, "zstd": lambda content: subprocess.run(
    ["zstd", "--quiet", "--stdout"], input=content, capture_output=True, check=True).stdout}


def glyphs() -> bytes:
    drawn = random.Random(7)
    table = [bytes(HEIGHT) if code <= 0x20 else drawn.randbytes(HEIGHT) for code in range(256)]
    table[ord("A"):ord("C")] = A, B
    return b"".join(table)


def bzimage(kernel: bytes, pack=lzma.compress) -> bytes:
    """A bzImage with four sectors of setup and a payload 100 bytes behind them, which the kernel's size follows."""
    payload = pack(kernel) + struct.pack("<I", len(kernel))
    setup = bytearray(5 * 512)
    setup[0x1F1] = 4
    struct.pack_into("<II", setup, 0x248, 100, len(payload))
    return bytes(setup) + bytes(100) + payload + b"signature"


def picture(lines: list[str], width: int, height: int) -> bytes:
    """Draw lines in grey on black, at the left upper corner."""
    table = glyphs()
    pixels = bytearray(3 * width * height)
    for down, line in enumerate(lines):
        for right, letter in enumerate(line):
            for row in range(HEIGHT):
                bits = table[ord(letter) * HEIGHT + row]
                for column in range(WIDTH):
                    if bits & 0x80 >> column:
                        at = 3 * ((down * HEIGHT + row) * width + right * WIDTH + column)
                        pixels[at:at + 3] = b"\xaa\xaa\xaa"
    return b"P6\n%d %d\n255\n" % (width, height) + pixels


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS.keys())
def test_a_screen_is_read_by_the_kernel_s_font(pack):
    font = kernel_font(bzimage(b"before" + glyphs() + b"after", pack))
    # neither side a multiple of a letter's
    assert text_of(picture(["[    0.1] AB~", "", " z"], 140, 60), font) == ["[    0.1] AB~", "", " z"]


def test_what_is_no_letter_is_told_apart():
    font = kernel_font(bzimage(glyphs()))
    whole = picture(["A"], 16, 16)
    start = len(whole) - 3 * 16 * 16
    cursor = whole[:start + 3 * 16 * 15] + b"\xaa" * 48
    assert text_of(cursor, font) == [UNKNOWN * 2]


@pytest.mark.parametrize("image", [bzimage(b"a kernel without a font"), bzimage(glyphs(), lambda content: content)])
def test_a_kernel_whose_font_can_not_be_found(image):
    with pytest.raises(CornerstoneError):
        kernel_font(image)


def test_another_kind_of_picture():
    with pytest.raises(CornerstoneError):
        text_of(b"P3\n1 1\n255\n0 0 0", kernel_font(bzimage(glyphs())))

"""What the kernel's text console shows on a graphical screen, as text: read from a picture by the kernel's own font."""

from __future__ import annotations

import lzma
import struct
import subprocess
import tempfile
from pathlib import Path

from cornerstone.lab.running import RunningMachine
from cornerstone.lib.error import CornerstoneError

WIDTH, HEIGHT = 8, 16
# what stands for a cell that shows no letter of the font, as one under the cursor
UNKNOWN = "\ufffd"
# QEMU's picture of a VGA card in text mode
TEXT_MODE = (720, 400)
# Linux, Documentation/arch/x86/boot.rst: where a bzImage says how many sectors come before its protected-mode code, and
# where in that the compressed kernel is
_SETUP_SECTORS, _PAYLOAD = 0x1F1, 0x248
# A and B in lib/fonts/font_8x16.c, from which the others are found
_A_AND_B = bytes.fromhex("000010386cc6c6fec6c6c6c600000000" "0000fc6666667c66666666fc00000000")
# by brightness, of a line's pixels: drawn or not
_DRAWN = bytes(ord("1" if level >= 0x60 else "0") for level in range(256))

Font = dict[bytes, str]


def kernel_font(image: bytes) -> Font:
    """The letters of a kernel's font of 8 by 16 pixels, by their rows; image: a bzImage.

    Raises CornerstoneError (INPUT) when it can't be read, or has no such font.
    """
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    start = (image[_SETUP_SECTORS] + 1) * 512 + offset
    # the kernel's size comes after it
    content = _unpacked(image[start:start + length - 4])
    at = content.find(_A_AND_B) - ord("A") * HEIGHT
    if at < 0:
        raise CornerstoneError("the kernel has no font of 8 by 16 pixels", "look at its CONFIG_FONT_8x16")
    # the blank last: other codes have its glyph, too
    return {content[at + code * HEIGHT:at + (code + 1) * HEIGHT]: chr(code) for code in (*range(0x7E, 0x20, -1), 0x20)}


def text_of(picture: bytes, font: Font) -> list[str]:
    """The lines that a picture shows, a binary PPM as QEMU makes it."""
    _, width, height, _, pixels = _split(picture)
    lines = []
    for top in range(0, height - HEIGHT + 1, HEIGHT):
        rows = [pixels[3 * width * row:3 * width * (row + 1)][1::3].translate(_DRAWN)
                for row in range(top, top + HEIGHT)]
        cells = (bytes(int(row[left:left + WIDTH], 2) for row in rows) for left in range(0, width - WIDTH + 1, WIDTH))
        lines.append("".join(font.get(cell, UNKNOWN) for cell in cells).rstrip())
    return lines


def screen_text(running: RunningMachine, font: Font) -> list[str]:
    """Read a machine's screen line by line, in text mode or not.

    In text mode what has just scrolled out of it comes with it.
    """
    with tempfile.NamedTemporaryFile(prefix="cornerstone-screen-") as file:
        running.ask("screendump", filename=file.name)
        picture = Path(file.name).read_bytes()
    return running.screen_text() if _split(picture)[1:3] == TEXT_MODE else text_of(picture, font)


def _split(picture: bytes) -> tuple[str, int, int, int, bytes]:
    kind, size, depth, pixels = picture.split(b"\n", 3)
    width, height = size.split()
    if kind != b"P6" or int(depth) != 255:
        raise CornerstoneError("the picture of the screen isn't a binary PPM of 8 bits", "see QEMU's screendump")
    return kind.decode(), int(width), int(height), int(depth), pixels


def _unpacked(payload: bytes) -> bytes:
    if payload.startswith(b"\xfd7zXZ"):
        return lzma.decompress(payload)
    done = subprocess.run(["zstd", "--decompress", "--stdout", "--quiet"], input=payload, capture_output=True,
                          check=False)
    if done.returncode != 0:
        raise CornerstoneError("the kernel's compression is neither xz nor zstd",
                               done.stderr.decode(errors="replace").strip())
    return done.stdout

"""The ISO's reserved area for a site file: one line of text, the JSON, and zeros up to the area's fixed size.

The line is `FOUNDATION-SITE 1 empty`, or `FOUNDATION-SITE 1 <bytes> <sha256>` for what follows it. A write that was
cut short leaves a sum that doesn't match, or something behind an empty line, and so is told. The area isn't signed:
whoever can write the medium can choose the site. Standard library only: the live environment reads it too.
"""

from __future__ import annotations

import hashlib
import re

from cornerstone.lib.error import Code, CornerstoneError

SIZE = 256 << 10
_VERSION = "1"
# bytes of the longest line
_LONGEST_LINE = len(f"FOUNDATION-SITE {_VERSION} {SIZE} \n") + 64
ROOM = SIZE - _LONGEST_LINE
"""How many bytes a site file may have to fit an area of SIZE."""
_EMPTY = f"FOUNDATION-SITE {_VERSION} empty\n".encode()
_LINE = re.compile(rb"FOUNDATION-SITE ([0-9]{1,6}) ([ -~]{1,200})\n")
_FILLED = re.compile(rb"([1-9][0-9]{0,9}) ([0-9a-f]{64})")
_AGAIN = "invoke customize ISO --site FILE writes it anew, --reset empties it"


def pack(content: bytes | None, size: int = SIZE) -> bytes:
    """The whole area, size bytes, with a site file's content, or empty. Raises CornerstoneError when it doesn't fit."""
    line = _EMPTY if content is None else (
        f"FOUNDATION-SITE {_VERSION} {len(content)} {hashlib.sha256(content).hexdigest()}\n".encode())
    area = line + (content or b"")
    if len(area) > size:
        raise CornerstoneError(f"the site has {len(content or b'')} bytes, the ISO has room for {size - len(line)}",
                               "cut it into several sites, each for an ISO of its own")
    return area.ljust(size, b"\0")


def unpack(area: bytes) -> bytes | None:
    """The site file's content in an area, None when it is empty.

    Raises CornerstoneError (VERIFY) when it is damaged, half-written or of a later release.
    """
    line = _LINE.match(area)
    if line is None:
        raise _damaged("it doesn't begin with its line")
    if (version := line[1].decode()) != _VERSION:
        raise CornerstoneError(f"the ISO's site area is of version {version}, this release reads {_VERSION}",
                               "use the release that customised it", Code.VERIFY)
    filled = _FILLED.fullmatch(line[2])
    if filled is None and line[0] != _EMPTY:
        raise _damaged("its line can't be read")
    end = line.end() + (int(filled[1]) if filled else 0)
    if end > len(area):
        raise _damaged(f"{int(filled[1])} bytes are said to be in it, it has room for {len(area) - line.end()}")
    content = area[line.end():end]
    if filled and hashlib.sha256(content).hexdigest() != filled[2].decode():
        raise _damaged("its content isn't what its checksum says")
    if area[end:].strip(b"\0"):
        raise _damaged("something is behind its content")
    return content if filled else None


def _damaged(reason: str) -> CornerstoneError:
    return CornerstoneError(f"the ISO's site area is damaged: {reason}", _AGAIN, Code.VERIFY)

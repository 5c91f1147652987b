"""`invoke customize`: a site file into an ISO's reserved area, out of it again, or shown.

The area is outside the signed content, so the ISO stays what it was: only the area is written, in place and in one
write. A write that a power cut tears is told by the area's own checksum, and is mended by doing it again. A device onto
which an ISO was written takes a site in the same way, and what it has taken is read back from it.
"""

from __future__ import annotations

import base64
import json
import mmap
import os
import secrets
import stat
from pathlib import Path

from cornerstone.factory import process
from cornerstone.factory.files import beside
from cornerstone.factory.iso_area import area_of
from cornerstone.factory.iso_image import Extent
from cornerstone.model.error import Code, CornerstoneError
from cornerstone.model.json_text import read_bounded
from cornerstone.model.site import Site
from cornerstone.model.site_area import pack, unpack
from cornerstone.model.site_fields import EXTRA
from cornerstone.model.site_file import (
    MOST,
    check_releases,
    compact,
    has_secrets,
    read_site,
    redacted,
    short_hash,
    to_area,
)

SECRET_BYTES = 32


def customize(iso: Path, site_file: Path, output: Path | None = None) -> list[str]:
    """Put a site file into an ISO, on a device too, or into a copy of it; returns lines about it for people.

    A cluster without a bootstrap secret gets one by chance. Raises CornerstoneError, and then has changed nothing.
    """
    site = read_site(read_file(site_file), str(site_file))
    drawn, site = with_bootstrap_secrets(site)
    with area_of(iso, write=output is None) as (file, place, manifest):
        check_releases(site, manifest.profile["aos"], manifest.profile["ahv"])
        area = pack(to_area(site), place.size)
        _put(iso, file, place, area, output, private=has_secrets(site))
    nodes = "1 node" if len(site.nodes) == 1 else f"{len(site.nodes)} nodes"
    clusters = "".join(f", cluster {cluster.name}" for cluster in site.clusters)
    lines = [f"{output or iso} carries the site of {nodes}{clusters}",
             f"a node that boots it shows sha256 {short_hash(to_area(site))}"]
    lines += [f"note: {warning}; {warning.hint}" for warning in site.warnings]
    lines += [f"note: cluster {name} has no bootstrap secret in the file, so one was drawn: all its nodes have to boot "
              "this very ISO, or a copy of it" for name in drawn]
    if has_secrets(site):
        lines.append("note: it holds secrets now, and a device keeps no rights: whoever holds the stick holds the "
                     "secrets" if output is None and iso.is_block_device() else
                     "note: the ISO holds secrets now, and only its owner may read it")
    return lines


def reset(iso: Path, output: Path | None = None) -> list[str]:
    """Take the site out of an ISO, or out of a copy of it: its bytes are then as they were built."""
    with area_of(iso, write=output is None) as (file, place, _):
        _put(iso, file, place, pack(None, place.size), output, private=False)
    return [f"{output or iso} carries no site"]


def show(iso: Path) -> str:
    """The site in an ISO as JSON without its secrets, or a line that there is none. CornerstoneError when damaged."""
    with area_of(iso) as (file, place, _):
        content = unpack(os.pread(file, place.size, place.start))
    return f"{iso} carries no site\n" if content is None else redacted(read_site(content, f"the site in {iso}"))


def with_bootstrap_secrets(site: Site) -> tuple[list[str], Site]:
    """The clusters that have no bootstrap secret and are to be formed, and the site in which they have one."""
    document = json.loads(json.dumps(site.document))
    drawn = []
    for cluster, record in zip(site.clusters, document.get("clusters", ()), strict=True):
        if cluster.form and not cluster.bootstrap_secret:
            record.setdefault(EXTRA, {})["bootstrap_secret"] = bootstrap_secret()
            drawn.append(cluster.name)
    return drawn, read_site(compact(document))


def bootstrap_secret() -> str:
    """A new secret by chance, as a site file holds it."""
    return base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def read_file(path: Path) -> bytes:
    """Read a site file, up to a byte more than one may have. Raises CornerstoneError when it can't be read."""
    try:
        return read_bounded(path, MOST)
    except OSError as error:
        raise CornerstoneError(f"{path} can't be read: {error.strerror}", "give the path of a site file; the examples "
                               "are in sites/") from None


def _put(iso: Path, file: int, place: Extent, area: bytes, output: Path | None, *, private: bool) -> None:
    """Write the area into the ISO, or into a copy that appears whole in its place or not at all."""
    if output is None:
        _patch(file, place, area, private)
        return
    if iso.is_block_device():
        raise CornerstoneError(f"{iso} is a device, and --output copies files",
                               "customise the device itself, or a copy of the ISO that was written onto it")
    if output.is_block_device():
        raise CornerstoneError(f"{output} is a device", "write the ISO onto it (docs/media.md), and customise it there")
    if output.exists():
        raise CornerstoneError(f"{output} is there already", "remove it, or choose another name")
    if not output.parent.is_dir():
        raise CornerstoneError(f"{output.parent} is no folder", "make it, or choose another place")
    with beside(output, iso.stat().st_mode & 0o777) as path:
        process.read(["cp", "--reflink=auto", "--", iso, path])
        copy = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            _patch(copy, place, area, private)
        finally:
            os.close(copy)
        path.rename(output)


def _patch(file: int, place: Extent, area: bytes, private: bool) -> None:
    """Write the area in one write. A file's time of change stays: by it a build knows the ISO that it made."""
    before = os.fstat(file)
    device = stat.S_ISBLK(before.st_mode)
    if private and not device:
        os.fchmod(file, before.st_mode & 0o700)
    written = os.pwrite(file, area, place.start)
    os.fsync(file)
    if written != len(area):
        raise CornerstoneError("the site area was written in part: the disk is full or failing", "do it again",
                               Code.MACHINE)
    if device:
        require_written(file, place.start, area)
    else:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def require_written(file: int, start: int, content: bytes) -> None:
    """Read an open device itself, not what memory has of it. CornerstoneError (MACHINE) unless the content is there."""
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    size = (start + len(content) - first + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE
    past_memory = os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_DIRECT)
    try:
        # O_DIRECT takes whole sectors, into memory at a page's start
        with mmap.mmap(-1, size) as pages:
            os.preadv(past_memory, [pages], first)
            there = pages[start - first:start - first + len(content)]
    finally:
        os.close(past_memory)
    if there != content:
        raise CornerstoneError("the device took the site area and reads back something else", "the stick is failing or "
                               "lies about its size: use another", Code.MACHINE)

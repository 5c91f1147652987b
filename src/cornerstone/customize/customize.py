"""`invoke customize`: a site file and boot settings into an ISO's reserved areas, out of them again, or shown.

The areas are outside the signed content, so the ISO stays what it was: only they are written, in place, each in one
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
from collections.abc import Mapping
from pathlib import Path

from cornerstone.customize.iso_area import Areas, areas_of, empty_areas
from cornerstone.lib import process
from cornerstone.lib.atomic import beside, settle
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.json_text import read_bounded
from cornerstone.model.contracts import boot_area
from cornerstone.model.contracts.boot_area import BootSettings
from cornerstone.model.contracts.manifest import BOOT_AREA, SITE_AREA
from cornerstone.model.contracts.site_area import pack, unpack
from cornerstone.model.site.fields import EXTRA
from cornerstone.model.site.file import (
    MOST,
    check_releases,
    compact,
    has_secrets,
    read_site,
    redacted,
    short_hash,
    to_area,
)
from cornerstone.model.site.site import Site

SECRET_BYTES = 32


def customize(iso: Path, site_file: Path | None = None, output: Path | None = None,
              boot: BootSettings | None = None) -> list[str]:
    """Put a site file, boot settings or both into an ISO, on a device too, or into a copy of it.

    Returns lines about it for people. What is None stays as it is. A cluster without a bootstrap secret gets one by
    chance. Raises CornerstoneError, and then has changed nothing.
    """
    site, drawn, content = None, [], {}
    if site_file is not None:
        drawn, site = with_bootstrap_secrets(read_site(read_file(site_file), str(site_file)))
    with areas_of(iso, write=output is None) as areas:
        if boot is not None:
            if BOOT_AREA not in areas.places:
                raise CornerstoneError(f"{iso} has no area for boot settings: it was built by an earlier release",
                                       "build it again")
            content[BOOT_AREA] = boot_area.pack(boot, areas.places[BOOT_AREA].size)
        if site is not None:
            check_releases(site, areas.manifest.profile["aos"], areas.manifest.profile["ahv"])
            content[SITE_AREA] = pack(to_area(site), areas.places[SITE_AREA].size)
        _put(iso, areas, content, output, private=site is not None and has_secrets(site))
    lines = [] if boot is None else [f"{output or iso} starts with {boot}"]
    return lines if site is None else lines + _site_lines(iso, site, output, drawn)


def _site_lines(iso: Path, site: Site, output: Path | None, drawn: list[str]) -> list[str]:
    """Return the lines about the site that an ISO carries now; drawn: names of clusters that got a secret by chance."""
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
    """Take site and boot settings out of an ISO, or of a copy of it: its bytes are then as they were built."""
    with areas_of(iso, write=output is None) as areas:
        _put(iso, areas, empty_areas(areas.manifest), output, private=False)
    return [f"{output or iso} carries no site"]


def show(iso: Path) -> str:
    """The site in an ISO as JSON without its secrets, or a line that there is none. CornerstoneError when damaged."""
    with areas_of(iso) as areas:
        content = unpack(areas.read(SITE_AREA))
    return f"{iso} carries no site\n" if content is None else redacted(read_site(content, f"the site in {iso}"))


def show_boot(iso: Path) -> BootSettings:
    """The boot settings in an ISO. Raises CornerstoneError (VERIFY) when they can't be trusted."""
    with areas_of(iso) as areas:
        return boot_area.unpack(areas.read(BOOT_AREA)) if BOOT_AREA in areas.places else BootSettings()


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


def _put(iso: Path, areas: Areas, content: Mapping[str, bytes], output: Path | None, *, private: bool) -> None:
    """Write areas into the ISO, or into a copy that appears whole in its place or not at all."""
    if output is None:
        _patch(areas.file, areas, content, private)
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
            _patch(copy, areas, content, private)
        finally:
            os.close(copy)
        settle(path, output)


def _patch(file: int, areas: Areas, content: Mapping[str, bytes], private: bool) -> None:
    """Write each area in one write. A file's time of change stays: by it a build knows the ISO that it made."""
    before = os.fstat(file)
    device = stat.S_ISBLK(before.st_mode)
    if private and not device:
        os.fchmod(file, before.st_mode & 0o700)
    written = [os.pwrite(file, area, areas.places[path].start) for path, area in content.items()]
    os.fsync(file)
    if written != [len(area) for area in content.values()]:
        raise CornerstoneError("an area of the ISO was written in part: the disk is full or failing", "do it again",
                               Code.MACHINE)
    if device:
        for path, area in content.items():
            require_written(file, areas.places[path].start, area)
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
        raise CornerstoneError("the device took the area and reads back something else", "the stick is failing or "
                               "lies about its size: use another", Code.MACHINE)

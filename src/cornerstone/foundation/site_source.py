"""Where the site file comes from, in this order: kernel argument foundation.site, a volume, the ISO's reserved area.

What is named or there and can't be used is an error; it is never passed over for the next place.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
import urllib.error
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from cornerstone.foundation.live_network import ARGUMENT, links, temporary
from cornerstone.foundation.web import opener
from cornerstone.model import site_area
from cornerstone.model.error import Code, CornerstoneError
from cornerstone.model.manifest import SITE_AREA

SITE_ARGUMENT = "foundation.site"
# FAT labels have at most eleven characters
LABELS = ("FOUNDATION-SITE", "FOUND-SITE")
NAME = "site.json"
MOST = site_area.SIZE
# how long a server may say nothing
SILENCE_SECONDS = 20
# no journal is replayed: the volume is somebody's, and stays as it is
FILE_SYSTEMS = {"exfat": "ro", "iso9660": "ro", "udf": "ro", "ext2": "ro", "ext3": "ro,noload",
                "ext4": "ro,noload"}
FAT = "vfat"
NO_SITES = ("fd", "loop", "ram", "zram", "nbd")


@dataclass(frozen=True)
class Found:
    """A site file's content, not read yet, and where it was, for people."""

    content: bytes
    origin: str

    def __repr__(self) -> str:
        return f"Found({len(self.content)} bytes, {self.origin!r})"


def find_site(medium: Path, arguments: Mapping[str, str], *, devices: Iterable[Path] | None = None,
              connect: Callable[[], AbstractContextManager[str]] | None = None) -> Found | None:
    """The site file, or None when there is none anywhere.

    medium: where the ISO is mounted; arguments: the kernel's; devices: block devices that may be the volume, all by
    default; connect: brings the network up while a URL is fetched, by foundation.address or DHCP by default.
    Raises CornerstoneError that names the place.
    """
    if url := arguments.get(SITE_ARGUMENT, ""):
        return from_url(url, medium, connect or (lambda: temporary(
            arguments.get(ARGUMENT, ""), [name for name, link in links().items() if link and name != "lo"])))
    return from_volume(block_devices() if devices is None else devices) or from_area(medium)


def kernel_arguments(command_line: str) -> dict[str, str]:
    """Name and value of each argument of /proc/cmdline; of one that is there twice the last. Quotes are taken off."""
    words = re.findall(r'(?:[^\s"]|"[^"]*")+', command_line)
    return dict(word.replace('"', "").partition("=")[::2] for word in words)


def from_url(url: str, medium: Path, connect: Callable[[], AbstractContextManager[str]]) -> Found:
    """Fetch an http or https URL, or read file:PATH, relative to the medium or absolute."""
    shown = _without_query(url)
    origin = f"{SITE_ARGUMENT}={shown}"
    kind, _, rest = url.partition(":")
    if kind == "file" and rest:
        # file:///site.json and file:/site.json are absolute, file:site.json isn't
        path = medium / urllib.parse.unquote(rest.removeprefix("//"))
        return Found(_read(path, origin), origin)
    if kind not in ("http", "https") or not re.fullmatch(r"https?://[^\s/?#@]+([/?]\S*)?", url):
        raise CornerstoneError(f"{origin} is no address of a site file", "write http://HOST/PATH, https://HOST/PATH, "
                               "file:PATH on the ISO or file:/PATH, without user and password")
    with connect() as how:
        return Found(fetch(url, shown), f"{origin} ({how})")


def fetch(url: str, shown: str) -> bytes:
    """The content at an http or https URL; shown: the URL as it may be seen. Follows redirects among those two."""
    content = bytearray()
    try:
        with opener(redirects=True).open(url, timeout=SILENCE_SECONDS) as answer:
            while more := answer.read1(1 << 16):
                content += more
                if len(content) > MOST:
                    raise _too_big(shown)
            if answer.length:
                raise OSError(f"the connection broke off {answer.length} bytes before the end")
    except urllib.error.HTTPError as error:
        raise CornerstoneError(f"{shown} can't be fetched: the server says {error.code} {error.reason}",
                               "check the path, and that the server has the file", Code.NETWORK) from None
    except (OSError, ValueError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", None) or error
        silent = f"nothing came for {SILENCE_SECONDS} s" if isinstance(reason, TimeoutError) else reason
        raise CornerstoneError(f"{shown} can't be fetched: {silent}", "check the server, this machine's address, and "
                               "its clock when it is https", Code.NETWORK) from None
    return bytes(content)


def from_volume(devices: Iterable[Path]) -> Found | None:
    """site.json of the volume with one of LABELS; None without such a volume.

    Raises CornerstoneError when it can't be read, or when two volumes have different files.
    """
    found = {}
    for device in devices:
        told = _probe(device)
        if told.get("LABEL", "").upper() in LABELS:
            found[device] = _read_volume(device, told["LABEL"], told.get("TYPE", ""))
    if len(set(found.values())) > 1:
        raise CornerstoneError(f"{' and '.join(map(str, found))} both have a site, and not the same",
                               "leave one of them in the machine")
    return next((Found(content, f"volume {LABELS[0]} on {device}") for device, content in found.items()), None)


def from_area(medium: Path) -> Found | None:
    """What the ISO was customised with; None when its reserved area is empty."""
    try:
        area = (medium / SITE_AREA).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CornerstoneError(f"{SITE_AREA} on the medium can't be read: {error.strerror}",
                               "the medium is damaged: write it anew", Code.VERIFY) from error
    content = site_area.unpack(area)
    return None if content is None else Found(content, "the ISO's reserved area")


def block_devices(classes: Path = Path("/sys/class/block"), devices: Path = Path("/dev")) -> list[Path]:
    """Every disk, partition and drive. Each is asked by itself: a scan by label leaves out disks with partitions."""
    return [devices / path.name for path in sorted(classes.iterdir()) if not path.name.startswith(NO_SITES)]


def _probe(device: Path) -> dict[str, str]:
    done = subprocess.run(["blkid", "-p", "-u", "filesystem", "-o", "export", device], capture_output=True, text=True,
                          errors="replace", check=False)
    return dict(line.partition("=")[::2] for line in done.stdout.splitlines())


def _read_volume(device: Path, label: str, kind: str) -> bytes:
    where = f"{NAME} on volume {label} ({device})"
    if kind == FAT:
        return _read_fat(device, where)
    if kind not in FILE_SYSTEMS:
        raise CornerstoneError(f"volume {label} ({device}) has a {kind} file system", "make it FAT, exFAT or ext4")
    with tempfile.TemporaryDirectory(prefix="site-") as folder:
        done = subprocess.run(["mount", "-t", kind, "-o", f"{FILE_SYSTEMS[kind]},nosuid,nodev,noexec", device, folder],
                              capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            raise CornerstoneError(f"volume {label} ({device}) can't be mounted: {done.stderr.strip()}",
                                   "make its file system anew")
        try:
            return _read(Path(folder) / NAME, where)
        finally:
            subprocess.run(["umount", folder], check=True, capture_output=True)


def _read_fat(device: Path, where: str) -> bytes:
    """By mtools, which needs no module of the kernel's."""
    with subprocess.Popen(["mtype", "-i", device, f"::{NAME}"], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as reader:
        content = reader.stdout.read(MOST + 1)
        if len(content) > MOST:
            reader.kill()
            raise _too_big(where)
    if reader.returncode:
        raise CornerstoneError(f"{where} can't be read: it isn't there, or the file system is damaged",
                               "check its name and its place")
    return content


def _read(path: Path, shown: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MOST + 1)
    except OSError as error:
        raise CornerstoneError(f"{shown} can't be read: {error.strerror}", "check its name and its place") from None
    if len(content) > MOST:
        raise _too_big(shown)
    return content


def _too_big(shown: str) -> CornerstoneError:
    return CornerstoneError(f"{shown} has more than {MOST >> 10} KiB", "that is no site file, or cut it into several")


def _without_query(url: str) -> str:
    """A URL to show: a query or user may be somebody's secret."""
    with contextlib.suppress(ValueError):
        parts = urllib.parse.urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return urllib.parse.urlunsplit((parts.scheme, host, parts.path, "", ""))
    return "(a URL that can't be read)"

"""Where the site file comes from: the kernel argument foundation.site, else a volume or the ISO's reserved area.

What is named or there and can't be used is an error; it is never passed over for another place. A site makes its
owner root of the machine, so it is taken only from where the owner of the ISO put it: what comes over the network is
pinned by its sha256, a volume is on something that people carry about, and two sites that differ are none.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import string
import tempfile
import urllib.error
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from cornerstone.foundation.installer.discover.disks import is_carried
from cornerstone.foundation.installer.live_network import ARGUMENT, links, temporary
from cornerstone.foundation.installer.web import opener
from cornerstone.lib import command
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.json_text import read_bounded
from cornerstone.model.contracts import site_area
from cornerstone.model.contracts.manifest import SITE_AREA
from cornerstone.model.site.file import read_site, short_hash, to_area

SITE_ARGUMENT = "foundation.site"
PIN_ARGUMENT = "foundation.site.sha256"
# FAT labels have at most eleven characters
LABELS = ("FOUNDATION-SITE", "FOUND-SITE")
NAME = "site.json"
MOST = site_area.SIZE
# how long a server may say nothing
SILENCE_SECONDS = 20
MOST_REDIRECTS = 10
REDIRECTS = (301, 302, 303, 307, 308)
_WEB = re.compile(r"https?://[^\s/?#@]+([/?]\S*)?")
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

    @property
    def sha256(self) -> str:
        """In hex, as sha256sum shows it of the file."""
        return hashlib.sha256(self.content).hexdigest()

    def __repr__(self) -> str:
        return f"Found({len(self.content)} bytes, {self.origin!r})"


def find_site(medium: Path, arguments: Mapping[str, str], *, devices: Iterable[Path] | None = None,
              connect: Callable[[], AbstractContextManager[str]] | None = None,
              carried: Callable[[Path], bool] = is_carried, tell: Callable[[str], None] = lambda text: None
              ) -> Found | None:
    """The site file, or None when there is none anywhere.

    medium: where the ISO is mounted; arguments: the kernel's; devices: block devices that may be the volume, all by
    default; connect: brings the network up while a URL is fetched, by foundation.address or DHCP by default; carried:
    whether a device is one that people carry about; tell: is called with a line about each volume that is left aside.
    Raises CornerstoneError that names the place.
    """
    pin = _pin(arguments)
    if url := arguments.get(SITE_ARGUMENT, ""):
        places = [from_url(url, medium, connect or (lambda: temporary(
            arguments.get(ARGUMENT, ""), [name for name, link in links().items() if link and name != "lo"])), pin)]
    else:
        places = from_volumes(block_devices() if devices is None else devices, carried, tell)
        places += filter(None, [from_area(medium)])
    found = _one_of(places)
    if pin:
        _require(pin, found)
    return found


def _one_of(places: Sequence[Found]) -> Found | None:
    """The site that all places have, the first one's; None of no place. CornerstoneError when they differ."""
    for other in places[1:]:
        if not _same(places[0].content, other.content):
            both = " and ".join(f"{each.origin} (sha256 {short_hash(each.content)})" for each in (places[0], other))
            raise CornerstoneError(f"two sites that aren't the same: {both}",
                                   "take out the one that isn't meant, or empty the ISO's with invoke customize "
                                   "--reset; one that you didn't put there may be somebody's who wants to get in",
                                   Code.REFUSED)
    return places[0] if places else None


def _same(one: bytes, other: bytes) -> bool:
    """Whether two site files say the same: an ISO's has other blanks than the file that it was made from."""
    try:
        return one == other or to_area(read_site(one)) == to_area(read_site(other))
    except CornerstoneError:
        return False


def kernel_arguments(command_line: str) -> dict[str, str]:
    """Name and value of each argument of /proc/cmdline; of one that is there twice the last. Quotes are taken off."""
    words = re.findall(r'(?:[^\s"]|"[^"]*")+', command_line)
    return dict(word.replace('"', "").partition("=")[::2] for word in words)


def _pin(arguments: Mapping[str, str]) -> str:
    """The sha256 that the site has to have, in hex; "" when the kernel was told of none."""
    pin = arguments.get(PIN_ARGUMENT)
    if pin is not None and not re.fullmatch("[0-9A-Fa-f]{64}", pin):
        raise CornerstoneError(f"kernel argument {PIN_ARGUMENT}={pin} isn't a sha256",
                               f"write {PIN_ARGUMENT}= and the 64 digits that `sha256sum {NAME}` shows")
    return (pin or "").lower()


def _require(pin: str, found: Found | None) -> None:
    if found is None:
        raise CornerstoneError(f"{PIN_ARGUMENT} pins a site, and there is none",
                               "bring the site, or leave the kernel argument away")
    if found.sha256 != pin:
        raise CornerstoneError(f"{found.origin} has the sha256 {found.sha256}, and {PIN_ARGUMENT} is {pin}",
                               "somebody has put another site there, or it was changed since: if it is yours, correct "
                               "the kernel argument", Code.VERIFY)


def from_url(url: str, medium: Path, connect: Callable[[], AbstractContextManager[str]], pin: str) -> Found:
    """Fetch an http or https URL, which needs a pin, or read file:PATH, relative to the medium or absolute."""
    shown = _without_query(url)
    origin = f"{SITE_ARGUMENT}={shown}"
    kind, _, rest = url.partition(":")
    if kind == "file" and rest:
        # file:///site.json and file:/site.json are absolute, file:site.json isn't
        path = medium / urllib.parse.unquote(rest.removeprefix("//"))
        return Found(_read(path, origin), origin)
    if not _WEB.fullmatch(url):
        raise CornerstoneError(f"{origin} is no address of a site file", "write http://HOST/PATH, https://HOST/PATH, "
                               "file:PATH on the ISO or file:/PATH, without user and password")
    if not pin:
        # a name server, a DHCP server or a neighbour may have led elsewhere, and a certificate tells whose name it is
        raise CornerstoneError(f"{origin} comes over the network, and nothing says that it is yours",
                               f"give the kernel {PIN_ARGUMENT}= too, with what `sha256sum {NAME}` shows, or bring "
                               "the site on a USB stick or in the ISO")
    with connect() as how:
        return Found(fetch(url, shown), f"{origin} ({how})")


def fetch(url: str, shown: str) -> bytes:
    """The content at an http or https URL; shown: the URL as it may be seen.

    Follows redirects among those two, but never from https to http. Raises CornerstoneError (NETWORK).
    """
    content = bytearray()
    try:
        with _opened(url, shown) as answer:
            while more := answer.read1(1 << 16):
                content += more
                if len(content) > MOST:
                    raise _too_big(shown)
            if answer.length:
                raise OSError(f"the connection broke off {answer.length} bytes before the end")
    except urllib.error.HTTPError as error:
        raise CornerstoneError(f"{shown} can't be fetched: the server says {error.code} {error.reason}",
                               "check the path, and that the server has the file", Code.NETWORK) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        silent = f"nothing came for {SILENCE_SECONDS} s" if isinstance(reason, TimeoutError) else reason
        raise CornerstoneError(f"{shown} can't be fetched: {silent}", "check the server, this machine's address, and "
                               "its clock when it is https", Code.NETWORK) from None
    return bytes(content)


def _opened(url: str, shown: str) -> http.client.HTTPResponse:
    """The answer at a URL, or where it leads. Nothing that comes with a redirect is read but its header."""
    for _ in range(MOST_REDIRECTS + 1):
        try:
            return opener().open(url, timeout=SILENCE_SECONDS)
        except urllib.error.HTTPError as error:
            target = error.headers.get("Location", "")
            if error.code not in REDIRECTS or not target:
                raise
            error.close()
            url = _led(url, target, f"{error.code} {error.reason}", shown)
    raise CornerstoneError(f"{shown} can't be fetched: more than {MOST_REDIRECTS} redirects",
                           "name the address where the file is", Code.NETWORK)


def _led(url: str, target: str, said: str, shown: str) -> str:
    """The URL that a redirect from url leads to. CornerstoneError when that isn't followed."""
    # headers are read as ISO 8859-1, whatever they are
    there = urllib.parse.quote(urllib.parse.urljoin(url, target), string.punctuation, "iso-8859-1")
    there = urllib.parse.urlunsplit((*urllib.parse.urlsplit(there)[:4], ""))
    if not _WEB.fullmatch(there):
        raise CornerstoneError(f"{shown} can't be fetched: the server says {said}, to what is no http or https address",
                               "name the address where the file is", Code.NETWORK)
    if url.startswith("https:") and not there.startswith("https:"):
        raise CornerstoneError(f"{shown} redirects from https to http",
                               "name an address that stays with https, or correct the server", Code.NETWORK)
    return there


def from_volumes(devices: Iterable[Path], carried: Callable[[Path], bool], tell: Callable[[str], None]) -> list[Found]:
    """site.json of each volume with one of LABELS that people carry about; the others are told of.

    What is left on a disk that is built in is a former owner's. Raises CornerstoneError when one can't be read.
    """
    found = []
    for device in devices:
        told = _probe(device)
        label = told.get("LABEL", "")
        if label.upper() not in LABELS:
            continue
        if carried(device):
            found.append(Found(_read_volume(device, label, told.get("TYPE", "")), f"volume {LABELS[0]} on {device}"))
        else:
            tell(f"{device} is labelled {label} and isn't removable: no site is read from it")
    return found


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
    done = command.run(["blkid", "-p", "-u", "filesystem", "-o", "export", device])
    return dict(line.partition("=")[::2] for line in done.text.splitlines())


def _read_volume(device: Path, label: str, kind: str) -> bytes:
    where = f"{NAME} on volume {label} ({device})"
    if kind == FAT:
        return _read_fat(device, where)
    if kind not in FILE_SYSTEMS:
        raise CornerstoneError(f"volume {label} ({device}) has a {kind} file system", "make it FAT, exFAT or ext4")
    with tempfile.TemporaryDirectory(prefix="site-") as folder:
        done = command.run(["mount", "-t", kind, "-o", f"{FILE_SYSTEMS[kind]},nosuid,nodev,noexec", device, folder])
        if done.code:
            raise CornerstoneError(f"volume {label} ({device}) can't be mounted: {done.said}",
                                   "make its file system anew")
        try:
            return _read(Path(folder) / NAME, where)
        finally:
            command.read(["umount", folder])


def _read_fat(device: Path, where: str) -> bytes:
    """Read the site file of a FAT volume by mtools, which needs no module of the kernel's."""
    done = command.run(["mtype", "-i", device, f"::{NAME}"], most=MOST + 1)
    if len(done.out) > MOST:
        raise _too_big(where)
    if done.code:
        raise CornerstoneError(f"{where} can't be read: it isn't there, or the file system is damaged",
                               "check its name and its place")
    return done.out


def _read(path: Path, shown: str) -> bytes:
    try:
        content = read_bounded(path, MOST)
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

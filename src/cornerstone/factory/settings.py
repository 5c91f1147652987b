"""The machine's own settings that a build depends on: where the Debian archive is, the cache, the key.

No archive host is written here: the default is what this machine's apt uses.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from cornerstone.model.error import Code, CornerstoneError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclass(frozen=True)
class Mirror:
    """Base addresses of the two archives that a lock names: `main` and `security`."""

    main: str
    security: str

    def base(self, archive: str) -> str:
        """The base address of an archive by its name in a lock."""
        return {"main": self.main, "security": self.security}[archive]


def find_mirror(apt: Path = Path("/etc/apt")) -> Mirror:
    """The mirror from CORNERSTONE_MIRROR (and CORNERSTONE_SECURITY_MIRROR), else from apt's own sources.

    A main archive at `…/debian` implies a security archive at `…/debian-security` beside it,
    unless a setting or apt says otherwise. Raises CornerstoneError (NETWORK) when nothing names one.
    """
    main = os.environ.get("CORNERSTONE_MIRROR", "")
    security = os.environ.get("CORNERSTONE_SECURITY_MIRROR", "")
    if not main:
        addresses = list(_apt_addresses(apt))
        main = next((a for a in addresses if a.rstrip("/").endswith("/debian")), "")
        security = security or next((a for a in addresses if a.rstrip("/").endswith("/debian-security")), "")
    if not main:
        raise CornerstoneError("no Debian mirror is known: apt on this machine names none",
                               "set CORNERSTONE_MIRROR to the address of a Debian archive (it ends in /debian)",
                               Code.NETWORK)
    main = main.rstrip("/")
    return Mirror(main, (security or f"{main}-security").rstrip("/"))


def find_snapshot() -> str:
    """CORNERSTONE_SNAPSHOT_MIRROR: an archive by date, its address with {archive} and {date} to fill in; or empty."""
    address = os.environ.get("CORNERSTONE_SNAPSHOT_MIRROR", "")
    if address and not (re.match("[a-z]+://", address) and "{archive}" in address and "{date}" in address):
        raise CornerstoneError(f"CORNERSTONE_SNAPSHOT_MIRROR is {address!r}, without a place for archive or date",
                               "it looks like http://HOST/archive/{archive}/{date}; {archive} becomes debian or "
                               "debian-security, {date} a lock's date such as 20261122T080000Z")
    return address.rstrip("/")


def _apt_addresses(apt: Path):
    sources = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    for source in sources:
        if source.suffix not in (".list", ".sources") or not source.is_file():
            continue
        for line in _without_disabled(source.read_text(errors="replace")).splitlines():
            match = re.match(r"\s*(?:deb\s+(?:\[[^]]*\]\s+)?|URIs:\s*)(\S.*)", line)
            if match:
                yield from (word for word in match[1].split() if "://" in word)


def _without_disabled(text: str) -> str:
    """A deb822 file without the stanzas that are switched off."""
    disabled = re.compile(r"^Enabled:\s*(no|false|off|0|without|disable)\s*$", re.I | re.M)
    return "\n\n".join(stanza for stanza in re.split(r"\n\s*\n", text) if not disabled.search(stanza))


@dataclass(frozen=True)
class Workspace:
    """Where a build reads and writes: the checkout's root, its products, and the cache.

    build: the name of one build's own folder among the temporary ones.
    """

    root: Path
    build: str = ""

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def cache(self) -> Path:
        """CORNERSTONE_CACHE, else output/cache in the checkout."""
        return Path(os.environ.get("CORNERSTONE_CACHE") or self.output / "cache").absolute()

    @property
    def pool(self) -> Path:
        return self.cache / "pool"

    @property
    def layers(self) -> Path:
        return self.cache / "layers"

    @property
    def layers_limit(self) -> int:
        """How many bytes of layers are kept: CORNERSTONE_LAYERS_GIB, else 20 GiB."""
        text = os.environ.get("CORNERSTONE_LAYERS_GIB") or "20"
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise CornerstoneError(f"CORNERSTONE_LAYERS_GIB is {text!r}, not a whole number of GiB",
                                   "set it to a number such as 20")
        return int(text) << 30

    @property
    def temporary(self) -> Path:
        return self.cache / "tmp" / self.build

    @property
    def locks(self) -> Path:
        return self.root / "versions" / "locks"

    @property
    def elements(self) -> Path:
        return self.root / "elements"

    @property
    def source(self) -> Path:
        """The folder that holds the package cornerstone."""
        return self.root / "src"


# Settings that are paths; one that begins with pkcs11: is none.
PATHS = ("CORNERSTONE_CACHE", "CORNERSTONE_SIGNING_KEY", "CORNERSTONE_ISO", "CORNERSTONE_KEY")
ADDRESSES = ("CORNERSTONE_MIRROR", "CORNERSTONE_SECURITY_MIRROR")


def check_settings(workspace: Workspace) -> None:
    """Read every setting, before anything is done. Raises CornerstoneError, by name, for one that can't be used.

    An empty setting counts as none. Paths become absolute, because what we start runs in other folders.
    """
    for name in PATHS:
        if (path := os.environ.get(name)) and not path.startswith("pkcs11:"):
            os.environ[name] = str(Path(path).absolute())
    for name in ADDRESSES:
        if (address := os.environ.get(name)) and not re.match(r"[a-z][a-z0-9+.-]*:/", address):
            raise CornerstoneError(f"{name} is {address!r}, not the address of an archive",
                                   "set it to an address such as http://HOST/debian, or unset it")
    if os.environ.get("CORNERSTONE_SIGNING_KEY") and os.environ.get("CORNERSTONE_SIGNING_KEY_PEM"):
        raise CornerstoneError("CORNERSTONE_SIGNING_KEY and CORNERSTONE_SIGNING_KEY_PEM are both set, and only one key "
                               "can sign", "unset one of them")
    find_snapshot()
    _ = workspace.layers_limit
    for folder in (workspace.cache, *workspace.cache.parents):
        if os.path.lexists(folder):
            if not folder.is_dir():
                raise CornerstoneError(f"CORNERSTONE_CACHE is {workspace.cache}, and {folder} isn't a folder",
                                       "set it to a folder, or to a place for a new one")
            break

"""The machine's own settings that a build depends on: where the Debian archive is, the cache, the key.

No archive host is written here: the default is what this machine's apt uses, as apt itself understands it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cornerstone.lib import apt
from cornerstone.lib.error import Code, CornerstoneError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# without a byte from a mirror; apt tries twice
TIMEOUT_SECONDS = 20
DEBIAN_SUITE = re.compile("bookworm|trixie|forky|duke|(old)?stable|testing|unstable|sid")


@dataclass(frozen=True)
class Mirror:
    """Base addresses of the two archives that a lock names: `main` and `security`.

    They may carry a user and a password: apt.scrub takes those out of what is shown. options: for each archive the
    fields of apt's source that say how it is trusted (deb822), when apt names it. others: the same archives elsewhere.
    """

    main: str
    security: str
    options: Mapping[str, str] = field(default_factory=dict, compare=False)
    others: tuple[Mirror, ...] = field(default=(), compare=False)

    def base(self, archive: str) -> str:
        """The base address of an archive by its name in a lock."""
        return {"main": self.main, "security": self.security}[archive]


def find_mirror(etc: Path | None = None) -> Mirror:
    """The mirror from CORNERSTONE_MIRROR (and CORNERSTONE_SECURITY_MIRROR), else from apt's own sources.

    A main archive at `…/debian` implies a security archive at `…/debian-security` beside it, unless a setting or apt
    says otherwise. etc: a folder instead of /etc/apt. Raises CornerstoneError (NETWORK) when nothing names one that
    apt can use.
    """
    main, security = (os.environ.get(name, "").rstrip("/")
                      for name in ("CORNERSTONE_MIRROR", "CORNERSTONE_SECURITY_MIRROR"))
    options = {"main": "", "security": ""}
    if main:
        mains = _usable([main])
        securities = _usable([security] if security else [f"{archive}-security" for archive in mains])
    else:
        sources = apt.read_sources(etc)
        options["main"], mains = _choose(sources, _rank_main)
        options["security"], securities = _choose(sources, _rank_security)
        if not mains:
            unusable = sorted({apt.scheme_of(source.address) for source in sources if not apt.can_use(source.address)})
            raise CornerstoneError("no Debian mirror is known: apt on this machine names none"
                                   + f" that can be used ({', '.join(unusable)})" * bool(unusable),
                                   "set CORNERSTONE_MIRROR to the address of a Debian archive (it ends in /debian)",
                                   Code.NETWORK)
        if security:
            options["security"], securities = "", _usable([security])
        elif not securities:
            options["security"], securities = options["main"], [f"{archive}-security" for archive in mains]
    options |= keyring_options()
    pairs = [(mains[min(n, len(mains) - 1)], securities[min(n, len(securities) - 1)])
             for n in range(max(len(mains), len(securities)))]
    return Mirror(*pairs[0], options, tuple(Mirror(*pair, options) for pair in pairs[1:]))


def _choose(sources: Sequence[apt.AptSource], rank: Callable[[apt.AptSource], int | None]) -> tuple[str, list[str]]:
    """The fields and the usable addresses of the source of the best rank, and of its equals in fields and suites."""
    found = []
    for source in sources:
        if not apt.can_use(source.address):
            continue
        listed = apt.scheme_of(source.address).partition("+")[0] == "mirror"
        if listed and rank(replace(source, address="x:/debian")) is None:
            continue
        for address in apt.read_mirror_list(source.address) if listed else [source.address]:
            if (place := rank(replace(source, address=address))) is not None and apt.can_use(address):
                found.append((place, source, address))
    if not found:
        return "", []
    best, chosen, _ = min(found, key=lambda one: one[0])
    return chosen.options, list(dict.fromkeys(address for place, source, address in found if place == best and
                                              replace(source, address="") == replace(chosen, address="")))


def _rank_main(source: apt.AptSource) -> int | None:
    """How surely a source is Debian's main archive: 0 is best, None is not at all."""
    if source.components and "main" not in source.components:
        return None
    if source.address.endswith("/debian") and not (source.suites and all(
            suite.endswith("-security") for suite in source.suites)):
        return 0
    if not any(DEBIAN_SUITE.fullmatch(suite) for suite in source.suites) or source.address.endswith("-security"):
        return None
    return 1 if any(suite.endswith("-updates") for suite in source.suites) else 2


def _rank_security(source: apt.AptSource) -> int | None:
    if any(re.fullmatch(f"({DEBIAN_SUITE.pattern})(-security|/updates)", suite) for suite in source.suites):
        return 0
    return 1 if source.address.endswith("/debian-security") else None


def _usable(addresses: list[str]) -> list[str]:
    """The archives behind a setting's address. Raises CornerstoneError (NETWORK) when apt can't use it."""
    for address in addresses:
        if not apt.can_use(address):
            scheme = apt.scheme_of(address)
            raise CornerstoneError(f"apt on this machine can't fetch from {apt.scrub(address)}: it has no method "
                                   f"{scheme!r}" if scheme else f"{apt.scrub(address)!r} is no address of an archive",
                                   "name an archive by http, https or file, or install the apt-transport package of "
                                   "that method", Code.NETWORK)
    return [found.rstrip("/") for address in addresses for found in
            (apt.read_mirror_list(address) if apt.scheme_of(address).startswith("mirror") else [address])]


def keyring_options() -> dict[str, str]:
    """What CORNERSTONE_KEYRING says for both archives, as Mirror.options; nothing when it isn't set."""
    keyring = os.environ.get("CORNERSTONE_KEYRING", "")
    if keyring and not Path(keyring).is_file():
        raise CornerstoneError(f"CORNERSTONE_KEYRING is {keyring!r}, which isn't there",
                               "name the file with the key that the mirror is signed with")
    return dict.fromkeys(("main", "security"), f"Signed-By: {Path(keyring).absolute()}\n") if keyring else {}


def find_snapshot() -> str:
    """CORNERSTONE_SNAPSHOT_MIRROR: an archive by date, its address with {archive} and {date} to fill in; or empty."""
    address = os.environ.get("CORNERSTONE_SNAPSHOT_MIRROR", "")
    if address and not (re.match("[a-z]+://", address) and "{archive}" in address and "{date}" in address):
        raise CornerstoneError(f"CORNERSTONE_SNAPSHOT_MIRROR is {apt.scrub(address)!r}, without a place for archive "
                               "or date",
                               "it looks like http://HOST/archive/{archive}/{date}; {archive} becomes debian or "
                               "debian-security, {date} a lock's date such as 20261122T080000Z")
    return address.rstrip("/")


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

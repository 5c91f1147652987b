"""Locks: the exact .deb files that make a root, one text file a root and suite in versions/locks/.

A root to which a profile adds packages has a lock of its own beside them, PROFILE-ROOT.lock.

    # Locked packages of the hypervisor root, Debian trixie, amd64. Made by `invoke lock`; don't edit.
    # resolved: 2026-11-22T08:00:00Z
    # requests: bridge-utils chrony …
    main adduser 3.152 all 191236 <sha256> pool/main/a/adduser/adduser_3.152_all.deb

The resolution date is the SOURCE_DATE_EPOCH of everything built from the lock.
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import re
import shlex
import tempfile
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cornerstone.factory.packages import debian_version, elements
from cornerstone.factory.settings import (
    KEYRING,
    TIMEOUT_SECONDS,
    Mirror,
    Workspace,
    find_mirror,
    find_snapshot,
    keyring_options,
)
from cornerstone.lib import apt, process
from cornerstone.lib.atomic import put
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.json_text import read_bounded
from cornerstone.lib.printable import LONGEST, printable

if TYPE_CHECKING:
    from cornerstone.model.profile.profile import Profile

ARCHITECTURE = "amd64"
# bytes of a lock file: some 100 KiB
MOST = 16 << 20
# the first moment that FAT knows, whose dates the ISO's have to be
EARLIEST = datetime.datetime(1980, 1, 1, tzinfo=datetime.UTC)
# packages that one error names
MOST_TOLD = 10

# what a line must look like; names and versions as Debian's policy has them
LINE = re.compile(r"(main|security) [a-z0-9][a-z0-9+.-]+ [0-9][A-Za-z0-9.+:~-]* [a-z0-9-]+ [0-9]{1,15} [0-9a-f]{64} "
                  r"[^/\s]\S*\.deb")


@dataclass(frozen=True)
class LockedPackage:
    """One .deb: archive (main or security), name, version, architecture, size in bytes, sha256, path in the archive."""

    archive: str
    name: str
    version: str
    architecture: str
    size: int
    sha256: str
    path: str


@dataclass(frozen=True)
class Lock:
    """All packages of one root; epoch is the resolution date in seconds since 1970.

    profile: the name of the one whose own lock it is, "" for a suite's.
    """

    root: str
    suite: str
    epoch: int
    requests: tuple[str, ...]
    packages: tuple[LockedPackage, ...]
    profile: str = ""

    def text(self) -> str:
        """The lock file's content; parse(text()) gives the same lock back."""
        date = datetime.datetime.fromtimestamp(self.epoch, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        lines = [f"# Locked packages of the {self.root} root, Debian {self.suite}, {ARCHITECTURE}. "
                 "Made by `invoke lock`; don't edit.",
                 *[f"# profile: {self.profile}"] * bool(self.profile),
                 f"# resolved: {date}", f"# requests: {' '.join(self.requests)}"]
        lines += [f"{p.archive} {p.name} {p.version} {p.architecture} {p.size} {p.sha256} {p.path}"
                  for p in self.packages]
        return "\n".join(lines) + "\n"


def lock_path(locks: Path, root: str, suite: str, profile: str = "") -> Path:
    """Where the lock of a root is; profile: the name of one with a lock of its own."""
    return locks / f"{profile or suite}-{root}.lock"


def owner(profile: Profile | None, root: str) -> str:
    """The name of a profile that has a lock of its own for a root, because it adds packages; else ""."""
    return profile.name if profile and profile.additions(root).packages else ""


def command(suite: str, profile: Profile | None, root: str, update: bool = False) -> str:
    """The command line that resolves the lock of a root."""
    whose = f"--profile {shlex.quote(profile.argument)}" if profile and owner(profile, root) else f"--suite {suite}"
    return f"./invoke lock {whose}" + " --update" * update


def requests(elements_dir: Path, root: str, suite: str, profile: Profile | None = None) -> tuple[str, ...]:
    """The packages that a root asks for, sorted: its elements' and a profile's."""
    added = profile.additions(root).packages if profile else ()
    return tuple(sorted({*elements.packages(elements_dir, root, suite), *added}))


def read_lock(locks: Path, root: str, suite: str, profile: Profile | None = None) -> Lock:
    """Read and check the lock file of a root, a profile's own if it has one.

    Raises CornerstoneError when it is missing or damaged, with the line.
    """
    own = owner(profile, root)
    path = lock_path(locks, root, suite, own)
    if not path.is_file():
        whose = f", to which profile {own} adds packages," if own else ""
        raise CornerstoneError(f"{path} is missing: the {root} root{whose} has no locked packages for {suite}",
                               f"run: {command(suite, profile, root)}")
    mend = f"restore it from git, or run: {command(suite, profile, root, update=True)}"
    try:
        content = read_bounded(path, MOST)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CornerstoneError(f"{path} can't be read: {error}", mend) from error
    if len(content) > MOST:
        raise CornerstoneError(f"{path} has more than {MOST >> 20} MiB", mend)
    return parse(text, root, suite, path, own, mend)


def parse(text: str, root: str, suite: str, path: Path | str = "lock", profile: str = "", mend: str = "") -> Lock:
    """Parse a lock file's text; path is what errors call it, profile the name of the one whose own it has to be."""
    mend = mend or f"restore it from git, or run: ./invoke lock --suite {suite} --update"
    title = re.match(r"# Locked packages of the (\S+) root, Debian (\S+), (\S+)\. ", text)
    if title is None:
        raise CornerstoneError(f"{path}:1: doesn't say which root, suite and architecture it is for", mend)
    if title.groups() != (root, suite, ARCHITECTURE):
        raise CornerstoneError("{}:1: is for the {} root, Debian {}, {}; needed is one for the {} root, Debian {}, {}"
                               .format(path, *title.groups(), root, suite, ARCHITECTURE), mend)
    header: dict[str, str] = {}
    found, names = [], set()
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#"):
            key, _, value = line[1:].partition(":")
            header[key.strip()] = value.strip()
            continue
        words = line.split()
        if not LINE.fullmatch(line) or ".." in words[6]:
            raise CornerstoneError(f"{path}:{number}: not a locked package: {line[:120]!r}", mend)
        if words[3] not in (ARCHITECTURE, "all"):
            raise CornerstoneError(f"{path}:{number}: {words[1]} is for {words[3]}, this factory builds {ARCHITECTURE}",
                                   mend)
        if words[1] in names:
            raise CornerstoneError(f"{path}:{number}: {words[1]} is there twice", mend)
        names.add(words[1])
        found.append(LockedPackage(words[0], words[1], words[2], words[3], int(words[4]), words[5], words[6]))
    try:
        resolved = datetime.datetime.strptime(header["resolved"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC)
        if resolved < EARLIEST:
            raise ValueError(f"it is before {EARLIEST:%Y}")
        asked = tuple(header["requests"].split())
    except (KeyError, ValueError) as error:
        raise CornerstoneError(f"{path}: its first lines don't say when and for what it was resolved", mend) from error
    if not found:
        raise CornerstoneError(f"{path}: names no packages", mend)
    if header.get("profile", "") != profile:
        raise CornerstoneError(f"{path}: is a lock of {_whose(header.get('profile', ''), suite)}; needed is one of "
                               f"{_whose(profile, suite)}", mend)
    return Lock(root, suite, int(resolved.timestamp()), asked, tuple(found), profile)


def _whose(profile: str, suite: str) -> str:
    return f"profile {printable(profile, LONGEST)}" if profile else f"the suite {suite}"


def check_covers(lock: Lock, asked: tuple[str, ...], profile: Profile | None = None) -> None:
    """Raise CornerstoneError when elements and profile ask for other packages than the lock was resolved for."""
    if lock.requests == asked:
        return
    added, gone = sorted(set(asked) - set(lock.requests)), sorted(set(lock.requests) - set(asked))
    changes = [f"asked for and not locked: {' '.join(added)}"] * bool(added)
    changes += [f"locked and no longer asked for: {' '.join(gone)}"] * bool(gone)
    what = f"the elements and profile {lock.profile}" if lock.profile else "its elements"
    raise CornerstoneError(f"the lock of the {lock.root} root ({lock.suite}) doesn't fit {what}; " + "; ".join(changes),
                           f"run: {command(lock.suite, profile, lock.root, update=True)}")


def resolve(elements_dir: Path, root: str, suite: str, mirror: Mirror, work: Path, log: Path,
            as_of: datetime.datetime | None = None, profile: Profile | None = None) -> Lock:
    """Ask apt, in a private state directory, which files the root's packages come to today, or came to as of a date.

    The machine's own apt settings hold for how the archive is reached; its signatures are checked with the key that
    apt's source names, else with Debian's keyring and what apt trusts anyway. Nothing of the machine's own package
    state takes part: the resolution starts from an empty system. profile: what it adds is asked for too.
    """
    asked = requests(elements_dir, root, suite, profile)
    mirror = _first_that_answers(mirror, suite)
    bases = {archive: apt.split_login(mirror.base(archive)) for archive in ("main", "security")}
    with apt.configuration(_settings(work), (login for _, login in bases.values())) as config:
        _write_sources(work, suite, {archive: base for archive, (base, _) in bases.items()}, mirror, as_of)
        try:
            process.run(["apt-get", "-c", config, "update", "--error-on=any"], log=log)
        except CornerstoneError as error:
            expired = "is expired" in error.message or "not valid" in error.message
            raise CornerstoneError(f"the package lists of {suite} can't be fetched or verified:\n{error.message}",
                                   "a frozen mirror or a snapshot is locked as of its date: ./invoke lock --as-of DATE"
                                   if expired else "check the network and the mirror (CORNERSTONE_MIRROR); for a "
                                   "mirror with a key of its own, set CORNERSTONE_KEYRING to that key's file",
                                   Code.NETWORK) from error
        if as_of:
            _check_date(work, as_of)
        argv = ["apt-get", "-c", config, "install", "--quiet", "--quiet", "--print-uris", "--no-install-recommends"]
        try:
            listing = process.read([*argv, "?essential", *asked])
        except CornerstoneError as error:
            if not owner(profile, root):
                raise
            raise CornerstoneError(f"the {root} root can't have the packages that profile {owner(profile, root)} adds: "
                                   f"{error.message}", _correct(root)) from error
    # as apt writes them; where one archive has both, main comes last and wins
    archives = {urllib.parse.unquote(re.sub("^(file|copy):/+", r"\1:/", base)).rstrip("/") + "/": archive
                for archive, (base, _) in reversed(bases.items())}
    found = [_locked(line, archives, log) for line in listing.splitlines() if line.startswith("'")]
    when = int((as_of or datetime.datetime.now(datetime.UTC)).timestamp())
    # apt takes a provider for a virtual package, and some names for patterns
    added = set(profile.additions(root).packages) if profile else set()
    if unknown := sorted(added - {package.name for package in found}):
        raise CornerstoneError(f"{', '.join(unknown)}: the archive of {suite} has no package of that name, only others "
                               "that stand for it", _correct(root))
    return Lock(root, suite, when, asked, tuple(sorted(found, key=lambda p: (p.name, p.architecture))),
                owner(profile, root))


def _correct(root: str) -> str:
    key = root
    return f"correct .{key}.extra.packages in the profile"


def _first_that_answers(mirror: Mirror, suite: str) -> Mirror:
    """The first of a mirror and its equals that answers at all. Raises CornerstoneError (NETWORK) when none does."""
    mirrors = (mirror, *mirror.others)
    for one in mirrors:
        timeout = TIMEOUT_SECONDS / len(mirrors)
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "InRelease"
            failure = apt.download([apt.Item(f"{one.main}/dists/{suite}/InRelease", target)], timeout).get(target)
        if failure is None or not failure.silent:
            return one
    raise CornerstoneError(f"{apt.scrub(mirror.main)} doesn't answer: {failure}",
                           "check the network, apt's proxy, and the mirror (CORNERSTONE_MIRROR)", Code.NETWORK)


def _settings(work: Path) -> str:
    """What apt is to have of its own for a resolution, on top of the machine's settings."""
    for folder in ("state/lists/partial", "cache/archives/partial", "etc/none.d"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    (work / "status").touch()
    none = work / "etc/none"
    return (f'Dir::Etc::sourcelist "{work}/etc/none"; Dir::Etc::sourceparts "{work}/etc/sources.list.d";\n'
            f'Dir::Etc::preferences "{none}"; Dir::Etc::preferencesparts "{none}.d";\n'
            f'Dir::State "{work}/state"; Dir::State::status "{work}/status"; Dir::State::lists "lists";\n'
            'Dir::State::extended_states "extended_states"; '
            f'Dir::Cache "{work}/cache"; Dir::Cache::archives "archives";\n'
            '#clear APT::Architectures; #clear APT::Update; #clear APT::Get; #clear APT::Default-Release;\n'
            '#clear APT::Install-Suggests; #clear APT::Build-Profiles; #clear APT::Solver; #clear APT::Planner;\n'
            '#clear APT::Never-MarkAuto-Sections; #clear DPkg; #clear Acquire::Languages;\n'
            f'APT::Architecture "{ARCHITECTURE}"; APT::Architectures {{ "{ARCHITECTURE}"; }};\n'
            'APT::Install-Recommends "false"; Acquire::Languages "none"; Acquire::Retries "2"; '
            'Acquire::ForceHash "SHA256";\n')


def _write_sources(work: Path, suite: str, bases: Mapping[str, str], mirror: Mirror,
                   as_of: datetime.datetime | None) -> None:
    """Write the one file of sources that apt gets to see."""
    suites = {"main": f"{suite} {suite}-updates", "security": f"{suite}-security"}
    folder = work / "etc/sources.list.d"
    folder.mkdir(parents=True, exist_ok=True)
    stanzas = []
    for archive, base in bases.items():
        options = mirror.options.get(archive, "")
        if not re.search("^(signed-by|trusted):", options, re.I | re.M):
            options += f"Signed-By: {' '.join(map(str, trusted_keys()))}\n"
        if as_of:
            options = re.sub("^check-valid-until:.*\n", "", options, flags=re.I | re.M) + "Check-Valid-Until: no\n"
        stanzas.append(f"Types: deb\nURIs: {base}\nSuites: {suites[archive]}\nComponents: main non-free-firmware\n"
                       f"Architectures: {ARCHITECTURE}\nTargets: Packages\n{options}")
    (folder / "cornerstone.sources").write_text("\n".join(stanzas))


def trusted_keys() -> list[Path]:
    """The keys for a mirror whose source names none: Debian's, and those that apt trusts for every source.

    Raises CornerstoneError (MACHINE) when there is none.
    """
    single, folder = map(Path, apt.settings("Dir::Etc::trusted/f", "Dir::Etc::trustedparts/d"))
    keys = [key for key in (KEYRING, single, *sorted([*folder.glob("*.gpg"), *folder.glob("*.asc")]))
            if key.is_file() and key.stat().st_size]
    if not keys:
        raise CornerstoneError(f"{KEYRING} is missing, so the archive's signature can't be checked",
                               "install debian-archive-keyring (./invoke does)", Code.MACHINE)
    return keys


def _check_not_older(name: str, suite: str, before: Mapping[str, str], now: Mapping[str, str], again: str) -> None:
    """Raise CornerstoneError when an archive has an older version of a package than the lock: a suite only goes on.

    before, now: version by package; again: the command that resolves the lock.
    """
    older = [f"{package} {now[package]} (locked: {before[package]})" for package in sorted(before.keys() & now.keys())
             if debian_version.compare(now[package], before[package]) < 0]
    if older:
        raise CornerstoneError(
            f"the archive of {suite} has older packages than {name}: {'; '.join(older[:MOST_TOLD])}",
            "it lags, or somebody serves an old one, which its signature doesn't tell: take another mirror "
            f"(CORNERSTONE_MIRROR); to go back on purpose: {again} --as-of DATE", Code.NETWORK)


def _check_date(work: Path, as_of: datetime.datetime) -> None:
    """Raise CornerstoneError when the archive is from after a date, so isn't what it was then."""
    for release in sorted((work / "state/lists").glob("*Release")):
        dates = re.findall("^Date: (.*)$", release.read_text(errors="replace"), re.M)
        made = email.utils.parsedate_to_datetime(dates[0]) if dates else as_of
        if made > as_of:
            raise CornerstoneError(f"the mirror's {release.name} is of {made:%Y-%m-%d %H:%M} UTC, later than "
                                   f"{as_of:%Y-%m-%d %H:%M}", "set CORNERSTONE_SNAPSHOT_MIRROR to an archive by date, "
                                   "or CORNERSTONE_MIRROR to a mirror that was frozen before")


def parse_date(text: str) -> datetime.datetime:
    """A date of a snapshot: 2026-11-22, 2026-11-22T08:00:00Z or 20261122T080000Z; a day means its end.

    Raises CornerstoneError when it is none, or lies ahead.
    """
    for form in ("%Y%m%dT%H%M%SZ", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d", "%Y%m%d"):
        with contextlib.suppress(ValueError):
            found = datetime.datetime.strptime(text, form).replace(tzinfo=datetime.UTC)
            now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
            if "%H" not in form and found.date() <= now.date():
                found = min(now, found + datetime.timedelta(days=1, seconds=-1))
            if found > now:
                raise CornerstoneError(f"{text} lies ahead", "name a date in the past")
            return found
    raise CornerstoneError(f"{text!r} is no date", "write it as 2026-11-22 or 20261122T080000Z")


def snapshot_of(form: str, date: datetime.datetime) -> Mirror:
    """The archives as of a date; form has {archive} and {date} (CORNERSTONE_SNAPSHOT_MIRROR)."""
    dated = form.replace("{date}", date.strftime("%Y%m%dT%H%M%SZ"))
    return Mirror(*(dated.replace("{archive}", name) for name in ("debian", "debian-security")), keyring_options())


def _locked(line: str, archives: dict[str, str], log: Path) -> LockedPackage:
    address, file, size, digest = line.split()
    address = urllib.parse.unquote(address.strip("'"))
    base = next((base for base in archives if address.startswith(base)), None)
    if base is None or not digest.startswith("SHA256:"):
        raise CornerstoneError(f"apt named a file without SHA256 or outside the mirror: {line}",
                               f"see {log}", Code.NETWORK)
    name, version, architecture = urllib.parse.unquote(file).removesuffix(".deb").rsplit("_", 2)
    return LockedPackage(archives[base], name, version, architecture, int(size), digest.removeprefix("SHA256:"),
                         address.removeprefix(base))


def update_locks(workspace: Workspace, suite: str, again: bool, as_of: str = "",
                 profile: Profile | None = None) -> list[str]:
    """Resolve the locks of a suite that are missing or don't fit their elements, or all of them again.

    profile: take its own lock for each root to which it adds packages, and leave the suite's there alone.
    as_of: a date; then all are resolved from the snapshot mirror of that date, when one is set, else from a mirror
    that was frozen before.
    Returns a line for each root. A lock is written beside and renamed; nothing changes on an error. Raises
    CornerstoneError for a suite that the elements can't build, before anything is asked of a mirror.
    """
    # the rules bring the whole catalogue with them, which who reads a lock doesn't need
    from cornerstone.model.rules.release import SUITES
    if suite not in SUITES:
        raise CornerstoneError(f"there is no suite {suite!r}", f"the suites are {', '.join(SUITES)}")
    said = []
    date = parse_date(as_of) if as_of else None
    for root in elements.ROOTS:
        path = lock_path(workspace.locks, root, suite, owner(profile, root))
        before: Lock | None = None
        if path.is_file():
            before = read_lock(workspace.locks, root, suite, profile)
            if not again and not date and before.requests == requests(workspace.elements, root, suite, profile):
                said.append(f"{path.name}: fits, nothing to do")
                continue
        workspace.cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=workspace.cache) as work:
            log = workspace.output / "logs" / f"lock-{path.stem}.log"
            log.unlink(missing_ok=True)
            snapshot = find_snapshot() if date else ""
            mirror = snapshot_of(snapshot, date) if snapshot and date else find_mirror()
            new = resolve(workspace.elements, root, suite, mirror, Path(work), log, date, profile)
        old = {p.name: p.version for p in before.packages} if before else {}
        now = {p.name: p.version for p in new.packages}
        if before and before.packages == new.packages and before.requests == new.requests:
            said.append(f"{path.name}: the archive has nothing newer")
            continue
        if not date:
            _check_not_older(path.name, suite, old, now, command(suite, profile, root))
        path.parent.mkdir(parents=True, exist_ok=True)
        put(path, new.text())
        changed = sum(old[name] != now[name] for name in old.keys() & now.keys())
        said.append(f"{path.name}: {len(now)} packages; {len(now.keys() - old.keys())} added, "
                    f"{len(old.keys() - now.keys())} gone, {changed} of another version")
    return said

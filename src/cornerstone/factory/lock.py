"""Locks: the exact .deb files that make a root, one text file a root and suite in versions/locks/.

    # Locked packages of the hypervisor root, Debian trixie, amd64. Made by `invoke lock`; don't edit.
    # resolved: 2026-11-22T08:00:00Z
    # requests: bridge-utils chrony …
    main adduser 3.152 all 191236 <sha256> pool/main/a/adduser/adduser_3.152_all.deb

The resolution date is the SOURCE_DATE_EPOCH of everything built from the lock.
"""

from __future__ import annotations

import datetime
import re
import tempfile
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from cornerstone.factory import elements, process
from cornerstone.factory.settings import KEYRING, Mirror, Workspace, find_mirror
from cornerstone.model.error import Code, CornerstoneError

ARCHITECTURE = "amd64"

# what a line must look like; names and versions as Debian's policy has them
LINE = re.compile(r"(main|security) [a-z0-9][a-z0-9+.-]+ [0-9][A-Za-z0-9.+:~-]* [a-z0-9-]+ [0-9]+ [0-9a-f]{64} "
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
    """All packages of one root; epoch is the resolution date in seconds since 1970."""

    root: str
    suite: str
    epoch: int
    requests: tuple[str, ...]
    packages: tuple[LockedPackage, ...]

    def text(self) -> str:
        """The lock file's content; parse(text()) gives the same lock back."""
        date = datetime.datetime.fromtimestamp(self.epoch, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        lines = [f"# Locked packages of the {self.root} root, Debian {self.suite}, {ARCHITECTURE}. "
                 "Made by `invoke lock`; don't edit.",
                 f"# resolved: {date}", f"# requests: {' '.join(self.requests)}"]
        lines += [f"{p.archive} {p.name} {p.version} {p.architecture} {p.size} {p.sha256} {p.path}"
                  for p in self.packages]
        return "\n".join(lines) + "\n"


def lock_path(locks: Path, root: str, suite: str) -> Path:
    return locks / f"{suite}-{root}.lock"


def read_lock(locks: Path, root: str, suite: str) -> Lock:
    """Read and check a lock file. Raises CornerstoneError when it is missing or damaged, with the line."""
    path = lock_path(locks, root, suite)
    if not path.is_file():
        raise CornerstoneError(f"{path} is missing: the {root} root has no locked packages for {suite}",
                               f"run: ./invoke lock --suite {suite}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CornerstoneError(f"{path} can't be read: {error}",
                               f"restore it from git, or run: ./invoke lock --suite {suite} --update") from error
    return parse(text, root, suite, path)


def parse(text: str, root: str, suite: str, path: Path | str = "lock") -> Lock:
    """Parse a lock file's text; path is what errors call it."""
    mend = f"restore it from git, or run: ./invoke lock --suite {suite} --update"
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
        requests = tuple(header["requests"].split())
    except (KeyError, ValueError) as error:
        raise CornerstoneError(f"{path}: its first lines don't say when and for what it was resolved", mend) from error
    if not found:
        raise CornerstoneError(f"{path}: names no packages", mend)
    return Lock(root, suite, int(resolved.timestamp()), requests, tuple(found))


def check_covers(lock: Lock, asked: tuple[str, ...]) -> None:
    """Raise CornerstoneError when the elements ask for other packages than the lock was resolved for."""
    if lock.requests == asked:
        return
    added, gone = sorted(set(asked) - set(lock.requests)), sorted(set(lock.requests) - set(asked))
    changes = [f"asked for and not locked: {' '.join(added)}"] * bool(added)
    changes += [f"locked and no longer asked for: {' '.join(gone)}"] * bool(gone)
    raise CornerstoneError(f"the lock of the {lock.root} root ({lock.suite}) doesn't fit its elements; "
                           + "; ".join(changes), f"run: ./invoke lock --suite {lock.suite} --update")


def resolve(elements_dir: Path, root: str, suite: str, mirror: Mirror, work: Path, log: Path) -> Lock:
    """Ask apt, in a private state directory, which files the root's packages come to today.

    apt checks the archive's signatures with Debian's keyring. Nothing of the machine's own package
    state takes part: the resolution starts from an empty system.
    """
    asked = elements.packages(elements_dir, root, suite)
    if not KEYRING.is_file():
        raise CornerstoneError(f"{KEYRING} is missing, so the archive's signature can't be checked",
                               "install debian-archive-keyring (./invoke does)", Code.MACHINE)
    apt = _private_apt(work, suite, mirror)
    try:
        process.run(["apt-get", "update", "--error-on=any"], log=log, env=apt)
    except CornerstoneError as error:
        raise CornerstoneError(f"the package lists of {suite} can't be fetched or verified:\n{error.message}",
                               "check the network and the mirror (CORNERSTONE_MIRROR)", Code.NETWORK) from error
    listing = process.read(["apt-get", "install", "--quiet", "--quiet", "--print-uris", "--no-install-recommends",
                            "?essential", *asked], env=apt)
    archives = {f"{mirror.main}/": "main", f"{mirror.security}/": "security"}
    found = [_locked(line, archives, log) for line in listing.splitlines() if line.startswith("'")]
    now = int(datetime.datetime.now(datetime.UTC).timestamp())
    return Lock(root, suite, now, asked, tuple(sorted(found, key=lambda p: (p.name, p.architecture))))


def _private_apt(work: Path, suite: str, mirror: Mirror) -> dict[str, str]:
    for folder in ("state/lists/partial", "cache/archives/partial", "etc/sources.list.d", "none.d"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    (work / "status").touch()
    signed = f"[arch={ARCHITECTURE} signed-by={KEYRING}]"
    (work / "etc/sources.list").write_text(
        f"deb {signed} {mirror.main} {suite} main non-free-firmware\n"
        f"deb {signed} {mirror.main} {suite}-updates main non-free-firmware\n"
        f"deb {signed} {mirror.security} {suite}-security main non-free-firmware\n")
    (work / "apt.conf").write_text(
        f'Dir::Etc "{work}/etc"; Dir::Etc::main "{work}/none"; Dir::Etc::parts "{work}/none.d";\n'
        f'Dir::State "{work}/state"; Dir::State::status "{work}/status"; Dir::Cache "{work}/cache";\n'
        f'APT::Architecture "{ARCHITECTURE}"; APT::Architectures "{ARCHITECTURE}";\n'
        'Acquire::Languages "none"; APT::Sandbox::User "root"; Acquire::Retries "2"; Acquire::ForceHash "SHA256";\n')
    return {"APT_CONFIG": str(work / "apt.conf"), "LC_ALL": "C"}


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


def update_locks(workspace: Workspace, suite: str, again: bool) -> list[str]:
    """Resolve the locks of a suite that are missing or don't fit their elements, or all of them again.

    Returns a line for each root. A lock is written beside and renamed; nothing changes on an error. Raises
    CornerstoneError for a suite that the elements can't build, before anything is asked of a mirror.
    """
    # the rules bring the whole catalogue with them, which who reads a lock doesn't need
    from cornerstone.model.rules.release import SUITES
    if suite not in SUITES:
        raise CornerstoneError(f"there is no suite {suite!r}", f"the suites are {', '.join(SUITES)}")
    said = []
    for root in elements.ROOTS:
        path = lock_path(workspace.locks, root, suite)
        before: Lock | None = None
        if path.is_file():
            before = read_lock(workspace.locks, root, suite)
            if not again and before.requests == elements.packages(workspace.elements, root, suite):
                said.append(f"{path.name}: fits, nothing to do")
                continue
        workspace.cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=workspace.cache) as work:
            log = workspace.output / "logs" / f"lock-{suite}-{root}.log"
            log.unlink(missing_ok=True)
            new = resolve(workspace.elements, root, suite, find_mirror(), Path(work), log)
        old = {p.name: p.version for p in before.packages} if before else {}
        now = {p.name: p.version for p in new.packages}
        if before and before.packages == new.packages and before.requests == new.requests:
            said.append(f"{path.name}: the archive has nothing newer")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        beside.write_text(new.text())
        beside.replace(path)
        changed = sum(old[name] != now[name] for name in old.keys() & now.keys())
        said.append(f"{path.name}: {len(now)} packages; {len(now.keys() - old.keys())} added, "
                    f"{len(old.keys() - now.keys())} gone, {changed} of another version")
    return said

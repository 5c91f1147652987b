"""The machine's own apt: what its sources say, and downloads with all of its settings.

Proxies, certificates, credentials, transports: apt knows its own settings best, so none of them is read here.
What we need otherwise stands in a configuration file that apt reads after all of its own (`-c`).
"""

from __future__ import annotations

import contextlib
import email.utils
import re
import shlex
import subprocess
import tempfile
import threading
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from cornerstone.lib import process
from cornerstone.lib.error import Code, CornerstoneError

HELPER = Path("/usr/lib/apt/apt-helper")

# fields of a source that say which of its indexes are wanted; all others bear on how it is trusted and reached
_SELECTING = {"types", "uris", "suites", "components", "enabled", "architectures", "arch", "languages", "lang",
              "targets", "target", "pdiffs", "description"}
_OFF = {"no", "false", "without", "off", "disable", "0"}

# what apt's methods say when nobody answered at all
_SILENCE = re.compile(r"\s*(Could not connect|Connection (failed|timed out)|Could not (resolve|wait)|Unable to connect|"
                      r"Temporary failure|Something wicked|Cannot initiate the connection|Failed to connect|"
                      r"Network is unreachable|No route to host)", re.I)
_GONE = re.compile("File not found|No such file", re.I)


@dataclass(frozen=True)
class AptSource:
    """One address of apt's sources: its suites and components, and its other fields, as deb822 has them."""

    address: str
    suites: tuple[str, ...] = ()
    components: tuple[str, ...] = ()
    options: str = ""


class Item(NamedTuple):
    """What to download, whereto, and its sha256 in hex, if it is known."""

    address: str
    target: Path
    sha256: str = ""


@dataclass(frozen=True)
class Failure:
    """Why something wasn't downloaded.

    status: HTTP's, 404 also where a file isn't there, else 0; retry_after: seconds the server asks for;
    kind: the type of the content that came, when HTTP says it; silent: nobody answered at all; untried: given up
    before it was asked for.
    """

    reason: str
    status: int = 0
    retry_after: float = 0
    kind: str = ""
    silent: bool = False
    untried: bool = False

    def __str__(self) -> str:
        return self.reason

    @property
    def gone(self) -> bool:
        """Whether the server says that it doesn't have the file."""
        return self.status in (404, 410)

    @property
    def busy(self) -> bool:
        """Whether the server asks for fewer requests."""
        return self.status in (429, 503)

    @property
    def passing(self) -> bool:
        """Whether another try may help."""
        return self.status not in range(400, 500) or self.status in (408, 425, 429)


def scrub(text: str) -> str:
    """Take users and passwords out of the addresses in a text."""
    return re.sub(r"(?<=://)[^/\s@]*@", "", text)


def split_login(address: str) -> tuple[str, str]:
    """Split an address into itself without user and password, and a line of auth.conf that has them, or nothing."""
    match = re.match(r"([a-z0-9+.-]+)://([^/@]*)@([^/]+)(.*)", address, re.I | re.S)
    if match is None:
        return address, ""
    scheme, login, host, path = match.groups()
    user, _, password = (urllib.parse.unquote(word) for word in login.partition(":"))
    return f"{scheme}://{host}{path}", f"machine {scheme}://{host} login {user} password {password}\n"


def settings(*names: str, etc: Path | None = None) -> list[str]:
    """Values of apt's configuration; a name may end in /f or /d for the path of a file or folder."""
    asked = [word for number, name in enumerate(names) for word in (f"V{number}", name)]
    found = dict(line.partition("=")[::2] for line in _apt("apt-config", etc, "shell", *asked).splitlines())
    return ["".join(shlex.split(found.get(f"V{number}", ""))) for number in range(len(names))]


@contextlib.contextmanager
def configuration(text: str = "", logins: Iterable[str] = ()) -> Iterator[Path]:
    """A configuration file for apt's `-c`, in a folder of its own: text, and logins beside those of auth.conf."""
    with tempfile.TemporaryDirectory(prefix="cornerstone-apt-") as folder:
        lines = ['APT::Sandbox::User "root";', 'Acquire::Source-Symlinks "false";', 'Acquire::Retries "0";', text]
        if logins := sorted(set(filter(None, logins))):
            own = Path(settings("Dir::Etc::netrc/f")[0] or "/dev/null")
            auth = Path(folder) / "auth.conf"
            auth.touch(0o600)
            with contextlib.suppress(OSError):
                # whoever may not read it doesn't get its logins from apt either
                logins.append(own.read_text(errors="replace"))
            auth.write_text("".join(logins))
            lines.append(f'Dir::Etc::netrc "{auth}";')
        file = Path(folder) / "apt.conf"
        file.write_text("\n".join(lines) + "\n")
        yield file


def read_sources(etc: Path | None = None) -> list[AptSource]:
    """The addresses that apt takes packages from, in the order of its files; etc: a folder instead of /etc/apt.

    Which there are, apt says itself; from its files come the order and the fields that apt doesn't tell.
    Raises CornerstoneError (MACHINE) when apt can't read them.
    """
    everything = list(_written(etc))
    done = process.call(["apt-get", *_below(etc), "update", "--print-uris"])
    complaints = done.error.decode("utf-8", "replace")
    if "could not be read" in complaints:
        # one entry that apt rejects hides all others from it
        if everything:
            return everything
        raise CornerstoneError(f"apt's sources on this machine can't be read:\n{scrub(complaints.strip())}",
                               "mend what `apt-get update` complains of, or set CORNERSTONE_MIRROR", Code.MACHINE)
    named: dict[str, list[str]] = {}
    for address, suite in re.findall("^'(.+?)/dists/(.+)/InRelease' ", done.text, re.M):
        named.setdefault(_same(address), [address]).append(suite)
    lacking = re.findall(r"methods/(\S+) could not be found", complaints)
    written = [source for source in everything
               if _same(source.address) in named or scheme_of(source.address) in lacking]
    known = {_same(source.address) for source in written}
    return written + [AptSource(first, tuple(suites)) for same, (first, *suites) in named.items() if same not in known]


def scheme_of(address: str) -> str:
    """The scheme of an address, such as http or mirror+file; nothing when it has none."""
    return address.partition(":")[0].lower() if ":" in address else ""


def can_use(address: str) -> bool:
    """Whether apt has what it takes to download from an address without a person's help."""
    scheme = scheme_of(address)
    return bool(re.fullmatch("[a-z][a-z0-9+.-]*", scheme)) and scheme != "cdrom" and (_methods() / scheme).exists()


@cache
def _methods() -> Path:
    return Path(settings("Dir::Bin::methods/d")[0])


def read_mirror_list(address: str) -> list[str]:
    """The archives that a mirror list names, best first; address: mirror+file:…, mirror+http:… and the like.

    Raises CornerstoneError (NETWORK) when the list can't be had or names none.
    """
    scheme, _, rest = address.partition(":")
    plain = {"mirror": "http"}.get(scheme, scheme.removeprefix("mirror+"))
    with tempfile.TemporaryDirectory(prefix="cornerstone-apt-") as folder:
        target = Path(folder) / "list"
        failure = download([Item(f"{plain}:{rest}", target)], 20).get(target)
        text = target.read_text(errors="replace") if target.is_file() else ""
    found = []
    for line in text.splitlines():
        words = line.split()
        types = [word.removeprefix("type:") for word in words[1:] if word.startswith("type:")]
        if words and not words[0].startswith("#") and ":" in words[0] and (not types or "deb" in types):
            priority = next((int(word[9:]) for word in words if re.fullmatch("priority:[0-9]+", word)), 1 << 30)
            found.append((priority, words[0].rstrip("/")))
    if failure or not found:
        raise CornerstoneError(f"the mirror list {scrub(address)} names no archive"
                               + (f": {failure}" if failure else ""),
                               "mend the list that apt's sources name, or set CORNERSTONE_MIRROR", Code.NETWORK)
    return [archive for _, archive in sorted(found, key=lambda one: one[0])]


def download(items: Sequence[Item], timeout: float | None = None) -> dict[Path, Failure]:
    """Download with apt; returns why for each target that isn't there after that. What is there, the caller checks.

    timeout: seconds without a byte, instead of the machine's own setting; apt tries twice, and after that time it is
    ended. When nobody answers for one item, the rest isn't tried.
    """
    if not HELPER.is_file():
        raise CornerstoneError(f"{HELPER} is missing: packages are fetched by apt", "install apt", Code.MACHINE)
    limit = 2 * timeout if timeout else None
    logins, words = [], []
    for item in items:
        address, login = split_login(item.address)
        logins.append(login)
        words += [address, str(item.target), f"SHA256:{item.sha256}" if item.sha256 else ""]
    # the answers' headers come with the debugging output, and only there; it never leaves this function
    text = "".join(f'Debug::Acquire::{method} "true";\n'
                   + (f'Acquire::{method}::Timeout "{max(1, round(timeout))}";\n' if timeout else "")
                   for method in ("http", "https"))
    with configuration(text, logins) as config, tempfile.TemporaryFile() as said:
        expired = threading.Event()
        with process.start([HELPER, "-c", config, "download-file", *words], stdout=subprocess.PIPE,
                             stderr=said) as child, _ending_after(limit, child, expired):
            shown, given_up = _follow(child)
        said.seek(0)
        errors = scrub(said.read().decode("utf-8", "replace"))
    return _explain(items, shown, errors, given_up or expired.is_set(), limit if expired.is_set() else None)


@contextlib.contextmanager
def _ending_after(limit: float | None, child: subprocess.Popen, expired: threading.Event) -> Iterator[None]:
    """End a child when the block lasts longer than limit seconds, and say so by expired."""
    def end() -> None:
        expired.set()
        process.end_family(child)

    timer = threading.Timer(limit or 0, end)
    if limit:
        timer.start()
    try:
        yield
        child.wait()
    finally:
        timer.cancel()


def _follow(child: subprocess.Popen) -> tuple[str, bool]:
    """Read what apt-helper prints; end it as soon as it says that nobody answers."""
    if child.stdout is None:
        raise AssertionError("a pipe was asked for")
    lines = []
    for line in child.stdout:
        lines.append(line.decode("utf-8", "replace"))
        if _SILENCE.match(lines[-1]):
            process.end_family(child)
            return scrub("".join(lines)), True
    return scrub("".join(lines)), False


def _explain(items: Sequence[Item], shown: str, errors: str, given_up: bool, limit: float | None
             ) -> dict[Path, Failure]:
    answers = re.findall(r"^Answer for: (.*)\n((?:\S.*\n)+)", errors.replace("\r", ""), re.M)
    later = max((_seconds(answer) for _, answer in answers if re.match(r"HTTP/\S+ (408|429|5..)", answer)), default=0)
    kinds = {_name(address): _header(answer, "Content-Type").partition(";")[0] for address, answer in answers}
    reasons = re.findall(r"^Err:\d+ (\S+).*\n  +(.*)", shown, re.M)
    reasons += re.findall(r"^E(?:rror)?: Failed to fetch (\S+)  (.+)", errors, re.M)
    by_name = {_name(address): reason.strip() for address, reason in reversed(reasons)}
    general = next(iter(re.findall("^E(?:rror)?: (?!Failed to fetch|Download Failed)(.*)", errors, re.M)), "")
    if limit:
        general = f"no answer within {limit:.0f} s"
    failures = {}
    for item in items:
        if item.target.is_file() and _name(item.address) not in by_name:
            continue
        reason = re.sub(r" \[IP: .*\]$", "", by_name.get(_name(item.address), ""))
        status = 404 if _GONE.search(reason) and not re.match(r"\d{3}  ", reason) else 0
        if http := re.match(r"(\d{3})  (.*)", reason):
            status, reason = int(http[1]), f"HTTP Error {http[1]}: {http[2]}"
        failures[item.target] = Failure(
            reason or general or ("not tried" if given_up else "apt gave no reason"), status,
            later if status in (408, 429) or status >= 500 else 0, kinds.get(_name(item.address), ""),
            silent=bool(_SILENCE.match(reason)) or not reason and bool(limit),
            untried=not reason and given_up and not limit)
    return failures


def _seconds(answer: str) -> float:
    """How long an HTTP answer's Retry-After asks to wait, in seconds; a date counts from the answer's own."""
    after = _header(answer, "Retry-After")
    if after.isascii() and after.isdigit():
        return float(after)
    try:
        now = email.utils.parsedate_to_datetime(_header(answer, "Date"))
        return max(0.0, (email.utils.parsedate_to_datetime(after) - now).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def _header(answer: str, name: str) -> str:
    match = re.search(rf"^{name}: *(.*?) *$", answer, re.M | re.I)
    return match[1] if match else ""


def _name(address: str) -> str:
    return urllib.parse.unquote(address).rstrip("/").rpartition("/")[2]


def _below(etc: Path | None) -> list[str]:
    return ["-o", f"Dir::Etc={etc}"] if etc else []


def _apt(tool: str, etc: Path | None, *words: str) -> str:
    return process.read([tool, *_below(etc), *words])


def _same(address: str) -> str:
    """An address in the one form that those of apt and of its files have in common."""
    scheme, _, rest = split_login(address)[0].partition(":")
    return f"{scheme}:{rest.strip('/')}"


def _written(etc: Path | None) -> Iterator[AptSource]:
    """The sources as apt's files have them, in both formats of sources.list(5)."""
    single, folder = (Path(path) for path in settings("Dir::Etc::sourcelist/f", "Dir::Etc::sourceparts/d", etc=etc))
    for file in [single, *sorted(folder.glob("*"))]:
        if file.is_file() and (file == single or file.suffix in (".list", ".sources")):
            text = file.read_text(errors="replace")
            yield from _stanzas(text) if file.suffix == ".sources" else _lines(text)


def _lines(text: str) -> Iterator[AptSource]:
    for line in text.splitlines():
        if match := re.match(r"\s*deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)([^#]*)", line):
            options = dict(re.findall(r"(\S+?)[+-]?=(\S+)", match[1] or ""))
            yield AptSource(match[2].rstrip("/"), (match[3],), tuple(match[4].split()),
                            "".join(f"{name}: {value.replace(',', ' ')}\n" for name, value in options.items()
                                    if name.lower() not in _SELECTING))


def _stanzas(text: str) -> Iterator[AptSource]:
    text = re.sub("^#.*\n?", "", text, flags=re.M)
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields = {name.lower(): (name, value) for name, value in
                  re.findall(r"^([^\s:]+):(.*(?:\n[ \t].*)*)", stanza, re.M)}
        values = {name: tuple(value.split()) for name, (_, value) in fields.items()}
        if "deb" not in values.get("types", ()) or {word.lower() for word in values.get("enabled", ())} & _OFF:
            continue
        options = "".join(f"{name}:{value}\n" for key, (name, value) in fields.items()
                          if key not in _SELECTING and not key.startswith("x-"))
        for address in values.get("uris", ()):
            yield AptSource(address.rstrip("/"), values.get("suites", ()), values.get("components", ()), options)

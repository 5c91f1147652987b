"""Locks resolved by a real apt against small signed archives of our own, as the machine's settings have them."""

from __future__ import annotations

import datetime
import http.server
import os
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.factory.packages import elements, lock
from cornerstone.factory.packages.lock import lock_path, parse_date, read_lock, update_locks
from cornerstone.factory.settings import Workspace, find_mirror
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.profile.additions import Additions
from cornerstone.model.profile.profile import Profile, load_profile

CONTROL = """Package: {name}
Version: 1:2.0
Architecture: all
Maintainer: nobody <nobody@example.org>
Description: x
{more}"""
SUITES = ("trixie", "trixie-updates", "trixie-security")


def run(*words, **more) -> str:
    return subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True, **more).stdout


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """A Debian archive of a few packages, signed with a key of its own; it expired long ago."""
    top = tmp_path_factory.mktemp("archive")
    home = top / "gnupg"
    home.mkdir(0o700)
    gpg = ("gpg", "--homedir", home, "--batch", "--quiet")
    run(*gpg, "--passphrase", "", "--quick-generate-key", "own <own@example.org>", "ed25519", "sign", "never")
    run(*gpg, "--output", top / "own.gpg", "--export")
    run(*gpg, "--armor", "--output", top / "own.asc", "--export")
    for name, more in (("base", "Essential: yes\n"), ("jq", "Depends: base\n"),
                       ("pv", "Depends: base\nProvides: meter\n"), ("rival", "Conflicts: jq\n")):
        tree = top / "trees" / name
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(CONTROL.format(name=name, more=more))
        pool = top / "debian/pool/main"
        pool.mkdir(parents=True, exist_ok=True)
        run("dpkg-deb", "--build", "--root-owner-group", tree, pool / f"{name}_2.0_all.deb")
    sign(top, "debian", SUITES[:2], gpg)
    sign(top, "debian-security", SUITES[2:], gpg)
    run("gpgconf", "--homedir", home, "--kill", "all")
    return top


def sign(top: Path, base: str, suites: tuple[str, ...], gpg: tuple) -> None:
    for suite in suites:
        for component in ("main", "non-free-firmware"):
            (top / base / "dists" / suite / component / "binary-amd64").mkdir(parents=True)
            (top / base / "dists" / suite / component / "binary-amd64/Packages").touch()
        if suite == "trixie":
            (top / base / "dists/trixie/main/binary-amd64/Packages").write_text(
                run("apt-ftparchive", "packages", "pool", cwd=top / base))
        where = "APT::FTPArchive::Release"
        release = run("apt-ftparchive", "-o", f"{where}::Codename={suite}", "-o", f"{where}::Suite={suite}",
                      "-o", f"{where}::Architectures=amd64", "-o", f"{where}::Components=main non-free-firmware",
                      "release", f"dists/{suite}", cwd=top / base)
        release = "".join(f"{line}\n" for line in release.splitlines() if not line.startswith(("Date:", "Valid")))
        folder = top / base / "dists" / suite
        (folder / "Release").write_text(f"Date: Wed, 01 Jul 2026 08:00:00 UTC\n"
                                        f"Valid-Until: Wed, 08 Jul 2026 08:00:00 UTC\n{release}")
        run(*gpg, "--clearsign", "--output", folder / "InRelease", folder / "Release")


@pytest.fixture
def server(archive):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=archive)

        def translate_path(self, path: str) -> str:
            # an archive by date, and a path that is a proxy's
            path = path.replace("http://deb.example.org", "").replace("/archive/", "/").replace("/20260702T000000Z", "")
            return super().translate_path(path)

        def log_message(self, *_) -> None:
            self.server.asked.append((self.path, self.headers.get("Authorization", "")))

        log_error = lambda *_: None  # noqa: E731

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.asked = []
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Say what /etc/apt holds on this machine: an apt.conf and one file of sources."""
    etc = tmp_path / "etc"
    (etc / "sources.list.d").mkdir(parents=True)
    for name in ("CORNERSTONE_MIRROR", "CORNERSTONE_SECURITY_MIRROR", "CORNERSTONE_SNAPSHOT_MIRROR",
                 "CORNERSTONE_KEYRING", "CORNERSTONE_CACHE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("APT_CONFIG", str(etc / "conf"))

    def say(sources: str, conf: str = 'Acquire::Check-Valid-Until "false";') -> None:
        (etc / "sources.list.d/a.sources").write_text(sources)
        # this machine's own settings mustn't decide: apt reads APT_CONFIG before the parts below Dir::Etc
        (etc / "conf").write_text(f'Dir::Etc "{etc}"; Acquire::Check-Valid-Until "true"; {conf}\n')
    return say


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    monkeypatch.setattr(elements, "ROOTS", {"cvm": ("cvm",)})
    (tmp_path / "checkout/elements/cvm").mkdir(parents=True)
    (tmp_path / "checkout/elements/cvm/package-installs.yaml").write_text("jq:\n")
    return Workspace(tmp_path / "checkout")


def stanzas(address: str, signed: str) -> str:
    return "\n".join(f"Types: deb\nURIs: {address}/{base}\nSuites: {suites}\nComponents: main\n{signed}"
                     for base, suites in (("debian", "trixie trixie-updates"), ("debian-security", "trixie-security")))


def check(workspace: Workspace) -> None:
    locked = read_lock(workspace.locks, "cvm", "trixie")
    assert [(p.archive, p.name, p.version, p.path) for p in locked.packages] == [
        ("main", "base", "1:2.0", "pool/main/base_2.0_all.deb"), ("main", "jq", "1:2.0", "pool/main/jq_2.0_all.deb")]


@pytest.mark.parametrize("form", ["file", "embedded"])
def test_key_of_the_source_m29(archive, server, machine, workspace, form):
    text = "".join(f" {line.strip() or '.'}\n" for line in (archive / "own.asc").read_text().splitlines())
    signed = f"Signed-By: {archive}/own.gpg\n" if form == "file" else f"Signed-By:\n{text}"
    machine(stanzas(f"http://127.0.0.1:{server.server_port}", signed))
    update_locks(workspace, "trixie", again=True)
    check(workspace)


def test_key_that_apt_trusts_for_all_m29(archive, server, machine, workspace, tmp_path):
    machine(stanzas(f"http://127.0.0.1:{server.server_port}", ""))
    (tmp_path / "etc/trusted.gpg.d").mkdir()
    (tmp_path / "etc/trusted.gpg.d/own.gpg").write_bytes((archive / "own.gpg").read_bytes())
    update_locks(workspace, "trixie", again=True)
    check(workspace)


def test_key_by_a_setting_m29(archive, server, machine, workspace, monkeypatch):
    machine("")
    monkeypatch.setenv("CORNERSTONE_MIRROR", f"http://127.0.0.1:{server.server_port}/debian")
    with pytest.raises(CornerstoneError, match="(?s)can't be fetched or verified.*NO_PUBKEY|not available") as caught:
        update_locks(workspace, "trixie", again=True)
    assert "CORNERSTONE_KEYRING" in caught.value.hint
    monkeypatch.setenv("CORNERSTONE_KEYRING", str(archive / "own.gpg"))
    update_locks(workspace, "trixie", again=True)
    check(workspace)


def test_proxy_m26(archive, server, machine, workspace):
    machine(stanzas("http://deb.example.org", f"Signed-By: {archive}/own.gpg\n"),
            f'Acquire::http::Proxy "http://127.0.0.1:{server.server_port}"; Acquire::Check-Valid-Until "false";')
    update_locks(workspace, "trixie", again=True)
    check(workspace)
    assert all(path.startswith("http://deb.example.org/") for path, _ in server.asked)


def test_login_m28(archive, server, machine, workspace, capfd):
    machine(stanzas(f"http://us:s3cret@127.0.0.1:{server.server_port}", f"Signed-By: {archive}/own.gpg\n"))
    update_locks(workspace, "trixie", again=True)
    check(workspace)
    assert {login for _, login in server.asked} == {"Basic dXM6czNjcmV0"}
    assert not [file for file in workspace.root.rglob("*") if file.is_file() and b"s3cret" in file.read_bytes()]
    machine(stanzas(f"http://us:s3cret@127.0.0.1:{server.server_port}/none", f"Signed-By: {archive}/own.gpg\n"))
    with pytest.raises(CornerstoneError) as caught:
        update_locks(workspace, "trixie", again=True)
    assert "s3cret" not in str(caught.value) + "".join(capfd.readouterr())


def test_mirror_list_m24(archive, server, machine, workspace, tmp_path):
    for name in ("debian", "debian-security"):
        (tmp_path / f"{name}.list").write_text(f"http://127.0.0.1:{server.server_port}/{name}\n")
    machine("\n".join(f"Types: deb deb-src\nURIs: mirror+file://{tmp_path}/{name}.list\nSuites: {suites}\n"
                      f"Components: main\nSigned-By: {archive}/own.gpg\n"
                      for name, suites in (("debian", "trixie"), ("debian-security", "trixie-security"))))
    update_locks(workspace, "trixie", again=True)
    check(workspace)


def test_folder_as_a_mirror_m24(archive, machine, workspace):
    machine(stanzas(f"file://{archive}", f"Signed-By: {archive}/own.gpg\n"))
    update_locks(workspace, "trixie", again=True)
    check(workspace)


def test_expired_archive_is_refused_with_the_flag_m30(archive, server, machine, workspace):
    machine(stanzas(f"http://127.0.0.1:{server.server_port}", f"Signed-By: {archive}/own.gpg\n"), "")
    with pytest.raises(CornerstoneError, match="expired") as caught:
        update_locks(workspace, "trixie", again=True)
    assert "--as-of" in caught.value.hint


def test_frozen_mirror_as_of_its_date_m30(archive, server, machine, workspace):
    machine(stanzas(f"http://127.0.0.1:{server.server_port}", f"Signed-By: {archive}/own.gpg\n"), "")
    update_locks(workspace, "trixie", again=False, as_of="2026-07-02T00:00:00Z")
    check(workspace)
    assert "# resolved: 2026-07-02T00:00:00Z\n" in lock_path(workspace.locks, "cvm", "trixie").read_text()
    with pytest.raises(CornerstoneError, match="later than 2026-06-30") as caught:
        update_locks(workspace, "trixie", again=False, as_of="2026-06-30")
    assert caught.value.code is Code.INPUT


def test_a8_a_lock_never_goes_back_to_an_older_archive_by_itself(archive, server, machine, workspace):
    """Its signature is good, for it was made in its day: who stands between could serve it."""
    machine(stanzas(f"http://127.0.0.1:{server.server_port}", f"Signed-By: {archive}/own.gpg\n"))
    update_locks(workspace, "trixie", again=True)
    path = lock_path(workspace.locks, "cvm", "trixie")
    newer = path.read_text().replace("main jq 1:2.0 ", "main jq 1:2.0+deb13u1 ")
    path.write_text(newer)
    with pytest.raises(CornerstoneError, match=r"older packages .*jq 1:2\.0 \(locked: .*deb13u1\)") as caught:
        update_locks(workspace, "trixie", again=True)
    assert caught.value.code is Code.NETWORK and "--as-of" in caught.value.hint
    assert path.read_text() == newer
    # to go back on purpose is to say to when
    update_locks(workspace, "trixie", again=True, as_of="2026-07-02T00:00:00Z")
    check(workspace)


def test_snapshot_as_of_a_date_m30(archive, server, machine, workspace, monkeypatch):
    machine("", "")
    monkeypatch.setenv("CORNERSTONE_SNAPSHOT_MIRROR",
                       f"http://127.0.0.1:{server.server_port}/archive/{{archive}}/{{date}}/")
    monkeypatch.setenv("CORNERSTONE_KEYRING", str(archive / "own.gpg"))
    update_locks(workspace, "trixie", again=False, as_of="20260702T000000Z")
    check(workspace)
    assert all("/20260702T000000Z/" in path for path, _ in server.asked)


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "2999-01-01", "", "2026"])
def test_what_is_no_date_m30(text):
    with pytest.raises(CornerstoneError):
        parse_date(text)


def test_a_day_means_its_end_m30():
    assert parse_date("2026-07-01") == datetime.datetime(2026, 7, 1, 23, 59, 59, tzinfo=datetime.UTC)


def test_hooks_of_the_machine_take_no_part_m24(archive, server, machine, workspace, tmp_path):
    machine(stanzas(f"http://127.0.0.1:{server.server_port}", f"Signed-By: {archive}/own.gpg\n"),
            f'Acquire::Check-Valid-Until "false"; APT::Update::Post-Invoke {{ "touch {tmp_path}/hook"; }};'
            'APT::Default-Release "sid"; APT::Architectures { "armhf"; };')
    update_locks(workspace, "trixie", again=True)
    check(workspace)
    assert not (tmp_path / "hook").exists()
    assert find_mirror().main.endswith("/debian")
    assert lock.ARCHITECTURE == "amd64"
    assert os.environ["APT_CONFIG"]


# a profile's own lock

def profile_with(*packages: str) -> Profile:
    made = load_profile("aos-6.8", Path(__file__).resolve().parents[2])
    extra = Additions(packages)
    return replace(made, name="mine", argument="mine", cvm=replace(made.cvm, extra=extra))


@pytest.fixture
def own_archive(archive, server, machine) -> None:
    machine(stanzas(f"http://127.0.0.1:{server.server_port}", f"Signed-By: {archive}/own.gpg\n"))


def test_the_packages_of_a_profile_are_resolved_into_a_lock_of_its_own(own_archive, workspace):
    profile = profile_with("pv")
    assert update_locks(workspace, "trixie", again=False, profile=profile) == [
        "mine-cvm.lock: 3 packages; 3 added, 0 gone, 0 of another version"]
    locked = read_lock(workspace.locks, "cvm", "trixie", profile)
    assert (locked.profile, locked.requests) == ("mine", ("jq", "pv"))
    assert [package.name for package in locked.packages] == ["base", "jq", "pv"]
    assert [path.name for path in workspace.locks.iterdir()] == ["mine-cvm.lock"]
    assert update_locks(workspace, "trixie", again=False, profile=profile) == ["mine-cvm.lock: fits, nothing to do"]

    more = profile_with("jq", "pv", "base")
    assert update_locks(workspace, "trixie", again=False, profile=more) == [
        "mine-cvm.lock: 3 packages; 0 added, 0 gone, 0 of another version"]
    assert read_lock(workspace.locks, "cvm", "trixie", more).requests == ("base", "jq", "pv")

    assert update_locks(workspace, "trixie", again=False, profile=profile_with())[0].startswith("trixie-cvm.lock: 2 ")
    check(workspace)


@pytest.mark.parametrize(("package", "words"), [
    ("no-such-package", "Unable to locate package no-such-package"),
    ("meter", "meter: the archive of trixie has no package of that name"),
    ("rival", "conflict|broken packages"),
])
def test_a_package_of_a_profile_that_cant_be_had_is_named_with_its_key(own_archive, workspace, package, words):
    with pytest.raises(CornerstoneError, match=f"(?is){words}") as caught:
        update_locks(workspace, "trixie", again=False, profile=profile_with(package))
    assert caught.value.hint == "correct .cvm.extra.packages in the profile"
    assert not list(workspace.locks.glob("*"))

"""`invoke verify`: the checks of an ISO, as a table, and then the tests of the roots inside (tests/image).

The ISO is data throughout: nothing in it is run, mounted or unpacked, and no root's rights are needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cornerstone.factory.evidence.evidence import KEY_NAME
from cornerstone.factory.iso.iso_checks import CHECKS, Finding, Subject, run_checks

# the imports register their checks
from cornerstone.factory.verify import boot_checks, evidence_checks, netboot_checks  # noqa: F401
from cornerstone.lib import process
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.files import read_regular
from cornerstone.lib.junit import Case, write_report
from cornerstone.model.contracts.boot_area import BootSettings

ROOT = Path(__file__).resolve().parents[4]
TESTS = Path("tests/image")
WIDTH = max(map(len, CHECKS))

# tests/image takes the ISO and the key from these
ISO_SETTING, KEY_SETTING = "CORNERSTONE_ISO", "CORNERSTONE_KEY"
# and these from the caller
PASSED_ON = ("CORNERSTONE_CACHE", "CORNERSTONE_MIRROR", "CORNERSTONE_SECURITY_MIRROR", "PYTEST_ADDOPTS")
MOST_KEY = 64 << 10
INTEGRITY_ONLY = ("integrity only: the key lay beside the ISO, so nothing was changed since somebody signed it, and "
                  "nobody knows who; --key FILE takes the key that its maker gave you")


def verify_iso(iso: Path, key: Path | None = None, format: str = "text", junit: Path | None = None) -> int:
    """Check an ISO and the roots inside, telling it on standard output; returns the exit code, 0 or Code.VERIFY.

    iso: a file, or a block device onto which one was written; it may be longer than the ISO on it. key: PEM of the
    public key that must have signed it; None takes manifest.pem beside the ISO, never a key from the ISO itself.
    format: text, or json: one document at the end, with what the roots' tests say on standard error.
    junit: a folder that gets reports of both, also when something is wrong.
    Raises CornerstoneError when there is no usable key or a tool is missing.
    """
    if format not in ("text", "json"):
        raise CornerstoneError(f"--format {format!r} isn't one of text, json", "write --format text")
    say: Callable[[str], None] = print_now if format == "text" else lambda line: None
    beside = key is None
    key = find_key(iso, key)
    content = read_key(key, follow=not beside)
    say(f"{iso}\nkey  {key}\n     sha256 {fingerprint(content)}")
    begun = time.monotonic()
    subject = Subject(iso, content)
    findings = list(told(subject, say))
    failed = [finding for finding in findings if finding.wrong]
    if junit is not None:
        write_report(junit / f"verify-{iso.stem}.xml", "verify", iso.stem, map(as_case, findings))
    say(summary(findings, time.monotonic() - begun))
    if subject.behind:
        say(f"note: {subject.behind} bytes lie behind the ISO's own end, as on a stick that is larger: they aren't "
            "part of it, and weren't looked at")
    for line in trust(findings, subject):
        say(line)
    if failed:
        say("the roots inside were not looked at")
    try:
        roots = None if failed else check_roots(iso, key, quiet=format == "json", junit=junit)
    except CornerstoneError:
        if format == "json":
            print_now(as_json(subject, key, content, findings, None, beside=beside))
        raise
    if format == "json":
        print_now(as_json(subject, key, content, findings, roots, beside=beside))
    if beside:
        say(INTEGRITY_ONLY)
    return Code.VERIFY if failed else roots or 0


def as_json(subject: Subject, key: Path, pem: bytes, findings: list[Finding], roots: int | None, *, beside: bool
            ) -> str:
    """The result for programs; roots: the exit code of their tests, None when they weren't looked at.

    beside: the key lay beside the ISO, so that the result is about integrity only.
    """
    rows = [{"id": finding.check.id, "holds": finding.check.sentence,
             "result": "passed" if finding.passed else "failed" if finding.wrong else "not looked at",
             "wrong": list(finding.wrong), "hint": finding.check.hint if finding.wrong else None,
             "reason": f"{finding.kept_by} failed" if finding.kept_by else finding.absent or None}
            for finding in findings]
    inside = "not looked at" if roots is None else "failed" if roots else "passed"
    boot = boot_settings(findings, subject)
    return json.dumps({"v": 1, "iso": str(subject.path), "key": str(key), "key_sha256": fingerprint(pem),
                       "vouches_for": "integrity only" if beside else "integrity and origin",
                       "behind": subject.behind,
                       "boot": boot and {"console": boot.console, "arguments": list(boot.arguments)},
                       "checks": rows, "roots": inside}, indent=2)


def as_case(finding: Finding) -> Case:
    """A check's finding as a test of a JUnit report."""
    wrong = "\n".join((*finding.wrong, f"hint: {finding.check.hint}")) if finding.wrong else ""
    return Case(finding.check.id, wrong, f"{finding.kept_by} failed" if finding.kept_by else finding.absent or "")


def find_key(iso: Path, key: Path | None) -> Path:
    """The public key to check with. Raises CornerstoneError when none was given and none lies beside the ISO."""
    if key is not None:
        if not key.is_file():
            raise CornerstoneError(f"there is no key {key}", "give the PEM file of the ed25519 public key")
        return key
    beside = iso.absolute().with_name(KEY_NAME)
    if not beside.is_file():
        raise CornerstoneError(f"there is no {KEY_NAME} beside {iso}, so nothing says whose signature to trust",
                               "name the public key that the ISO's maker gave you, with --key FILE; a key from the ISO "
                               "itself would prove nothing")
    return beside


def read_key(path: Path, *, follow: bool = True) -> bytes:
    """A public key's PEM; follow: through links. CornerstoneError when the file holds no ed25519 public key."""
    try:
        content = read_regular(path.resolve() if follow else path, MOST_KEY)
        key = serialization.load_pem_public_key(content)
    except OSError as error:
        raise CornerstoneError(f"{path} can't be read: {error.strerror}", "give a PEM file, with --key") from error
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise CornerstoneError(f"{path} isn't the PEM of an ed25519 public key",
                               f"give the {KEY_NAME} that the build wrote beside the ISO")
    return content


def fingerprint(pem: bytes) -> str:
    """The sha256 of a public key itself (SubjectPublicKeyInfo), whatever the PEM's lines and comments are."""
    der = serialization.load_pem_public_key(pem).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def told(subject: Subject, say: Callable[[str], None]) -> Iterator[Finding]:
    """Run the checks and say each one's line as it ends."""
    try:
        for finding in run_checks(subject):
            for line in lines(finding):
                say(line)
            yield finding
    finally:
        subject.close()


def lines(finding: Finding) -> list[str]:
    """A finding for people: one line when all is well, else what is wrong and how to mend it."""
    name = finding.check.id.ljust(WIDTH)
    if finding.kept_by:
        return [f"–  {name}  not looked at: {finding.kept_by} failed"]
    if finding.absent:
        return [f"–  {name}  not looked at: {finding.absent}"]
    if not finding.wrong:
        return [f"✓  {name}  {finding.check.sentence}"]
    indent = " " * (WIDTH + 5)
    return [f"✗  {name}  {finding.wrong[0]}", *(indent + more for more in finding.wrong[1:]),
            f"{indent}hint: {finding.check.hint}"]


def summary(findings: list[Finding], seconds: float) -> str:
    """One line with the counts."""
    passed, failed = (sum(map(test, findings)) for test in (lambda f: f.passed, lambda f: bool(f.wrong)))
    kept = len(findings) - passed - failed
    return (f"{passed} of {len(findings)} checks passed" + f", {failed} failed" * bool(failed)
            + f", {kept} not looked at" * bool(kept) + f" ({seconds:.0f} s)")


def trust(findings: list[Finding], subject: Subject) -> list[str]:
    """Lines about what the result is worth: by which kind of key it is signed, and which evidence is missing."""
    said = []
    if settings := boot_settings(findings, subject):
        said += [f"note: customised: it starts with {settings}"]
    if all(finding.passed for finding in findings if finding.check.id in ("manifest", "signature")):
        said += [subject.manifest.signed + (": by a key that the build made for itself, so it says nothing about who "
                                            "built it" if subject.manifest.key == "development" else "")]
    if absent := [finding.absent for finding in findings if finding.absent]:
        said += [f"what is there was checked, and something is missing: {'; '.join(absent)}"]
    return said


def boot_settings(findings: list[Finding], subject: Subject) -> BootSettings | None:
    """What customising has set for the start, if anything and if it can be trusted."""
    good = any(finding.check.id == "boot-area" and finding.passed for finding in findings)
    settings = subject.boot_settings if good else BootSettings()
    return None if settings == BootSettings() else settings


def print_now(line: str) -> None:
    """Print at once, so that what tests print later comes later."""
    print(line, flush=True)


def check_roots(iso: Path, key: Path, tests: Path = TESTS, *, quiet: bool = False, junit: Path | None = None) -> int:
    """Run the tests of the roots on an ISO in a process of their own; 0 or Code.VERIFY. quiet: on standard error.

    junit: a folder that gets a report of them, with the ISO in the class names.
    Raises CornerstoneError (MACHINE) when the tests couldn't run at all.
    """
    if not (ROOT / tests).is_dir():
        raise CornerstoneError(f"{tests} isn't there, so the roots can't be tested", "run it from a whole checkout",
                               Code.MACHINE)
    env = process.environment({name: value for name, value in os.environ.items() if name in PASSED_ON}
                              | {ISO_SETTING: str(iso.absolute()), KEY_SETTING: str(key.absolute())})
    # the checks of the ISO itself have just been made
    argv = [sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", str(tests),
            f"--ignore={tests / 'test_iso.py'}", f"--ignore={tests / 'test_netboot.py'}"]
    if junit is not None:
        argv += [f"--junitxml={junit.absolute() / f'verify-roots-{iso.stem}.xml'}",
                 f"--junit-prefix={iso.stem.replace('.', '_')}"]
    # a session of its own: Ctrl-C reaches it once, through us, and doesn't disturb its cleaning up
    child = subprocess.Popen(argv, cwd=ROOT, env=env, start_new_session=True, stdout=sys.stderr if quiet else None)
    try:
        code = child.wait()
    except BaseException:
        # the tests take this as Ctrl-C, and take away what they unpacked
        child.send_signal(signal.SIGTERM)
        child.wait()
        raise
    if code not in (0, 1):
        raise CornerstoneError(f"the tests of the roots couldn't be run: pytest ended with {code}",
                               f"run it by hand: {ISO_SETTING}={iso.absolute()} .venv/bin/python -m pytest {tests}",
                               Code.MACHINE)
    return Code.VERIFY if code else 0

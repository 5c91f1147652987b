"""Peers with the same packages from the same archive: stock diskimage-builder, mkosi, live-build."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cornerstone.factory.bench.bench import Bench
from cornerstone.factory.bench.measure import Usage, measure, ratio, side_by_side
from cornerstone.factory.bench.table import Check, Figure, Result
from cornerstone.factory.contained import CONTAINED, detach_loops
from cornerstone.factory.packages.lock import Lock
from cornerstone.factory.settings import KEYRING, Mirror, find_mirror
from cornerstone.lib import apt, process

OURS = "invoke build: both roots and the ISO"
AREAS = ("main", "non-free-firmware")
# Peers take minutes: one round tells enough.
ROUNDS = 1
# The options that we use are those of the releases since.
MKOSI_SINCE = 25
# Arguments are in every user's list of processes.
LOGIN = "it would show the mirror's login in its arguments: put it into auth.conf.d of apt, or name another mirror"


def has_login(mirror: Mirror) -> bool:
    """Whether an address of the mirror has a user or a password in it."""
    return any(apt.scrub(address) != address for address in (mirror.main, mirror.security))


def stock(bench: Bench) -> Result:
    """diskimage-builder's own Debian root with the same requested packages, both roots at once, as we do."""
    folder = bench.work / "stock"
    mirror = find_mirror()
    if has_login(mirror):
        return Result("stock", left_out=LOGIN)
    env = {
        "DIB_DEBIAN_COMPONENTS": ",".join(AREAS), "DIB_DISTRIBUTION_MIRROR": mirror.main,
        "DIB_DEBIAN_SECURITY_MIRROR": mirror.security, "DIB_NO_TMPFS": "1", "DIB_PYTHON_EXEC": sys.executable,
        "DIB_RELEASE": bench.profile.reference.suite, "DIB_LOCKFILES": str(folder / "lockfiles"),
        "LC_ALL": "C.UTF-8", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin",
        "TMP_DIR": str(folder), "TMPDIR": str(folder),
    }

    def one(lock: Lock) -> str:
        argv = ["env", f"DIB_IMAGE_CACHE={folder / lock.root / 'image-cache'}", "disk-image-create", "-n",
                "-t", "squashfs", "-o", folder / lock.root / "stock", "-p", ",".join(lock.requests), "debian-minimal"]
        return shlex.join(map(str, argv))

    def theirs() -> Usage:
        bench.repositories(folder)
        for name in bench.locks:
            # its own cache of packages, as warm as our pool
            warm = folder / name / "image-cache" / "apt" / "debian"
            warm.mkdir(parents=True)
            for package in (folder / name / "repository").glob("*.deb"):
                shutil.copy2(package, warm)
        try:
            return measure([*CONTAINED, "sh", "-c", together([one(lock) for lock in bench.locks.values()])],
                           log=bench.logs / "stock.log", env=env, cwd=folder)
        finally:
            detach_loops(folder)
            shutil.rmtree(folder, ignore_errors=True)

    what = "stock diskimage-builder, both roots at once"
    return _against("stock", bench, what, theirs, 0.5, "debian-minimal, squashfs (xz, as it comes); no ISO")


def together(commands: Sequence[str]) -> str:
    """A shell script that runs commands at once and fails when any of them does."""
    *behind, last = commands
    jobs = [f"{command} & jobs=\"${{jobs-}} $!\"" for command in behind]
    return "\n".join(["set -e", *jobs, last, "for job in ${jobs-}; do wait \"$job\"; done"])


def mkosi(bench: Bench) -> Result:
    """The hypervisor's requested packages as a tar; with one file changed, incrementally; and with nothing changed.

    No target: for scale.
    """
    if not shutil.which("mkosi"):
        return Result("mkosi", left_out="not installed: apt-get install mkosi (25 or newer)")
    version = process.read(["mkosi", "--version"]).strip()
    found = re.search(r"\d+", version)
    if not found or int(found[0]) < MKOSI_SINCE:
        return Result("mkosi", left_out=f"{version} has other options; {MKOSI_SINCE} or newer is wanted")
    folder, mirror, lock = bench.work / "mkosi", find_mirror(), bench.locks["hypervisor"]
    (folder / "packages").mkdir(parents=True)
    # its own list would ask for an archive of debug symbols too, which few mirrors have
    sources = folder / "sandbox/etc/apt/sources.list.d/mkosi.sources"
    sources.parent.mkdir(parents=True)
    sources.write_text("\n".join(
        f"Types: deb\nURIs: {address}\nSuites: {suites}\nComponents: {' '.join(AREAS)}\nSigned-By: {KEYRING}\n"
        for address, suites in ((mirror.main, f"{lock.suite} {lock.suite}-updates"),
                                (mirror.security, f"{lock.suite}-security"))))
    command = ["mkosi", "--directory", folder, "--distribution", "debian", "--release", lock.suite, "--sandbox-tree",
               folder / "sandbox", "--format", "tar", "--bootable", "no",
               "--package-cache-directory", folder / "packages", "--output-directory", folder, "--output", "hypervisor",
               *(word for package in lock.requests for word in ("--package", package))]

    def run(*words: str) -> Callable[[], Usage]:
        return lambda: measure([*command, *words, "build"], log=bench.logs / "mkosi.log", cwd=folder)

    extra = folder / "extra/etc/changed"
    extra.parent.mkdir(parents=True)
    incremental = run("--force", "--incremental", "yes", "--extra-tree", str(folder / "extra"))

    def one_file() -> Usage:
        extra.write_text("again\n")
        return incremental()

    try:
        run("--force")()  # its cache of packages is warm from now on
        whole = side_by_side({f"{version}, hypervisor packages as a tar": run("--force"),
                              f"{version}, nothing changed": run()}, ROUNDS)
        extra.write_text("once\n")
        incremental()  # keeps the tree of the packages
        runs = whole | side_by_side({f"{version}, one file changed, incremental": one_file}, ROUNDS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Result("mkosi", tuple(Figure("mkosi", what, found) for what, found in runs.items()))


def live_build(bench: Bench) -> Result:
    """A live ISO of the hypervisor's requested packages, against our whole ISO with both roots."""
    if not shutil.which("lb"):
        return Result("live-build", left_out="not installed: apt-get install live-build")
    folder, log = bench.work / "live-build", bench.logs / "live-build.log"
    mirror = find_mirror()
    if has_login(mirror):
        return Result("live-build", left_out=LOGIN)
    lock = bench.locks["hypervisor"]

    def configure() -> None:
        (folder / "config" / "package-lists").mkdir(parents=True, exist_ok=True)
        mirrors = [word for part in ("bootstrap", "chroot", "binary")
                   for word in (f"--mirror-{part}", mirror.main, f"--parent-mirror-{part}", mirror.main)]
        security = [word for part in ("chroot", "binary")
                    for word in (f"--mirror-{part}-security", mirror.security,
                                 f"--parent-mirror-{part}-security", mirror.security)]
        process.run(["lb", "config", "--distribution", lock.suite, "--archive-areas", " ".join(AREAS), *mirrors,
                     *security, "--apt-recommends", "false", "--debian-installer", "none", "--memtest", "none",
                     "--firmware-chroot", "false", "--firmware-binary", "false", "--binary-images", "iso-hybrid",
                     "--bootloaders", "grub-pc,grub-efi"], log=log, cwd=folder)
        (folder / "config/package-lists/hypervisor.list.chroot").write_text("\n".join(lock.requests) + "\n")

    def theirs() -> Usage:
        # a second build: what it keeps of the first are the packages that it fetched
        process.run([*CONTAINED, "lb", "clean"], log=log, cwd=folder)
        shutil.rmtree(folder / "cache" / "bootstrap", ignore_errors=True)
        configure()
        return measure([*CONTAINED, "lb", "build"], log=log, cwd=folder)

    try:
        configure()
        process.run([*CONTAINED, "lb", "build"], log=log, cwd=folder)
        return _against("live-build", bench, "live-build, ISO of the hypervisor's packages alone", theirs, 1.0,
                        "its packages fetched before")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _against(case: str, bench: Bench, what: str, theirs: Callable[[], Usage], limit: float, note: str) -> Result:
    """Our build from an empty store, and theirs."""
    def ours() -> Usage:
        bench.forget()
        return bench.build(case)

    runs = side_by_side({OURS: ours, what: theirs}, ROUNDS)
    return Result(case, (Figure(case, OURS, runs[OURS]), Figure(case, what, runs[what], note)),
                  (Check(case, f"our build by {case}'s", ratio(runs[OURS], runs[what]), limit, "×"),))

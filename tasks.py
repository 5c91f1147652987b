"""Cornerstone's tasks: `./invoke --list`. Thin: each one calls the library below src/."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from invoke import Collection, Exit, task
from invoke.parser.parser import ParseMachine

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "src"))

from cornerstone.factory.settings import Workspace  # noqa: E402
from cornerstone.model.error import Code, CornerstoneError  # noqa: E402

PROFILE = "aos-6.8"
TIERS = ["unit", "build", "image", "boot", "node"]
# A machine under emulation keeps about one CPU busy, so these two run beside each other.
MACHINES = ("boot", "node")
WORKSPACE = Workspace(ROOT)


def told(body):
    """Make a task end with one clear message and its code, for an error, Ctrl-C and SIGTERM alike."""
    @functools.wraps(body)
    def wrapper(*args, **kwargs):
        def end(*_):
            raise KeyboardInterrupt
        before = signal.signal(signal.SIGTERM, end)
        try:
            return body(*args, **kwargs)
        except CornerstoneError as error:
            raise Exit(f"error: {error}", int(error.code)) from error
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise Exit(f"error: the disk is full: {error.filename or 'while writing'}\n  hint: make room, or set "
                       "CORNERSTONE_CACHE to a larger disk; nothing half-written stays", int(Code.MACHINE)) from error
        except KeyboardInterrupt:
            raise Exit("interrupted: what was running has been ended and cleaned up", int(Code.INTERRUPTED)) from None
        finally:
            signal.signal(signal.SIGTERM, before)
    return wrapper


def ended(code: int) -> None:
    """End the task with an exit code; 0 just returns."""
    if code:
        raise Exit(code=code)


def profile_named(name: str):
    """A profile by name or path."""
    from cornerstone.model.profile import load_profile
    return load_profile(name, ROOT)


def handle(machine: ParseMachine, word: str, handle=ParseMachine.handle) -> None:
    """Take `site check` as the task site.check, and a word that is neither flag nor task as the positional argument.

    invoke itself has positional arguments only as required ones, and takes even --help for them.
    """
    collection, machine.collection = getattr(machine, "collection", ""), ""
    if collection:
        word = f"{collection}.{word}"
    waiting = machine.context and machine.waiting_for_flag_value
    argument = machine.context and next((a for a in machine.context.positional_args if a.raw_value is None), None)
    if word in ns.collections and not waiting:
        machine.collection = word
    elif argument and not (waiting or word.startswith("-") or word in machine.contexts):
        argument.value = word
    else:
        handle(machine, word)


ParseMachine.handle = handle


def iso_of(iso: str, profile: str) -> Path:
    """The ISO that a task is about: a path, or what was built for a profile."""
    path = Path(iso)
    if not iso:
        from cornerstone.factory.build import iso_path
        path = iso_path(WORKSPACE, profile_named(profile))
    if not path.is_file():
        raise CornerstoneError(f"{path} isn't there", "give the path of an ISO, or build it: "
                               f"./invoke build --profile {profile}")
    return path


@task(help={"profile": "name in profiles/, or a path", "keep": "leave the unpacked root trees for a look",
            "from_": "a folder of packages that `fetch --to` has filled, instead of a mirror"})
@told
def build(c, profile=PROFILE, keep=False, from_=""):
    """Build a profile's Foundation ISO into output/; does only what changed."""
    from cornerstone.factory.build import build as build_iso
    from cornerstone.factory.progress import Progress
    from cornerstone.model.event import JsonLines
    from cornerstone.model.manifest import NAME, Manifest
    chosen = profile_named(profile)
    print("\n".join(chosen.lines()), file=sys.stderr)
    record = JsonLines(WORKSPACE.output / chosen.name / "events.jsonl")
    with Progress() as show:
        def listener(event):
            record(event)
            show(event)
        try:
            path = build_iso(WORKSPACE, chosen, listener, keep, Path(from_) if from_ else None)
        finally:
            record.close()
    print(Manifest.from_bytes(path.with_name(NAME).read_bytes()).signed, file=sys.stderr)
    print(path)


@task(help={"profile": "name in profiles/, or a path"})
@told
def why(c, profile=PROFILE):
    """For each layer: is it there already, and which input changed since the last build."""
    from cornerstone.factory.build import why as explain
    for name, there, changed in explain(WORKSPACE, profile_named(profile)):
        print(f"{'hit ' if there else 'miss'}  {name:<16} {', '.join(changed) or 'nothing changed'}")


@task(help={"profile": "name in profiles/, or a path"})
@told
def reproduce(c, profile=PROFILE):
    """Build again in other surroundings and compare the ISOs byte for byte."""
    from cornerstone.factory.progress import Progress
    from cornerstone.factory.reproduce import reproduce as build_again
    chosen = profile_named(profile)
    with Progress() as show:
        differences = build_again(WORKSPACE, chosen, show)
    if differences:
        raise CornerstoneError("the two ISOs differ:\n  " + "\n  ".join(differences),
                               f"see {WORKSPACE.output / chosen.name / 'logs' / 'reproduce.log'}", Code.FAILED)
    print("the same bytes")


@task(positional=["iso"],
      help={"iso": "path of an ISO, also without the flag (else the profile's own)",
            "profile": "whose ISO in output/",
            "key": "public key (PEM) that must have signed it; default: the one beside the ISO"})
@told
def verify(c, iso="", profile=PROFILE, key=""):
    """Check an ISO: signature, every hash, boot entries, partition tables, and the roots inside."""
    from cornerstone.factory.verify import verify_iso
    ended(verify_iso(iso_of(iso, profile), Path(key) if key else None))


@task(positional=["a", "b"],
      help={"a": "an ISO's path, or a profile whose ISO is in output/", "b": "the same, the newer one",
            "format": "text, json or html", "files": "name each file, not only the sums by package",
            "max-growth": "fail when a root's layer or the ISO grew by more: 5% or 20MiB",
            "output": "a file to write instead of standard output"})
@told
def diff(c, a, b, format="text", files=False, max_growth="", output=""):
    """Tell what differs between two ISOs: packages, files, sizes, boot files, manifest."""
    from cornerstone.factory.diff import diff_isos
    isos = [iso_of(word, PROFILE) if "/" in word or word.endswith(".iso") else iso_of("", word) for word in (a, b)]
    diff_isos(*isos, WORKSPACE.cache, format=format, files=files, max_growth=max_growth,
              output=Path(output) if output else None)


@task(positional=["iso"],
      help={"iso": "path of an ISO, also without the flag (else the profile's own)",
            "profile": "whose ISO in output/",
            "firmware": "bios, uefi or secureboot", "media": "cd or usb", "memory": "MiB"})
@told
def boot(c, iso="", profile=PROFILE, firmware="uefi", media="cd", memory=4096):
    """Boot an ISO in QEMU to the Foundation screen, or say why it doesn't get there."""
    from cornerstone.lab.boot import boot_task
    path = iso_of(iso, profile)
    logs = WORKSPACE.output / "boots" / f"{path.stem}-{firmware}-{media}"
    ended(boot_task(path, firmware=firmware, media=media, memory_mib=memory, log_dir=logs))


@task(positional=["iso"],
      help={"iso": "path of an ISO, or the profile whose ISO in output/ it is", "site": "the site file to put in",
            "output": "leave the ISO as it is and write a customised copy", "show": "print the site that is in it",
            "reset": "take the site out again"})
@told
def customize(c, iso="", site="", output="", show=False, reset=False):
    """Put a site file into an ISO in place, show it without its secrets, or take it out again."""
    from cornerstone.factory import customize
    if not iso or [bool(site), show, reset].count(True) != 1 or (output and show):
        raise CornerstoneError("customize needs an ISO, and one of --site FILE, --show and --reset",
                               "./invoke customize ISO --site FILE [--output NEW]")
    built = WORKSPACE.output / iso / f"foundation-{iso}.iso"
    path = built if built.is_file() else iso_of(iso, PROFILE)
    if show:
        print(customize.show(path), end="")
        return
    target = Path(output) if output else None
    done = customize.reset(path, target) if reset else customize.customize(path, Path(site), target)
    print("\n".join(done))


@task(positional=["file"], help={"file": "a site file"})
@told
def check(c, file=""):
    """Check a site file and say what is in it, or everything that is wrong with it."""
    from cornerstone.factory.customize import read_file
    from cornerstone.model.site_file import read_site
    tell_site(file, read_site(read_file(named(file)), file))


@task(positional=["file"], auto_shortflags=False, help={
    "file": "the file to write", "cluster": "name of the cluster", "gateway": "with prefix length: 10.20.0.1/24",
    "hypervisors": "their addresses, with commas", "cvms": "those of their Controller VMs", "serials": "the machines'",
    "ssh_key": "public key file for root", "address": "of the cluster itself", "data_services": "address of its iSCSI "
    "target", "dns": "name servers, with commas", "ntp": "time servers, with commas", "force": "replace the file"})
@told
def new(c, file="", cluster="", gateway="", hypervisors="", cvms="", serials="", ssh_key="", address="",
        data_services="", dns="", ntp="", force=False):
    """Write a site file from flags, and from answers on a terminal where flags are missing."""
    from cornerstone.factory.site_new import new_site
    given = {"cluster": cluster, "gateway": gateway, "hypervisors": hypervisors, "cvms": cvms, "serials": serials,
             "ssh_key": ssh_key, "address": address, "data_services": data_services, "dns": dns, "ntp": ntp}
    tell_site(file, new_site(named(file), given, input if sys.stdin.isatty() else None, force=force))


def named(file: str) -> Path:
    """The site file that a task is about."""
    if not file:
        raise CornerstoneError("no site file is named", "give its path; the examples are in sites/")
    return Path(file)


def tell_site(file: str, site) -> None:
    """Print which nodes and clusters a site file has, and what its reader should know."""
    print(f"{file} is valid")
    for node in site.nodes:
        bmc = f", BMC {node.bmc.address}" if node.bmc else ""
        print(f"  {node}: hypervisor {node.hypervisor}, CVM {node.cvm}{bmc}")
    for cluster in site.clusters:
        print(f"  cluster {cluster.name}: {len(cluster.members)} of the nodes, {cluster.redundancy_factor} copies")
    for warning in site.warnings:
        print(f"note: {warning}; {warning.hint}")


@task(help={"facts": "facts.json of a machine, as `foundation discover` records it", "site": "a site file",
            "profile": "whose ISO in output/"})
@told
def plan(c, facts, site, profile=PROFILE):
    """Print what Foundation would do with a machine: the disks before and after, and every refusal."""
    from cornerstone.factory.iso_image import Image
    from cornerstone.foundation.__main__ import print_plan
    with contextlib.closing(Image(iso_of("", profile))) as image:
        ended(print_plan(Path(facts), Path(site), image.manifest))


@task(help={"profile": "name in profiles/, or a path", "site": "the site file", "firmware": "bios, uefi or secureboot",
            "media": "cd or usb", "machine": "a shape in src/cornerstone/lab/shapes, or the path of one",
            "output": "the run's folder: disks, logs, timeline (default: output/lab/...)",
            "keep": "leave the run's ssh key and its ISO with the site there too"})
@told
def install(c, profile=PROFILE, site="sites/lab-one-node.json", firmware="uefi", media="cd", machine="one-node",
            output="", keep=False):
    """Install a blank machine in QEMU from a profile's ISO, and check the node that it becomes."""
    import pytest

    from cornerstone.factory import customize
    from cornerstone.lab.install import Run, started
    from cornerstone.lab.terminal import Terminal
    chosen, shape, site_file, iso = lab_inputs(profile, machine, site)
    folder = Path(output) if output else WORKSPACE.output / "lab" / "-".join([chosen.name, Path(machine).stem, firmware,
                                                                               media])
    with best_qemu(iso):
        run = Run.prepare(folder, shape, site_file, functools.partial(customize.customize, iso), firmware, media)
        try:
            with Terminal() as terminal, started(run, listener=terminal.event) as outcome:
                terminal.verdict(outcome.verdict)
                print("\n".join(outcome.timeline.lines()))
                ended(outcome.verdict.code)
                with outcome.watched():
                    ended(int(pytest.main(["--quiet", "--no-header", str(ROOT / "tests/node/test_as_planned.py")],
                                          [outcome])))
        finally:
            if not keep:
                run.remove_secrets()
    print(f"{run.node.hostname} is installed and checked; its disks, logs and timeline are in {folder}")


def lab_inputs(profile: str, machine: str, site: str):
    """What every run of the lab begins with: profile, shape, the site file's bytes, and the profile's ISO, built."""
    from cornerstone.factory.build import build as build_iso
    from cornerstone.factory.customize import read_file
    from cornerstone.factory.progress import Progress
    from cornerstone.lab.shape import load_shape
    chosen, shape, site_file = profile_named(profile), load_shape(machine), read_file(Path(site))
    with Progress() as show:
        return chosen, shape, site_file, build_iso(WORKSPACE, chosen, show)


@contextlib.contextmanager
def best_qemu(iso: Path):
    """Run machines with the newest QEMU at hand, while the block runs."""
    from cornerstone.factory.emulator import emulator
    from cornerstone.lab.machine import QEMU_SETTING
    with emulator(iso, WORKSPACE) as program:
        os.environ.setdefault(QEMU_SETTING, program)
        yield


def lab_cluster(name: str, count: int, profile: str, site: str, machine: str, firmware: str, output: str
                ) -> None:
    """Install machines of a shape, run them as one cluster, and check what it has become."""
    import pytest

    from cornerstone.factory import customize
    from cornerstone.lab import cluster, report
    from cornerstone.lab.install import Run
    from cornerstone.lab.terminal import Terminal
    from cornerstone.model.manifest import NAME, Manifest
    chosen, shape, site_file, iso = lab_inputs(profile, machine, site)
    folder = Path(output) if output else WORKSPACE.output / "lab" / f"{chosen.name}-{name}-{firmware}"
    manifest = Manifest.from_bytes(iso.with_name(NAME).read_bytes())
    about = {"begun": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "profile": chosen.name,
             "ISO": f"identity {manifest.identity}, {manifest.signed}", "site": site,
             "machines": f"{count} of {machine}: {shape.memory_mib} MiB, {shape.cpus} CPUs, {shape.description}",
             "firmware": firmware}
    checks = report.Checks()
    with best_qemu(iso):
        run = Run.prepare(folder / "node-1", shape, site_file, functools.partial(customize.customize, iso), firmware)
        try:
            with Terminal() as terminal:
                runs = cluster.install(run, shape, count, terminal.event)
                with cluster.together(runs, lambda member, event: terminal.event(
                        dataclasses.replace(event, message=f"{member}: {event.message}"))) as formed:
                    def check(*names: str) -> None:
                        files = [str(ROOT / "tests" / "node" / f"test_{name}.py") for name in names]
                        ended(int(pytest.main(["--quiet", "--no-header", *files], [formed, checks])))
                    try:
                        # of a single one the timeline is to say how long it takes when nothing happens to it
                        if count > 1:
                            check("first_boot")
                        formed.wait_for("genesis", "ready")
                        check("formed", "data_path", "faults", "shutdown")
                    finally:
                        formed.write_timelines()
                        report.write(folder / "report.md", f"`lab {name}`", about, formed.timelines, checks)
        finally:
            run.remove_secrets()
    print(f"{count} node{'s' * (count > 1)} formed and checked; disks, logs and report.md are in {folder}")


LAB_HELP = {"profile": "name in profiles/, or a path", "site": "the site file",
            "machine": "a shape in src/cornerstone/lab/shapes, or the path of one",
            "firmware": "bios, uefi or secureboot", "output": "the run's folder (default: output/lab/...)"}


@task(help=LAB_HELP)
@told
def node(c, profile=PROFILE, site="sites/lab-one-node.json", machine="one-node", firmware="uefi", output=""):
    """From blank disks to a cluster of one node, in QEMU: its services and data path are checked."""
    lab_cluster("node", 1, profile, site, machine, firmware, output)


@task(help=LAB_HELP)
@told
def cluster(c, profile=PROFILE, site="sites/lab-three-nodes.json", machine="small-node", firmware="uefi", output=""):
    """From blank disks to a cluster of three nodes, in QEMU: its services are checked, and what it survives."""
    lab_cluster("cluster", 3, profile, site, machine, firmware, output)


@task(help={"format": "table, json, junit or markdown", "strict": "warnings fail too",
            "aos": "an AOS release, with --ahv: ask about one pair", "ahv": "an AHV build"})
@told
def matrix(c, format="table", strict=False, aos="", ahv=""):
    """Check every profile against every compatibility rule, or answer for one pair."""
    from cornerstone.factory.matrix import run_matrix
    text, code = run_matrix(ROOT, format=format, strict=strict, aos=aos or None, ahv=ahv or None)
    print(text, end="" if text.endswith("\n") else "\n")
    ended(code)


@task(help={"suite": "a Debian suite (else the profile's)", "profile": "whose suite",
            "update": "resolve anew where there is a lock that fits",
            "as-of": "a date such as 2026-11-22: the archive as it was then, from a snapshot or a frozen mirror"})
@told
def lock(c, suite="", profile=PROFILE, update=False, as_of=""):
    """Resolve the exact packages of both roots of a suite into versions/locks/."""
    from cornerstone.factory.lock import update_locks
    for line in update_locks(WORKSPACE, suite or profile_named(profile).reference.suite, update, as_of):
        print(line)


@task(help={"profile": "whose packages", "to": "a folder that gets a copy, to take to a site without a network"})
@told
def fetch(c, profile=PROFILE, to=""):
    """Fetch a profile's locked packages into the pool, so that a build needs no network."""
    from cornerstone.factory.build import fetch_all
    from cornerstone.factory.progress import Progress
    with Progress() as show:
        fetch_all(WORKSPACE, profile_named(profile), show, Path(to) if to else None)


@task(help={"tier": f"{', '.join(TIERS)}, or all of these; engine and power on demand; several with commas"})
@told
def test(c, tier="all"):
    """Run the tests; all tiers but the first build the ISOs that they need."""
    tiers = TIERS if tier == "all" else tier.split(",")
    missing = [name for name in tiers if not (ROOT / "tests" / name).is_dir()]
    if missing:
        raise CornerstoneError(f"there is no test tier {missing[0]!r}",
                               f"{', '.join(TIERS)}, engine, power or all")
    first = [name for name in tiers if name not in MACHINES]
    code = pytests([first]) if first else 0
    if machines := [[name] for name in tiers if name in MACHINES]:
        code = max(code, pytests(machines))
    ended(code)


def pytests(groups: list[list[str]]) -> int:
    """Run pytest on each group of tiers, all at the same time; returns the worst exit code.

    What the first says is seen as it goes, the others' at the end. output/junit-TIERS.xml has the results of each.
    """
    running = []
    try:
        for tiers in groups:
            name = "-".join(tiers)
            log = WORKSPACE.output / f"test-{name}.log"
            argv = [sys.executable, "-m", "pytest", f"--junitxml={WORKSPACE.output / f'junit-{name}.xml'}",
                    *(ROOT / "tests" / tier for tier in tiers)]
            # A session of its own: Ctrl-C is passed on once, and waited for, so that its machines are ended in order.
            with log.open("wb") if running else contextlib.nullcontext() as out:
                running.append((subprocess.Popen(argv, cwd=ROOT, stdout=out, stderr=out, start_new_session=True), log))
        return max(process.wait() for process, _ in running)
    finally:
        for process, _ in running:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait()
        for _, log in running[1:]:
            sys.stdout.write(log.read_text(encoding="utf-8", errors="replace"))


@task
@told
def lint(c):
    """Check style, imports, elements and shell scripts."""
    bin_dir = Path(sys.executable).parent
    scripts = subprocess.run(["git", "grep", "--untracked", "-lE", r"^#!/bin/(ba)?sh|^#!/usr/bin/env bash"], cwd=ROOT,
                             capture_output=True, text=True, check=True).stdout.split()
    shell = [name for name in scripts if not name.endswith((".py", ".j2", ".md"))]
    empty = WORKSPACE.output / "lint"
    empty.mkdir(parents=True, exist_ok=True)
    checks = {
        "ruff": [bin_dir / "ruff", "check", "."],
        "import-linter": [bin_dir / "lint-imports"],
        "shellcheck": ["shellcheck", "--severity=warning", *shell],
        "dib-lint": [bin_dir / "dib-lint"],
    }
    env = {**os.environ, "ELEMENTS_DIR": str(ROOT / "elements"), "LIB_DIR": str(empty), "PYTHONPATH": str(ROOT / "src")}
    failed = []
    for name, argv in checks.items():
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        print(f"{'✗' if done.returncode else '✓'} {name}")
        if done.returncode:
            print(done.stdout + done.stderr)
            failed.append(name)
    if failed:
        raise CornerstoneError(f"{', '.join(failed)} found something", "mend what is listed above", Code.FAILED)


@task(help={"profile": "what is built", "case": "names with commas (default: all)", "rounds": "how often each is run",
            "output": "where bench.json and bench.md go (default: output/bench)", "strict": "a missed target fails"})
@told
def bench(c, profile=PROFILE, case="", rounds=3, output="", strict=False):
    """Measure builds, mastering and peers side by side, against their targets."""
    from rich.console import Console

    from cornerstone.factory.bench.run import run_bench, verdict
    from cornerstone.factory.bench.table import show
    from cornerstone.factory.progress import Progress
    folder = Path(output) if output else WORKSPACE.output / "bench"
    with Progress() as progress:
        results = run_bench(WORKSPACE, profile_named(profile), case, rounds, folder, progress)
    show(Console(width=None if sys.stdout.isatty() else 160), results)
    print(folder / "bench.md")
    ended(verdict(results, strict))


@task(help={"cache": "the pool of packages, the layers and the development key too"})
def clean(c, cache=False):
    """Remove what was built; keep the cache unless asked."""
    for path in WORKSPACE.output.iterdir():
        if path.name == "README.md" or (path.name == "cache" and not cache):
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()


ns = Collection(build, why, reproduce, verify, customize, diff, plan, boot, matrix, lock, fetch, test, lint, bench,
                clean, site=Collection(check, new), lab=Collection(install, node, cluster))
ns.configure({"run": {"in_stream": False}})

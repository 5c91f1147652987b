"""Cornerstone's tasks: `./invoke --list`. Thin: each one calls the library below src/."""

from __future__ import annotations

import sys
from pathlib import Path

from invoke import Collection, Exit, task

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "src"))

from cornerstone.cli.inputs import check_folder, find_iso, find_profile, find_profiles  # noqa: E402
from cornerstone.cli.program import CommandLine  # noqa: E402
from cornerstone.cli.testing import ON_DEMAND, TIERS  # noqa: E402
from cornerstone.factory.settings import Workspace, check_settings  # noqa: E402
from cornerstone.lib.error import CornerstoneError  # noqa: E402

# What isn't imported above is imported by the tasks that need it: a listing or a completion is to take no time.

WORKSPACE = Workspace(ROOT)
PROFILE = "name in profiles/, or a path (default: aos-6.8)"
ISO = "path of an ISO, or the profile whose ISO in output/ it is (default: aos-6.8)"
MEDIUM = "path of an ISO or of a device with one, or the profile whose ISO in output/ it is (default: aos-6.8)"
JSON = "text or json"
JUNIT = "a folder that gets reports in JUnit's form"


def finish(code: int) -> None:
    """End the command with an exit code; 0 goes on with the next task."""
    if code:
        raise Exit(code=code)


def optional(path: str) -> Path | None:
    """The path, or None where none is given."""
    return Path(path) if path else None


def tell(text: str, file: Path | None) -> None:
    """Print a text, or write it into a file, whose folder is made."""
    text = text.rstrip("\n") + "\n"
    if file is None:
        print(text, end="")
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        # the name of a file may hold bytes that are no text
        file.write_text(text, encoding="utf-8", errors="replace")


@task(positional=["profile"], help={
    "profile": "name in profiles/ or a path, several with commas, or all (default: aos-6.8)",
    "keep": "leave the unpacked root trees for a look",
    "from_": "a folder of packages that `fetch --to` has filled, instead of a mirror"})
def build(c, profile="", keep=False, from_=""):
    """Build a profile's Foundation ISO into output/; does only what changed."""
    from cornerstone.cli.up_to_date import tell_up_to_date
    from cornerstone.factory.build.unchanged import look
    inputs = look(WORKSPACE, profile)
    if keep or from_ or not tell_up_to_date(WORKSPACE, profile, inputs):
        from cornerstone.cli.building import build_all
        finish(build_all(WORKSPACE, find_profiles(WORKSPACE, profile), keep, optional(from_), inputs))


@task(positional=["profile"], help={"profile": PROFILE, "format": JSON})
def why(c, profile="", format="text"):
    """For each layer: is it there already, and which input changed since the last build."""
    from cornerstone.cli.building import tell_why
    tell_why(WORKSPACE, find_profile(WORKSPACE, profile), format)


@task(positional=["profile"], help={"profile": PROFILE})
def reproduce(c, profile=""):
    """Build again in other surroundings and compare the ISOs byte for byte."""
    from cornerstone.cli.building import tell_reproduced
    tell_reproduced(WORKSPACE, find_profile(WORKSPACE, profile))


@task(help={"format": "table or json"})
def profiles(c, format="table"):
    """List what can be cut: each profile with its releases and what the rules say of it."""
    from cornerstone.cli.profiles import tell_profiles
    finish(tell_profiles(WORKSPACE, format))


@task(positional=["iso"], help={
    "iso": MEDIUM, "profile": "whose ISO in output/, in place of --iso", "format": JSON, "junit": JUNIT,
    "key": "public key (PEM) that must have signed it; default: the one beside the ISO"})
def verify(c, iso="", profile="", key="", format="text", junit=""):
    """Check an ISO or a written stick: signature, every hash, boot entries, partition tables, and the roots inside."""
    from cornerstone.factory.verify.verify import verify_iso
    check_folder("--junit", optional(junit))
    finish(verify_iso(find_iso(WORKSPACE, iso, profile, device=True), optional(key), format, optional(junit)))


@task(positional=["a", "b"], help={
    "a": "an ISO's path, or a profile whose ISO is in output/", "b": "the same, the newer one",
    "format": "text, json or html", "files": "name each file, not only the sums by package",
    "max-growth": "fail when a root's layer or the ISO grew by more: 5% or 20MiB",
    "output": "a file to write instead of standard output"})
def diff(c, a, b, format="text", files=False, max_growth="", output=""):
    """Tell what differs between two ISOs: packages, files, sizes, boot files, manifest."""
    from cornerstone.factory.diff import diff_isos
    diff_isos(find_iso(WORKSPACE, a), find_iso(WORKSPACE, b), WORKSPACE.cache, format=format, files=files,
              max_growth=max_growth, output=optional(output))


@task(positional=["iso"], help={
    "iso": ISO, "profile": "whose ISO in output/, in place of --iso", "firmware": "bios, uefi, secureboot, several "
    "with commas, or all", "media": "cd, usb, several with commas, or all; disk for a disk image", "memory": "MiB",
    "junit": JUNIT})
def boot(c, iso="", profile="", firmware="uefi", media="cd", memory=4096, junit=""):
    """Boot an ISO in QEMU to the Foundation screen, or say why it doesn't get there."""
    from cornerstone.cli.booting import boot_ways
    path = find_iso(WORKSPACE, iso, profile)
    finish(boot_ways(path, firmware, media, memory, WORKSPACE.output / "boots", optional(junit)))


# Without short flags where invoke would make one -h, which is --help.
@task(positional=["iso"], iterable=["kernel_argument"], auto_shortflags=False, help={
    "iso": MEDIUM, "site": "the site file to put in", "output": "leave the ISO as it is and write a customised copy",
    "console": "the serial port that GRUB and the kernel use, as ttyS1,115200",
    "kernel_argument": "an argument for the kernel of the ISO; several may be given",
    "show": "print the site that is in it, as JSON", "reset": "take all of it out again"})
def customize(c, iso="", site="", output="", console="", kernel_argument=None, show=False, reset=False):
    """Put a site file or boot settings into an ISO or onto a written stick, show them, or take them out again."""
    from cornerstone.cli.telling import customize_iso
    customize_iso(WORKSPACE, iso, site, output, console, kernel_argument or (), show=show, reset=reset)


@task(positional=["file"], iterable=["file"], help={"file": "a site file; several may be given", "format": JSON})
def check(c, file, format="text"):
    """Check site files and say what is in them, or everything that is wrong with them."""
    from cornerstone.cli.telling import check_sites
    finish(check_sites(file, format))


@task(positional=["file"], auto_shortflags=False, help={
    "file": "the file to write", "cluster": "name of the cluster", "gateway": "with prefix length: 10.20.0.1/24",
    "hypervisors": "their addresses, with commas", "cvms": "those of their Controller VMs", "serials": "the machines'",
    "ssh_key": "public key file for root", "address": "of the cluster itself", "data_services": "address of its iSCSI "
    "target", "dns": "name servers, with commas", "ntp": "time servers, with commas", "force": "replace the file"})
def new(c, file="", cluster="", gateway="", hypervisors="", cvms="", serials="", ssh_key="", address="",
        data_services="", dns="", ntp="", force=False):
    """Write a site file from flags, and from answers on a terminal where flags are missing."""
    from cornerstone.cli.telling import write_site
    write_site(file, {"cluster": cluster, "gateway": gateway, "hypervisors": hypervisors, "cvms": cvms,
                      "serials": serials, "ssh_key": ssh_key, "address": address, "data_services": data_services,
                      "dns": dns, "ntp": ntp}, force)


@task(positional=["facts", "site"], help={
    "facts": "facts.json of a machine, as `foundation discover` records it", "site": "a site file",
    "profile": PROFILE, "iso": "plan with an ISO that is there, in place of --profile", "format": JSON})
def plan(c, facts, site, profile="", iso="", format="text"):
    """Print what Foundation would do with a machine: the disks before and after, and every refusal."""
    from cornerstone.cli.telling import tell_plan
    finish(tell_plan(WORKSPACE, Path(facts), Path(site), iso, profile, format))


LAB = {"profile": PROFILE, "site": "the site file (default: one of sites/ for the lab)",
       "machine": "a shape in src/cornerstone/lab/shapes, or the path of one", "firmware": "bios, uefi or secureboot",
       "output": "the run's folder: disks, logs, timeline (default: output/lab/...)"}


@task(help={**LAB, "media": "cd or usb", "keep": "leave the run's ssh key and its ISO with the site there too"})
def install(c, profile="", site="", firmware="uefi", media="cd", machine="one-node", output="", keep=False):
    """Install a blank machine in QEMU from a profile's ISO, and check the node that it becomes."""
    from cornerstone.cli import lab
    bench = lab.Bench.read(WORKSPACE, profile, site, "lab-one-node.json", machine, firmware, media)
    finish(lab.install(bench, firmware, media, output, keep))


@task(help={**LAB})
def node(c, profile="", site="", machine="one-node", firmware="uefi", output=""):
    """From blank disks to a cluster of one node, in QEMU: its services and data path are checked."""
    from cornerstone.cli import lab
    bench = lab.Bench.read(WORKSPACE, profile, site, "lab-one-node.json", machine, firmware)
    lab.form(bench, "node", 1, firmware, output)


@task(help={**LAB})
def cluster(c, profile="", site="", machine="small-node", firmware="uefi", output=""):
    """From blank disks to a cluster of three nodes, in QEMU: its services are checked, and what it survives."""
    from cornerstone.cli import lab
    bench = lab.Bench.read(WORKSPACE, profile, site, "lab-three-nodes.json", machine, firmware)
    lab.form(bench, "cluster", 3, firmware, output)


@task(auto_shortflags=False, help={
    "format": "table, json, junit or markdown", "strict": "warnings fail too",
    "aos": "an AOS release, with --ahv: ask about one pair", "ahv": "an AHV build",
    "output": "a file to write instead of standard output"})
def matrix(c, format="table", strict=False, aos="", ahv="", output=""):
    """Check every profile against every compatibility rule, or answer for one pair."""
    from cornerstone.factory.matrix import run_matrix
    text, code = run_matrix(ROOT, format=format, strict=strict, aos=aos or None, ahv=ahv or None)
    tell(text, optional(output))
    finish(code)


@task(help={"suite": "a Debian suite (else the profile's)",
            "profile": "whose suite, and whose own packages (default: aos-6.8)",
            "update": "resolve anew where there is a lock that fits",
            "as-of": "a date such as 2026-11-22: the archive as it was then, from a snapshot or a frozen mirror"})
def lock(c, suite="", profile="", update=False, as_of=""):
    """Resolve the exact packages of both roots of a suite, or of a profile, into versions/locks/."""
    from cornerstone.factory.packages.lock import update_locks
    if suite and profile:
        raise CornerstoneError(f"--suite {suite} and --profile {profile} are both given",
                               "a profile has its suite inside: give one of them")
    chosen = None if suite else find_profile(WORKSPACE, profile)
    for line in update_locks(WORKSPACE, chosen.reference.suite if chosen else suite, update, as_of, chosen):
        print(line)


@task(positional=["profile"], help={
    "profile": PROFILE, "to": "a folder that gets a copy, to take to a site without a network"})
def fetch(c, profile="", to=""):
    """Fetch a profile's locked packages into the pool, so that a build needs no network."""
    from cornerstone.factory.build.build import fetch_all
    from cornerstone.factory.build.progress import Progress
    check_folder("--to", optional(to))
    with Progress() as show:
        fetch_all(WORKSPACE, find_profile(WORKSPACE, profile), show, optional(to))


@task(positional=["tier"], help={
    "tier": f"{', '.join(TIERS)}, or all of these; {' and '.join(ON_DEMAND)} on demand; several with commas",
    "nightly": "with the tests that are too slow for each change"})
def test(c, tier="all", nightly=False):
    """Run the tests; all tiers but the first build the ISOs that they need."""
    from cornerstone.cli.testing import run_tiers
    finish(run_tiers(WORKSPACE, tier, nightly))


@task
def lint(c):
    """Check style, imports, elements and shell scripts."""
    from cornerstone.cli.lint import lint
    lint(WORKSPACE)


@task
def schema(c):
    """Write the JSON Schemas of profiles, sites, facts and reports anew from the code."""
    from cornerstone.cli.schemas import write_schemas
    for path in write_schemas(WORKSPACE):
        print(path)


@task(help={"profile": PROFILE, "case": "names with commas (default: all)", "rounds": "how often each is run",
            "output": "where bench.json and bench.md go (default: output/bench)", "strict": "a missed target fails"})
def bench(c, profile="", case="", rounds=3, output="", strict=False):
    """Measure builds, mastering and peers side by side, against their targets."""
    from cornerstone.cli.building import tell_bench
    finish(tell_bench(WORKSPACE, find_profile(WORKSPACE, profile), case, rounds, optional(output), strict))


@task(help={"cache": "the pool of packages, the layers and the development key too"})
def clean(c, cache=False):
    """Remove what was built, and name it; keep the cache unless asked."""
    from cornerstone.cli.cleaning import clean
    for path in clean(WORKSPACE, cache):
        print(f"removed {path}")


ns = Collection(build, why, reproduce, profiles, verify, customize, diff, plan, boot, matrix, lock, fetch, test, lint,
                schema, bench, clean, site=Collection(check, new), lab=Collection(install, node, cluster))


def command_line() -> CommandLine:
    """The program that runs these tasks."""
    return CommandLine(ns, ROOT, before=lambda: check_settings(WORKSPACE))


if __name__ == "__main__":
    command_line().run()

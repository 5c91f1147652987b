"""`invoke lab.*`: the factory's ISO and the lab's machines put together, and the tests of what becomes of them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from invoke import Exit

from cornerstone.cli.building import build_one
from cornerstone.cli.inputs import find_profile
from cornerstone.cli.testing import judge
from cornerstone.customize import customize
from cornerstone.factory.inspection.emulator import emulator
from cornerstone.factory.settings import Workspace
from cornerstone.factory.signing.signing import forget
from cornerstone.lab import cluster, report
from cornerstone.lab.install import Run, started
from cornerstone.lab.machine import FIRMWARES, MEDIA, QEMU_SETTING
from cornerstone.lab.shape import Shape, load_shape
from cornerstone.lab.terminal import Terminal
from cornerstone.lib.error import CornerstoneError
from cornerstone.model.contracts.manifest import NAME, Manifest
from cornerstone.model.profile.profile import Profile
from cornerstone.model.site.file import check_releases, read_site


@dataclass(frozen=True)
class Bench:
    """The inputs of a run of the lab. site_file: the content of the site file at the path site."""

    workspace: Workspace
    profile: Profile
    site: Path
    site_file: bytes
    shape: Shape
    machine: str

    @classmethod
    def read(cls, workspace: Workspace, profile: str, site: str, default_site: str, machine: str, firmware: str,
             media: str = "cd") -> Bench:
        """Read and check all inputs, before an ISO is built for them. Raises CornerstoneError for what is wrong.

        site "" is the shipped file default_site.
        """
        for flag, word, known in (("firmware", firmware, FIRMWARES), ("media", media, MEDIA[:2])):
            if word not in known:
                raise CornerstoneError(f"--{flag} {word!r} is unknown", f"use one of {', '.join(known)}")
        path = Path(site) if site else workspace.root / "sites" / default_site
        chosen, content = find_profile(workspace, profile), customize.read_file(path)
        check_releases(read_site(content, str(path)), chosen.aos, chosen.ahv)
        return cls(workspace, chosen, path, content, load_shape(machine), machine)

    def folder(self, output: str, *names: str) -> Path:
        """Where the run's files go: output, or a folder below output/lab/ of profile and names."""
        return Path(output).absolute() if output else \
            self.workspace.output / "lab" / "-".join([self.profile.name, *names])

    def run_tests(self, names: list[str], *plugins: object) -> None:
        """Run modules of tests/node. Raises Exit (FAILED) when a test fails, and CornerstoneError as judge does."""
        files = [str(self.workspace.root / "tests" / "node" / f"test_{name}.py") for name in names]
        if code := judge(int(pytest.main(["--quiet", "--no-header", "-m", "", *files], plugins))):
            raise Exit(code=code)


def install(bench: Bench, firmware: str, media: str, output: str, keep: bool) -> int:
    """Install a blank machine and test the node that it becomes; returns the exit code of the installation."""
    folder = bench.folder(output, Path(bench.machine).stem, firmware, media)
    iso = build_one(bench.workspace, bench.profile)
    forget()
    with best_qemu(iso, bench.workspace):
        run = Run.prepare(folder, bench.shape, bench.site_file, functools.partial(customize.customize, iso), firmware,
                          media)
        try:
            with Terminal() as terminal, started(run, listener=terminal.event) as outcome:
                terminal.verdict(outcome.verdict)
                print("\n".join(outcome.timeline.lines()))
                if outcome.verdict.code:
                    return int(outcome.verdict.code)
                with outcome.watched():
                    bench.run_tests(["as_planned"], outcome)
        finally:
            if not keep:
                run.remove_secrets()
    print(f"{run.node.hostname} is installed and checked; its disks, logs and timeline are in {folder}")
    return 0


def form(bench: Bench, name: str, count: int, firmware: str, output: str) -> None:
    """Install count machines, run them as one cluster, and test what it has become."""
    folder = bench.folder(output, name, firmware)
    iso = build_one(bench.workspace, bench.profile)
    forget()
    manifest = Manifest.from_bytes(iso.with_name(NAME).read_bytes())
    shape = bench.shape
    about = {"begun": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "profile": bench.profile.name,
             "ISO": f"identity {manifest.identity}, {manifest.signed}", "site": bench.site.name,
             "machines": f"{count} of {bench.machine}: {shape.memory_mib} MiB, {shape.cpus} CPUs, {shape.description}",
             "firmware": firmware}
    checks = report.Checks()
    with best_qemu(iso, bench.workspace):
        run = Run.prepare(folder / "node-1", shape, bench.site_file, functools.partial(customize.customize, iso),
                          firmware)
        try:
            with Terminal() as terminal:
                runs = cluster.install(run, shape, count, terminal.event)
                with cluster.together(runs, lambda member, event: terminal.event(
                        dataclasses.replace(event, message=f"{member}: {event.message}"))) as formed:
                    try:
                        # of a single one the timeline is to say how long it takes when nothing happens to it
                        if count > 1:
                            bench.run_tests(["first_boot"], formed, checks)
                        formed.wait_for("genesis", "ready")
                        bench.run_tests(["formed", "data_path", "faults", "shutdown"], formed, checks)
                    finally:
                        formed.write_timelines()
                        report.write(folder / "report.md", f"`lab.{name}`", about, formed.timelines, checks)
        finally:
            run.remove_secrets()
    print(f"{count} node{'s' * (count > 1)} formed and checked; disks, logs and report.md are in {folder}")


@contextlib.contextmanager
def best_qemu(iso: Path, workspace: Workspace) -> Iterator[None]:
    """Run machines with the newest QEMU at hand, while the block runs."""
    with emulator(iso, workspace) as program:
        os.environ.setdefault(QEMU_SETTING, program)
        yield

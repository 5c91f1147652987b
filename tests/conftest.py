"""What the tiers share: the ISO of a profile, built when it isn't there or isn't current."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from cornerstone.factory.build.build import build
from cornerstone.factory.build.progress import Progress
from cornerstone.factory.inspection.emulator import emulator as best_emulator
from cornerstone.factory.settings import Workspace
from cornerstone.lab.machine import QEMU_SETTING
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.profile.profile import load_profile

ROOT = Path(__file__).resolve().parent.parent

# Whoever is started in the background, as Jenkins starts its steps, inherits that SIGINT is ignored; what the tests
# start and then interrupt would inherit it from them.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in each run and on each machine, and no time limit for one of them: machines are busy.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


def pytest_exception_interact(node, call):
    """Ctrl-C while a machine runs ends it in order, as an error of its test: then it ends all tests."""
    error = call.excinfo.value
    if isinstance(error, CornerstoneError) and error.code == Code.INTERRUPTED:
        node.session.shouldstop = error.message


@functools.cache
def built_iso(profile: str) -> Path:
    """Build a profile's ISO as `invoke build` does; the second call in a run only returns the path."""
    print(f"\nbuilding {profile}", file=sys.stderr)
    with Progress() as show:
        return build(Workspace(ROOT), load_profile(profile, ROOT), show)


@pytest.fixture(scope="session")
def iso() -> Path:
    """The ISO of the first profile, on the newer suite."""
    return built_iso("aos-6.8")


@pytest.fixture(scope="session")
def emulator(iso) -> Iterator[None]:
    """Machines run with the best QEMU that there is."""
    with best_emulator(iso, Workspace(ROOT)) as program, pytest.MonkeyPatch.context() as settings:
        settings.setenv(QEMU_SETTING, program)
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's."""
    return ROOT


@pytest.fixture(scope="session")
def site_file() -> Path:
    """The site of the lab's one node."""
    return ROOT / "sites" / "lab-one-node.json"


@pytest.fixture(scope="session")
def runs() -> Path:
    """Where runs of the lab have their folders: logs, timelines, disks. They stay after the tests."""
    return ROOT / "output" / "lab"


@pytest.fixture(scope="session")
def older_iso() -> Path:
    """An ISO of a profile on the older suite."""
    return built_iso("aos-6.7")

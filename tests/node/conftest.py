"""Nodes for the tests: each way is installed once in a session, and runs while its tests do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import testinfra

from cornerstone.factory.customize import customize
from cornerstone.factory.iso_image import Image
from cornerstone.lab.install import Outcome, Run, started
from cornerstone.lab.shape import load_shape
from cornerstone.model.manifest import Manifest

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "sites" / "lab-one-node.json"
# Firmware and medium. Each boots the ISO, so the boot tier leaves these ways out.
WAYS = [("bios", "usb"), ("secureboot", "cd")]


@dataclass
class Installed:
    """A node of the lab that runs, and what it was made from."""

    outcome: Outcome

    @property
    def run(self) -> Run:
        return self.outcome.run

    @cached_property
    def manifest(self) -> Manifest:
        image = Image(self.run.iso)
        try:
            return image.manifest
        finally:
            image.close()

    @cached_property
    def host(self):
        """The node, for testinfra."""
        return testinfra.get_host(self.run.access.url, ssh_config=str(self.run.access.config))


def pytest_generate_tests(metafunc):
    if "node" in metafunc.fixturenames:
        given = [plugin for plugin in metafunc.config.pluginmanager.get_plugins() if isinstance(plugin, Outcome)]
        metafunc.parametrize("node", given or WAYS, indirect=True, scope="session",
                             ids=["given"] if given else ["-".join(way) for way in WAYS])


@pytest.fixture(scope="session")
def folder() -> Path:
    """Where the runs of the tests have their folders: logs, timelines, disks."""
    return ROOT / "output" / "lab"


@pytest.fixture(scope="session")
def node(request):
    """An installed node. `invoke lab install` gives its own; else one is installed here."""
    if isinstance(request.param, Outcome):
        yield Installed(request.param)
        return
    firmware, media = request.param
    iso, folder = request.getfixturevalue("iso"), request.getfixturevalue("folder")
    run = Run.prepare(folder / f"test-{firmware}-{media}", load_shape("one-node"), SITE.read_bytes(),
                      lambda site, to: customize(iso, site, to), firmware, media)
    try:
        with started(run) as outcome:
            outcome.check()
            with outcome.watched():
                yield Installed(outcome)
    finally:
        run.remove_secrets()

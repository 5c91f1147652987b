"""Nodes for the tests: each way is installed once in a session, and runs while its tests do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pytest
import testinfra

from cornerstone.factory.customize import customize
from cornerstone.factory.iso_image import Image
from cornerstone.lab.install import Outcome, Run, started
from cornerstone.lab.shape import load_shape
from cornerstone.model.manifest import Manifest

# Firmware and medium. `./invoke lab install` does the other ways on demand.
WAYS = [("bios", "cd"), ("secureboot", "usb")]


@dataclass
class Installed:
    """A node of the lab that runs, and what it was made from."""

    installing: Outcome

    @property
    def run(self) -> Run:
        return self.installing.run

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
        given = [plugin for plugin in metafunc.config.pluginmanager.get_plugins()
                 if isinstance(plugin, Outcome)]
        metafunc.parametrize("node", given or WAYS, indirect=True, scope="session",
                             ids=["given"] if given else ["-".join(way) for way in WAYS])


@pytest.fixture(scope="session")
def node(request):
    """An installed node. `invoke lab install` gives its own; else one is installed here."""
    if isinstance(request.param, Outcome):
        yield Installed(request.param)
        return
    iso, site_file, runs = map(request.getfixturevalue, ("iso", "site_file", "runs"))
    run = Run.prepare(runs / "-".join(["test", *request.param]), load_shape("one-node"), site_file.read_bytes(),
                      lambda site, to: customize(iso, site, to), *request.param)
    try:
        with started(run) as outcome:
            outcome.check()
            with outcome.watched():
                yield Installed(outcome)
    finally:
        run.remove_secrets()

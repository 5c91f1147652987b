"""Nodes for the tests: each way is installed once in a session, and runs while its tests do, until it is a cluster."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

import pytest
import testinfra

from cornerstone.factory.customize import customize
from cornerstone.factory.iso_image import Image
from cornerstone.lab.access import Access, names
from cornerstone.lab.cluster import LIMITS, Cluster
from cornerstone.lab.install import Outcome, Run, started
from cornerstone.lab.shape import load_shape
from cornerstone.lab.watch import Watch
from cornerstone.model.manifest import Manifest

# Firmware and medium. `./invoke lab install` does the other ways on demand.
WAYS = [("secureboot", "usb")]


@dataclass
class Installed:
    """A node of the lab that runs, and what it was made from; watch: while somebody hears it."""

    installing: Outcome
    watch: Watch | None = None

    @property
    def run(self) -> Run:
        return self.installing.run

    @property
    def access(self) -> Access:
        return self.run.access

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
        return testinfra.get_host(self.access.url, ssh_config=str(self.access.config))

    def wait_for(self, stage: str, step: str, state: str = "done") -> None:
        """Until it has told this event."""
        self.watch.wait_for(f"{stage}/{step} {state}", lambda event: (event.stage, event.step, event.state)
                            == (stage, step, state), LIMITS)


def pytest_generate_tests(metafunc):
    if "node" in metafunc.fixturenames:
        given = [plugin for plugin in metafunc.config.pluginmanager.get_plugins()
                 if isinstance(plugin, Outcome | Cluster)]
        metafunc.parametrize("node", given or WAYS, indirect=True, scope="session",
                             ids=["given"] if given else ["-".join(way) for way in WAYS])


@pytest.fixture(scope="session")
def node(request):
    """An installed node. `invoke lab install` gives its own; else one is installed here.

    `invoke lab node` and `invoke lab cluster` give all of theirs at once, for the tests of what they have become.
    """
    if isinstance(request.param, Cluster):
        yield request.param
        return
    if isinstance(request.param, Outcome):
        yield Installed(request.param)
        return
    iso, site_file, runs = map(request.getfixturevalue, ("iso", "site_file", "runs"))
    run = Run.prepare(runs / "-".join(["test", *request.param]), load_shape("one-node"), site_file.read_bytes(),
                      lambda site, to: customize(iso, site, to), *request.param)
    try:
        with started(run) as outcome:
            outcome.check()
            with outcome.watched() as watch:
                yield Installed(outcome, watch)
    finally:
        run.remove_secrets()


@dataclass
class Member:
    """One node of a cluster: its hypervisor and its Controller VM, for testinfra."""

    host: testinfra.host.Host
    cvm: testinfra.host.Host

    @cached_property
    def config(self) -> dict:
        """Its node.json."""
        return json.loads(self.host.file("/var/lib/cornerstone/node.json").content_string)


@pytest.fixture(scope="session")
def members(node) -> list[Member]:
    """The nodes of the cluster that is given, when every CVM is ready."""
    node.wait_for("genesis", "ready")
    count = len(node.members) if isinstance(node, Cluster) else 1
    hosts, cvms = ([testinfra.get_host(f"ssh://{name}", ssh_config=str(node.access.config))
                    for name in names(kind, count)] for kind in ("node", "cvm"))
    return list(map(Member, hosts, cvms))

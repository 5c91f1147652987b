"""Nodes for the tests: each way is installed once in a session, and runs while its tests do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

import pytest
import testinfra

from cornerstone.factory.customize import customize
from cornerstone.factory.iso_image import Image
from cornerstone.lab.access import names
from cornerstone.lab.cluster import Cluster
from cornerstone.lab.install import Outcome, Run
from cornerstone.lab.power import Cut, Survived, installed_in_spite
from cornerstone.lab.shape import load_shape
from cornerstone.model.manifest import Manifest

# Firmware and medium, and where the power is cut before the machine is left in peace. `./invoke lab install` does the
# other ways on demand, and the tier `power` all the cuts.
WAYS = {("secureboot", "usb"): (Cut("root", 40), Cut(first_boot="controller")), ("bios", "cd"): ()}


@dataclass
class Installed:
    """A node of the lab that runs, how it came to that, and what it was made from."""

    survived: Survived

    @property
    def installing(self) -> Outcome:
        """The start of the machine in which it was imaged."""
        return self.survived.installing

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
                 if isinstance(plugin, Outcome | Cluster)]
        # what a cluster has become is only looked at where one is given
        ways = [] if "members" in metafunc.fixturenames else list(WAYS)
        metafunc.parametrize("node", given or ways, indirect=True, scope="session",
                             ids=["given"] if given else ["-".join(way) for way in ways])


@pytest.fixture(scope="session")
def node(request):
    """An installed node. `invoke lab install` gives its own; else one is installed here.

    `invoke lab node` and `invoke lab cluster` give all of theirs at once, for the tests of what they have become.
    """
    if isinstance(request.param, Cluster):
        yield request.param
        return
    if isinstance(request.param, Outcome):
        yield Installed(Survived(request.param, request.param))
        return
    iso, site_file, runs = map(request.getfixturevalue, ("iso", "site_file", "runs"))
    run = Run.prepare(runs / "-".join(["test", *request.param]), load_shape("one-node"), site_file.read_bytes(),
                      lambda site, to: customize(iso, site, to), *request.param)
    try:
        with installed_in_spite(run, WAYS[request.param]) as survived, survived.outcome.watched():
            yield Installed(survived)
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
    hosts, cvms = ([testinfra.get_host(f"ssh://{name}", ssh_config=str(node.access.config))
                    for name in names(kind, len(node.members))] for kind in ("node", "cvm"))
    return list(map(Member, hosts, cvms))

"""A cluster of the lab that runs, given by `invoke lab node` or `invoke lab cluster`, or formed here from three."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

import pytest
import testinfra

from cornerstone.factory.customize import customize
from cornerstone.lab.access import names
from cornerstone.lab.cluster import Cluster, install, together
from cornerstone.lab.install import Run
from cornerstone.lab.shape import load_shape


@pytest.fixture(scope="session")
def cluster(request):
    """The cluster, formed."""
    given = [plugin for plugin in request.config.pluginmanager.get_plugins() if isinstance(plugin, Cluster)]
    if given:
        yield given[0]
        return
    iso, runs, root = map(request.getfixturevalue, ("iso", "runs", "root"))
    shape = load_shape("small-node")
    site = (root / "sites" / "lab-three-nodes.json").read_bytes()
    run = Run.prepare(runs / "test-cluster" / "node-1", shape, site, lambda file, to: customize(iso, file, to))
    try:
        with together(install(run, shape, 3)) as formed:
            formed.wait_for("genesis", "ready")
            yield formed
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


def hosts(cluster, kind: str) -> list[testinfra.host.Host]:
    return [testinfra.get_host(f"ssh://{name}", ssh_config=str(cluster.access.config))
            for name in names(kind, len(cluster.members))]


@pytest.fixture(scope="session")
def nodes(cluster):
    """The hypervisors, for testinfra."""
    return hosts(cluster, "node")


@pytest.fixture(scope="session")
def cvms(cluster):
    """The Controller VMs, for testinfra."""
    return hosts(cluster, "cvm")


@pytest.fixture(scope="session")
def members(cluster, nodes, cvms) -> list[Member]:
    """The nodes of the cluster, when every CVM is ready."""
    cluster.wait_for("genesis", "ready")
    return list(map(Member, nodes, cvms))

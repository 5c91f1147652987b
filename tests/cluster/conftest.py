"""A cluster of the lab that runs, given by `invoke lab node` or `invoke lab cluster`, or formed here from three."""

from __future__ import annotations

import pytest

from cornerstone.factory.customize import customize
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

"""Machines of the lab for the tests: nodes as they were installed, and a cluster that has formed.

`invoke lab.install` gives its own node, `invoke lab.node` and `lab.cluster` their own cluster; else they are made here.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import pytest
import testinfra

from cornerstone.customize.customize import customize
from cornerstone.customize.iso_image import Image
from cornerstone.lab.access import names
from cornerstone.lab.cluster import Cluster, alone
from cornerstone.lab.guest import LabGuest
from cornerstone.lab.install import Outcome, Run, started
from cornerstone.lab.shape import load_shape
from cornerstone.model.contracts.iscsi import device_name
from cornerstone.model.contracts.manifest import Manifest

GROUP = "io-check"
# a busy CVM, emulated in an emulated host, takes its time to let in; else testinfra waits for ten seconds
LOGIN_SECONDS = 300
# Firmware and medium: of the node that goes on to a cluster, and of another. `invoke lab.install` does each on demand.
TO_CLUSTER = ("secureboot", "usb")
OTHER = ("bios", "cd")


def given(config, kind: type):
    """What a task of the lab has given to these tests, or None."""
    return next((plugin for plugin in config.pluginmanager.get_plugins() if isinstance(plugin, kind)), None)


def pytest_ignore_collect(collection_path, config) -> bool | None:
    """What nodes survive takes long under emulation: it is seen where a cluster is given."""
    return collection_path.name in ("test_first_boot.py", "test_faults.py") and given(config, Cluster) is None or None


def prepared(request, firmware: str, media: str) -> Run:
    """A machine to be installed."""
    iso, site_file, runs, _ = map(request.getfixturevalue, ("iso", "site_file", "runs", "emulator"))
    return Run.prepare(runs / f"test-{firmware}-{media}", load_shape("one-node"), site_file.read_bytes(),
                       lambda site, to: customize(iso, site, to), firmware, media)


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
        outcome = given(metafunc.config, Outcome)
        ways = [pytest.param(outcome, id="given")] if outcome else [
            pytest.param(OTHER, id="-".join(OTHER), marks=pytest.mark.nightly),
            pytest.param(TO_CLUSTER, id="-".join(TO_CLUSTER))]
        metafunc.parametrize("node", ways, indirect=True, scope="module")


@contextlib.contextmanager
def installed(request, firmware: str, media: str) -> Iterator[tuple[Outcome, Cluster]]:
    """A node that was installed and runs on, and the cluster that it is by itself."""
    run = prepared(request, firmware, media)
    try:
        with started(run) as outcome:
            outcome.check()
            with alone(outcome) as cluster:
                yield outcome, cluster
    finally:
        run.remove_secrets()


@pytest.fixture(scope="session")
def to_cluster(request):
    """The node that goes on to a cluster."""
    with installed(request, *TO_CLUSTER) as both:
        yield both


@pytest.fixture(scope="module")
def node(request):
    """An installed node, each way once."""
    if isinstance(request.param, Outcome):
        yield Installed(request.param)
    elif request.param == TO_CLUSTER:
        outcome, _ = request.getfixturevalue("to_cluster")
        yield Installed(outcome)
    else:
        with installed(request, *request.param) as (outcome, _):
            yield Installed(outcome)


@pytest.fixture(scope="session")
def cluster(request):
    """A cluster that has formed: of one node, when none is given."""
    found = given(request.config, Cluster)
    if found is None:
        _, found = request.getfixturevalue("to_cluster")
        found.wait_for("genesis", "ready")
    return found


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
    return [testinfra.get_host(f"ssh://{name}?timeout={LOGIN_SECONDS}", ssh_config=str(cluster.access.config))
            for name in names(kind, len(cluster.members))]


@pytest.fixture(scope="session")
def nodes(cluster):
    """The hypervisors, for testinfra."""
    return hosts(cluster, "node")


@pytest.fixture(scope="session")
def cvms(cluster):
    """The Controller VMs, for testinfra."""
    return hosts(cluster, "cvm")


@pytest.fixture(scope="module")
def volume(members) -> str:
    """A volume's unit serial; its group is gone afterwards."""
    cvm = members[0].cvm
    cvm.check_output("acli vg.create %s", GROUP)
    line = cvm.check_output("acli vg.disk_create %s create_size=64M", GROUP)
    yield re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", line)[0]
    # the CVM that has served it last still has it
    cvm.check_output("acli vg.detach %s", GROUP)
    cvm.check_output("acli vg.delete %s --now --yes", GROUP)
    assert GROUP not in cvm.check_output("acli vg.list")


@pytest.fixture(scope="module")
def device(members, volume) -> str:
    """Where the volume is on the first host."""
    path = f"/dev/mapper/{device_name(volume)}"
    members[0].host.check_output("udevadm wait --timeout=300 %s", path)
    return path


@pytest.fixture(scope="module")
def new_guest(cluster, members, volume, device) -> LabGuest:
    """A guest on the first host, with the volume as its disk, that isn't started yet; off afterwards."""
    guest = LabGuest(cluster.access, names("node", len(members))[0], GROUP, volume)
    yield guest
    guest.stop()


@pytest.fixture(scope="session")
def members(nodes, cvms) -> list[Member]:
    """The nodes of the cluster."""
    return list(map(Member, nodes, cvms))

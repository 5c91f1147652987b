"""What several modules need: no settings of whoever runs the tests, a workspace of their own, a layer store in it."""

from __future__ import annotations

import os

import pytest

from cornerstone.factory.settings import Workspace
from cornerstone.factory.store.layers import Store


@pytest.fixture(autouse=True)
def no_settings(monkeypatch) -> None:
    """Take out the settings of who runs the tests: some tests damage a cache, and it mustn't be a real one."""
    for name in [name for name in os.environ if name.startswith("CORNERSTONE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path / "checkout")


@pytest.fixture
def store(workspace) -> Store:
    return Store(workspace.layers, workspace.temporary)

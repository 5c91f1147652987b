"""What several modules need: a workspace of their own, and a layer store in it."""

from __future__ import annotations

import pytest

from cornerstone.factory.layers import Store
from cornerstone.factory.settings import Workspace


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    monkeypatch.delenv("CORNERSTONE_CACHE", raising=False)
    monkeypatch.delenv("CORNERSTONE_SIGNING_KEY", raising=False)
    return Workspace(tmp_path / "checkout")


@pytest.fixture
def store(workspace) -> Store:
    return Store(workspace.layers, workspace.temporary)

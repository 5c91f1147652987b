from __future__ import annotations

import re
import shutil

import pytest


@pytest.fixture(scope="session", autouse=True)
def with_emulator(emulator):
    """All machines of this tier."""


@pytest.fixture
def logs(request):
    """A folder of its own for the test's console log; it stays after the test."""
    folder = request.config.rootpath / "output" / "boots" / re.sub(r"[^\w.-]+", "-", request.node.name)
    shutil.rmtree(folder, ignore_errors=True)
    return folder

"""Settings that hold for every test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# In CI a property test that fails must fail again when it is run again; elsewhere new examples are worth more.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("local", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")

SERIAL = ("chaos", "deploy")
"""Folders whose tests start, kill and rotate whole systems."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark `serial` what runs one after another: several of these at once would wait for each other's processors."""
    folders = [Path(__file__).parent / name for name in SERIAL]
    for item in items:
        if item.get_closest_marker("spire") or any(folder in item.path.parents for folder in folders):
            item.add_marker(pytest.mark.serial)

"""Settings that hold for every test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.lab import Lab

    from sealbus.bus.nats.connection.connection import Connection

import os

import pytest
from hypothesis import settings
from support.ports import let_go
from support.run_summary import pytest_terminal_summary

__all__ = ["pytest_terminal_summary"]

# In CI a property test that fails must fail again when it is run again; elsewhere new examples are worth more.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("local", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")

SERIAL = (
    "chaos/test_kill_notary.py",
    "chaos/test_ledger.py",
    "chaos/test_ledger_cluster.py",
    "chaos/test_rotation_under_load.py",
    "chaos/test_spire_under_load.py",
    "integration/test_stack.py",
)
"""Whole systems under load: beside all others they would wait for processors."""
SERIAL_SECONDS = 1_800
"""When such a test is taken for one that hangs, unless it says so itself."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark `serial` what `make test-systems` runs, and begin with the files that have slow tests.

    What begins last is then short, so that no worker waits long for another at the end.
    """
    files = {Path(__file__).parent / name for name in SERIAL}
    for item in items:
        if item.path in files:
            item.add_marker(pytest.mark.serial)
        if item.get_closest_marker("serial") is not None and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SERIAL_SECONDS))
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Let go of the ports that a file's tests held, once the last of them and its fixtures have ended."""
    if nextitem is None or nextitem.path != item.path:
        let_go()


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """Run a nats-server of one client, `a`."""
    from support.lab import running

    async with running(tmp_path / "nats", "a") as started:
        yield started


@pytest.fixture
async def connection(lab: Lab) -> AsyncIterator[Connection]:
    """Connect to the server of `lab`."""
    async with lab.connection("a") as entered:
        yield entered

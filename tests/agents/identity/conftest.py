"""Workload APIs that the identity tests run against."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from support.scripted_workload_api import ScriptedWorkloadApi, scripted_workload_api
from support.spire import entry, spire
from support.workload_api import MovedClock, RunningWorkloadApi, Served, workload_api

from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

EXTERNAL_SOCKET = "SEALBUS_TEST_WORKLOAD_API"
EXTERNAL_ID = "SEALBUS_TEST_WORKLOAD_ID"
"""A third Workload API to run the contract on, and whom it takes this process for."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "served" in metafunc.fixturenames:
        kinds = ["embedded", pytest.param("spire", marks=pytest.mark.spire)]
        metafunc.parametrize(
            "served", [*kinds, *(["external"] if EXTERNAL_SOCKET in os.environ else [])], indirect=True
        )


@pytest.fixture
def served(request: pytest.FixtureRequest) -> Served:
    """Each Workload API in turn that the contract is tested on."""
    if request.param == "external":
        return Served(socket=os.environ[EXTERNAL_SOCKET], spiffe_id=SpiffeId(os.environ[EXTERNAL_ID]))
    found: Served = request.getfixturevalue(f"served_by_{request.param}")
    return found


@pytest.fixture
async def served_by_embedded() -> AsyncIterator[Served]:
    """The embedded Workload API."""
    async with workload_api("planner") as running:
        yield Served(socket=running.address("planner"), spiffe_id=running.spiffe_id("planner"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served_by_spire() -> AsyncIterator[Served]:
    """SPIRE's, started once: none of the contract's tests changes it."""
    planner = entry("spiffe://example.org/agent/planner")
    async with spire(planner) as running:
        yield Served(socket=running.agent.address, spiffe_id=planner.spiffe_id)


@pytest.fixture
def clock() -> MovedClock:
    """The clock that both sides read."""
    return MovedClock()


@pytest.fixture
def authority(clock: MovedClock) -> DevelopmentAuthority:
    """A development authority of example.org."""
    return DevelopmentAuthority(TrustDomain("example.org"), clock=clock)


@pytest.fixture
async def running(authority: DevelopmentAuthority) -> AsyncIterator[RunningWorkloadApi]:
    """The embedded Workload API with the agent "planner"."""
    async with workload_api("planner", authority=authority) as served:
        yield served


@pytest.fixture
async def scripted(authority: DevelopmentAuthority) -> AsyncIterator[ScriptedWorkloadApi]:
    """A Workload API whose answers a test can change."""
    async with scripted_workload_api(authority) as api:
        yield api

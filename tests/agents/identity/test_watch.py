from __future__ import annotations

import asyncio

import pytest
from spiffe._proto import workload_pb2 as proto
from support.scripted_workload_api import ScriptedWorkloadApi
from support.workload_api import no_thread_left

from sealbus.agents.identity.upkeep import BACKOFF, Watch
from sealbus.agents.identity.workload_api import Endpoint, RawClient, WorkloadApiError

pytestmark = pytest.mark.workload_api


class Seen:
    """What a watch told, awaitable."""

    def __init__(self, address: str) -> None:
        self.values: asyncio.Queue[str] = asyncio.Queue()
        self.errors: asyncio.Queue[Exception] = asyncio.Queue()
        self.unreadable = False
        self.watch = Watch[proto.X509SVIDResponse, str](
            Endpoint.find(address),
            name="watch",
            open_stream=RawClient.watch_x509,
            read=self.read,
            apply=self.values.put_nowait,
            failed=self.errors.put_nowait,
            random=lambda: 0.0,
        )

    def read(self, response: proto.X509SVIDResponse) -> str:
        if self.unreadable:
            raise ValueError("unreadable")
        return response.svids[0].spiffe_id


async def test_values_arrive_on_the_loop(scripted: ScriptedWorkloadApi) -> None:
    """One for each response, until it is canceled; then no thread is left."""
    seen = Seen(scripted.address)
    with no_thread_left():
        task = asyncio.create_task(seen.watch.watch())
        assert await seen.values.get() == str(scripted.identity.spiffe_id)
        scripted.identity.renew()
        assert await seen.values.get() == str(scripted.identity.spiffe_id)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert seen.errors.empty()


async def test_an_unreadable_response_ends_only_its_stream(scripted: ScriptedWorkloadApi) -> None:
    """What kills `spiffe`'s sources for ever is one failed attempt here."""
    seen = Seen(scripted.address)
    task = asyncio.create_task(seen.watch.watch())
    await seen.values.get()
    seen.unreadable = True
    scripted.identity.renew()
    assert isinstance(await seen.errors.get(), ValueError)
    seen.unreadable = False
    await seen.values.get()
    task.cancel()


@pytest.mark.parametrize(
    "status", ["UNAVAILABLE", "PERMISSION_DENIED", "INVALID_ARGUMENT", "CANCELLED", "UNIMPLEMENTED", "INTERNAL"]
)
async def test_every_status_is_tried_again(scripted: ScriptedWorkloadApi, status: str) -> None:
    """Also those at which `spiffe` gives up."""
    seen = Seen(scripted.address)
    scripted.status["FetchX509SVID"] = status
    task = asyncio.create_task(seen.watch.watch())
    error = await seen.errors.get()
    assert isinstance(error, WorkloadApiError)
    assert error.status == status
    del scripted.status["FetchX509SVID"]
    await seen.values.get()
    task.cancel()


async def test_a_socket_that_is_gone_is_unavailable() -> None:
    """An attempt fails like any other."""
    seen = Seen("unix:///nonexistent/agent.sock")
    task = asyncio.create_task(seen.watch.watch())
    error = await seen.errors.get()
    assert isinstance(error, WorkloadApiError)
    assert error.status == "UNAVAILABLE"
    task.cancel()


async def test_canceled_while_nothing_comes(scripted: ScriptedWorkloadApi) -> None:
    """A stream that never answers ends at once when it is canceled."""
    scripted.silent = True
    seen = Seen(scripted.address)
    with no_thread_left():
        task = asyncio.create_task(seen.watch.watch())
        await scripted.until("FetchX509SVID", 1)
        task.cancel()
        async with asyncio.timeout(60):
            with pytest.raises(asyncio.CancelledError):
                await task


def test_waits_double_up_to_five_seconds() -> None:
    """With up to half taken off at random; never zero."""
    assert [BACKOFF.interval(attempt) for attempt in range(1, 9)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert BACKOFF.interval(1, 1.0) == 0.05

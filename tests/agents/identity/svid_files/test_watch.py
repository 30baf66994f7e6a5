from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from spiffe._proto import workload_pb2 as proto
from support.scripted_workload_api import ScriptedWorkloadApi
from support.workload_api import MovedClock, no_thread_left

from sealbus.agents.identity.svid_files.writer import X509Watch
from sealbus.agents.identity.workload_api import Endpoint
from sealbus.agents.identity.x509_svid import SvidError
from sealbus.bus.ports import X509Material

pytestmark = pytest.mark.workload_api


class Seen:
    """What a watch told, awaitable, while it runs."""

    def __init__(self) -> None:
        self.changes: asyncio.Queue[X509Material | None] = asyncio.Queue()
        self.failures: asyncio.Queue[tuple[str, Exception]] = asyncio.Queue()

    def failed(self, text: str, error: Exception) -> None:
        self.failures.put_nowait((text, error))


@pytest.fixture
async def seen(scripted: ScriptedWorkloadApi, clock: MovedClock) -> AsyncIterator[Seen]:
    told = Seen()
    watch = X509Watch(
        Endpoint.find(scripted.address),
        changed=told.changes.put_nowait,
        failed=told.failed,
        clock=clock,
        random=lambda: 0.0,
    )
    with no_thread_left():
        task = asyncio.create_task(watch.watch())
        yield told
        task.cancel()
        await asyncio.wait({task})


async def next_svid(seen: Seen) -> X509Material:
    async with asyncio.timeout(60):
        found = await seen.changes.get()
    assert found is not None
    return found


async def test_each_new_svid_is_told_and_no_jwt_svid_asked_for(scripted: ScriptedWorkloadApi, seen: Seen) -> None:
    first = await next_svid(seen)
    assert first.spiffe_id == scripted.identity.spiffe_id
    scripted.identity.renew()
    second = await next_svid(seen)
    assert second.chain != first.chain
    assert set(scripted.calls) == {"FetchX509SVID"}


async def test_the_same_again_is_no_change(scripted: ScriptedWorkloadApi, seen: Seen) -> None:
    first = await next_svid(seen)
    scripted.identity.touch()
    scripted.identity.renew()
    assert (await next_svid(seen)).chain != first.chain
    assert seen.changes.empty()


async def test_what_does_not_verify_is_not_told(scripted: ScriptedWorkloadApi, seen: Seen) -> None:
    """The key of another SVID, the first time it is read; the stream is opened anew and goes on."""
    before = await next_svid(seen)

    def wrong_key(response: proto.X509SVIDResponse) -> proto.X509SVIDResponse:
        response.svids[0].x509_svid_key = before.key
        return response

    scripted.x509 = wrong_key
    scripted.identity.renew()
    async with asyncio.timeout(60):
        text, error = await seen.failures.get()
    assert "does not belong to it" in text
    assert isinstance(error, SvidError)
    assert seen.changes.empty()
    scripted.x509 = lambda response: response
    assert (await next_svid(seen)).chain != before.chain


@pytest.mark.slow
async def test_a_withdrawal_is_told_once(scripted: ScriptedWorkloadApi, seen: Seen) -> None:
    await next_svid(seen)
    scripted.status["FetchX509SVID"] = "PERMISSION_DENIED"
    scripted.x509 = lambda response: proto.X509SVIDResponse()
    scripted.identity.renew()
    async with asyncio.timeout(60):
        assert await seen.changes.get() is None
        await scripted.until("FetchX509SVID", 4)
    assert seen.changes.empty()
    scripted.status.clear()
    scripted.x509 = lambda response: response
    assert (await next_svid(seen)).spiffe_id == scripted.identity.spiffe_id


async def test_silence_is_no_withdrawal(scripted: ScriptedWorkloadApi, seen: Seen) -> None:
    await next_svid(seen)
    scripted.status["FetchX509SVID"] = "UNAVAILABLE"
    scripted.x509 = lambda response: proto.X509SVIDResponse()
    scripted.identity.renew()
    async with asyncio.timeout(60):
        await scripted.until("FetchX509SVID", 3)
        told = [await seen.failures.get() for _ in range(2)]
    assert [str(error) for text, error in told if "is overloaded" in text] == ["UNAVAILABLE: as the test wants it"]
    assert seen.changes.empty()


async def test_a_refused_bundle_is_logged(
    scripted: ScriptedWorkloadApi, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    await next_svid(seen)

    def with_junk(response: proto.X509SVIDResponse) -> proto.X509SVIDResponse:
        response.federated_bundles["spiffe://other.org"] = b"junk"
        return response

    scripted.x509 = with_junk
    scripted.identity.renew()
    with caplog.at_level(logging.WARNING):
        await next_svid(seen)
    assert "X.509 bundle of other.org" in caplog.text
    assert seen.failures.empty()

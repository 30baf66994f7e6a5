"""The bundle over HTTP, asked as OPA asks; the peer stands in the scope as `PeerProtocol` puts it there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx2
import pytest
from starlette.types import Receive, Scope, Send
from support.policies import bundle, signing_key

from sealbus.agents.control.policy_server import BUNDLE_PATH, MEDIA_TYPE, PolicyApplication, Served
from sealbus.agents.edge.http.peer import PEER, Peer
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.trust.spiffe_id import SpiffeId

NOW = 1_795_528_800_000_000
OPA = Peer(spiffe_id=SpiffeId("spiffe://example.org/opa"), expires=NOW + 1)


class Asking:
    def __init__(self, peer: Peer | None = OPA) -> None:
        self.served = Served(signing_key())
        self.counters = Counters()
        self._application = PolicyApplication(self.served, counters=self.counters, clock=lambda: NOW)
        self._peer = peer

    async def _with_peer(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._application({**scope, PEER: self._peer}, receive, send)

    async def get(
        self, headers: Mapping[str, str] | None = None, path: str = BUNDLE_PATH, method: str = "GET"
    ) -> httpx2.Response:
        transport = httpx2.ASGITransport(app=self._with_peer)
        async with httpx2.AsyncClient(transport=transport, base_url="https://control") as client:
            return await client.request(method, path, headers=dict(headers or {}))


async def test_a_bundle_with_its_tag_and_then_nothing_new() -> None:
    asking = Asking()
    await asking.served.put(bundle())
    first = await asking.get({"Prefer": "modes=snapshot,delta;wait=30"})
    assert (first.status_code, first.content) == (200, asking.served.raw)
    assert first.headers["content-type"] == MEDIA_TYPE
    again = await asking.get({"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-type"] == MEDIA_TYPE
    assert again.headers["etag"] == first.headers["etag"]
    other = await asking.get({"If-None-Match": '"other"', "Prefer": "modes=snapshot;wait=30"})
    assert other.status_code == 200
    assert asking.counters.value("sealbus_policy_served_total", status="200") == 2


async def test_a_long_poll_ends_with_the_next_bundle() -> None:
    asking = Asking()
    await asking.served.put(bundle())
    waiting = asyncio.create_task(
        asking.get({"If-None-Match": asking.served.etag, "Prefer": "modes=snapshot,delta;wait=30"})
    )
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await asking.served.put(bundle(revision="r2"))
    async with asyncio.timeout(60):
        found = await waiting
    assert (found.status_code, found.headers["etag"]) == (200, asking.served.etag)


@pytest.mark.parametrize(
    ("peer", "status"),
    [(None, 401), (Peer(spiffe_id=OPA.spiffe_id, expires=NOW), 401), (OPA, 503)],
)
async def test_who_may_not_ask_and_when_there_is_nothing(peer: Peer | None, status: int) -> None:
    asking = Asking(peer)
    if status == 401:
        await asking.served.put(bundle())
    found = await asking.get()
    assert (found.status_code, found.content) == (status, b"")
    assert "etag" not in found.headers


async def test_there_is_nothing_else() -> None:
    asking = Asking()
    await asking.served.put(bundle())
    assert (await asking.get(path="/")).status_code == 404
    assert (await asking.get(path=BUNDLE_PATH + "/")).status_code == 404
    assert (await asking.get(method="PUT")).status_code == 405


@pytest.mark.parametrize(("wait", "seconds"), [("7", 7.0), ("60", 60.0), ("61", 60.0), ("999999", 60.0)])
async def test_a_long_poll_is_as_long_as_it_asks_for_within_bounds(
    wait: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def other_than(served: Served, etag: str, within: float) -> bool:
        waited.append(within)
        return False

    monkeypatch.setattr(Served, "other_than", other_than)
    asking = Asking()
    await asking.served.put(bundle())
    await asking.get({"If-None-Match": asking.served.etag, "Prefer": f"wait={wait}"})
    assert waited == [seconds]


@pytest.mark.parametrize("prefer", ["", "wait=x", "modes=snapshot", "await=9", "wait=99999999"])
async def test_whoever_does_not_wait_is_answered_at_once(prefer: str) -> None:
    asking = Asking()
    await asking.served.put(bundle())
    async with asyncio.timeout(60):
        found = await asking.get({"If-None-Match": asking.served.etag, "Prefer": prefer})
    assert found.status_code == 304

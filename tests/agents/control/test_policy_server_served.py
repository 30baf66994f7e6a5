"""What is served: signed once for each content, and awaited."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from support.policies import bundle, signing_key

from sealbus.agents.control import policy_server as app
from sealbus.agents.control.policy_server import COMPOSED, Served
from sealbus.envelopes.trust.keys import key_id
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.signing import BundleVerifier, sign_bundle

KEY = signing_key()


async def test_the_same_content_keeps_its_signature_and_its_tag() -> None:
    served = Served(KEY)
    assert served.etag == ""
    await served.put(bundle())
    raw, etag = served.raw, served.etag
    await served.put(bundle())
    assert (served.raw, served.etag, served.revision) == (raw, etag, "r1")
    other = Served(signing_key())
    await other.put(bundle())
    assert other.etag == etag
    await served.put(bundle(revision="r2"))
    assert served.etag != etag
    verifier = BundleVerifier(keys={key_id(KEY.public): KEY.public}, scope=COMPOSED)
    assert verifier.verify(served.raw).bundle.revision == "r2"
    await served.put(sign_bundle(bundle(), KEY, scope="other"))
    assert served.etag != etag


async def test_it_is_signed_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def noted(*given: Any, **said: Any) -> Bundle:
        threads.append(threading.get_ident())
        return sign_bundle(*given, **said)

    monkeypatch.setattr(app, "sign_bundle", noted)
    await Served(KEY).put(bundle())
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_waiting_ends_with_another_content_in_time_or_at_the_stop() -> None:
    served = Served(KEY)
    await served.put(bundle())
    at_once = asyncio.create_task(served.other_than("else", 600))
    await asyncio.sleep(0)
    assert at_once.done()
    assert await at_once
    assert not await served.other_than(served.etag, 0.01)
    waiting = [asyncio.create_task(served.other_than(served.etag, 30)) for _ in range(3)]
    await asyncio.sleep(0)
    await served.put(bundle(revision="r2"))
    async with asyncio.timeout(60):
        assert await asyncio.gather(*waiting) == [True] * 3
    again = asyncio.create_task(served.other_than(served.etag, 30))
    await asyncio.sleep(0)
    served.stop()
    async with asyncio.timeout(60):
        assert not await again
    assert not await served.other_than(served.etag, 30)

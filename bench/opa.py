"""Decisions by a sidecar and a central OPA, against bare aiohttp with the same questions to the same OPA in the same run."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
from support.central_opa import CentralOpa, tls_of
from support.opa import OpaServer, find_opa
from support.policy_inputs import well_formed
from support.x509 import ThrowawayCa

from bench.report import Figure
from bench.rounds import Rounds
from sealbus.policies.bundle.files import STARTER, build_bundle, write_bundle
from sealbus.policies.decision.decision import Decision
from sealbus.policies.decision.engine import PolicyEngine
from sealbus.policies.engines.central import CentralEngine
from sealbus.policies.engines.sidecar import SidecarEngine
from sealbus.policies.opa.batches import BATCH
from sealbus.policies.opa.wire import BATCH_PATH, batch_question

__all__ = ["figures"]

ROUNDS = 9
ALONE = 400
BATCHES = 30
GUARD, GOAL = 0.8, 0.8

Ask = Callable[[Sequence[bytes]], Awaitable[int]]
"""A function that asks about several documents at once, and returns how many decisions came."""


async def figures() -> AsyncIterator[Figure]:
    """Ask about one document at a time, then 50 at a time, one question after the other, with bare aiohttp and the engine."""
    if find_opa() is None:
        print("no figures for OPA, because there is no opa: `make tools` builds it", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bundle.tar.gz"
        write_bundle(build_bundle(STARTER), file)
        ca = ThrowawayCa("example.org")
        beside = OpaServer("--optimize-store-for-read-speed", "--bundle", str(file))
        async with AsyncExitStack() as stack:
            stack.enter_context(beside)
            elsewhere = stack.enter_context(CentralOpa(ca, file))
            unix = aiohttp.UnixConnector(path=str(beside.socket))
            tls = aiohttp.TCPConnector(ssl=tls_of(ca).current().context)
            sidecar = await stack.enter_async_context(SidecarEngine(beside.socket, deadline=30))
            central = await stack.enter_async_context(CentralEngine([elsewhere.url], tls=tls_of(ca), deadline=30))
            for engine, url, connector in ((sidecar, "http://opa", unix), (central, elsewhere.url, tls)):
                session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
                async for figure in _compare(engine, _bare(session, url)):
                    yield figure


def _bare(session: aiohttp.ClientSession, url: str) -> Ask:
    address = f"{url}{BATCH_PATH}?provenance=true&strict-builtin-errors=true"

    async def ask(documents: Sequence[bytes]) -> int:
        async with session.post(
            address, data=batch_question(documents), headers={"Content-Type": "application/json"}
        ) as response:
            return len(json.loads(await response.read())["result"])

    return ask


async def _compare(engine: PolicyEngine, bare: Ask) -> AsyncIterator[Figure]:
    async def ours(documents: Sequence[bytes]) -> int:
        return sum(isinstance(answer, Decision) for answer in await engine.decide(documents))

    documents = well_formed(2_000)
    alone = [documents[number : number + 1] for number in range(ALONE)]
    batches = [documents[number * BATCH : (number + 1) * BATCH] for number in range(BATCHES)]
    for name, questions in (("alone", alone), (f"{BATCH} at a time", batches)):
        rounds = Rounds()
        for _ in range(ROUNDS):
            for way, ask in (("bare", bare), ("ours", ours)):
                with rounds.measured(way, sum(map(len, questions))):
                    await _ask_all(ask, questions)
        yield rounds.ratio(f"{engine.name} engine, {name} / bare aiohttp", "ours", "bare", guard=GUARD, goal=GOAL)
        yield rounds.rate("ours", label=f"{engine.name} engine, {name}")
        yield rounds.rate("bare", label=f"bare aiohttp to the {engine.name} OPA, {name}")


async def _ask_all(ask: Ask, questions: Sequence[Sequence[bytes]]) -> None:
    """Ask one question after the other."""
    decided = 0
    for documents in questions:
        decided += await ask(documents)
    assert decided == sum(map(len, questions))

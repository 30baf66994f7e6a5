"""`once` on real NATS: a worker that is killed between claim and done leaves an effect that nobody repeats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import once_worker
from support.once_worker import Effect
from support.worker_process import small_environment, worker_process

from sealbus import Client
from sealbus.agents.dev.environment import Environment
from sealbus.agents.runtime.open import open_connection, open_node
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.sending.answer import RemoteError
from sealbus.bus.sending.status import State
from sealbus.bus.streams.key_value import KeyValue
from sealbus.envelopes.errors import BusUnavailable, Code
from sealbus.envelopes.limits import SECOND

pytestmark = [pytest.mark.nats]


@pytest.fixture
async def environment(tmp_path: Path) -> AsyncIterator[Environment]:
    async with small_environment(tmp_path, "effects", "shop") as running:
        yield running


async def begun(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    assert await process.stdout.readline() == b"begun\n"


async def test_what_a_killed_worker_began_is_not_repeated(environment: Environment, tmp_path: Path) -> None:
    file = tmp_path / "effects.txt"
    async with open_node("shop", environment.settings) as node, asyncio.timeout(90):
        client = Client.on(node)
        async with worker_process(once_worker, environment.settings_file, file, "begin") as first:
            handle = await client.submit("effects.happen", Effect(name="a"))
            await begun(first)
            first.kill()
            await first.wait()
        async with worker_process(once_worker, environment.settings_file, file, "finish"):
            with pytest.raises(RemoteError) as unknown:
                await handle.result(Effect)
            assert unknown.value.code is Code.OUTCOME_UNKNOWN
            last = await handle.status()
            assert last is not None
            assert (last.state, last.code) == (State.FAILED, "outcome_unknown")
            # And the worker that found it goes on with what is new, whose result a copy gets, too.
            assert await result(client, "b") == Effect(name="b")
        async with worker_process(once_worker, environment.settings_file, file, "finish"):
            assert await result(client, "b") == Effect(name="b")
    assert file.read_text() == "a\nb\n"


async def result(client: Client, name: str) -> Effect:
    handle: TaskHandle = await client.submit("effects.happen", Effect(name=name), idempotency_key=f"key-{name}")
    return await handle.result(Effect)


async def test_state_is_read_and_written_by_its_owner_alone(environment: Environment) -> None:
    async with open_connection("shop", environment.settings) as (_, connection):
        keyed = KeyValue(NatsTransport(connection))
        assert await keyed.get("state.shop.request.1") is None
        first = await keyed.create("state.shop.request.1", b"1")
        assert first is not None
        assert await keyed.create("state.shop.request.1", b"2") is None
        before = await keyed.get("state.shop.request.1")
        assert before is not None
        assert (before.sequence, before.payload) == (first, b"1")
        assert abs(before.stored - wall_clock()) < 60 * SECOND
        second = await keyed.replace("state.shop.request.1", b"3", last=first)
        assert second is not None
        assert await keyed.replace("state.shop.request.1", b"4", last=first) is None
        after = await keyed.get("state.shop.request.1")
        assert after is not None
        assert (after.sequence, after.payload) == (second, b"3")
        assert after.stored > before.stored
        made = await asyncio.gather(*(keyed.create("state.shop.request.2", bytes([one])) for one in range(16)))
        assert sum(one is not None for one in made) == 1
        with pytest.raises(BusUnavailable):
            await keyed.create("state.effects.effect.1", b"1", within=0.5)
        with pytest.raises(BusUnavailable):
            await keyed.get("state.effects.effect.1", within=0.5)

"""Dead letters on a real server: listed, sent again through every step, and deleted, with the operator's rights of `dev`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.engines import ScriptedEngine, Verdict, allow, deny
from support.lab import until
from support.real_bus import RealBus, real_bus
from support.shop import Update

from sealbus import Agent, Client, Context
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.clocks import wall_clock
from sealbus.bus.gate.status_reader import AskedTask
from sealbus.bus.inspection.dead import DeadLetter, DeadLetterList, dead_subjects, drop, sent_again
from sealbus.bus.nats.api import existing_stream
from sealbus.envelopes.accept.live import LiveProfile
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.user_context import UserContext
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.trust.bundles import Trust

pytestmark = [pytest.mark.nats]


class Mill:
    def __init__(self) -> None:
        self.broken = True
        self.users: list[UserContext | None] = []
        self.agent = Agent("mill")

        @self.agent.task("grind", retry=0)
        async def grind(body: Update, ctx: Context) -> None:
            self.users.append(ctx.user)
            if self.broken:
                raise ValueError


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[RealBus]:
    async with real_bus(tmp_path, "mill", "shop-web", permitted=True) as running:
        yield running


@asynccontextmanager
async def at_work(bus: RealBus, mill: Mill, engine: ScriptedEngine) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with Worker(mill.agent, await bus.node("mill", engine)) as worker, asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        await worker.ready.wait()
        yield
        stop.set()


class Operator:
    def __init__(self, bus: RealBus, client: Client) -> None:
        self.bus, self.client, self.node = bus, client, client.node
        self.request = bus.connections["operator"].jetstream
        bundles = MemoryIdentity(bus.authority, self.node.own).bundles()
        self.letters = DeadLetterList(
            transport=self.node.transport,
            profile=LiveProfile(
                own=self.node.own,
                names=bus.names,
                kinds=frozenset({Kind.TASK, Kind.EVENT}),
                minters=frozenset({bus.edge}),
            ),
            trust=lambda: Trust(bundles=bundles),
            window=2,
        )

    async def listed(self) -> list[DeadLetter]:
        state = await existing_stream(self.request, "DEAD")
        subjects = dead_subjects(self.bus.names)
        found = self.letters.newest(subjects, first=state.first, last=state.last, most=50)
        return [one async for one in found]

    async def find(self, name: int | bytes) -> DeadLetter:
        state = await existing_stream(self.request, "DEAD")
        return await self.letters.find(name, first=state.first, last=state.last)


async def test_a_dead_letter_is_sent_again_decided_anew_and_dropped(bus: RealBus) -> None:
    mill, operator = Mill(), Operator(bus, Client.on(await bus.node("operator", ScriptedEngine())))
    web = Client.on(await bus.node("shop-web", ScriptedEngine()))
    verdicts: Iterator[Verdict] = iter([allow(), allow(), allow(), deny("not_granted")])
    asked: list[tuple[str, bool]] = []

    def decide(one: dict[str, Any]) -> Verdict:
        asked.append((one["subject"]["id"], one["context"]["user"]["present"]))
        return next(verdicts)

    async with at_work(bus, mill, ScriptedEngine(decide)):
        context = bus.user("alice", "shop-web")
        handles = [await web.submit("mill.grind", Update(item_id="1"), user=user) for user in (context, None)]
        for handle in handles:
            assert [one.state async for one in handle.statuses()][-1] == "failed"
        nobodys, alices = await operator.listed()
        assert [(one.refused, one.user) for one in (nobodys, alices)] == [("", ""), ("", "alice")]
        assert {one.death.code for one in (nobodys, alices) if one.death is not None} == {"handler_failed"}

        mill.broken = False
        letter = await operator.find(alices.sequence)
        with pytest.raises(ConfigurationError, match="another workload"):
            sent_again(letter, operator.node.own, now=wall_clock())
        await web.node.outbox.publish(sent_again(letter, web.node.own, now=wall_clock()))
        await until(lambda: len(mill.users) == 3)
        assert mill.users[-1] is not None
        assert mill.users[-1].sub == "alice"

        letter = await operator.find(nobodys.sequence)
        posted = await operator.node.outbox.publish(sent_again(letter, operator.node.own, now=wall_clock()))
        task = AskedTask(pending=PendingRequest.of(posted.sealed.header), action="mill.grind")
        statuses = [one async for one in operator.node.status_reader.statuses(task)]
        assert (statuses[-1].state, statuses[-1].code) == ("rejected", "denied")
    assert len(mill.users) == 3
    sender, own = bus.names.id_of("shop-web").value, operator.node.own.value
    assert asked == [(sender, True), (sender, False), (sender, True), (own, False)]

    await drop(letter, operator.node.outbox, operator.request, operator.node.token)
    assert [one.sequence for one in await operator.listed()] == [alices.sequence]
    with pytest.raises(ConfigurationError, match="there is no dead letter"):
        await operator.find(letter.sequence)
    with pytest.raises(ConfigurationError, match="there is no dead letter"):
        await operator.find(9_999)
    # A stream whose first letters are gone is read from its first that is left.
    await drop(await operator.find(alices.sequence), operator.node.outbox, operator.request, operator.node.token)
    assert await operator.listed() == []
    said = [one async for batch in operator.node.transport.read("EVENTS", ["event.operator.dropped"]) for one in batch]
    headers = [parse_header(parse_envelope(one.payload).header) for one in said]
    assert [one.re for one in headers] == [one.header.digest for one in (letter, alices) if one.header is not None]
    assert {one.iss for one in headers} == {operator.node.own}

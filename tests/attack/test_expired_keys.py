"""A key of the edge whose credential has ended, with a live agent: what it can still do, and when that ends.

Contexts and ancestors are judged at their own `iat`, so such a key can sign one of a time at which it was good.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest
from support.engines import ScriptedEngine
from support.shop import Shop, Update

from sealbus.agents.dev.memory.broker import header_block
from sealbus.bus.clocks import wall_clock
from sealbus.bus.ports import Outgoing, uuid7
from sealbus.envelopes.lifetimes import Lifetimes
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Draft, Sealer, seal
from sealbus.envelopes.message.user_context import ContextDraft, mint_context
from sealbus.envelopes.message.wire import Statement
from sealbus.testing import TestBus

MINUTE, HOUR = 60 * SECOND, 3_600 * SECOND


@dataclass(kw_only=True)
class Stolen:
    """A bus, its clock, and a key of its edge that somebody kept; `after` moves the clock to after its credential's end."""

    bus: TestBus
    shop: Shop
    ahead: list[int]
    edge: Sealer = field(init=False)
    told: int = 0

    def __post_init__(self) -> None:
        self.edge = self.bus.edge.sealer()

    def after(self, passed: int) -> None:
        """Let it be `passed` after the end of the stolen key's credential."""
        self.ahead[0] += self.edge.expires + passed - self.bus.broker.clock()

    def context(self, *, exp: int, end: int, workload: str | None) -> Statement:
        """Return a context of the last moment at which the key was good."""
        iat = self.edge.expires - SECOND
        return mint_context(
            ContextDraft(
                txn=bytes(16),
                aud=self.bus.trust_domain,
                iat=iat,
                exp=iat + exp,
                end=iat + end,
                sub="alice",
                idp="https://idp.example",
                sid="s",
                cid="c",
                wkl=self.bus.names.id_of(workload) if workload is not None else None,
            ),
            self.edge,
        )

    async def begun(self, context: Statement) -> list[object]:
        """Have a live agent start a chain with `context`; return the codes of what was refused."""
        now, agent = self.bus.broker.clock(), (await self.bus.client("shop-web")).node.identity.sealer()
        return await self._put(self._task("inventory", context, now, now + MINUTE), agent)

    async def continued(self, context: Statement | None, *, life: int) -> list[object]:
        """Have a live agent go on with a task that the stolen key says it was given; return the codes as well.

        That task's `end` is `life` after its `iat`.
        """
        now, agent = self.bus.broker.clock(), (await self.bus.client("shop-web")).node.identity.sealer()
        given = self.edge.expires - SECOND
        [parent] = seal([self._task("shop-web", context, given, given + life)], self.edge)
        draft = self._task("inventory", context, now, now + MINUTE)
        return await self._put(draft._replace(ancestors=(parent.ancestor,)), agent)

    def _task(self, aud: str, context: Statement | None, iat: int, end: int) -> Draft:
        return Draft(
            kind=Kind.TASK,
            id=uuid7(iat),
            to=f"task.{aud}.update",
            aud=self.bus.names.id_of(aud),
            iat=iat,
            exp=iat + MINUTE,
            end=end,
            body=b'{"item_id":"7"}',
            typ="application/json",
            context=context,
        )

    async def _put(self, draft: Draft, sealer: Sealer) -> list[object]:
        [sealed] = seal([draft], sealer)
        block = header_block(Outgoing(subject="", payload=b"", message_id=sealed.header.id.hex()))
        self.bus.broker.inject(sealed.header.to, sealed.wire, block, sealed.header.id.hex())
        await self.bus.idle()
        codes = [one["code"] for one in await self.bus.flush_refusals()]
        told, self.told = self.told, len(codes)
        return codes[told:]


@pytest.fixture
def lifetimes() -> Lifetimes:
    return Lifetimes()


@pytest.fixture
async def stolen(lifetimes: Lifetimes) -> AsyncIterator[Stolen]:
    ahead, shop = [0], Shop()
    bus = TestBus(shop.inventory, engine=ScriptedEngine(), clock=lambda: wall_clock() + ahead[0])
    bus.deployment = replace(bus.deployment, lifetimes=lifetimes)
    async with bus:
        yield Stolen(bus=bus, shop=shop, ahead=ahead)


async def test_50_minutes_after_its_end_it_mints_nothing_for_a_day(stolen: Stolen) -> None:
    stolen.after(50 * MINUTE)
    for exp, end in ((24 * HOUR, 24 * HOUR), (HOUR, 24 * HOUR), (2 * HOUR, 8 * HOUR)):
        assert await stolen.begun(stolen.context(exp=exp, end=end, workload="shop-web")) == ["bad_context"]
        assert await stolen.continued(stolen.context(exp=exp, end=end, workload=None), life=end) == ["bad_context"]
    assert stolen.shop.handled == []


async def test_what_remains_ends_an_hour_and_eight_hours_after_its_end(stolen: Stolen) -> None:
    begun = stolen.context(exp=HOUR, end=8 * HOUR, workload="shop-web")
    continued = stolen.context(exp=HOUR, end=8 * HOUR, workload=None)
    stolen.after(50 * MINUTE)
    assert await stolen.begun(begun) == []
    assert await stolen.continued(continued, life=8 * HOUR) == []
    assert len(stolen.shop.handled) == 2
    stolen.after(HOUR)
    assert await stolen.begun(begun) == ["bad_chain"]
    assert await stolen.continued(continued, life=8 * HOUR) == []
    stolen.after(8 * HOUR)
    assert await stolen.continued(continued, life=8 * HOUR) == ["bad_chain"]
    assert len(stolen.shop.handled) == 3
    await (await stolen.bus.client("shop-web")).submit("inventory.update", Update(item_id="42"))
    await stolen.bus.idle()
    assert stolen.shop.handled[3:] == [("42", 1)]


@pytest.mark.parametrize("lifetimes", [Lifetimes(context_start=15 * MINUTE, context_life=15 * MINUTE)])
async def test_50_minutes_are_too_late_where_readers_are_set_to_15(stolen: Stolen) -> None:
    stolen.after(50 * MINUTE)
    for life, code in ((HOUR, "bad_context"), (15 * MINUTE, "bad_chain")):
        assert await stolen.begun(stolen.context(exp=life, end=life, workload="shop-web")) == [code]
        assert await stolen.continued(stolen.context(exp=life, end=life, workload=None), life=life) == [code]
    assert stolen.shop.handled == []


@pytest.mark.parametrize("lifetimes", [Lifetimes(chain_after=30 * MINUTE)])
async def test_a_chain_goes_on_no_longer_after_an_ancestors_credential_than_readers_are_set_to(stolen: Stolen) -> None:
    context = stolen.context(exp=HOUR, end=8 * HOUR, workload=None)
    stolen.after(29 * MINUTE)
    assert await stolen.continued(context, life=8 * HOUR) == []
    stolen.after(30 * MINUTE)
    assert await stolen.continued(context, life=8 * HOUR) == ["bad_chain"]


@pytest.mark.parametrize("lifetimes", [Lifetimes(chain_life=HOUR)])
async def test_a_chain_without_a_user_goes_on_no_longer_than_readers_are_set_to(stolen: Stolen) -> None:
    stolen.after(30 * MINUTE)
    assert await stolen.continued(None, life=HOUR) == []
    assert await stolen.continued(None, life=HOUR + 1) == ["bad_chain"]

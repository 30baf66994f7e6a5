"""Claims that somebody else planted in STATE: none of them makes an effect happen again, or counts as its having happened.

An agent may write under its own token only, and nats-server sends the answer to any request of it, also a message of its
own that is asked for, to whatever reply subject it names. So it can put any bytes on `state.<other>.effect.<key>`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import pytest
from pydantic import BaseModel
from support.dev_broker import INVENTORY, OPERATOR, PRICING, STREAMS, Site
from support.dev_broker import running as broker
from support.engines import ScriptedEngine

from sealbus import Agent, Context
from sealbus.bus.sending.answer import RemoteError
from sealbus.bus.sending.message import Content
from sealbus.bus.streams.plan import apply
from sealbus.bus.work.idempotency import effects
from sealbus.bus.work.idempotency.claim import Stage, StoredClaim, parse, sign, unsigned
from sealbus.envelopes.encoding.codec import pack
from sealbus.envelopes.errors import Code
from sealbus.envelopes.trust.caches import Caches
from sealbus.testing import TestBus

RESULT = Content(body=b'"forged"', typ="application/json")


class Payment(BaseModel):
    amount: int = 5


@dataclass
class Bank:
    """An agent that pays, and what it paid."""

    paid: list[int] = field(default_factory=list)
    agent: Agent = field(init=False)

    def __post_init__(self) -> None:
        self.agent = Agent("bank")

        @self.agent.task("pay", once=True, retry=0)
        async def pay(payment: Payment, ctx: Context) -> str:
            self.paid.append(payment.amount)
            return "paid"


@pytest.fixture
def bank(monkeypatch: pytest.MonkeyPatch) -> Bank:
    # What is in STATE must do without the memory of one process: the copy may come to another.
    monkeypatch.setattr(effects, "REMEMBERED", 1)
    return Bank()


@pytest.fixture
async def bus(bank: Bank) -> AsyncIterator[TestBus]:
    async with TestBus(bank.agent, engine=ScriptedEngine()) as running:
        yield running


async def pay(bus: TestBus, key: str) -> str:
    handle = await (await bus.client("shop")).submit("bank.pay", Payment(), idempotency_key=key)
    return await handle.result(str, timeout=60)


async def forget(bus: TestBus) -> None:
    """Have the process remember another effect instead."""
    await pay(bus, "another")


def planted(bus: TestBus, stage: Stage) -> StoredClaim:
    """Return the claim that whoever knows sender, subject, key and body of a task can make up."""
    key = sha256(pack(("idm", str(bus.names.id_of("shop")), "task.bank.pay", None, None, "k"))).digest()
    now = bus.broker.clock()
    return StoredClaim(
        key=key,
        dig=sha256(b'{"amount":5}').digest(),
        first=bytes(32),
        by=bytes(16),
        stage=stage,
        at=now,
        until=now,
    )


def plant(bus: TestBus, claim: StoredClaim, stored: bytes) -> None:
    bus.broker.inject(f"state.bank.effect.{claim.key.hex()}", stored)


async def test_where_a_claim_is_kept_can_be_foretold(bus: TestBus) -> None:
    """What the attacks below rest on: were the key wrong, they would all hold for nothing."""
    await pay(bus, "k")
    claim = planted(bus, Stage.STARTED)
    state = bus.broker.streams["STATE"]
    kept = state.get(state.last_of(f"state.bank.effect.{claim.key.hex()}"))
    assert kept is not None
    found, _ = parse(
        kept.payload,
        own=bus.names.id_of("bank"),
        trust=bus.workers["bank"].node.trust(),
        caches=Caches(),
    )
    assert (found.key, found.dig) == (claim.key, claim.dig)


@pytest.mark.parametrize("stage", [Stage.FREE, Stage.STARTED, Stage.UNKNOWN])
async def test_an_effect_that_has_happened_does_not_again(bus: TestBus, bank: Bank, stage: Stage) -> None:
    assert await pay(bus, "k") == "paid"
    await forget(bus)
    claim = planted(bus, stage)
    plant(bus, claim, unsigned(claim))
    with pytest.raises(RemoteError) as refused:
        await pay(bus, "k")
    assert refused.value.code is Code.OUTCOME_UNKNOWN
    assert bank.paid == [5, 5]


@pytest.mark.parametrize("attack", ["unsigned", "signed by itself", "with a result"])
async def test_an_effect_that_has_not_happened_does_not_count_as_done(bus: TestBus, bank: Bank, attack: str) -> None:
    claim = planted(bus, Stage.DONE)
    thief = (await bus.client("thief")).node.identity.sealer()
    stored = {
        "unsigned": lambda: unsigned(claim),
        "signed by itself": lambda: sign(claim, thief),
        "with a result": lambda: sign(replace(claim, result=RESULT), thief),
    }[attack]()
    plant(bus, claim, stored)
    with pytest.raises(RemoteError) as refused:
        await pay(bus, "k")
    assert refused.value.code is Code.OUTCOME_UNKNOWN
    assert bank.paid == []
    await bus.idle()
    assert len(bus.stored("DEAD")) == 1


async def test_a_claim_of_one_effect_moved_to_another_is_worth_nothing(bus: TestBus, bank: Bank) -> None:
    await pay(bus, "first")
    (genuine,) = [one.payload for one in bus.stored("STATE") if "effect" in one.subject]
    plant(bus, planted(bus, Stage.DONE), genuine)
    await forget(bus)
    with pytest.raises(RemoteError) as refused:
        await pay(bus, "k")
    assert refused.value.code is Code.OUTCOME_UNKNOWN
    assert bank.paid == [5, 5]


async def test_a_planted_start_blocks_no_longer_than_the_message_lives(bus: TestBus, bank: Bank) -> None:
    claim = replace(planted(bus, Stage.STARTED), until=9 * 10**15)
    plant(bus, claim, unsigned(claim))
    client = await bus.client("shop")
    handle = await client.submit("bank.pay", Payment(), idempotency_key="k", life=0.5)
    async with asyncio.timeout(60):
        await bus.idle()
    assert bank.paid == []
    # Nothing final was said, for nothing is known: its requester concludes `expired` at the end.
    assert await bus.statuses(handle) == []


@pytest.mark.nats
async def test_bytes_of_somebody_elses_can_be_stored_among_the_claims_of_another(tmp_path: Path) -> None:
    """The premise of this file: who is in the account of the streams can have the server store its answers there.

    Agents are in another one, so that signatures are their second fence (`test_broker_detours.py`).
    """
    site = Site(folder=tmp_path)
    target = f"state.{INVENTORY.value.rpartition('/')[2]}.effect.{'0' * 64}"
    async with (
        broker(site) as server,
        site.connect(server, OPERATOR) as operator,
        site.connect(server, PRICING) as thief,
    ):
        await apply(STREAMS, operator.request)
        for who, name in ((thief, "pricing"), (operator, "operator")):
            assert not await who.may_publish(target)
            await who.request(f"state.{name}.mine", b"bytes of its choice")
            who.publish(f"$JS.API.DIRECT.GET.STATE.state.{name}.mine", reply=target)
            assert await who.settle() == []
            if who is thief:
                # Answered by the same way, after it.
                await thief.request("state.pricing.mine", b"bytes of its choice")
                assert b"404" in await operator.request(f"$JS.API.DIRECT.GET.STATE.{target}")
        while b"bytes of its choice" not in await operator.request(f"$JS.API.DIRECT.GET.STATE.{target}"):
            pass

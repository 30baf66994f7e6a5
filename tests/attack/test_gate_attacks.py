"""Attacks on the gate by agents of the same trust domain: each is refused by its code, and the victim goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from support.engines import ScriptedEngine, Verdict, allow
from support.lab import until
from support.shop import Price, Shop, Update

from sealbus.agents.dev.memory.broker import header_block
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.dev.users import DevUser, mint_user
from sealbus.bus.audit.trail import AuditTrail, Finding
from sealbus.bus.clocks import wall_clock
from sealbus.bus.gate.refusals import MAX_KEYS
from sealbus.bus.ports import Delivery, Outgoing, uuid7
from sealbus.bus.sending.answer import CallExpired
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Draft, Sealed, seal
from sealbus.envelopes.message.wire import Ancestor, Statement, parse_envelope
from sealbus.envelopes.records.archive import ArchiveProfile
from sealbus.envelopes.records.record import guard_id
from sealbus.envelopes.records.work import OutcomeRecord
from sealbus.testing import TestBus

BODY = b'{"item_id":"7"}'


class MovedClock:
    """The host's clock, moved by the test."""

    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return wall_clock() + self.ahead


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
async def bus(shop: Shop, engine: ScriptedEngine, clock: MovedClock) -> AsyncIterator[TestBus]:
    async with TestBus(shop.inventory, shop.pricing, engine=engine, clock=clock) as running:
        yield running


@pytest.fixture
def tapped(bus: TestBus, monkeypatch: pytest.MonkeyPatch) -> list[Delivery]:
    """Return the core messages that pass, as an attacker who may subscribe sees them."""
    seen: list[Delivery] = []
    deliver = bus.broker.deliver

    def tap(delivery: Delivery, reply: str = "") -> None:
        seen.append(delivery)
        deliver(delivery, reply)

    monkeypatch.setattr(bus.broker, "deliver", tap)
    return seen


async def sealed_by(bus: TestBus, name: str, draft: Draft) -> Sealed:
    """Seal `draft` with the real identity of agent `name`: an attacker has a key and a credential of its own."""
    node = (await bus.client(name)).node
    return seal([draft], node.identity.sealer())[0]


def task(bus: TestBus, *, aud: str = "inventory", to: str = "task.inventory.update", life: int = 60) -> Draft:
    now = bus.broker.clock()
    end = now + life * SECOND
    return Draft(
        kind=Kind.TASK,
        id=uuid7(now),
        to=to,
        aud=bus.names.id_of(aud),
        iat=now,
        exp=end,
        end=end,
        body=BODY,
        typ="application/json",
    )


def reply(bus: TestBus, call: Header, *, to: str | None = None) -> Draft:
    now = bus.broker.clock()
    return Draft(
        kind=Kind.REPLY,
        id=uuid7(now),
        to=to or call.rpl or "",
        aud=call.iss,
        iat=now,
        exp=now + 60 * SECOND,
        body=b'{"item_id":"1","price":5}',
        typ="application/json",
        re=call.digest,
    )


def inject(bus: TestBus, sealed: Sealed, subject: str | None = None) -> None:
    header = sealed.header
    block = header_block(Outgoing(subject=header.to, payload=b"", message_id=header.id.hex()))
    bus.broker.inject(subject or header.to, sealed.wire, block, header.id.hex())


async def codes(bus: TestBus) -> list[object]:
    await bus.idle()
    return [one["code"] for one in await bus.flush_refusals()]


def ancestor_of(delivery: Delivery) -> Ancestor:
    envelope = parse_envelope(delivery.payload)
    return Ancestor(envelope.header, envelope.proof, envelope.credential)


async def still_works(bus: TestBus, shop: Shop) -> bool:
    """Tell whether an honest task is handled and was the only one that was."""
    client = await bus.client("shop-web")
    await client.submit("inventory.update", Update(item_id="42"))
    await bus.idle()
    return shop.handled == [("42", 1)]


async def test_an_event_is_no_parent(bus: TestBus, shop: Shop) -> None:
    await (await bus.client("shop-web")).emit("changed", Update(item_id="1"))
    event = ancestor_of(bus.stored("EVENTS")[0])
    inject(bus, await sealed_by(bus, "shop-web", task(bus)._replace(ancestors=(event,))))
    assert await codes(bus) == ["bad_chain"]
    assert await still_works(bus, shop)


async def test_a_grant_is_not_exceeded(bus: TestBus, shop: Shop) -> None:
    client = await bus.client("shop-web")
    await client.submit("inventory.update", Update(item_id="1"), grants=["inventory.update"])
    await bus.idle()
    shop.handled.clear()
    parent = ancestor_of(bus.stored("TASKS")[0])
    child = task(bus, to="task.inventory.order")._replace(ancestors=(parent,))
    inject(bus, await sealed_by(bus, "inventory", child))
    assert await codes(bus) == ["grant_exceeded"]
    assert await still_works(bus, shop)


async def test_a_parent_that_was_for_another_is_not_continued(bus: TestBus, shop: Shop) -> None:
    await (await bus.client("shop-web")).submit("inventory.update", Update(item_id="1"))
    await bus.idle()
    shop.handled.clear()
    parent = ancestor_of(bus.stored("TASKS")[0])
    inject(bus, await sealed_by(bus, "thief", task(bus)._replace(ancestors=(parent,))))
    assert await codes(bus) == ["bad_chain"]
    assert await still_works(bus, shop)


async def test_a_message_for_another_agent_is_refused(bus: TestBus, shop: Shop) -> None:
    inject(bus, await sealed_by(bus, "thief", task(bus, aud="pricing")))
    # Its own subject says who it is for, so step 3 already refuses what step 4 would.
    assert await codes(bus) == ["wrong_subject"]
    assert await still_works(bus, shop)


async def test_a_call_for_another_agent_is_refused(bus: TestBus, shop: Shop) -> None:
    elsewhere = task(bus, aud="slow", to="call.slow.quote")._replace(kind=Kind.CALL, rpl="_INBOX.thief.1")
    sealed = await sealed_by(bus, "thief", elsewhere)
    bus.broker.inject("call.pricing.quote", sealed.wire)
    assert await (await bus.client("shop-web")).call("pricing.quote", Update(item_id="2"), returns=Price) == Price(
        item_id="2", price=7
    )
    assert await codes(bus) == ["wrong_subject"]
    assert shop.handled == [("quote", 1)]


async def test_a_message_moved_to_another_subject_is_refused(bus: TestBus, shop: Shop) -> None:
    sealed = await sealed_by(bus, "thief", task(bus))
    inject(bus, sealed, "task.inventory.order")
    bus.broker.inject("call.pricing.quote", sealed.wire)
    found = await codes(bus)
    await bus.workers["pricing"].settle()
    assert "wrong_subject" in found
    assert await still_works(bus, shop)


@pytest.mark.parametrize("attack", ["stranger", "redirected", "other kind"])
async def test_a_forged_answer_leaves_the_call_open_for_the_true_one(
    bus: TestBus, tapped: list[Delivery], attack: str
) -> None:
    client = await bus.client("shop-web")
    # No agent `slow` runs: the test listens in its place, and answers as it, after the attacker did.
    listening = bus.broker.connect().listen("call.slow.*")
    heard = asyncio.ensure_future(anext(listening))
    await asyncio.sleep(0)
    first, second = (
        asyncio.ensure_future(client.call("slow.quote", Update(item_id="1"), returns=Price, timeout=5)) for _ in "ab"
    )
    await until(lambda: len(tapped) == 2)
    calls = [parse_header(parse_envelope(one.payload).header) for one in tapped]
    if attack == "stranger":
        forged = await sealed_by(bus, "thief", reply(bus, calls[0]))
        bus.broker.inject(forged.header.to, forged.wire)
    elif attack == "redirected":
        forged = await sealed_by(bus, "slow", reply(bus, calls[0], to=calls[1].rpl))
        bus.broker.inject(forged.header.to, forged.wire)
    else:
        bus.broker.inject(calls[0].rpl or "", tapped[0].payload)
    for call in calls:
        true = await sealed_by(bus, "slow", reply(bus, call))
        bus.broker.inject(true.header.to, true.wire)
    assert [await first, await second] == [Price(item_id="1", price=5)] * 2
    await heard
    await listening.aclose()
    (refused,) = await bus.flush_refusals()
    assert refused["count"] == 1
    assert refused["code"] in {"unexpected_reply", "wrong_subject", "wrong_kind"}


async def test_a_replayed_call_is_handled_once(bus: TestBus, shop: Shop, tapped: list[Delivery]) -> None:
    client = await bus.client("shop-web")
    await client.call("pricing.quote", Update(item_id="1"), returns=Price)
    (call,) = [one for one in tapped if one.subject == "call.pricing.quote"]
    bus.broker.inject(call.subject, call.payload, call.header_block)
    await client.call("pricing.quote", Update(item_id="2"), returns=Price)
    assert shop.handled == [("quote", 1), ("quote", 1)]
    assert await codes(bus) == ["replayed"]


async def test_a_second_copy_under_another_id_is_refused(bus: TestBus, shop: Shop) -> None:
    sealed = await sealed_by(bus, "shop-web", task(bus))
    inject(bus, sealed)
    other = uuid7(wall_clock()).hex()
    block = header_block(Outgoing(subject="", payload=b"", message_id=other))
    bus.broker.inject(sealed.header.to, sealed.wire, block, other)
    assert await codes(bus) == ["malformed"]
    assert shop.handled == [("7", 1)]


async def test_a_second_copy_after_the_streams_memory_is_refused(bus: TestBus, shop: Shop, clock: MovedClock) -> None:
    sealed = await sealed_by(bus, "shop-web", task(bus, life=3_600))
    inject(bus, sealed)
    await bus.idle()
    clock.ahead += 121 * SECOND
    inject(bus, sealed)
    assert len(bus.stored("TASKS")) == 2
    assert await codes(bus) == ["replayed"]
    assert shop.handled == [("7", 1)]


async def test_a_task_delivered_after_its_end_is_refused(bus: TestBus, shop: Shop, clock: MovedClock) -> None:
    draft = task(bus, life=10)
    sealed = await sealed_by(bus, "shop-web", draft)
    clock.ahead += 20 * SECOND
    message_id = sealed.header.id.hex()
    block = header_block(Outgoing(subject="", payload=b"", message_id=message_id))
    bus.broker.inject(sealed.header.to, sealed.wire, block, message_id)
    [stored] = bus.stored("TASKS")
    assert stored.arrival is not None
    bus.broker.streams["TASKS"].tamper(stored._replace(arrival=stored.arrival._replace(stored=draft.iat)))
    assert await codes(bus) == ["expired"]
    assert shop.handled == []


async def test_a_task_that_expires_while_it_waits_is_not_handled(
    bus: TestBus, shop: Shop, clock: MovedClock, engine: ScriptedEngine
) -> None:
    def slow(_: object) -> Verdict:
        clock.ahead += 20 * SECOND
        return allow()

    engine.verdict = slow
    inject(bus, await sealed_by(bus, "shop-web", task(bus, life=10)))
    await bus.idle()
    assert shop.handled == []
    (outcome,) = [one.record for one in await bus.audit() if isinstance(one.record, OutcomeRecord)]
    assert outcome.code == "expired"


async def test_only_a_configured_minter_speaks_for_users(bus: TestBus, shop: Shop) -> None:
    thief = await bus.client("thief")
    forged: Statement = mint_user(
        thief.node.identity.sealer(),
        DevUser("alice", workload=bus.names.id_of("thief")),
        trust_domain=bus.trust_domain,
        now=bus.broker.clock(),
    )
    await thief.submit("inventory.update", Update(item_id="7"), user=forged)
    assert await codes(bus) == ["context_issuer_refused"]
    assert await still_works(bus, shop)


async def test_a_planted_guard_id_denies_one_call_and_allows_none(
    bus: TestBus, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver = bus.broker.deliver
    planted: list[str] = []

    def plant(delivery: Delivery, reply: str = "") -> None:
        if delivery.subject == "call.pricing.quote" and not planted:
            header = parse_header(parse_envelope(delivery.payload).header)
            planted.append(guard_id(bus.names.id_of("pricing"), header.digest).hex())
            bus.broker.inject("audit.pricing", b"planted", message_id=planted[0])
        deliver(delivery, reply)

    monkeypatch.setattr(bus.broker, "deliver", plant)
    client = await bus.client("shop-web")
    with pytest.raises(CallExpired):
        await client.call("pricing.quote", Update(item_id="1"), returns=Price, timeout=0.3)
    assert shop.handled == []
    assert await client.call("pricing.quote", Update(item_id="2"), returns=Price) == Price(item_id="2", price=7)
    assert await codes(bus) == ["replayed"]


@pytest.mark.parametrize("garbage", [b"", b"\x97", b"\xff" * 2_000, b"\x81\xa1v\xc0"])
async def test_audit_garbage_is_a_finding(bus: TestBus, shop: Shop, garbage: bytes) -> None:
    bus.broker.inject("audit.inventory", garbage)
    assert await still_works(bus, shop)
    trail = AuditTrail(
        transport=bus.broker.connect(),
        profile=ArchiveProfile(names=bus.names, minters=bus.deployment.minters),
        bundles=bus.edge.bundles,
    )
    first, *others = [entry async for entry in trail.entries()]
    assert isinstance(first, Finding)
    assert (first.sequence, first.code) == (1, "malformed")
    assert len(others) == 2
    assert not any(isinstance(one, Finding) for one in others)
    with pytest.raises(AssertionError, match="does not verify"):
        await bus.audit()


async def test_much_garbage_leaves_few_refusals_and_none_uncounted(bus: TestBus, shop: Shop) -> None:
    for number in range(10_000):
        bus.broker.inject(f"task.inventory.x{number}", b"garbage")
    assert await still_works(bus, shop)
    refusals = await bus.flush_refusals()
    counts = [one["count"] for one in refusals]
    assert sum(count for count in counts if isinstance(count, int)) == 10_000
    # One flush holds MAX_KEYS and `other`; the refusals' own timer may have flushed a few times meanwhile.
    assert len(refusals) <= 8 * (MAX_KEYS + 1)


@pytest.mark.slow
async def test_a_message_under_an_unknown_key_is_tried_for_a_minute_and_not_until_its_own_end(
    bus: TestBus, shop: Shop, clock: MovedClock
) -> None:
    stranger = TestBus(Shop().inventory, engine=ScriptedEngine(), clock=clock)
    node = (await bus.client("shop-web")).node
    sealer = MemoryIdentity(stranger.authority, node.own).sealer()
    [sealed] = seal([task(bus, life=36_000)], sealer)
    inject(bus, sealed)
    gate = bus.workers["inventory"].node
    await until(lambda: gate.counters.value("sealbus_put_off_total", cause="unauthenticated") >= 1)
    pull = bus.broker.consumers["TASKS", "inventory"]
    clock.ahead = 50 * SECOND
    before = gate.counters.value("sealbus_put_off_total")
    await until(lambda: gate.counters.value("sealbus_put_off_total") > before)
    assert not pull.idle
    clock.ahead = 61 * SECOND
    await bus.idle()
    assert set(await codes(bus)) == {"unknown_key"}
    assert shop.handled == []

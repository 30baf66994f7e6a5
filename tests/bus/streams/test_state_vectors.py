"""The vectors of STATE: stops, ticks, claims on effects, uses and counts of attempts. Both readers find the same in each."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
from independent import stored_values as independent
from independent import verify_export
from support.identity import StaticIdentity
from support.sites import site_of
from support.vectors import Given, load, octets
from support.x509 import ThrowawayCa
from vectors.issuing import INVENTORY, NOW, SECOND, party

from sealbus.agents.dev.memory.broker import MemoryBroker
from sealbus.bus.ports import StoredFloor
from sealbus.bus.sending.cancel import CancelRole
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.work.ack_floors import StoredFloors
from sealbus.bus.work.cancel import stop as stops
from sealbus.bus.work.cancel.stop import Stop
from sealbus.bus.work.executor.attempt_counts import FAILED, FailedAttempts
from sealbus.bus.work.executor.poison import ATTEMPTS, PoisonGuard
from sealbus.bus.work.idempotency import claim as claims
from sealbus.bus.work.idempotency.effects import effect_key
from sealbus.bus.work.idempotency.replay_guard import ReplayGuard
from sealbus.bus.work.schedules.tick import TakenTick, Tick, TickClaims, WaitingTick
from sealbus.bus.work.timely_arrays import TimelyArrays
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.errors import Code, EnvelopeError, HandlingError, StateUnavailable
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.envelopes.trust.bundles import JwtBundle, Trust, TrustBundles
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

VECTORS = load("state.json")
WORLD = load("world.json")
GIVEN = WORLD["defaults"]["live"]
NAMES = Names(
    TrustDomain(GIVEN["trust_domain"]),
    GIVEN["template"],
    {name: SpiffeId(iss) for name, iss in GIVEN["table"].items()},
)
OWN = SpiffeId(INVENTORY)


def own_sealer() -> Sealer:
    """Return what the inventory writes with; of that nothing is looked at here."""
    own = party(INVENTORY)
    return Sealer(iss=OWN, key=own.key, credential=own.credential, expires=NOW + 3_600 * SECOND)


IDENTITY = StaticIdentity(ThrowawayCa("example.org"), INVENTORY, sealer=own_sealer)


def trust_of(case: Given) -> Trust:
    jwks = WORLD["bundles"][case.get("bundles", "default")]
    bundles = TrustBundles(JwtBundle.parse(TrustDomain(name), text.encode()) for name, text in jwks.items())
    return Trust(bundles=bundles, revoked_before={SpiffeId(i): t for i, t in case.get("revoked_before", {}).items()})


def world_of(case: Given) -> independent.World:
    root = verify_export.Root(
        origin="log", keys=(), bundles=frozenset(), checkpoints=(), trust_domain=GIVEN["trust_domain"],
        template=GIVEN["template"], table=GIVEN["table"], minters=frozenset(), notaries=frozenset(),
    )  # fmt: skip
    bundles = verify_export.Bundles()
    for domain, jwks in WORLD["bundles"][case.get("bundles", "default")].items():
        bundles.add(domain, 0, verify_export.read_bundle(jwks.encode()))
    return independent.World(root, bundles, case.get("revoked_before", {}))


def shown(found: dict[Any, Any]) -> Given:
    """Return what a reader found as a vector writes it."""
    return {
        key.hex() if isinstance(key, bytes) else key: value.hex() if isinstance(value, bytes) else value
        for key, value in found.items()
    }


def expected(case: Given) -> Given:
    return {key: octets(value).hex() if isinstance(value, list) else value for key, value in case["expect"].items()}


def parametrized(section: str, kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", VECTORS[section][kind], ids=lambda case: case["name"])


def our_stop(case: Given) -> Stop:
    place = stops.place_of(case["subject"])
    assert place is not None
    return stops.parse(
        octets(case["value"]), place, stored=case["stored"], names=NAMES, trust=trust_of(case), caches=Caches()
    )


def their_stop(case: Given) -> Given:
    return shown(independent.read_stop(octets(case["value"]), case["subject"], case["stored"], world_of(case)))


@parametrized("stops", "accept")
def test_stops(case: Given) -> None:
    assert their_stop(case) == case["expect"]
    stop = our_stop(case)
    assert case["expect"] == {
        "v": 1, "own": stop.agent.value, "dig": stop.digest.hex(), "act": stop.action, "by": stop.by.value,
        "rol": stop.role.value, "rsn": stop.reason, "end": stop.end, "at": stop.at, "can": stop.cancel.hex(),
    }  # fmt: skip


@parametrized("stops", "reject")
def test_what_is_no_stop(case: Given) -> None:
    with pytest.raises(EnvelopeError):
        our_stop(case)
    with pytest.raises(verify_export.Bad):
        their_stop(case)


@pytest.mark.parametrize("case", VECTORS["concerns"], ids=lambda case: case["name"])
def test_what_a_stop_concerns(case: Given) -> None:
    said, raw = case["stop"], bytes.fromhex(case["header"])
    stop = Stop(
        agent=SpiffeId(said["own"]), digest=bytes.fromhex(said["dig"]), action=said["act"], by=SpiffeId(said["by"]),
        role=CancelRole(said["rol"]), reason=said["rsn"], end=said["end"], at=said["at"], cancel=bytes.fromhex(said["can"]),
    )  # fmt: skip
    assert stop.concerns(parse_header(raw), {}) is case["concerns"]
    theirs = {**said, "dig": bytes.fromhex(said["dig"])}
    assert independent.concerns(theirs, verify_export.read_header(raw), verify_export.H(raw)) is case["concerns"]


@pytest.mark.parametrize("case", VECTORS["tick_names"], ids=lambda case: str(case["tick"]))
def test_names_of_ticks(case: Given) -> None:
    grant, time = bytes.fromhex(case["grant"]), case["tick"]
    tick = Tick(grant, time)
    ours = {"subject": tick.subject("inventory"), "id": tick.message_id.hex(), "idm": tick.idempotency_key}
    assert ours == independent.tick_names(grant, time, "inventory")
    assert ours == {key: case[key] for key in ours}


def site(case: Given, wait: int = SECOND) -> tuple[MemoryBroker, KeyValue]:
    """Return a broker with the case's value in STATE, `wait` microseconds after it was stored there."""
    now = [case["stored"]]
    broker = MemoryBroker(lambda: now[0])
    broker.add_stream("STATE", ["state.>"], max_bytes=1 << 24)
    broker.inject(case["subject"], octets(case["value"]))
    now[0] += wait
    return broker, KeyValue(broker.connect())


def ticks_of(case: Given) -> TickClaims:
    broker, _ = site(case)
    return TickClaims(site_of(broker.connect(), lambda: NOW, identity=IDENTITY, trust=lambda: trust_of(case)))


def tick_at(case: Given) -> Tick:
    for named in VECTORS["tick_names"]:
        if named["subject"] == case["subject"]:
            return Tick(bytes.fromhex(named["grant"]), named["tick"])
    return Tick(bytes.fromhex(VECTORS["tick_names"][0]["grant"]), NOW + SECOND)


def their_own(read: Callable[..., dict[Any, Any]], case: Given) -> Given:
    return shown(read(octets(case["value"]), case["subject"], case["stored"], INVENTORY, world_of(case)))


@parametrized("ticks", "accept")
async def test_ticks(case: Given) -> None:
    assert their_own(independent.read_tick, case) == case["expect"]
    claimed = case["expect"]["stage"] == "claimed"
    assert await ticks_of(case).claim(tick_at(case)) == (WaitingTick(case["expect"]["until"]) if claimed else None)


@parametrized("ticks", "reject")
async def test_what_is_no_tick_is_replaced(case: Given) -> None:
    with pytest.raises(verify_export.Bad):
        their_own(independent.read_tick, case)
    taken = await ticks_of(case).claim(tick_at(case))
    assert isinstance(taken, TakenTick)
    assert not taken.fresh


@parametrized("last_ticks", "accept")
async def test_last_ticks(case: Given) -> None:
    assert their_own(independent.read_last_tick, case) == case["expect"]
    found = await ticks_of(case).sent_last("nightly")
    assert found is not None
    assert shown({"t": found[0], "task": found[1].encode()}) == case["expect"]


@parametrized("last_ticks", "reject")
async def test_what_is_no_last_tick(case: Given) -> None:
    with pytest.raises(verify_export.Bad):
        their_own(independent.read_last_tick, case)
    assert await ticks_of(case).sent_last(case["subject"].split(".")[3]) is None


@pytest.mark.parametrize("case", VECTORS["effects"], ids=lambda case: case["name"])
def test_keys_of_effects(case: Given) -> None:
    raw = bytes.fromhex(case["header"])
    payload = bytes.fromhex(case["context"]) if "context" in case else None
    message = SimpleNamespace(header=parse_header(raw), context=parse_payload(payload) if payload is not None else None)
    assert effect_key(cast("VerifiedMessage", message)).hex() == case["key"]
    context = verify_export.read_context(payload) if payload is not None else None
    assert independent.effect_key(verify_export.read_header(raw), verify_export.H(raw), context).hex() == case["key"]


@parametrized("claims", "accept")
def test_claims(case: Given) -> None:
    value = octets(case["value"])
    theirs, signed = independent.read_claim(value, INVENTORY, world_of(case))
    assert (shown(theirs), signed) == (expected(case), case["signed"])
    claim, ours = claims.parse(value, own=OWN, trust=trust_of(case), caches=Caches())
    result = {"typ": claim.result.typ, "res": claim.result.body} if claim.result is not None else {}
    found = {
        "key": claim.key, "dig": claim.dig, "first": claim.first, "by": claim.by, "stage": claim.stage.value,
        "at": claim.at, "until": claim.until,
    }  # fmt: skip
    assert (shown(found | result), ours) == (expected(case), case["signed"])


@parametrized("claims", "reject")
def test_what_is_no_claim(case: Given) -> None:
    value = octets(case["value"])
    with pytest.raises(EnvelopeError):
        claims.parse(value, own=OWN, trust=trust_of(case), caches=Caches())
    with pytest.raises(verify_export.Bad):
        independent.read_claim(value, INVENTORY, world_of(case))


def guard_of(case: Given) -> ReplayGuard:
    broker, _ = site(case)
    world = site_of(broker.connect(), lambda: NOW, identity=IDENTITY, trust=lambda: trust_of(case))
    return ReplayGuard(VECTORS["uses"]["use"], world)


@parametrized("uses", "accept")
async def test_uses(case: Given) -> None:
    assert their_own(independent.read_uses, case) == case["expect"]
    digest = bytes.fromhex(VECTORS["uses"]["digest"])
    assert await guard_of(case).used(digest, made=NOW)
    assert not await guard_of(case).use(digest, made=NOW, until=NOW + SECOND)


@parametrized("uses", "reject")
async def test_what_stands_in_the_place_of_uses(case: Given) -> None:
    with pytest.raises(verify_export.Bad):
        their_own(independent.read_uses, case)
    digest = bytes.fromhex(VECTORS["uses"]["digest"])
    with pytest.raises(StateUnavailable):
        await guard_of(case).used(digest, made=case["stored"] + 5 * SECOND)
    assert not await guard_of(case).used(digest, made=case["stored"] + 5 * SECOND + 1)


def counts_of(name: str, case: Given, broker: MemoryBroker) -> TimelyArrays:
    site = site_of(
        broker.connect(), lambda: int(case["stored"]) + SECOND, identity=IDENTITY, trust=lambda: trust_of(case)
    )
    return TimelyArrays(name, site)


async def our_attempt(case: Given) -> Given:
    """Begin a redelivery of the message at the case's subject, and return what stands there then, as they read it."""
    broker, _ = site(case)
    guard = PoisonGuard(counts=counts_of(ATTEMPTS, case, broker))
    digest = bytes.fromhex(case["subject"].split(".")[3])
    route = Mock(options=Mock(once=False))
    work = Mock(header=Mock(digest=digest), tried=Mock(number=2), permitted=Mock(route=route))
    await guard.begin(work)
    found = broker.streams["STATE"].stored[-1]
    assert found.arrival is not None
    return independent.read_attempts(found.payload, case["subject"], found.arrival.stored, INVENTORY, world_of({}))


@parametrized("attempts", "accept")
async def test_attempts(case: Given) -> None:
    assert their_own(independent.read_attempts, case) == case["expect"]
    assert independent.following_attempt(case["expect"]) == case["next"]
    if case["next"] is None:
        with pytest.raises(HandlingError) as given_up:
            await our_attempt(case)
        assert given_up.value.code is Code.KILLED
    else:
        assert await our_attempt(case) == case["next"]


@parametrized("attempts", "reject")
async def test_what_is_no_count_of_attempts(case: Given) -> None:
    with pytest.raises(verify_export.Bad):
        their_own(independent.read_attempts, case)
    # As after none that is known: the one before this may have ended its process beside others.
    assert await our_attempt(case) == {"deaths": 0, "alone": False, "open": True}


async def our_failed(case: Given) -> int:
    """Count one more failed attempt at the message of the case's subject, in its ninth delivery; return its number."""
    broker, _ = site(case)
    digest = bytes.fromhex(case["subject"].split(".")[3])
    work = Mock(header=Mock(digest=digest), tried=Mock(number=9))
    number = await FailedAttempts(counts_of(FAILED, case, broker)).count(work)
    found = broker.streams["STATE"].stored[-1]
    assert found.arrival is not None
    written = independent.read_failed(found.payload, case["subject"], found.arrival.stored, INVENTORY, world_of({}))
    assert written == {"failed": number}
    return number


@parametrized("failed", "accept")
async def test_failed_attempts(case: Given) -> None:
    assert their_own(independent.read_failed, case) == case["expect"]
    assert await our_failed(case) == case["expect"]["failed"] + 1


@parametrized("failed", "reject")
async def test_what_is_no_count_of_failed_attempts(case: Given) -> None:
    with pytest.raises(verify_export.Bad):
        their_own(independent.read_failed, case)
    # Then the broker's count of deliveries stands for it.
    assert await our_failed(case) == 9


async def our_floor(case: Given) -> StoredFloor:
    """Return what counts as the floor of the vectors' consumer, with the sequence of whatever stands there."""
    broker, _ = site(case)
    named = site_of(
        broker.connect(), lambda: int(case["stored"]) + SECOND, identity=IDENTITY, trust=lambda: trust_of(case)
    )
    floors, of = StoredFloors(named), VECTORS["floors"]
    found = await floors.read(of["stream"], of["consumer"])
    # The next one is written in its place, and is what it says.
    written = await floors.replace(of["stream"], of["consumer"], StoredFloor(NOW, 5, 1, found.last, found.listened))
    assert written is not None
    stored = broker.streams["STATE"].stored[-1]
    assert stored.arrival is not None
    theirs = independent.read_floor(stored.payload, stored.subject, stored.arrival.stored, INVENTORY, world_of({}))
    assert theirs == {"created": NOW, "floor": 5, "moves": 1, "listened": dict(found.listened)}
    return found


@parametrized("floors", "accept")
async def test_floors(case: Given) -> None:
    expect = their_own(independent.read_floor, case)
    assert expect == case["expect"]
    found = await our_floor(case)
    assert (found.created, found.floor, found.moves) == (expect["created"], expect["floor"], expect["moves"])
    assert dict(found.listened) == expect["listened"]


@parametrized("floors", "reject")
async def test_what_is_no_floor(case: Given) -> None:
    with pytest.raises(verify_export.Bad):
        their_own(independent.read_floor, case)
    assert (await our_floor(case))._replace(last=0) == StoredFloor()

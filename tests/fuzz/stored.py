"""Targets: values of the streams STATE and HELD, as any agent can store them, and as their owner signs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any, cast

from fuzz.loop import run
from fuzz.targets import Target, check_refusal
from support.identity import StaticIdentity
from support.sites import site_of
from support.vectors import load, octets
from support.x509 import ThrowawayCa
from vectors.issuing import INVENTORY, NOW, SECOND, party

from sealbus.agents.control.notary.lease import Leased
from sealbus.agents.dev.memory.broker import MemoryBroker
from sealbus.bus.clocks import BusClock
from sealbus.bus.streams.held import Held
from sealbus.bus.streams.key_book import KEY_BOOK_TYPE, read_book
from sealbus.bus.streams.object_store import parse_info
from sealbus.bus.streams.signed_value import signed
from sealbus.bus.work.ack_floors import StoredFloors
from sealbus.bus.work.approvals.marker import marker_of
from sealbus.bus.work.approvals.parked_tasks import PARKED_TYPE, CountedVerdict, Parked, parse_parked
from sealbus.bus.work.cancel import stop as stops
from sealbus.bus.work.cancel.kept import KeptStops
from sealbus.bus.work.executor.attempt_counts import FAILED
from sealbus.bus.work.idempotency import claim as claims
from sealbus.bus.work.idempotency.replay_guard import ReplayGuard
from sealbus.bus.work.schedules.book import ScheduleBook
from sealbus.bus.work.schedules.tick import Tick, TickClaims
from sealbus.bus.work.timely_arrays import TimelyArrays
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.encoding.codec import decode, encode
from sealbus.envelopes.errors import EnvelopeError, SealError, StateUnavailable
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.trust.bundles import JwtBundle, Trust, TrustBundles
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

_OWN = SpiffeId(INVENTORY)
_TYPE = "application/vnd.sealbus.{}.v1"


@cache
def _names() -> Names:
    given = load("world.json")["defaults"]["live"]
    table = {name: SpiffeId(iss) for name, iss in given["table"].items()}
    return Names(TrustDomain(given["trust_domain"]), given["template"], table)


@cache
def _trust() -> Trust:
    jwks = load("world.json")["bundles"]["default"]
    return Trust(bundles=TrustBundles(JwtBundle.parse(TrustDomain(name), text.encode()) for name, text in jwks.items()))


@cache
def _sealer() -> Sealer:
    own = party(INVENTORY)
    return Sealer(iss=_OWN, key=own.key, credential=own.credential, expires=NOW + 3_600 * SECOND)


@cache
def _identity() -> StaticIdentity:
    return StaticIdentity(ThrowawayCa("example.org"), INVENTORY, sealer=_sealer)


def _signed(payload: bytes, kind: str, *extra: bytes) -> bytes:
    return encode([*signed(payload, _TYPE.format(kind), _sealer()), *extra], text_bytes=DEFAULT_LIMITS.body_bytes)


def _place(section: str, file: str = "state.json") -> str:
    place: str = load(file)[section]["accept"][0]["subject"]
    return place


def _stop(value: bytes) -> None:
    place = stops.place_of(_place("stops"))
    assert place is not None
    try:
        stops.parse(value, place, stored=NOW, names=_names(), trust=_trust(), caches=Caches())
    except EnvelopeError as error:
        check_refusal(error)


def stop(data: bytes) -> None:
    """A stop."""
    _stop(data)
    _stop(_signed(data, "stop"))


def _claim(value: bytes) -> None:
    try:
        claims.parse(value, own=_OWN, trust=_trust(), caches=Caches())
    except EnvelopeError as error:
        check_refusal(error)


def claim(data: bytes) -> None:
    """A claim on an effect."""
    _claim(data)
    _claim(_signed(data, "claim"))
    _claim(encode([data], text_bytes=DEFAULT_LIMITS.body_bytes))


def _site(subject: str, value: bytes) -> Any:
    now = [NOW]
    broker = MemoryBroker(lambda: now[0])
    broker.add_stream("STATE", ["state.>"], max_bytes=1 << 24)
    broker.inject(subject, value)
    return site_of(broker.connect(), lambda: NOW + SECOND, identity=_identity(), trust=_trust)


def _state(section: str, kind: str, read: Callable[[Any], Any]) -> Target:
    """Return the target of a value of STATE that `read` reads from a site."""

    def check(data: bytes) -> None:
        for value in (data, _signed(data, kind)):
            with suppress(StateUnavailable):
                run(read(_site(_place(section), value)))

    return check


def _tick(site: Any) -> Any:
    named = load("state.json")["tick_names"][0]
    return TickClaims(site).claim(Tick(bytes.fromhex(named["grant"]), named["tick"]))


def _uses(site: Any) -> Any:
    uses = load("state.json")["uses"]
    return ReplayGuard(uses["use"], site).used(bytes.fromhex(uses["digest"]), made=NOW)


def _failed(site: Any) -> Any:
    return TimelyArrays(FAILED, site).read(bytes.fromhex(_place("failed").split(".")[3]))


def _floor(site: Any) -> Any:
    floors = load("state.json")["floors"]
    return StoredFloors(site).read(floors["stream"], floors["consumer"])


def _held_of(subject: str, value: bytes) -> Held:
    broker = MemoryBroker(lambda: NOW)
    broker.add_stream("HELD", ["held.>"], max_bytes=1 << 30)
    broker.inject(subject, value)
    return Held(
        broker.connect(), trust=_trust, names=_names(), caches=Caches(), clock=BusClock(lambda: NOW + 60 * SECOND)
    )


def _held(section: str, kind: str, read: Callable[[Held, str], Any]) -> Target:
    """Return the target of a value of HELD that `read` reads: the bytes as they are, and as a signed payload."""

    def check(data: bytes) -> None:
        subject = _place(section, "held.json")
        extra = _extra(section)
        for value in (data, _signed(data, kind, extra)):
            run(read(_held_of(subject, value), subject))

    return check


@cache
def _extra(section: str) -> bytes:
    value = octets(load("held.json")[section]["accept"][0]["value"])
    parts = decode(value, text_bytes=DEFAULT_LIMITS.body_bytes)
    assert isinstance(parts, list)
    assert isinstance(parts[4], bytes)
    return parts[4]


async def _kept_stop(held: Held, subject: str) -> None:
    kept = KeptStops(held, identity=_identity(), names=_names(), own_subjects={})
    await kept.under(bytes.fromhex(subject.split(".")[3]))


async def _marker(held: Held, _: str) -> None:
    header = parse_header(bytes.fromhex(load("held.json")["markers"]["task"]))
    pending = PendingRequest(
        digest=header.digest, id=header.id, aud=cast("SpiffeId", header.aud), end=cast("int", header.end)
    )
    await marker_of(held, pending, own=header.iss, names=_names())


async def _parked(held: Held, subject: str) -> None:
    value = (await held.newest(subject, PARKED_TYPE)).get(subject)
    if value is not None:
        try:
            parse_parked(value)
        except SealError as error:
            check_refusal(error)


async def _book(held: Held, subject: str) -> None:
    value = (await held.newest(subject, KEY_BOOK_TYPE)).get(subject)
    if value is not None:
        try:
            read_book(value)
        except StateUnavailable as error:
            check_refusal(error)


async def _schedule(held: Held, subject: str) -> None:
    await ScheduleBook(held, identity=_identity(), token="inventory").one(subject.split(".")[3])


def parked_record(data: bytes) -> None:
    """A decision record as the record of a parked task."""
    try:
        Parked(record=data, envelope=b"", since=0, until=0)
    except (SealError, EnvelopeError) as error:
        check_refusal(error)


def verdict(data: bytes) -> None:
    """A counted verdict in a parked task."""
    try:
        parsed = CountedVerdict.parse(data)
    except (EnvelopeError, SealError, ValueError) as error:
        check_refusal(error)
        return
    assert parsed.encode() == data


def lease(data: bytes) -> None:
    """A notary's lease."""
    try:
        parsed = Leased.parse(data)
    except EnvelopeError as error:
        check_refusal(error)
        return
    assert parsed.payload() == data


def object_info(data: bytes) -> None:
    """The description of an object of a bucket."""
    parse_info(data, sequence=1)


TARGETS: Mapping[str, Target] = {
    "stop": stop,
    "claim": claim,
    "tick": _state("ticks", "tick", _tick),
    "uses": _state("uses", "uses", _uses),
    "failed": _state("failed", "failed", _failed),
    "floor": _state("floors", "floor", _floor),
    "kept_stop": _held("kept_stops", "kept-stop", _kept_stop),
    "marker": _held("markers", "parked-marker", _marker),
    "parked": _held("parked", "parked", _parked),
    "key_book": _held("key_books", "keys", _book),
    "schedule": _held("schedules", "held-schedule", _schedule),
    "parked_record": parked_record,
    "verdict": verdict,
    "lease": lease,
    "object_info": object_info,
}

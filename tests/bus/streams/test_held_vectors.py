"""The vectors of HELD: we and the independent reader find the same value genuine, and the same in each kind of value."""

from __future__ import annotations

from typing import Any

import pytest
from independent import held_values as independent
from independent import verify_export
from support.identity import StaticIdentity
from support.vectors import Given, load, octets
from support.x509 import ThrowawayCa
from vectors.issuing import INVENTORY, NOW, SECOND

from sealbus.agents.dev.memory.broker import MemoryBroker
from sealbus.bus.streams.held import Held, HeldValue
from sealbus.bus.streams.key_book import KEY_BOOK_TYPE, read_book
from sealbus.bus.work.approvals.marker import marker_of
from sealbus.bus.work.approvals.parked_tasks import PARKED_TYPE, CountedVerdict, Parked, parse_parked
from sealbus.bus.work.cancel.kept import KeptStops
from sealbus.bus.work.schedules.book import ScheduleBook
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.errors import SealError, StateUnavailable
from sealbus.envelopes.log.trust_history import TrustHistory
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.records.notary import BundleRecord
from sealbus.envelopes.records.record import parse_record
from sealbus.envelopes.trust.bundles import JwtBundle, Trust, TrustBundles
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

from independent.stored_values import World  # isort: skip

VECTORS = load("held.json")
WORLD = load("world.json")
GIVEN = WORLD["defaults"]["live"]
NAMES = Names(
    TrustDomain(GIVEN["trust_domain"]),
    GIVEN["template"],
    {name: SpiffeId(iss) for name, iss in GIVEN["table"].items()},
)
IDENTITY = StaticIdentity(ThrowawayCa("example.org"), INVENTORY)
PREFIX, SUFFIX = "application/vnd.sealbus.", ".v1"
KINDS = {
    "kept_stops": "kept-stop", "markers": "parked-marker", "parked": "parked", "key_books": "keys",
    "schedules": "held-schedule",
}  # fmt: skip


def trust_of(case: Given) -> Trust:
    jwks = WORLD["bundles"][case.get("bundles", "default")]
    bundles = TrustBundles(JwtBundle.parse(TrustDomain(name), text.encode()) for name, text in jwks.items())
    return Trust(bundles=bundles, revoked_before={SpiffeId(i): t for i, t in case.get("revoked_before", {}).items()})


def world_of(case: Given) -> World:
    root = verify_export.Root(
        origin="log", keys=(), bundles=frozenset(), checkpoints=(), trust_domain=GIVEN["trust_domain"],
        template=GIVEN["template"], table=GIVEN["table"], minters=frozenset(), notaries=frozenset(),
    )  # fmt: skip
    bundles = verify_export.Bundles()
    for domain, jwks in WORLD["bundles"][case.get("bundles", "default")].items():
        bundles.add(domain, 0, verify_export.read_bundle(jwks.encode()))
    return World(root, bundles, case.get("revoked_before", {}))


def held_of(case: Given, *values: tuple[bytes, int]) -> Held:
    """Return HELD with these values under the case's subject, each at its time."""
    now = [0]
    broker = MemoryBroker(lambda: now[0])
    broker.add_stream("HELD", ["held.>"], max_bytes=1 << 30)
    for raw, stored in values or [(octets(case["value"]), case["stored"])]:
        now[0] = stored
        broker.inject(case["subject"], raw)
    return Held(
        broker.connect(), trust=lambda: trust_of(case), names=NAMES, caches=Caches(), clock=lambda: NOW + 60 * SECOND
    )


def their_value(case: Given, kind: str) -> independent.Held:
    return independent.read_held(octets(case["value"]), kind, case["subject"], case["stored"], world_of(case))


async def our_value(case: Given, kind: str) -> HeldValue | None:
    return (await held_of(case).newest(case["subject"], f"{PREFIX}{kind}{SUFFIX}")).get(case["subject"])


def shown(value: Any) -> Any:
    """Return what a reader found as a vector writes it."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [shown(one) for one in value]
    return value


def both(section: str, kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", VECTORS[section][kind], ids=lambda case: case["name"])


@both("values", "accept")
async def test_genuine_values(case: Given) -> None:
    theirs, ours = their_value(case, "kept-stop"), await our_value(case, "kept-stop")
    assert ours is not None
    assert (ours.own.value, ours.number, ours.extra) == (INVENTORY, case["n"], octets(case["extra"]))
    assert (theirs.own, theirs.number, theirs.extra) == (INVENTORY, case["n"], octets(case["extra"]))


@both("values", "reject")
async def test_what_is_not_genuine(case: Given) -> None:
    assert await our_value(case, "kept-stop") is None
    with pytest.raises(verify_export.Bad):
        their_value(case, "kept-stop")


@pytest.mark.parametrize("case", VECTORS["series"], ids=lambda case: case["name"])
async def test_what_counts(case: Given) -> None:
    values = [(octets(raw), NOW + number * SECOND) for number, raw in enumerate(case["values"])]
    kind = case["type"].removeprefix(PREFIX).removesuffix(SUFFIX)
    assert independent.newest(values, kind, case["subject"], world_of(case)) == case["counts"]
    if not values:
        return
    held = held_of(case, *values)
    at_once = (await held.newest(case["subject"], case["type"])).get(case["subject"])
    followed, _ = await held.following(case["subject"], case["type"]).standing()
    expected = values[case["counts"]][1] if case["counts"] is not None else None
    for found in (at_once, followed):
        assert (found.stored if found is not None else None) == expected


async def our_stop(case: Given) -> Given | None:
    tokens = case["subject"].split(".")
    kept = KeptStops(held_of(case), identity=IDENTITY, names=NAMES, own_subjects={})
    for stop in await kept.under(bytes.fromhex(tokens[3])):
        return {
            "dig": stop.digest, "act": stop.action, "by": stop.by.value, "rol": stop.role.value, "rsn": stop.reason,
            "end": stop.end, "can": stop.cancel, "mad": stop.at,
        }  # fmt: skip
    return None


async def our_marker(case: Given) -> Given | None:
    header = parse_header(bytes.fromhex(VECTORS["markers"]["task"]))
    assert header.aud is not None
    assert header.end is not None
    pending = PendingRequest(digest=header.digest, id=header.id, aud=header.aud, end=header.end)
    marker = await marker_of(held_of(case), pending, own=header.iss, names=NAMES)
    return {"dig": marker.digest, "unt": marker.until, "end": marker.ended} if marker is not None else None


def parked_keys(parked: Parked) -> Given:
    keys = {
        "que": parked.obligation.queue, "dig": parked.digest, "rec": parked.record, "snc": parked.since,
        "unt": parked.until, "sta": parked.state.value, "trn": parked.turn, "run": parked.run,
    }  # fmt: skip
    return keys | ({"apr": [one.encode() for one in parked.verdicts]} if parked.verdicts else {})


async def our_parked(case: Given) -> Given | None:
    value = (await held_of(case).newest(case["subject"], PARKED_TYPE)).get(case["subject"])
    assert value is not None
    try:
        return parked_keys(parse_parked(value))
    except SealError:
        return None


async def our_book(case: Given) -> Given | None:
    value = (await held_of(case).newest(case["subject"], KEY_BOOK_TYPE)).get(case["subject"])
    assert value is not None
    try:
        contents = read_book(value)
    except StateUnavailable:
        return None
    # The history has its own order.
    found = {record.encode() for record in contents.history.since(0)}
    expected = [bytes.fromhex(one) for one in case.get("expect", {}).get("rec", [])]
    lines = [one.line for one in contents.restored]
    return {"rec": expected if found == set(expected) else list(found)} | ({"rst": lines} if lines else {})


async def our_schedule(case: Given) -> Given | None:
    name = case["subject"].split(".")[3]
    found = await ScheduleBook(held_of(case), identity=IDENTITY, token="inventory").one(name)
    if found is None:
        return None
    keys: Given = {
        "sta": found.state.value, "typ": found.body.typ, "sto": found.order[0], "seq": found.order[1], "snc": found.since,
        "gdig": found.grant.digest, "giss": found.grant.by.value, "gisu": found.grant.issued,
        "cdig": found.change.digest, "ciss": found.change.by.value, "cisu": found.change.issued,
    }  # fmt: skip
    return keys | ({"ctx": found.user} if found.user else {})


OURS = {
    "kept_stops": our_stop, "markers": our_marker, "parked": our_parked, "key_books": our_book, "schedules": our_schedule,
}  # fmt: skip


def theirs(section: str, case: Given) -> Given:
    held = their_value(case, KINDS[section])
    match section:
        case "kept_stops":
            return independent.read_kept_stop(held)
        case "markers":
            return independent.read_marker(held, bytes.fromhex(VECTORS["markers"]["task"]))
        case "parked":
            return independent.read_parked(held)
        case "key_books":
            independent.read_key_book(held)
            return held.keys
        case _:
            return independent.read_planned(held)


USES = [(section, case) for section in OURS for case in VECTORS[section]["accept"]]
NO_USES = [(section, case) for section in OURS for case in VECTORS[section]["reject"]]


def named(value: object) -> str | None:
    return value if isinstance(value, str) else value["name"] if isinstance(value, dict) else None


@pytest.mark.parametrize(("section", "case"), USES, ids=named)
async def test_what_a_value_says(section: str, case: Given) -> None:
    ours = await OURS[section](case)
    assert ours is not None
    assert {key: shown(value) for key, value in ours.items()} == case["expect"]
    assert {key: shown(value) for key, value in theirs(section, case).items()} == case["expect"]


@pytest.mark.parametrize(("section", "case"), NO_USES, ids=named)
async def test_a_genuine_value_that_says_nothing(section: str, case: Given) -> None:
    """Its owner signed it, so it counts; but it is none of its use."""
    assert await our_value(case, KINDS[section]) is not None
    assert await OURS[section](case) is None
    with pytest.raises(verify_export.Bad):
        theirs(section, case)


def test_a_verdict_and_the_name_of_a_decision() -> None:
    said = VECTORS["parked"]["verdict"]
    raw = bytes.fromhex(said["raw"])
    assert CountedVerdict.parse(raw).encode() == raw
    record = bytes.fromhex(VECTORS["parked"]["accept"][0]["expect"]["rec"])
    assert verify_export.leaf_of(record).hex() == said["leaf"]


@pytest.mark.parametrize("case", VECTORS["past"]["cases"], ids=lambda case: str(case["time"]))
def test_bundles_of_the_past(case: Given) -> None:
    raw = [bytes.fromhex(one) for one in VECTORS["past"]["records"]]
    records = [record for one in raw if isinstance(record := parse_record(one), BundleRecord)]
    found = TrustHistory(records).at(case["time"])
    ours = [{name.name: verify_export.H(bundle.jwks).hex() for name, bundle in one.items()} for one in found]
    assert ours == case["bundles"]
    assert independent.bundles_at([verify_export.read_record(one) for one in raw], case["time"]) == case["bundles"]

"""Random pseudonyms: one for a person, in a row that nobody else can write, and of nobody once the row is deleted."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.edge import door
from support.engines import ScriptedEngine
from support.shop import Shop

from sealbus.agents.edge.oauth.private_file import write_key
from sealbus.agents.edge.oauth.tokens import pseudonyms as module
from sealbus.agents.edge.oauth.tokens.pseudonyms import (
    KNOWN_SECONDS,
    PSEUDONYM_PREFIX,
    PseudonymKey,
    RandomPseudonyms,
    Row,
)
from sealbus.bus.ports import Outgoing, Transport
from sealbus.bus.stream_names import PEOPLE
from sealbus.bus.streams.key_value import KeyValue
from sealbus.envelopes.errors import BusUnavailable
from sealbus.policies.bundle.revocations import Revocations
from sealbus.testing import TestBus

KEY = PseudonymKey(bytes(range(32)))
IDP = "https://idp.example"


@dataclass
class Site:
    """A bus in memory with one process's rows, and a clock that stands."""

    bus: TestBus
    transport: Transport
    now: list[float] = field(default_factory=lambda: [0.0])

    def process(self, key: PseudonymKey = KEY) -> RandomPseudonyms:
        return RandomPseudonyms(key, self.transport, lambda: self.now[0])

    async def store(self, subject: str, value: bytes) -> None:
        await self.transport.publish([Outgoing(subject=subject, payload=value)], deadline=5.0)

    def rows(self) -> dict[str, bytes]:
        return {one.subject: one.payload for one in self.bus.stored(PEOPLE)}


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with TestBus(Shop().pricing, engine=ScriptedEngine()) as bus:
        yield Site(bus, (await bus.client("edge")).node.transport)


async def test_a_person_has_one_pseudonym_at_every_process_and_nobody_else_has_it(site: Site) -> None:
    first, second = site.process(), site.process()
    alice = await first.of(IDP, "alice")
    assert await second.of(IDP, "alice") == alice == await first.of(IDP, "alice")
    assert alice.startswith(PSEUDONYM_PREFIX)
    assert len(alice) == len(PSEUDONYM_PREFIX) + 64
    others = [(IDP, "bob"), (IDP, "Alice"), ("https://idp.examplea", "lice"), ("https://other.example", "alice")]
    assert len({alice, *[await first.of(*other) for other in others]}) == 5
    assert len(site.rows()) == 5


async def test_a_row_has_the_person_nowhere_and_the_pseudonym_is_not_made_from_the_key(site: Site) -> None:
    pseudonym = await site.process().of(IDP, "alice")
    issuer = IDP.encode()
    message = b"sealbus.person.v1" + len(issuer).to_bytes(4, "big") + issuer + b"alice"
    row = "people." + hmac.new(bytes(range(32)), message, hashlib.sha256).hexdigest()
    random = bytes.fromhex(pseudonym.removeprefix(PSEUDONYM_PREFIX))
    tag = hmac.new(bytes(range(32)), b"sealbus.person-row.v1" + row.encode() + random, hashlib.sha256).digest()
    assert site.rows() == {row: random + tag}
    async with TestBus(Shop().pricing, engine=ScriptedEngine()) as bus:
        elsewhere = Site(bus, (await bus.client("edge")).node.transport)
        assert await elsewhere.process().of(IDP, "alice") != pseudonym
    derived = hmac.new(bytes(range(32)), message.replace(b"person", b"pseudonym"), hashlib.sha256)
    assert KEY.derived(IDP, "alice") == PSEUDONYM_PREFIX + derived.hexdigest() != pseudonym


async def test_the_row_of_a_person_is_found_and_of_nobody_else_made(site: Site) -> None:
    process = site.process()
    assert await process.find(IDP, "alice") is None
    assert site.rows() == {}
    await process.of(IDP, "bob")
    alice = await process.of(IDP, "alice")
    assert await process.find(IDP, "alice") == Row(alice, 2)


async def test_a_process_reads_a_row_again_after_a_while(site: Site) -> None:
    process = site.process()
    await process.of(IDP, "alice")
    row = KEY.row(IDP, "alice")
    await site.store(row, KEY.row_value(row, bytes(32)))
    site.now[0] = KNOWN_SECONDS - 1
    assert await process.of(IDP, "alice") != PSEUDONYM_PREFIX + bytes(32).hex()
    site.now[0] = KNOWN_SECONDS
    assert await process.of(IDP, "alice") == PSEUDONYM_PREFIX + bytes(32).hex()


async def test_a_row_that_is_not_ours_names_nobody(site: Site) -> None:
    row, other = KEY.row(IDP, "alice"), KEY.row(IDP, "bob")
    value = KEY.row_value(row, bytes(32))
    altered = [value[:place] + bytes([value[place] ^ 1]) + value[place + 1 :] for place in range(len(value))]
    foreign = [KEY.row_value(other, bytes(32)), PseudonymKey(bytes(32)).row_value(row, bytes(32))]
    for wrong in [b"", value[:-1], value + b"\0", value[:32], *altered, *foreign]:
        await site.store(row, wrong)
        with pytest.raises(BusUnavailable, match="pseudonym_key"):
            await site.process().of(IDP, "alice")
        with pytest.raises(BusUnavailable, match="pseudonym_key"):
            await site.process().find(IDP, "alice")
    await site.store(row, value)
    assert await site.process().of(IDP, "alice") == PSEUDONYM_PREFIX + bytes(32).hex()


async def test_processes_that_see_a_person_for_the_first_time_at_once_agree(site: Site) -> None:
    assert len(set(await asyncio.gather(*[site.process().of(IDP, "alice") for _ in range(20)]))) == 1


async def test_a_process_that_comes_second_takes_the_others_row(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    first = await site.process().of(IDP, "alice")
    read, behind = KeyValue.get, [3]

    async def late(self: KeyValue, subject: str, *, within: float = 5.0) -> object:
        # A replica that is behind, as the memory's broker has none.
        if behind[0]:
            behind[0] -= 1
            return None
        return await read(self, subject, within=within)

    monkeypatch.setattr(KeyValue, "get", late)
    assert await site.process().of(IDP, "alice") == first
    behind[0] = 1_000
    with pytest.raises(BusUnavailable, match="not seen yet"):
        await site.process().of(IDP, "alice")
    assert len(site.rows()) == 1


async def test_behind_the_edge_a_user_has_the_pseudonym_of_the_row(tmp_path: Path) -> None:
    write_key(tmp_path / "key")
    engine = ScriptedEngine()
    async with door(Shop().inventory, engine=engine, pseudonym_key=tmp_path / "key", pseudonyms="random") as edge:
        sent = await edge.post("/v1/tasks/inventory/update", {"item_id": "42"}, sub="somebody-real")
        assert sent.status_code == 202
        await edge.bus.idle()
        rows = edge.bus.stored(PEOPLE)
        assert {one["context"]["user"]["id"] for one in engine.asked} == {PSEUDONYM_PREFIX + rows[0].payload[:32].hex()}
        stored = [one for stream in edge.bus.broker.streams for one in edge.bus.stored(stream)]
        assert not [one for one in stored if b"somebody-real" in one.payload or "somebody-real" in one.subject]
        assert (await edge.get(sent.headers["location"], sub="somebody-real")).status_code == 200
        assert (await edge.get(sent.headers["location"], sub="somebody-else")).status_code == 404


async def test_without_the_row_a_user_is_not_served_under_another_name(tmp_path: Path) -> None:
    write_key(tmp_path / "key")
    engine = ScriptedEngine()
    async with door(Shop().pricing, engine=engine, pseudonym_key=tmp_path / "key", pseudonyms="random") as edge:
        edge.bus.broker.fail(PEOPLE, BusUnavailable("the broker is away"))
        answer = await edge.post("/v1/calls/pricing/quote", {"item_id": "42"})
        assert (answer.status_code, answer.json()["code"]) == (503, "bus_unavailable")
        assert engine.asked == []


async def test_whoever_was_revoked_under_the_derived_pseudonym_stays_so(tmp_path: Path) -> None:
    write_key(tmp_path / "key")
    revoked = [Revocations()]
    async with door(
        Shop().pricing,
        engine=ScriptedEngine(),
        revocations=lambda: revoked[0],
        pseudonym_key=tmp_path / "key",
        pseudonyms="random",
    ) as edge:
        issuer, keyed = edge.issuer.issuer, edge.edge.front.pseudonyms
        assert isinstance(keyed, RandomPseudonyms)
        quote = ("/v1/calls/pricing/quote", {"item_id": "42"})
        assert (await edge.post(*quote)).status_code == 200
        for name in (keyed.key.derived(issuer, "alice"), await keyed.of(issuer, "alice")):
            revoked[0] = Revocations(users={(issuer, name): 1 << 52})
            assert (await edge.post(*quote)).status_code == 401
        revoked[0] = Revocations(users={(issuer, await keyed.of(issuer, "bob")): 1 << 52})
        assert (await edge.post(*quote)).status_code == 200

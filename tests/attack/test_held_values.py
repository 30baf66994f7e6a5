"""Values in HELD on a real server: what an agent has stored under another's subject counts for nothing, and hides nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.dev_broker import INVENTORY, NAMES, OPERATOR, PRICING, SERVER_ID, STREAMS, WORKLOADS, Site
from support.dev_broker import running as broker
from support.identity import StaticIdentity
from support.lab import QUICK
from support.raw_nats import RawNats

from sealbus.agents.control.notary.key_book import KeyBookWriter
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.dev.nats.config import BrokerRole
from sealbus.agents.dev.nats.server import EmbeddedNatsServer
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.streams.held import Held, HeldValue, PastTrust, current_only
from sealbus.bus.streams.key_book import KEY_BOOK_TYPE, KeyBook, key_book_subject
from sealbus.bus.streams.plan import apply
from sealbus.envelopes.errors import BusUnavailable, StateUnavailable
from sealbus.envelopes.log.trust_history import TrustHistory
from sealbus.envelopes.records.notary import BundleRecord
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.spiffe_id import SpiffeId

pytestmark = pytest.mark.nats

TYPE = "application/vnd.sealbus.test.v1"
SUBJECT = "held.pricing.task.q.00"
EDGE, NOTARY = NAMES.id_of("edge"), NAMES.id_of("notary")


@dataclass
class Bus:
    """A server with the permissions of `sealbus dev`, and everybody's identity for signing."""

    site: Site
    authority: DevelopmentAuthority
    server: EmbeddedNatsServer

    def connection(self, who: SpiffeId) -> Connection:
        return Connection(
            [f"tls://localhost:{self.server.port}"],
            identity=StaticIdentity(self.site.ca, str(who)),
            server_ids=frozenset({SERVER_ID}),
            inbox_prefix=NAMES.inbox_prefix(who),
            options=QUICK,
        )

    def trust(self) -> Trust:
        return Trust(bundles=self.identity(PRICING).bundles())

    def identity(self, who: SpiffeId) -> MemoryIdentity:
        return MemoryIdentity(self.authority, who)

    def held(self, connection: Connection, past: PastTrust = current_only) -> Held:
        return Held(NatsTransport(connection), trust=self.trust, past=past, names=NAMES, caches=Caches())

    def key_book(self, connection: Connection) -> KeyBook:
        return KeyBook(NatsTransport(connection), notaries=[NOTARY], trust=self.trust, names=NAMES, caches=Caches())

    def rotate(self) -> None:
        """Let the key of everything that was signed so far leave the bundle."""
        self.authority.prepare_jwt()
        self.authority.activate_jwt()
        self.authority.prune_jwt()

    def record(self) -> BundleRecord:
        return BundleRecord(trust_domain=NAMES.trust_domain, current=wall_clock(), jwt=self.authority.jwt_bundle())


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    site = Site(folder=tmp_path)
    workloads = {**WORKLOADS, EDGE: BrokerRole.EDGE, NOTARY: BrokerRole.NOTARY}
    async with broker(site, workloads=workloads) as server, site.connect(server, OPERATOR) as operator:
        await apply(STREAMS, operator.request)
        yield Bus(site, DevelopmentAuthority(NAMES.trust_domain), server)


async def plant(thief: RawNats, subject: str, payload: bytes) -> None:
    """Have the server store bytes under another's subject, as who is in the account of the streams can."""
    await thief.request("state.operator.mine", payload)
    thief.publish("$JS.API.DIRECT.GET.STATE.state.operator.mine", reply=subject)
    assert await thief.settle() == []


async def test_what_was_planted_counts_for_nothing_and_the_owner_goes_on(bus: Bus) -> None:
    sealer = bus.identity(PRICING).sealer()
    async with (
        bus.connection(PRICING) as pricing,
        bus.connection(EDGE) as edge,
        bus.site.connect(bus.server, OPERATOR) as thief,
    ):
        owner, reader = bus.held(pricing), bus.held(edge)
        await plant(thief, SUBJECT, b"bytes of its choice")
        async with asyncio.timeout(60):
            while (found := await owner.standing(SUBJECT, TYPE)) == (None, 0):
                pass
        before, last = found
        assert (before, last) == (None, 1)
        assert await owner.write(SUBJECT, {"txt": "first"}, TYPE, sealer) is None
        written = await owner.write(SUBJECT, {"txt": "first"}, TYPE, sealer, last=last)
        assert written is not None
        assert written.last == 2
        first = (await reader.newest("held.*.task.>", TYPE))[SUBJECT]
        assert (first.keys.text("txt"), first.number, first.last) == ("first", 1, 2)
        # A genuine version of its own subject, under the other's; and one of two that write at the same moment fails.
        mine = "held.inventory.task.q.00"
        async with bus.connection(INVENTORY) as connection:
            own = bus.identity(INVENTORY).sealer()
            assert await bus.held(connection).write(mine, {"txt": "mine"}, TYPE, own) is not None
            with pytest.raises(BusUnavailable):
                await bus.held(connection).write(SUBJECT, {"txt": "mine"}, TYPE, sealer, last=2, within=2)
        writes = [owner.write(SUBJECT, {"txt": str(n)}, TYPE, sealer, before=first) for n in range(2)]
        assert {one.last if one is not None else None for one in await asyncio.gather(*writes)} == {4, None}
        found_now = await reader.newest("held.*.task.>", TYPE)
        assert {one: value.number for one, value in found_now.items()} == {SUBJECT: 2, mine: 1}
        # Nobody reads another's values but who decides about them.
        with pytest.raises(BusUnavailable):
            await bus.held(pricing).newest("held.*.task.>", TYPE, within=2)


async def test_a_key_book_on_a_real_server_and_a_forged_one(bus: Bus) -> None:
    async with (
        bus.connection(PRICING) as pricing,
        bus.connection(NOTARY) as notary,
        bus.connection(INVENTORY) as inventory,
        bus.site.connect(bus.server, OPERATOR) as thief,
    ):
        history = TrustHistory([bus.record()])
        await bus.held(pricing).write(SUBJECT, {"txt": "parked"}, TYPE, bus.identity(PRICING).sealer())
        bus.rotate()
        history.add(bus.record())
        # What an agent signs as a key book is nobody's, wherever it stands.
        forged = {"rec": [one.encode() for one in history.since(0)]}
        own = "held.inventory.keys"
        signer = bus.identity(INVENTORY).sealer()
        assert await bus.held(inventory).write(own, forged, KEY_BOOK_TYPE, signer)  # type: ignore[arg-type]  # bytes
        [raw] = [one.payload async for batch in NatsTransport(inventory).read("HELD", [own]) for one in batch]
        await plant(thief, key_book_subject("notary"), raw)
        book = bus.key_book(pricing)
        assert await bus.held(pricing).newest(SUBJECT, TYPE) == {}
        with pytest.raises(StateUnavailable):
            await bus.held(pricing, book).newest(SUBJECT, TYPE)
        writer = KeyBookWriter(
            identity=bus.identity(NOTARY), transport=NatsTransport(notary), names=NAMES, clock=wall_clock
        )
        running = asyncio.create_task(writer.write_books(history))
        found: dict[str, HeldValue] = {}
        async with asyncio.timeout(60):
            while not found:
                with contextlib.suppress(StateUnavailable):
                    # A new reader: one that has just found no book does not look again for some seconds.
                    found = await bus.held(pricing, bus.key_book(pricing)).newest(SUBJECT, TYPE)
        running.cancel()
        await asyncio.wait({running})
        assert found[SUBJECT].keys.text("txt") == "parked"
        assert writer.problem == ""

"""The spool: stored on disk is stored, and the stream gets it later, in order and sealed when it leaves."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.lab import until
from support.spooled import batch_of, contents, outcome

from sealbus.agents.dev.memory.broker import MemoryBroker
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.bus.audit import spool as spool_module
from sealbus.bus.audit.spool import Spool, SpoolOptions
from sealbus.bus.audit.writer import AuditWriter
from sealbus.bus.clocks import BusClock, wall_clock
from sealbus.bus.sending.outbox import Outbox, OutboxLimits
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import AuditUnavailable, BusUnavailable, ConfigurationError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.body import parse_audit_body
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

INVENTORY = SpiffeId("spiffe://example.org/agent/inventory")
AWAY = BusUnavailable("the test says so")


class Desk:
    """A broker in memory, an outbox on it, and a clock that the test moves."""

    def __init__(self, folder: Path) -> None:
        self.broker = MemoryBroker()
        self.broker.add_stream("AUDIT", ["audit.>"])
        self.counters = Counters()
        self.ahead = 0
        self.options = SpoolOptions(folder=folder, within=0.05, drain=0.2)
        self.identity = self.rotated()

    def clock(self) -> int:
        return wall_clock() + self.ahead

    def rotated(self) -> MemoryIdentity:
        """Return the same identity with another key, vouched for by another authority."""
        return MemoryIdentity(DevelopmentAuthority(TrustDomain("example.org"), clock=self.clock), INVENTORY)

    def outbox(self) -> Outbox:
        return Outbox(
            identity=self.identity,
            transport=self.broker.connect(),
            clock=BusClock(self.clock),
            limits=OutboxLimits(ack_wait=0.05, pause=0.0),
        )

    @asynccontextmanager
    async def spool(self, **changes: int) -> AsyncIterator[Spool]:
        """Open the spool as one process does; each process has counters of its own."""
        self.counters = Counters()
        options = SpoolOptions(
            folder=self.options.folder,
            within=self.options.within,
            drain=self.options.drain,
            max_bytes=changes.get("max_bytes", 1 << 20),
        )
        async with (
            self.outbox() as outbox,
            Spool(options, subject="audit.inventory", outbox=outbox, counters=self.counters) as spool,
        ):
            yield spool

    async def stored(self) -> list[bytes]:
        """Return the leaves of all records in the stream, in order."""
        leaves: list[bytes] = []
        async for batch in self.broker.connect().read("AUDIT", ["audit.>"]):
            for delivery in batch:
                leaves += parse_audit_body(parse_envelope(delivery.payload).body).records
        return leaves


def leaves(*numbers: int) -> list[bytes]:
    return [leaf for number in numbers for leaf in parse_audit_body(batch_of(number).body).records]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(spool_module, "_BACKOFF", Backoff(initial_interval=1e-6, maximum_interval=1e-6))
    return Desk(tmp_path / "spool")


async def test_what_is_stored_reaches_the_stream_in_order_and_leaves_the_disk(desk: Desk) -> None:
    async with desk.spool() as spool:
        for number in range(100):
            await spool.store(batch_of(number))
    assert await desk.stored() == leaves(*range(100))
    assert contents(desk.options.folder) == []


async def test_stores_that_wait_together_share_one_sync(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs, sync = [], os.fdatasync

    def counted(descriptor: int) -> None:
        syncs.append(descriptor)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", counted)
    async with desk.spool() as spool:
        await asyncio.gather(*(spool.store(batch_of(number)) for number in range(50)))
    assert len(syncs) == 1
    assert await desk.stored() == leaves(*range(50))


async def test_without_the_stream_records_are_stored_and_sent_when_it_is_back(desk: Desk) -> None:
    desk.broker.fail("AUDIT", AWAY)
    async with desk.spool() as spool:
        for number in range(5):
            await spool.store(batch_of(number))
        await until(lambda: spool.behind != "")
        assert spool.behind.startswith("5 audit messages")
        assert (spool.problem, await desk.stored()) == ("", [])
        assert "sealbus_audit_spool_messages 5.0\n" in desk.counters.render()
        desk.broker.fail("AUDIT", None)
        await until(lambda: not spool.behind)
    assert await desk.stored() == leaves(*range(5))


async def test_a_process_that_ends_leaves_the_rest_to_the_next(desk: Desk) -> None:
    desk.broker.fail("AUDIT", AWAY)
    async with desk.spool() as spool:
        await spool.store(batch_of(1))
        await spool.store(batch_of(2))
    assert contents(desk.options.folder) == [batch_of(1), batch_of(2)]
    desk.broker.fail("AUDIT", None)
    async with desk.spool() as spool:
        await spool.store(batch_of(3))
    assert await desk.stored() == leaves(1, 2, 3)


async def test_records_are_sealed_when_they_leave_and_not_before(desk: Desk) -> None:
    """Hours later, by what may be another credential: nothing in the spool is signed, so nothing in it expires."""
    desk.broker.fail("AUDIT", AWAY)
    async with desk.spool() as spool:
        await spool.store(batch_of(1))
    desk.broker.fail("AUDIT", None)
    desk.ahead = 5 * 3_600 * SECOND
    desk.identity = desk.rotated()
    async with desk.spool():
        pass
    (delivery,) = [one async for batch in desk.broker.connect().read("AUDIT", ["audit.>"]) for one in batch]
    header = parse_header(parse_envelope(delivery.payload).header)
    assert header.iat > wall_clock() + 4 * 3_600 * SECOND
    assert header.crd == desk.identity.sealer().crd


async def test_a_full_spool_refuses_and_says_so(desk: Desk) -> None:
    desk.broker.fail("AUDIT", AWAY)
    async with desk.spool(max_bytes=400) as spool:
        await spool.store(batch_of(1))
        await spool.store(batch_of(2))
        with pytest.raises(AuditUnavailable, match="full"):
            await spool.store(batch_of(3))
        desk.broker.fail("AUDIT", None)
        await until(lambda: "sealbus_audit_spool_messages 0.0\n" in desk.counters.render())
        await spool.store(batch_of(4))
    assert await desk.stored() == leaves(1, 2, 4)


async def test_of_those_that_wait_together_the_first_have_the_room(desk: Desk) -> None:
    desk.broker.fail("AUDIT", AWAY)
    async with desk.spool(max_bytes=400) as spool:
        answers = await asyncio.gather(*(spool.store(batch_of(one)) for one in range(4)), return_exceptions=True)
    assert [isinstance(one, AuditUnavailable) for one in answers] == [False, False, True, True]


async def test_a_disk_without_room_is_a_refusal(desk: Desk) -> None:
    async with desk.spool() as spool:
        await spool.store(batch_of(1))
        await until(lambda: "sealbus_audit_spool_messages 0.0\n" in desk.counters.render())
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, before[1]))
        try:
            with pytest.raises(AuditUnavailable):
                await spool.store(batch_of(2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        await spool.store(batch_of(3))
    assert await desk.stored() == leaves(1, 3)


async def test_a_failing_disk_is_a_problem_until_the_process_ends(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    async with desk.spool() as spool:
        monkeypatch.setattr(os, "fdatasync", fail)
        with pytest.raises(AuditUnavailable):
            await spool.store(batch_of(1))
        assert spool.problem == "audit_unavailable"
        monkeypatch.undo()
        with pytest.raises(AuditUnavailable):
            await spool.store(batch_of(2))


async def test_a_damaged_spool_is_told_before_anything_is_handled(desk: Desk) -> None:
    desk.broker.fail("AUDIT", AWAY)
    async with desk.spool() as spool:
        await spool.store(batch_of(1))
    (path,) = desk.options.folder.glob("*.spool")
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(ConfigurationError, match="damaged at byte 16"):
        async with desk.spool():
            pass


async def test_the_audit_writer_stores_in_the_spool_what_is_not_about_a_call(desk: Desk) -> None:
    desk.broker.fail("AUDIT", AWAY)
    written = asyncio.Event()
    async with desk.spool() as spool, desk.outbox() as outbox:
        writer = AuditWriter(subject="audit.inventory", outbox=outbox, counters=desk.counters, spool=spool)
        async with writer:
            await writer.note(outcome(1), written.set)
            async with asyncio.timeout(60):
                await written.wait()
            await until(lambda: writer.behind != "")
            assert writer.problem == ""
    assert desk.counters.value("sealbus_outcomes_lost_total") == 0
    assert contents(desk.options.folder) == [batch_of(1)]

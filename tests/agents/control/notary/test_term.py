"""When checkpoints are made, what waits for a key, and what ends a term."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support.notary import NOTARY, ORIGIN, SIGNER, Bench, last_place, read_log

from sealbus.agents.control.notary import term
from sealbus.agents.control.notary.keys import make_key_file
from sealbus.agents.control.notary.log.folder_store import CHECKPOINT, FolderStore
from sealbus.agents.control.notary.notary import Notary, NotaryOptions
from sealbus.agents.control.notary.publisher import new_bundles
from sealbus.agents.control.notary.resume import LogPlan
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.bus.clocks import BusClock
from sealbus.bus.ports import Clock
from sealbus.bus.sending.message import OutgoingMessage
from sealbus.bus.sending.outbox import Outbox
from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.log.checkpoint import Checkpoint, parse_checkpoint, sign_checkpoint
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.log.note import NoteSigner, parse_note
from sealbus.envelopes.log.trust_history import TrustHistory
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Draft
from sealbus.envelopes.records.batch import AuditBatch
from sealbus.envelopes.records.notary import BundleRecord, CheckpointRecord
from sealbus.envelopes.trust.bundles import JwtBundle, TrustBundles
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "log")


@pytest.mark.slow
async def test_a_thousand_entries_are_enough_and_some_time_is(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two checkpoints come long before their time, the third at it."""
    monkeypatch.setattr(term, "SECONDS", 4.0)
    bench.record()
    message = bench.broker.streams["AUDIT"].stored[0]
    for _ in range(2_499):
        bench.broker.inject(message.subject, message.payload)
    async with bench.running():
        await bench.sealed(2_500)
        await bench.published(3)
    found = await read_log(bench.broker.connect(), bench.folder, NOTARY)
    first, second, third = [one.size for one in found.published][:3]
    assert 1_000 <= first <= 1_002
    assert 1_000 <= second - first <= 1_002
    assert third > second


async def test_for_checkpoints_alone_there_is_none(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(term, "SECONDS", 0.05)
    bench.record()
    async with bench.running():
        await bench.published(1)
        stored = bench.stored()
        await asyncio.sleep(0.5)
        assert bench.stored() == stored
        bench.record()
        await bench.sealed(bench.stored())


class Told(MemoryIdentity):
    """An identity whose bundles a test changes, and that says so."""

    def __init__(self, authority: DevelopmentAuthority, spiffe_id: SpiffeId) -> None:
        super().__init__(authority, spiffe_id)
        self.hidden = True
        self.listeners: list[Callable[[], None]] = []
        self.other = DevelopmentAuthority(TrustDomain("example.org"))

    def bundles(self) -> TrustBundles:
        """The keys of both authorities are in one bundle, once the second is not hidden any more."""
        found = super().bundles()
        if self.hidden:
            return found
        domain = TrustDomain("example.org")
        keys = [*json.loads(found[domain].jwks)["keys"], *json.loads(self.other.jwt_bundles()[domain])["keys"]]
        return TrustBundles([JwtBundle.parse(domain, json.dumps({"keys": keys}).encode())])

    def on_rotation(self, callback: Callable[[], None]) -> Callable[[], None]:
        self.listeners.append(callback)
        return lambda: self.listeners.remove(callback)


async def test_a_message_of_an_unknown_key_waits_and_does_not_hold_checkpoints_up(bench: Bench) -> None:
    identity = Told(bench.authority, NOTARY)
    bench.record(2)
    bench.record(identity=MemoryIdentity(identity.other, bench.agent.spiffe_id))
    bench.record()
    async with bench.running(identity=identity):
        await bench.sealed(2)
        await bench.published(1)
        before = bench.checkpoint()
        assert before is not None
        assert before.size == 3
        identity.hidden = False
        for callback in identity.listeners:
            callback()
        await bench.sealed(4)
    assert identity.listeners == []
    found = await read_log(bench.broker.connect(), bench.folder, NOTARY, whole=False)
    assert found.kinds(EntryKind.UNVERIFIED) == []
    assert len(found.bundles) == 2


async def test_a_message_that_nobody_can_verify_is_kept_as_what_it_is(bench: Bench) -> None:
    stranger = MemoryIdentity(Bench(bench.folder).authority, bench.agent.spiffe_id)
    bench.record(identity=stranger)
    bench.record()
    real = bench.clock
    async with bench.running():
        await bench.published(1)
        # A minute passes, for everybody.
        bench.clock = lambda: real() + 61 * SECOND
        await bench.sealed(2)
    found = await read_log(bench.broker.connect(), bench.folder, NOTARY, whole=False)
    assert found.kinds(EntryKind.UNVERIFIED) == [1]


async def run_until_it_ends(notary: Notary) -> LogError:
    with pytest.raises(LogError) as caught:
        await notary.run()
    assert notary.problem
    return caught.value


async def test_a_clock_that_disagrees_ends_it(bench: Bench) -> None:
    bench.record()
    # The broker's clock is ahead.
    async with bench.notary(clock=lambda: bench.now() - 61 * SECOND) as notary:
        with pytest.raises(LogError) as caught:
            await notary.run()
    assert caught.value.code is Code.CLOCK_DISAGREEMENT
    assert bench.checkpoint() is None


async def test_it_goes_on_once_its_clock_was_set(bench: Bench) -> None:
    def late() -> int:
        return bench.now() - 400 * SECOND

    [bundle] = new_bundles(MemoryIdentity(bench.authority, NOTARY), TrustHistory(), late(), 0)
    # While its clock was wrong it has sealed something, as at every start. That stays in the stream.
    await sent_by_us(bench, bundle, late)
    async with bench.notary(clock=late) as notary:
        assert (await run_until_it_ends(notary)).code is Code.CLOCK_DISAGREEMENT
    async with bench.running():
        await bench.sealed(bench.stored())
    await read_log(bench.broker.connect(), bench.folder, NOTARY, whole=False)


async def test_a_clock_that_is_set_wrong_while_it_runs_ends_it(bench: Bench) -> None:
    bench.record()
    async with bench.notary() as notary, asyncio.TaskGroup() as group, asyncio.timeout(60):
        task = group.create_task(run_until_it_ends(notary))
        await bench.sealed(1)
        [bundle] = new_bundles(MemoryIdentity(bench.authority, NOTARY), TrustHistory(), bench.now(), 0)
        await sent_by_us(bench, bundle, lambda: bench.now() - 400 * SECOND)
    assert task.result().code is Code.CLOCK_DISAGREEMENT


async def published_by_us(bench: Bench, checkpoint: Checkpoint) -> None:
    await sent_by_us(bench, CheckpointRecord(note=sign_checkpoint(checkpoint, [SIGNER])), bench.now)


async def sent_by_us(bench: Bench, record: BundleRecord | CheckpointRecord, clock: Clock) -> None:
    batch = AuditBatch()
    batch.add(record.encode())
    closed = batch.close()
    identity = MemoryIdentity(bench.authority, NOTARY)
    async with Outbox(identity=identity, transport=bench.broker.connect(), clock=BusClock(clock)) as outbox:
        message = OutgoingMessage(
            Draft(
                kind=Kind.RECORD,
                to="audit.notary",
                body=closed.body,
                dig=closed.dig,
                typ="x/y",
            ),
            life=SECOND * 3_600,
        )
        await outbox.publish(message)


@pytest.mark.parametrize("size", [1, 50])
async def test_a_checkpoint_of_ours_that_is_not_of_this_log_ends_it(bench: Bench, size: int) -> None:
    bench.record(4)
    async with bench.running():
        await bench.sealed(4)
        await bench.published(1)
    async with bench.notary() as notary, asyncio.TaskGroup() as group, asyncio.timeout(60):
        task = group.create_task(run_until_it_ends(notary))
        await notary.serving.wait()
        await published_by_us(bench, Checkpoint(ORIGIN, size, bytes(32)))
    assert task.result().code is Code.INCONSISTENT_LOG


@pytest.mark.parametrize("size", [1, 50])
async def test_a_checkpoint_of_ours_that_came_while_no_notary_ran_ends_it_as_well(bench: Bench, size: int) -> None:
    """It is found as the log is taken up; with a size that no log of this stream has, nothing waits for so many entries."""
    bench.record(4)
    async with bench.running():
        await bench.sealed(4)
        await bench.published(1)
    await published_by_us(bench, Checkpoint(ORIGIN, size, bytes(32)))
    async with bench.notary() as notary, asyncio.timeout(60):
        assert (await run_until_it_ends(notary)).code is Code.INCONSISTENT_LOG


async def test_two_keys_sign_while_one_replaces_the_other(bench: Bench, tmp_path: Path) -> None:
    new = make_key_file(tmp_path / "new.key", ORIGIN)

    def options(*signers: NoteSigner) -> NotaryOptions:
        plan = LogPlan(origin=ORIGIN, verifiers=tuple(one.verifier for one in signers))
        return NotaryOptions(plan=plan, signers=signers, lease=1.0)

    for signers in ((SIGNER,), (SIGNER, new), (new,)):
        bench.record()
        async with bench.running(options=options(*signers)):
            await sealed_with(bench, bench.stored(), [one.verifier.key_id for one in signers])
    await read_log(bench.broker.connect(), bench.folder, NOTARY, verifiers=[SIGNER.verifier, new.verifier], whole=False)
    # Without an overlap nobody could tell that it is the same log.
    async with bench.notary(options=options(NoteSigner(ORIGIN, bytes(32)))) as notary:
        with pytest.raises(LogError, match="untrusted_note"):
            await notary.run()


async def sealed_with(bench: Bench, sequence: int, keys: Sequence[bytes]) -> None:
    store = FolderStore(bench.folder)

    def reached() -> bool:
        data = store.get(CHECKPOINT)
        if data is None:
            return False
        note = parse_note(data)
        size = parse_checkpoint(note.text).size
        return [one.key_id for one in note.signatures] == list(keys) and last_place(store, size).sequence >= sequence

    await bench.until(reached)

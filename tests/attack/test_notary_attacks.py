"""What agents can put into AUDIT to mislead a notary, to hold it up, or to end it: they get entries, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.notary import NOTARY, ORIGIN, SIGNER, Bench, read_log

from sealbus.agents.control.notary import term
from sealbus.agents.control.notary.lease import lease_subject
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.bus.ports import uuid7
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.log.checkpoint import Checkpoint, sign_checkpoint
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Draft, seal
from sealbus.envelopes.records.batch import AuditBatch
from sealbus.envelopes.records.body import encode_audit_body
from sealbus.envelopes.records.notary import BundleRecord, CheckpointRecord
from sealbus.envelopes.trust.merkle import leaf_hash, root
from sealbus.envelopes.trust.spiffe_id import TrustDomain


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(term, "SECONDS", 0.1)
    return Bench(tmp_path / "log")


def sealed(bench: Bench, body: bytes, dig: bytes, identity: MemoryIdentity, to: str = "audit.shop") -> bytes:
    now = bench.now()
    draft = Draft(kind=Kind.RECORD, id=uuid7(now), to=to, iat=now, exp=now + 60 * SECOND, body=body, dig=dig, typ="x/y")
    return seal([draft], identity.sealer())[0].wire


def put(bench: Bench, *records: bytes) -> None:
    """Have the agent `shop` record what is not its to record."""
    batch = AuditBatch()
    for record in records:
        batch.add(record)
    closed = batch.close()
    bench.broker.inject("audit.shop", sealed(bench, closed.body, closed.dig, bench.agent))


def bundle_of(bench: Bench) -> BundleRecord:
    [(domain, jwks)] = bench.authority.jwt_bundles().items()
    return BundleRecord(trust_domain=domain, current=1, jwt=jwks)


async def test_an_agent_introduces_no_trust(bench: Bench) -> None:
    """Its record of a bundle is an entry like any other: what it would vouch for does not open."""
    forged = Bench(bench.folder)
    stranger = MemoryIdentity(forged.authority, bench.agent.spiffe_id)
    put(bench, bundle_of(forged).encode())
    bench.record(identity=stranger)
    # A trust domain of its own, which nobody federates with.
    put(bench, BundleRecord(trust_domain=TrustDomain("evil.example"), current=1, jwt=b'{"keys":[]}').encode())
    real = bench.clock
    async with bench.running():
        await bench.until(lambda: bench.stored() > 4)
        bench.clock = lambda: real() + 61 * SECOND
        await bench.sealed(3)
    found = await read_log(bench.broker.connect(), bench.folder, NOTARY, whole=False)
    assert found.kinds(EntryKind.UNVERIFIED) == [2]
    assert [one.trust_domain for one in found.bundles] == [TrustDomain("example.org")]
    assert len(list((bench.folder / "trust").iterdir())) == 1


async def test_an_agent_makes_no_checkpoints(bench: Bench) -> None:
    """Whatever it records of this log's future, and even what the log's own key signed of another past."""
    far = sign_checkpoint(Checkpoint(ORIGIN, 1_000_000, bytes(32)), [SIGNER])
    put(bench, CheckpointRecord(note=far).encode(), CheckpointRecord(note=b"nonsense").encode())
    for _ in range(2):
        async with bench.running():
            bench.record()
            await bench.sealed(bench.stored())
            await bench.published(1)
    await read_log(bench.broker.connect(), bench.folder, NOTARY)


async def test_it_does_not_speak_under_the_notarys_subject(bench: Bench) -> None:
    """What the broker's permissions would keep away, and what is no matter without them."""
    batch = AuditBatch()
    batch.add(bundle_of(Bench(bench.folder)).encode())
    closed = batch.close()
    bench.broker.inject("audit.notary", sealed(bench, closed.body, closed.dig, bench.agent, "audit.notary"))
    bench.broker.inject("audit.notary", b"garbage")
    async with bench.running():
        await bench.sealed(2)
        await bench.published(1)
    found = await read_log(bench.broker.connect(), bench.folder, NOTARY)
    assert found.kinds(EntryKind.UNVERIFIED) == [1, 2]
    assert len(found.bundles) == 1


async def test_many_messages_of_unknown_keys_wait_together(bench: Bench) -> None:
    """A minute after they were stored, not a minute each."""
    stranger = MemoryIdentity(Bench(bench.folder).authority, bench.agent.spiffe_id)
    bench.record(50, identity=stranger)
    bench.record()
    real = bench.clock
    async with bench.running():
        await bench.until(lambda: bench.stored() > 51)
        bench.clock = lambda: real() + 61 * SECOND
        await bench.sealed(51)
    found = await read_log(bench.broker.connect(), bench.folder, NOTARY, whole=False)
    assert found.kinds(EntryKind.UNVERIFIED) == list(range(1, 51))


async def test_misshapen_large_and_repeated_messages(bench: Bench) -> None:
    bad = b"\x81\xa1v\x01"
    bodies = [
        (encode_audit_body([], [bad]), root([leaf_hash(bad)])),
        (b"", bytes(32)),
        (encode_audit_body([], [b"x" * 900_000]), root([leaf_hash(b"x" * 900_000)])),
    ]
    for body, dig in bodies:
        bench.broker.inject("audit.shop", sealed(bench, body, dig, bench.agent))
    bench.record()
    repeated = bench.broker.streams["AUDIT"].stored[-1]
    bench.broker.inject(repeated.subject, repeated.payload)
    bench.broker.inject("audit.other", repeated.payload)
    bench.garbage(b"")
    bench.garbage(bytes(1_000_000))
    async with bench.running():
        await bench.sealed(8)
        await bench.published(1)
    found = await read_log(bench.broker.connect(), bench.folder, NOTARY)
    # Repeated where it was sent to it is as true as the first time; elsewhere it is not.
    assert found.kinds(EntryKind.UNVERIFIED) == [1, 2, 3, 6, 7, 8]


@pytest.mark.slow
async def test_what_is_planted_in_the_place_of_the_lease_only_delays(bench: Bench) -> None:
    bench.record()
    async with bench.running() as notary:
        await bench.sealed(1)
        bench.broker.inject(lease_subject("notary", ORIGIN), b"planted")
        await bench.until(lambda: not notary.serving.is_set())
        await notary.serving.wait()
        bench.record()
        await bench.sealed(bench.stored())
        assert notary.problem == ""
    await read_log(bench.broker.connect(), bench.folder, NOTARY)

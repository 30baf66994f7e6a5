"""What the notary records of itself: bundles when they change, checkpoints, and when they were sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.notary import NAMES, NOTARY, Bench, own_records

from sealbus.agents.control.notary.publisher import NotarySite, RecordPublisher, new_bundles
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.bus.ports import X509Material
from sealbus.bus.sending.outbox import Outbox
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.log.trust_history import TrustHistory
from sealbus.envelopes.records.notary import BundleRecord, CheckpointRecord
from sealbus.envelopes.trust.spiffe_id import TrustDomain


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_trust_domain_that_is_gone_has_no_keys_from_then_on(bench: Bench) -> None:
    identity, other = MemoryIdentity(bench.authority, NOTARY), TrustDomain("other.example")
    jwt = identity.bundles()[TrustDomain("example.org")].jwks
    history = TrustHistory([BundleRecord(trust_domain=other, current=1, jwt=jwt)])
    own, gone = new_bundles(identity, history, 5, 0)
    assert (own.trust_domain, gone.trust_domain, gone.jwt) == (TrustDomain("example.org"), other, b'{"keys":[]}')
    history.add(own)
    history.add(gone)
    assert new_bundles(identity, history, 6, 0) == []
    assert [len(bundles[other].keys) for bundles in history.at(6)] == [0]


class WithCertificates(MemoryIdentity):
    """An identity that has an X.509 bundle, too."""

    def x509(self) -> X509Material:
        domain = TrustDomain("example.org")
        bundles = {domain: tuple(bytes([n]) for n in range(40))}
        return X509Material(
            spiffe_id=self.spiffe_id, chain=(b"leaf",), key=b"", bundles=bundles, not_before=0, not_after=1
        )


def test_bundles_are_new_until_the_history_has_them(bench: Bench) -> None:
    identity, history = MemoryIdentity(bench.authority, NOTARY), TrustHistory()
    [record] = new_bundles(identity, history, 5, 0)
    assert (record.trust_domain, record.current, record.x509) == (TrustDomain("example.org"), 5, ())
    assert record.jwt == identity.bundles()[record.trust_domain].jwks
    history.add(record)
    assert new_bundles(identity, history, 6, 0) == []
    # A clock that was set back does not put what is new before what it replaces.
    [other] = new_bundles(WithCertificates(bench.authority, NOTARY), history, 3, 0)
    assert (other.current, len(other.x509)) == (6, 32)
    # Nor before what was judged without it, by a broker's clock that is ahead.
    [later] = new_bundles(WithCertificates(bench.authority, NOTARY), history, 3, 70)
    assert later.current == 71


async def test_what_is_stored_and_when_it_was_sent(bench: Bench) -> None:
    identity, history = MemoryIdentity(bench.authority, NOTARY), TrustHistory()
    transport = bench.broker.connect()
    async with Outbox(identity=identity, transport=transport, clock=bench.now) as outbox:
        site = NotarySite(identity=identity, transport=transport, outbox=outbox, names=NAMES, clock=bench.now)
        publisher = RecordPublisher(site)
        assert await publisher.publish_new_bundles(history, 0)
        assert not await publisher.publish_new_bundles(history, 0)
        await publisher.publish_record(CheckpointRecord(note=b"note"))
        kinds = [type(one) for one in own_records(bench.broker.streams["AUDIT"].stored)]
        assert kinds == [BundleRecord, CheckpointRecord]
        assert list(publisher.sent) == [1, 2]
        for _ in range(300):
            await publisher.publish_record(CheckpointRecord(note=b"note"))
        assert len(publisher.sent) == 256
        assert max(publisher.sent) == 302


async def test_what_was_not_stored_is_not_in_the_history(bench: Bench) -> None:
    identity, history = MemoryIdentity(bench.authority, NOTARY), TrustHistory()
    bench.broker.fail("AUDIT", BusUnavailable("away"))
    transport = bench.broker.connect()
    async with Outbox(identity=identity, transport=transport, clock=bench.now) as outbox:
        site = NotarySite(identity=identity, transport=transport, outbox=outbox, names=NAMES, clock=bench.now)
        publisher = RecordPublisher(site, within=0.2)
        with pytest.raises(BusUnavailable):
            await publisher.publish_new_bundles(history, 0)
    assert history.at(5) == ()

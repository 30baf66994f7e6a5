"""What each message is to the log: by the bundles and clocks of its time."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.notary import NAMES, Bench

from sealbus.agents.control.notary.log.message_verifier import LoggedMessage, MessageVerifier
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.bus.ports import Delivery
from sealbus.envelopes.errors import Code, EnvelopeError, LogError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.log.trust_history import TrustHistory
from sealbus.envelopes.records.archive import ArchiveProfile
from sealbus.envelopes.records.notary import BundleRecord, CheckpointRecord
from sealbus.envelopes.records.record import Record

MINUTE = 60 * SECOND


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "log")


def bundle(bench: Bench, current: int) -> BundleRecord:
    [(domain, jwks)] = bench.authority.jwt_bundles().items()
    return BundleRecord(trust_domain=domain, current=current, jwt=jwks)


def verifier(bench: Bench, *records: BundleRecord, history: TrustHistory | None = None) -> MessageVerifier:
    known = history if history is not None else TrustHistory(records)
    return MessageVerifier(profile=ArchiveProfile(names=NAMES), own=NAMES.id_of("notary"), history=known)


def deliveries(bench: Bench) -> list[Delivery]:
    return list(bench.broker.streams["AUDIT"].stored)


def at(delivery: Delivery, *, sequence: int | None = None, stored: int | None = None) -> Delivery:
    old = delivery.arrival
    assert old is not None
    position = old._replace(
        sequence=sequence or old.sequence, stored=old.stored if stored is None else stored, created=0
    )
    return Delivery(subject=delivery.subject, payload=delivery.payload, header_block=b"", arrival=position)


def kinds(messages: list[LoggedMessage]) -> list[list[EntryKind]]:
    return [[entry.kind for entry in one.entries] for one in messages]


def test_verified_not_verifiable_and_gaps(bench: Bench) -> None:
    bench.record()
    bench.garbage()
    first, second = deliveries(bench)
    found = list(verifier(bench, bundle(bench, 0)).verify([first, at(second, sequence=5)], 1, bench.now()))
    assert kinds(found) == [[EntryKind.VERIFIED], [EntryKind.GAP, EntryKind.UNVERIFIED]]
    gap = found[1].entries[0]
    assert (gap.sequence, gap.count, gap.time) == (2, 3, found[1].entries[1].time)
    assert all(one.counts for one in found)


def test_an_unknown_key_is_tried_again_for_a_minute_after_it_was_stored(bench: Bench) -> None:
    bench.garbage()
    bench.record()
    bench.record()
    stored = deliveries(bench)
    history = TrustHistory()
    verifying = verifier(bench, history=history)
    now = bench.now()
    # Garbage needs no key, and is at once what it is; nothing overtakes what has to wait.
    assert kinds(list(verifying.verify(stored, 1, now))) == [[EntryKind.UNVERIFIED]]
    late = now + MINUTE + SECOND
    assert kinds(list(verifying.verify(stored, 1, late))) == [[EntryKind.UNVERIFIED]] * 3
    history.add(bundle(bench, now))
    assert kinds(list(verifying.verify(stored, 1, now))) == [
        [EntryKind.UNVERIFIED],
        [EntryKind.VERIFIED],
        [EntryKind.VERIFIED],
    ]


def test_a_key_that_came_later_counts_and_one_that_was_gone_does_not(bench: Bench) -> None:
    """The bundle of its time and the next one; not one after that."""
    bench.record()
    [message] = deliveries(bench)
    good, now = bundle(bench, 100), bench.now()
    other = BundleRecord(trust_domain=good.trust_domain, current=50, jwt=b'{"keys":[]}')
    late = BundleRecord(trust_domain=good.trust_domain, current=200, jwt=b'{"keys": []}')
    message = at(message, stored=now)
    for current, expected in ((now - 1, EntryKind.VERIFIED), (now + SECOND, EntryKind.VERIFIED)):
        moved = BundleRecord(trust_domain=good.trust_domain, current=current, jwt=good.jwt)
        [found] = verifier(bench, other, moved).verify([message], 1, now + 2 * MINUTE)
        assert found.entries[0].kind is expected
    moved = BundleRecord(trust_domain=good.trust_domain, current=now + 2 * SECOND, jwt=good.jwt)
    between = BundleRecord(trust_domain=good.trust_domain, current=now + SECOND, jwt=late.jwt)
    [found] = verifier(bench, other, between, moved).verify([message], 1, now + 2 * MINUTE)
    assert found.entries[0].kind is EntryKind.UNVERIFIED


def test_what_was_stored_in_our_future_ends_it(bench: Bench) -> None:
    bench.garbage()
    [message] = deliveries(bench)
    assert message.arrival is not None
    stored = message.arrival.stored
    assert list(verifier(bench).verify([message], 1, stored - MINUTE))
    with pytest.raises(LogError) as caught:
        list(verifier(bench).verify([message], 1, stored - MINUTE - 1))
    assert caught.value.code is Code.CLOCK_DISAGREEMENT


def test_our_own_message_was_stored_when_it_was_made(bench: Bench) -> None:
    """Also one of an earlier process, by its own words."""
    notary = MemoryIdentity(bench.authority, NAMES.id_of("notary"))
    bench.record(identity=notary)
    [message] = deliveries(bench)
    assert message.arrival is not None
    verifying, stored = verifier(bench, bundle(bench, 0)), message.arrival.stored
    [good] = verifying.verify([message], 1, stored)
    assert len(good.own) == 1
    with pytest.raises(LogError) as caught:
        list(verifying.verify([at(message, stored=stored + MINUTE + SECOND)], 1, stored + MINUTE))
    assert caught.value.code is Code.CLOCK_DISAGREEMENT


@pytest.mark.parametrize("off", [-MINUTE - 1, MINUTE + 1])
def test_what_we_sent_was_stored_when_we_sent_it_whatever_it_is(bench: Bench, off: int) -> None:
    bench.garbage()
    [message] = deliveries(bench)
    assert message.arrival is not None
    sent = {1: message.arrival.stored - off}
    verifying = MessageVerifier(
        profile=ArchiveProfile(names=NAMES), own=NAMES.id_of("notary"), history=TrustHistory(), sent=sent
    )
    with pytest.raises(LogError) as caught:
        list(verifying.verify([message], 1, bench.now()))
    assert caught.value.code is Code.CLOCK_DISAGREEMENT
    assert not sent
    assert list(verifying.verify([message], 1, bench.now()))


def test_what_others_recorded_is_not_ours(bench: Bench) -> None:
    bench.record()
    [found] = verifier(bench, bundle(bench, 0)).verify(deliveries(bench), 1, bench.now())
    assert found.own == ()


def test_a_sequence_does_not_come_again(bench: Bench) -> None:
    bench.garbage()
    with pytest.raises(LogError) as caught:
        list(verifier(bench).verify(deliveries(bench), 2, bench.now()))
    assert caught.value.code is Code.LOG_MISMATCH


def test_for_checkpoints_alone_there_is_none() -> None:
    from sealbus.envelopes.log.entries import gap_entry, unverified_entry

    message, gap = unverified_entry(3, time=1, payload=b""), gap_entry(1, 2, time=1)
    checkpoint: Record = CheckpointRecord(note=b"note")
    assert not LoggedMessage(entries=(message,), own=(checkpoint,)).counts
    assert LoggedMessage(entries=(message,), own=()).counts
    assert LoggedMessage(entries=(gap, message), own=(checkpoint,)).counts


def test_nothing_opens_without_bundles_and_a_core_message_is_none(bench: Bench) -> None:
    bench.record()
    [message] = deliveries(bench)
    with pytest.raises(EnvelopeError) as caught:
        verifier(bench).open(message)
    assert caught.value.code is Code.UNKNOWN_TRUST_DOMAIN
    assert verifier(bench).open(message, [bench.agent.bundles()]).header.iss == NAMES.id_of("shop")
    with pytest.raises(ValueError, match="comes from a stream"):
        verifier(bench).open(Delivery(subject="audit.shop", payload=b"", header_block=b""))

"""The first pass: bundles that count, those that do not, and checkpoints in the log."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from random import Random

import pytest
from support.log_world import NOTARY, LogKey, World, bundle, entry_of, make_world, note, tree_root
from vectors.issuing import INVENTORY
from vectors.recorded import record_map

from sealbus.envelopes.export.format import Frame
from sealbus.envelopes.export.trust import TrustReader, pinned_bundles
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.records.notary import BundleRecord
from sealbus.envelopes.trust.merkle import leaf_hash
from sealbus.envelopes.trust.spiffe_id import TrustDomain

OWN = "example.org"


def world() -> World:
    made = World(Random(1))  # noqa: S311
    made.creation()
    return made


def read(made: World, **changes: object) -> TrustReader:
    root = made.root() | changes
    reader = TrustReader(Root.parse(json.dumps(root).encode()))
    for index, frame in enumerate(made.frames):
        reader.take_frame(Frame(EntryKind(frame.kind), *frame[1:]), index)
    reader.end()
    return reader


def codes(reader: TrustReader) -> list[tuple[str, str]]:
    return [(finding.place, finding.code) for finding in reader.findings]


def put_bundle(made: World, jwks: bytes, domain: str = OWN, iss: str = NOTARY) -> None:
    made.put(made.audit(iss, [], [record_map("bundle", dom=domain, cur=made.time, jwt=jwks)]))


def test_bundles_in_their_order_and_checkpoints() -> None:
    made = make_world(1, 40)
    reader = read(made)
    assert codes(reader) == []
    assert [set(one.bundle.keys) for one in reader.archive] == [{"k0"}, {"k0", "k1"}, {"k1"}, {"k1", "k2"}, {"k2"}]
    leaves = [leaf_hash(entry_of(frame)) for frame in made.frames]
    assert reader.checkpoints
    for logged in reader.checkpoints:
        assert tree_root(leaves[: logged.size]) == logged.root


def test_the_first_bundle_counts_because_it_is_pinned() -> None:
    made = world()
    made.record_bundle("k0")
    assert len(read(made).archive) == 1
    reader = read(made, bundles=[bytes(32).hex()])
    assert codes(reader) == [("#1", "untrusted_bundle"), ("messages", "no_bundle")]


def test_a_pinned_bundle_of_another_trust_domain_vouches_for_nothing() -> None:
    made = world()
    made.record_bundle("k0")
    made.frames.pop()
    put_bundle(made, bundle("k0"), domain="partner.example")
    assert codes(read(made)) == [("#2", "untrusted_bundle"), ("messages", "no_bundle")]


def test_a_pinned_bundle_of_another_trust_domain_vouches_for_no_notary_of_that() -> None:
    """Only our own trust domain is pinned, also where the root file names a notary of another one."""
    stranger = NOTARY.replace(OWN, "partner.example")
    made = world()
    made.record_bundle("k0")
    made.frames.pop()
    put_bundle(made, bundle("k0"), domain="partner.example", iss=stranger)
    assert codes(read(made, notaries=[NOTARY, stranger])) == [("#2", "untrusted_bundle"), ("messages", "no_bundle")]


def test_of_pinned_bundles_those_of_our_trust_domain_count() -> None:
    made = world()
    made.record_bundle("k0")
    root = Root.parse(json.dumps(made.root()).encode())
    records = [
        BundleRecord(trust_domain=TrustDomain(domain), current=made.time, jwt=bundle("k0"))
        for domain in (OWN, "partner.example", "example.or", "example.orgs")
    ]
    assert [[one.bundle.trust_domain.name for one in pinned_bundles([record], root)] for record in records] == [
        [OWN], [], [], [],
    ]  # fmt: skip
    assert len(pinned_bundles([replace(records[0], jwt=bundle("k1"))], root)) == 0


def test_a_bundle_of_another_trust_domain_counts_once_the_notary_is_trusted() -> None:
    made = world()
    made.record_bundle("k0")
    put_bundle(made, bundle("p"), domain="partner.example")
    assert [one.bundle.trust_domain.name for one in read(made).archive] == [OWN, "partner.example"]


def test_a_later_bundle_is_vouched_for_by_an_earlier_one_or_pinned_too() -> None:
    made = world()
    made.record_bundle("k0")
    made.issuer = "x"
    made.record_bundle("x0")
    assert codes(read(made)) == [("#2", "untrusted_bundle")]
    made.pinned.clear()
    for kid in ("k0", "x0"):
        made.pinned.append(sha256(bundle(kid)).digest())
    assert codes(read(made)) == []


@pytest.mark.parametrize("pinned", [True, False])
def test_a_bundle_that_is_none(pinned: bool) -> None:
    made = world()
    made.record_bundle("k0")
    put_bundle(made, b"{}")
    assert codes(read(made)) == [("#2", "bad_bundle")]
    if pinned:
        made.frames.pop(1)
        made.pinned[:] = [sha256(b"{}").digest()]
        assert codes(read(made)) == [("#2", "untrusted_bundle"), ("messages", "no_bundle")]


def test_others_bring_nothing() -> None:
    made = world()
    made.record_bundle("k0")
    put_bundle(made, bundle("evil"), iss=INVENTORY)
    made.put(NOTARY.encode(), 0)
    made.put(b"not an envelope, though it names " + NOTARY.encode())
    made.put(made.audit(INVENTORY, [], [record_map("policy", rev=NOTARY, sha=bytes(32), siz=1, loc="")]))
    assert len(read(made).archive) == 1
    assert codes(read(made)) == []


@pytest.mark.parametrize(
    ("of", "code"),
    [
        (lambda root, size: note(size, root, [LogKey("stranger")]), "untrusted_note"),
        (lambda root, size: note(size + 1, root, [LogKey("log 0")]), "bad_note"),
        (lambda _root, _size: b"no note", "bad_note"),
        (lambda root, size: note(size, root, [LogKey("other", "other.example")], "other.example"), None),
    ],
)
def test_checkpoints_in_the_log(of: Callable[[bytes, int], bytes], code: str | None) -> None:
    made = world()
    made.record_bundle("k0")
    record = record_map("checkpoint", **{"not": of(bytes(32), len(made.frames))})
    made.put(made.audit(NOTARY, [], [record]))
    reader = read(made)
    assert [found for _, found in codes(reader)] == ([code] if code else [])
    assert reader.checkpoints == []


def test_what_the_log_does_not_say_opened_brings_nothing() -> None:
    made = world()
    made.record_bundle("k0")
    made.record_bundle("k0", "k1")
    made.frames[-1] = made.frames[-1]._replace(kind=0)
    assert len(read(made).archive) == 1


def test_of_a_message_without_bundles_that_does_not_open_the_second_pass_tells() -> None:
    made = world()
    made.record_bundle("k0")
    made.issuer = "x"
    made.record_policy()
    assert codes(read(made)) == []

"""The second pass, entry by entry: what is authentic counts, what is not is said with its place."""

from __future__ import annotations

import json
from hashlib import sha256
from io import BytesIO
from random import Random

import pytest
from support import log_world
from support.log_world import World, make_world
from support.tampering import alter

from sealbus.envelopes.export.entries import EntryReader
from sealbus.envelopes.export.format import Frame, read_frames
from sealbus.envelopes.export.tally import NAME_BYTES, Span, Tally
from sealbus.envelopes.export.trust import TrustReader
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.body import parse_audit_body


def frames_of(world: World) -> list[Frame]:
    return [Frame(EntryKind(one.kind), *one[1:]) for one in world.frames]


def reader_of(world: World, frames: list[Frame], span: Span | None = None) -> EntryReader:
    root = Root.parse(json.dumps(world.root()).encode())
    trust = TrustReader(root)
    for index, frame in enumerate(frames):
        trust.take_frame(frame, index)
    return EntryReader(root, trust.archive, span=span)


def test_a_good_log_in_any_order() -> None:
    world = make_world(2, 40)
    frames = frames_of(world)
    reader = reader_of(world, frames)
    entries = [reader.read(frame) for frame in reversed(frames)]
    assert entries == [log_world.entry_of(frame) for frame in reversed(world.frames)]
    assert reader.findings == []
    assert reader.tally.entries.total() == len(frames)
    assert reader.tally.entries["unverified"] == sum(frame.kind is EntryKind.UNVERIFIED for frame in frames)
    assert {row.verdict for row in reader.tally.rows} == {"allow", "deny", "done"}


def test_a_message_that_opens_and_is_said_to_prove_nothing_is_told() -> None:
    world = make_world(2, 40)
    frames = frames_of(world)
    reader = reader_of(world, frames)
    told = []
    for frame in frames:
        if frame.kind is EntryKind.VERIFIED:
            reader.read(frame._replace(kind=EntryKind.UNVERIFIED))
            header = parse_envelope(frame.data).header
            told.append((frame.sequence, sha256(header).digest()))
    assert reader.opening == told
    assert reader.findings == []
    reader.begin()
    assert (reader.opening, reader.names, reader.tally) == ([], {}, Tally())


def test_a_message_of_a_later_bundle_may_prove_nothing() -> None:
    world = World(Random(1))  # noqa: S311
    world.creation()
    world.record_bundle("k0")

    def denials_by_another_key() -> None:
        world.issuer = "x"
        world.denials()
        world.issuer = "k"
        world.frames[-1] = world.frames[-1]._replace(kind=0)

    denials_by_another_key()
    world.time += 1
    world.record_bundle("k0", "x0")
    denials_by_another_key()
    frames = frames_of(world)
    reader = reader_of(world, frames)
    for frame in frames:
        reader.read(frame)
    assert [sequence for sequence, _ in reader.opening] == [world.sequence]


def test_a_record_is_counted_once_and_what_was_counted_elsewhere_not_at_all() -> None:
    world = make_world(2, 40)
    world.repeat(world.first_decided())
    frames = frames_of(world)
    reader, once = reader_of(world, frames), set[bytes]()
    for frame in frames:
        reader.read(frame)
    for frame in frames:
        if frame.kind is EntryKind.VERIFIED:
            once |= {leaf[:NAME_BYTES] for leaf in parse_audit_body(parse_envelope(frame.data).body).records}
    assert set(reader.names) == once
    assert reader.tally.records.total() == len(once)
    first = next(iter(reader.names))
    reader.begin(frozenset({first, bytes(NAME_BYTES)}))
    for frame in frames:
        reader.read(frame)
    assert (list(reader.names), reader.tally.records.total()) == ([first], 1)


def test_only_what_is_in_the_span_is_counted_by_row() -> None:
    world = make_world(2, 40)
    frames = frames_of(world)
    reader = reader_of(world, frames, Span(0, 1))
    for frame in frames:
        reader.read(frame)
    assert reader.tally.records.total() > 0
    assert reader.tally.rows.total() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["forged_record", "forged_decision", "record_of_the_notary_by_another", "garbage_said_to_have_opened"]
)
def test_what_is_not_authentic_is_found_at_its_sequence(name: str) -> None:
    world = make_world(4, 20)
    seen = set()
    for seed in range(40):
        altered = alter(Random(seed), world, name)  # noqa: S311
        data = altered.files["messages/000"]
        frames = list(read_frames(BytesIO(data).read))
        reader = reader_of(world, frames)
        for frame in frames:
            reader.read(frame)
        # A checkpoint by another is the only one of these that the first pass would not look at.
        [finding] = reader.findings
        assert finding.sequence == world.sequence + 1
        seen.add(finding.code)
    assert len(seen) > 1 or name in ("record_of_the_notary_by_another", "garbage_said_to_have_opened")


@pytest.mark.parametrize(
    ("stored", "data", "taken"), [(0, b"x" * 32, True), (1, b"x" * 32, False), (0, b"x" * 31, False), (0, b"", False)]
)
def test_a_lost_message_has_its_entry_and_no_time(stored: int, data: bytes, taken: bool) -> None:
    world = make_world(1, 12)
    reader = reader_of(world, frames_of(world))
    assert reader.read(Frame(EntryKind.LOST, 1, stored, data)) == (data if taken else bytes(32))
    assert [finding.code for finding in reader.findings] == ([] if taken else ["bad_entry"])
    assert reader.tally.entries["lost"] == taken


def test_an_entry_that_is_none_leaves_a_hole() -> None:
    world = make_world(1, 12)
    reader = reader_of(world, frames_of(world))
    assert reader.read(Frame(EntryKind.GAP, 1, 1, b"")) == bytes(32)
    assert [finding.code for finding in reader.findings] == ["bad_entry"]

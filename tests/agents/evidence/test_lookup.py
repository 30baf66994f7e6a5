"""What an export holds about one message, by any of its names."""

from __future__ import annotations

import pytest
from support.kept_log import root_of
from support.log_world import World, make_world
from support.memory_files import MemoryFiles
from support.receipts import FILES, ROOT, WORLD, frame_of, looked_up, message_ids

from sealbus.agents.evidence.lookup import identifier, items_of, look_up
from sealbus.envelopes.errors import ConfigurationError, EnvelopeError, LogError
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.work import OutcomeRecord


def test_a_message_has_its_decision_and_what_came_of_it() -> None:
    outcomes = 0
    for ident in message_ids()[:20]:
        lookup = looked_up(ident)
        first, *rest = lookup.found
        assert isinstance(first.record, DecisionRecord)
        for found in rest:
            assert isinstance(found.record, OutcomeRecord)
            assert found.record.decision == first.leaf
            outcomes += 1
    assert outcomes


def test_the_same_is_found_by_the_hash_of_the_header_and_by_the_leaf() -> None:
    message = WORLD.messages[3]
    by_id = looked_up(message_ids()[3])
    assert look_up(FILES, ROOT, message.digest()).found == by_id.found
    leaf = by_id.found[0].leaf
    assert [found.leaf for found in look_up(FILES, ROOT, leaf).found][:1] == [leaf]
    outcome = next(found for ident in message_ids() for found in looked_up(ident).found[1:])
    assert {found.leaf for found in look_up(FILES, ROOT, outcome.leaf).found} == {outcome.leaf}


def test_records_of_other_kinds_are_found_by_their_leaf() -> None:
    bundle = looked_up(bytes(16)).bundles[0]
    from sealbus.envelopes.trust.merkle import leaf_hash

    [found] = look_up(FILES, ROOT, leaf_hash(bundle.items[bundle.item])).found
    assert found.record == bundle.record


def test_nothing_is_found_of_what_is_not_there() -> None:
    lookup = looked_up(bytes(16))
    assert lookup.found == []
    assert len(lookup.bundles) == len(lookup.trust.archive) == 5


def test_items_of_a_frame() -> None:
    bundle = looked_up(bytes(16)).bundles[0]
    assert items_of(frame_of(WORLD, bundle.index)) == (bundle.items, 0)
    with pytest.raises(EnvelopeError):
        items_of(frame_of(WORLD, 0))


@pytest.mark.parametrize(("text", "length"), [("00" * 16, 16), ("AB" * 32, 32)])
def test_identifiers(text: str, length: int) -> None:
    assert len(identifier(text)) == length


@pytest.mark.parametrize("text", ["", "00", "00" * 20, "zz" * 16, "00 " * 16, "0" * 31])
def test_what_is_no_identifier(text: str) -> None:
    with pytest.raises(ConfigurationError):
        identifier(text)


def test_an_export_that_cannot_be_searched() -> None:
    made: World = make_world(1, 12)
    files = made.files()
    for without in ("checkpoint", "messages/000"):
        with pytest.raises(ConfigurationError, match="no " + without):
            look_up(MemoryFiles({name: data for name, data in files.items() if name != without}), ROOT, bytes(16))
    with pytest.raises(LogError):
        look_up(MemoryFiles(files | {"messages/000": files["messages/000"][:-1]}), ROOT, bytes(16))
    with pytest.raises(LogError):
        look_up(MemoryFiles(files | {"checkpoint": b"no note"}), ROOT, bytes(16))


def test_what_is_misshapen_is_passed_over() -> None:
    made = make_world(1, 12)
    made.put(b"\x97\x01" + message_ids()[0])
    made.frames[-1] = made.frames[-1]._replace(kind=1)
    from support.log_world import entry_of, files_of

    rows = [entry_of(frame) for frame in made.frames[:-1]] + [bytes(32)]
    files = MemoryFiles(files_of(made.frames, made.keys, entries=rows))
    assert look_up(files, ROOT, message_ids()[0]).found == []


def test_what_the_log_does_not_say_opened_is_not_found() -> None:
    made = make_world(1, 20)
    ident = made.messages[0].entries()["id"]
    assert isinstance(ident, bytes)
    root = root_of(made)
    before = look_up(MemoryFiles(made.files()), root, ident).found
    first = before[0].index
    made.frames[first] = made.frames[first]._replace(kind=0)
    after = look_up(MemoryFiles(made.files()), root, ident).found
    assert before
    assert first not in [found.index for found in after]


def test_a_record_that_is_repeated_is_found_once() -> None:
    world = make_world(2, 30)
    ident = world.messages[0].entries()["id"]
    assert isinstance(ident, bytes)
    root = root_of(world)
    before = look_up(MemoryFiles(world.files()), root, ident)
    world.repeat(world.first_decided())
    after = look_up(MemoryFiles(world.files()), root, ident)
    assert [one.leaf for one in after.found] == [one.leaf for one in before.found]
    assert [one.index for one in after.found] == [one.index for one in before.found]

"""One tile: its frames give its entries and hashes, and nothing else may stand there."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support.log_world import World, make_world, tree_root

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.export.entries import EntryReader
from sealbus.envelopes.export.format import Frame
from sealbus.envelopes.export.tiles import TileResult, TileTask, read_tile, tasks_of
from sealbus.envelopes.export.trust import TrustReader
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.log.tiles import TileName

WORLD = make_world(1, 20)
FRAMES = [Frame(EntryKind(one.kind), *one[1:]) for one in WORLD.frames]
FILES = WORLD.files()
TASK = TileTask(0, len(FRAMES), (1, 7))
HASHES, ENTRIES = FILES[TASK.hashes.path], FILES[TASK.entries.path]
LEAVES = [HASHES[start : start + 32] for start in range(0, len(HASHES), 32)]


def reader(world: World = WORLD) -> EntryReader:
    root = Root.parse(json.dumps(world.root()).encode())
    trust = TrustReader(root)
    for index, frame in enumerate(FRAMES):
        trust.take_frame(frame, index)
    return EntryReader(root, trust.archive)


READER = reader()


def read(
    frames: list[Frame] | Iterator[Frame], hashes: bytes | None = HASHES, entries: bytes | None = ENTRIES
) -> TileResult:
    return read_tile(TASK, frames, READER, hashes=hashes, entries=entries)


def codes(result: TileResult) -> list[tuple[str, str]]:
    return [(finding.file, finding.code) for finding in result.findings]


def test_a_good_one() -> None:
    result = read(FRAMES)
    assert codes(result) == []
    assert result.root == tree_root(LEAVES)
    assert result.prefixes == {1: tree_root(LEAVES[:1]), 7: tree_root(LEAVES[:7])}
    assert result.tally.entries.total() == len(FRAMES)
    assert read(FRAMES).tally == result.tally


def test_missing_tiles_are_for_others_to_say() -> None:
    assert codes(read(FRAMES, None, None)) == []


@pytest.mark.parametrize("frames", [FRAMES[:-1], [], [*FRAMES, FRAMES[0]]])
def test_too_few_and_too_many(frames: list[Frame]) -> None:
    assert ("messages/000", "bad_entry") in codes(read(frames))


def test_a_file_that_is_cut() -> None:
    def cut() -> Iterator[Frame]:
        yield from FRAMES[:5]
        raise LogError(Code.BAD_ENTRY, "cut in a frame")

    result = read(cut())
    assert codes(result)[0] == ("messages/000", "bad_entry")
    assert result.prefixes[1] == tree_root(LEAVES[:1])
    assert result.root != tree_root(LEAVES)


@pytest.mark.parametrize("changed", [HASHES[:-1], HASHES[:-1] + b"\x00", HASHES + b"\x00", b""])
def test_other_hashes(changed: bytes) -> None:
    assert codes(read(FRAMES, changed, ENTRIES)) == [(TASK.hashes.path, "bad_tile")]


@pytest.mark.parametrize("changed", [ENTRIES[:-1], ENTRIES[:-1] + b"\x00", ENTRIES + b"\x00", b""])
def test_other_entries(changed: bytes) -> None:
    other = [] if changed == ENTRIES + b"\x00" else [("", "log_mismatch")]
    assert codes(read(FRAMES, HASHES, changed)) == [*other, (TASK.entries.path, "bad_tile")]


def test_the_first_message_that_is_another_is_named() -> None:
    changed = [*FRAMES[:9], FRAMES[9]._replace(stored=FRAMES[9].stored + 1), *FRAMES[10:]]
    [first, *_] = read(changed).findings
    assert (first.sequence, first.code) == (FRAMES[9].sequence, "log_mismatch")


def test_the_tasks_of_a_log() -> None:
    assert list(tasks_of(513, [1, 256, 300, 300, 513, 0])) == [
        TileTask(0, 256, (1,)),
        TileTask(1, 256, (44,)),
        TileTask(2, 1, (1,)),
    ]
    assert list(tasks_of(0, [])) == []
    assert TileTask(2, 1).entries == TileName("entries", 2, 1)

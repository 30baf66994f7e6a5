"""A tile read wherever there is a core for it: what goes to another process is all that it needs."""

from __future__ import annotations

import json
import pickle

from support.log_world import make_world
from support.memory_files import MemoryFiles

from sealbus.agents.evidence.verify import Segment, SegmentReader, begin_worker, read_in_worker, tile_bytes
from sealbus.envelopes.export.format import Frame
from sealbus.envelopes.export.tally import Span
from sealbus.envelopes.export.tiles import TileTask
from sealbus.envelopes.export.trust import TrustReader
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.entries import EntryKind

WORLD = make_world(1, 20)
ROOT = Root.parse(json.dumps(WORLD.root()).encode())
TASK = TileTask(0, len(WORLD.frames))


def segment(files: dict[str, bytes]) -> Segment:
    trust = TrustReader(ROOT)
    for index, frame in enumerate(WORLD.frames):
        trust.take(Frame(EntryKind(frame.kind), *frame[1:]), index)
    return Segment.of(MemoryFiles(files), ROOT, trust.archive, Span())


def test_it_is_the_same_in_another_process() -> None:
    here = SegmentReader(segment(WORLD.files())).read(TASK)
    begin_worker(pickle.loads(pickle.dumps(segment(WORLD.files()))))  # noqa: S301  our own
    there = read_in_worker(pickle.loads(pickle.dumps(TASK)))  # noqa: S301  our own
    assert pickle.loads(pickle.dumps(there)) == here  # noqa: S301  our own
    assert here.findings == []
    assert here.tally.records.total() > 0


def test_files_that_are_missing() -> None:
    result = SegmentReader(segment({})).read(TASK)
    assert [(finding.file, finding.code) for finding in result.findings] == [("messages/000", "bad_entry")]


def test_of_a_tile_that_is_too_long_only_a_byte_more_is_read() -> None:
    assert tile_bytes(MemoryFiles({TASK.hashes.path: bytes(10_000_000)}), TASK.hashes) == bytes(32 * TASK.width + 1)
    assert tile_bytes(MemoryFiles({TASK.entries.path: bytes(10_000_000)}), TASK.entries) == bytes(34 * TASK.width + 1)

"""Receipts of everything that a small log made in memory holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache

from support.log_world import World, make_world
from support.memory_files import MemoryFiles

from sealbus.agents.evidence.lookup import FoundRecord, Lookup, items_of, look_up
from sealbus.agents.evidence.receipt import make_receipt
from sealbus.envelopes.export.format import Frame
from sealbus.envelopes.export.receipt import EarlierCheckpoint, RecordReceipt, ShownBundle, ShownMessage, show_items
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.log.receipt import Receipt
from sealbus.envelopes.log.tiles import TiledTree
from sealbus.envelopes.message.wire import parse_envelope

__all__ = ["FILES", "ROOT", "WORLD", "frame_of", "looked_up", "message_ids", "receipts_of", "shown", "unchecked"]

WORLD: World = make_world(9, 262)
FILES = MemoryFiles(WORLD.files())
ROOT = Root.parse(json.dumps(WORLD.root()).encode())


def message_ids() -> list[bytes]:
    """Return the ids of all messages that were decided."""
    found = []
    for message in WORLD.messages:
        ident = message.entries()["id"]
        assert isinstance(ident, bytes)
        found.append(ident)
    return found


@cache
def looked_up(wanted: bytes) -> Lookup:
    return look_up(FILES, ROOT, wanted)


@cache
def receipts_of(wanted: bytes) -> tuple[tuple[FoundRecord, bytes], ...]:
    """Return what was found about `wanted`, each with its receipt."""
    lookup = looked_up(wanted)
    return tuple((found, make_receipt(FILES, ROOT, lookup, found)) for found in lookup.found)


def frame_of(world: World, index: int) -> Frame:
    frame = world.frames[index]
    return Frame(EntryKind(frame.kind), *frame[1:])


def shown(world: World, index: int, numbers: Sequence[int]) -> ShownMessage:
    """Return items `numbers` of entry `index` as a receipt shows them, whatever they are."""
    frame = frame_of(world, index)
    envelope = parse_envelope(frame.data)
    items, _ = items_of(frame)
    return ShownMessage(
        index=index,
        sequence=frame.sequence,
        stored=frame.stored,
        header=envelope.header,
        proof=envelope.proof,
        credential=envelope.credential,
        items=show_items(items, numbers),
    )


def unchecked(
    world: World, index: int, numbers: Sequence[int], bundle: int = 1, held: Sequence[int] = ()
) -> RecordReceipt:
    """Return a receipt as somebody would make it who does not ask what verifies; entry `bundle` vouches.

    It shows that the log goes on from what it was at the sizes `held`.
    """
    files = world.files()
    tree = TiledTree(len(world.frames), lambda name: files[name.path])
    vouching = ShownBundle(shown(world, bundle, [0]), tree.inclusion(bundle))
    return RecordReceipt(
        (vouching,),
        shown(world, index, numbers),
        Receipt(index, tree.inclusion(index), files["checkpoint"]),
        tuple(EarlierCheckpoint(size, tree.root(size), tree.consistency(size)) for size in held),
    )

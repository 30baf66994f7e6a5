"""Restorations: notes of the log's key, and nothing else that it signs."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.checkpoint import open_checkpoint
from sealbus.envelopes.log.entries import Entry, EntryKind, EntryOrder, creation_entry, gap_entry, unverified_entry
from sealbus.envelopes.log.note import NoteSigner, NoteVerifier
from sealbus.envelopes.log.restoration import (
    Restoration,
    open_restoration,
    restoration_entry,
    restoration_path,
    sign_restoration,
)
from sealbus.envelopes.message.restored import RestoredStream
from sealbus.envelopes.trust.spiffe_id import SpiffeId

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "log.json").read_text())["restorations"]
KEYS = [NoteVerifier.parse(one) for one in VECTORS["keys"]]
ORIGIN: str = VECTORS["origin"]
SIGNER = NoteSigner(ORIGIN, bytes(32))
TASKS = RestoredStream(stream="TASKS", before=1, created=2, last=3)
ONE = Restoration(
    origin=ORIGIN, before=1, created=2, last=3, by=SpiffeId("spiffe://example.org/agent/operator"), time=4
)


def test_a_restoration_is_read_as_it_was_signed() -> None:
    row = VECTORS["accept"]
    found = open_restoration(row["note"].encode(), origin=ORIGIN, verifiers=KEYS)
    assert {name: getattr(found, name) for name in ("last", "before", "created", "time")} | {"by": str(found.by)} == {
        name: value for name, value in row.items() if name != "note"
    }
    assert restoration_path(found.time) == f"restored/{found.time:016d}"


def test_the_other_streams_of_a_backup_are_read_as_they_were_signed() -> None:
    row = VECTORS["streams"]
    found = open_restoration(row["note"].encode(), origin=ORIGIN, verifiers=KEYS)
    assert [asdict(one) for one in found.streams] == row["streams"]
    assert {name: getattr(found, name) for name in ("last", "before", "created", "time", "manifest")} == {
        name: row[name] for name in ("last", "before", "created", "time", "manifest")
    }
    assert sign_restoration(found, [SIGNER]).partition(b"\n\n")[0] == row["note"].encode().partition(b"\n\n")[0]


@pytest.mark.parametrize("row", VECTORS["reject"], ids=lambda row: row["name"])
def test_what_is_no_restoration(row: dict[str, str]) -> None:
    with pytest.raises(LogError) as caught:
        open_restoration(row["note"].encode(), origin=ORIGIN, verifiers=KEYS)
    assert caught.value.code == row["code"]


def test_it_is_no_checkpoint_and_a_checkpoint_is_none() -> None:
    note = sign_restoration(ONE, [SIGNER])
    with pytest.raises(LogError) as caught:
        open_checkpoint(note, origin=ORIGIN, verifiers=[SIGNER.verifier])
    assert caught.value.code is Code.BAD_NOTE


@pytest.mark.parametrize(
    "change",
    [
        {"origin": ""},
        {"origin": "a\nb"},
        {"before": -1},
        {"created": 2**53},
        {"last": -1},
        {"time": 2**53},
        {"manifest": "ab" * 32},
        {"streams": (TASKS,)},
        {"manifest": "ab", "streams": (TASKS,)},
        {"manifest": "ab" * 32, "streams": (TASKS, TASKS)},
    ],
    ids=str,
)
def test_what_none_can_say(change: dict[str, Any]) -> None:
    with pytest.raises(LogError) as caught:
        replace(ONE, **change)
    assert caught.value.code is Code.BAD_NOTE


def test_after_its_entry_the_sequences_go_on_from_its_last() -> None:
    order = EntryOrder()
    note = sign_restoration(ONE, [SIGNER])
    for entry in (creation_entry("AUDIT", created=1), *(unverified_entry(n, time=5, payload=b"") for n in range(1, 6))):
        order.take_entry(entry)
    assert order.next == 6
    order.take_entry(restoration_entry(note, ONE))
    assert (order.next, order.size, order.settled) == (4, 7, True)
    order.take_entry(unverified_entry(4, time=9, payload=b""))
    order.take_lost(5)
    order.take_entry(gap_entry(6, 2, time=9))
    order.take_lost(8)
    assert (order.next, order.settled) == (9, True)


def test_a_stream_without_messages_may_be_restored() -> None:
    order = EntryOrder()
    order.take_entry(creation_entry("AUDIT", created=1))
    order.take_entry(Entry(EntryKind.RESTORED, 0, 4, bytes(32), 0))
    assert order.next == 1


def test_no_entry_is_lost_itself() -> None:
    with pytest.raises(LogError) as caught:
        Entry(EntryKind.LOST, 1, 5, bytes(32))
    assert caught.value.code is Code.BAD_ENTRY
    with pytest.raises(LogError):
        Entry(EntryKind.RESTORED, 1, 5, bytes(32), 1)

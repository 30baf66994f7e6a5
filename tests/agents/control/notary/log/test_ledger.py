"""The log as it grows in memory: the files of every size, and going on from any of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealbus.agents.control.notary.log.folder_store import FolderStore
from sealbus.agents.control.notary.log.ledger import Ledger, entry_rows, stored_checkpoint
from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.checkpoint import Checkpoint, sign_checkpoint
from sealbus.envelopes.log.entries import Entry, creation_entry, gap_entry, unverified_entry
from sealbus.envelopes.log.note import NoteSigner
from sealbus.envelopes.log.tiles import grown_tiles, tile_reader
from sealbus.envelopes.log.tree_builder import check_tiles

ORIGIN = "log.example.org/audit"
KEY = NoteSigner(ORIGIN, bytes(32))


def entries(count: int) -> list[Entry]:
    """A creation, and messages with a gap before every tenth."""
    found, sequence = [creation_entry("AUDIT", created=1)], 0
    while len(found) < count:
        if len(found) % 10 == 9:
            found.append(gap_entry(sequence + 1, 2, time=sequence))
            sequence += 2
            found.append(unverified_entry(sequence + 1, time=sequence - 2, payload=b""))
        else:
            found.append(unverified_entry(sequence + 1, time=sequence, payload=b""))
        sequence += 1
    return found[:count]


ENTRIES = entries(1_200)


def commit(store: FolderStore, ledger: Ledger) -> Checkpoint:
    checkpoint = Checkpoint(ORIGIN, ledger.size, ledger.root())
    store.commit(0, ledger.files(), sign_checkpoint(checkpoint, [KEY]))
    ledger.stored()
    return checkpoint


@pytest.mark.parametrize("steps", [[1], [1, 2, 256, 257, 601], [301, 512, 513, 1_101], [1_024]])
def test_it_goes_on_from_every_checkpoint(tmp_path: Path, steps: list[int]) -> None:
    store = FolderStore(tmp_path)
    store.enter()
    whole, ledger = Ledger(), Ledger()
    for size in steps:
        for entry in ENTRIES[ledger.size : size]:
            ledger.append(entry)
            whole.append(entry)
        checkpoint = commit(store, ledger)
        assert all(store.get(name.path) is not None for name in grown_tiles(0, size))
        check_tiles(size, checkpoint.root, tile_reader(store.get))
        ledger = Ledger.resume(store, checkpoint)
        assert (ledger.size, ledger.next, ledger.root()) == (whole.size, whole.next, whole.root())
        assert ledger.files().keys() <= {name.path for name in grown_tiles(0, size)}
    for entry in ENTRIES[ledger.size : ledger.size + 50]:
        ledger.append(entry)
        whole.append(entry)
    assert ledger.root() == whole.root()
    store.leave()


def test_only_what_is_new_is_to_be_stored() -> None:
    ledger = Ledger()
    for entry in ENTRIES[:300]:
        ledger.append(entry)
    assert set(ledger.files()) == {name.path for name in grown_tiles(0, 300)}
    ledger.stored()
    assert set(ledger.files()) == {"tile/entries/001.p/44", "tile/places/001.p/44", "tile/0/001.p/44", "tile/1/000.p/1"}


def test_places_say_which_message_an_entry_is_for(tmp_path: Path) -> None:
    store, ledger = FolderStore(tmp_path), Ledger()
    store.enter()
    for entry in ENTRIES[:300]:
        ledger.append(entry)
    commit(store, ledger)
    places, hashes = entry_rows(store, 1, 44)
    assert [(place.kind, place.sequence) for place in places] == [(one.kind, one.sequence) for one in ENTRIES[256:300]]
    assert list(hashes) == [one.hash for one in ENTRIES[256:300]]
    store.leave()


def test_an_entry_out_of_order_is_refused() -> None:
    ledger = Ledger()
    ledger.append(ENTRIES[0])
    with pytest.raises(LogError, match="bad_entry"):
        ledger.append(unverified_entry(2, time=1, payload=b""))
    assert (ledger.size, ledger.next, ledger.settled) == (1, 1, True)


def test_the_stored_checkpoint_is_one_of_our_keys(tmp_path: Path) -> None:
    store, ledger = FolderStore(tmp_path), Ledger()
    assert stored_checkpoint(store, ORIGIN, [KEY.verifier]) is None
    store.enter()
    ledger.append(ENTRIES[0])
    checkpoint = commit(store, ledger)
    found = stored_checkpoint(store, ORIGIN, [KEY.verifier])
    assert found is not None
    assert found.checkpoint == checkpoint
    for origin, key, code in (
        ("other", KEY, Code.WRONG_LOG),
        (ORIGIN, NoteSigner(ORIGIN, bytes([1]) * 32), Code.UNTRUSTED_NOTE),
    ):
        with pytest.raises(LogError) as caught:
            stored_checkpoint(store, origin, [key.verifier])
        assert caught.value.code is code
    store.leave()


def test_of_nothing() -> None:
    store = FolderStore(Path("/nonexistent"))
    ledger = Ledger.resume(store, Checkpoint(ORIGIN, 0, Ledger().root()))
    assert (ledger.size, ledger.next, ledger.settled) == (0, 1, False)

"""What every store of a log promises, asked of the one that there is."""

from __future__ import annotations

from pathlib import Path

from sealbus.agents.control.notary.log.folder_store import FolderStore
from sealbus.agents.control.notary.log.store import CHECKPOINT, TRUST, LogStore


def test_a_folder_is_a_store(tmp_path: Path) -> None:
    store: LogStore = FolderStore(tmp_path / "log")
    store.enter()
    assert store.get(CHECKPOINT) is None
    assert (store.fence(), list(store.names(TRUST)), len(store.place)) == (0, [], 16)
    store.claim(1)
    store.commit(1, {f"{TRUST}/a": b"1"}, b"note")
    assert (store.get(CHECKPOINT), store.names(TRUST), store.fence()) == (b"note", [f"{TRUST}/a"], 1)
    store.leave()

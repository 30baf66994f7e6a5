"""A log in a folder: whatever step a crash comes at, the checkpoint and all that it stands for are there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sealbus.agents.control.notary.log.folder_store import CHECKPOINT, FolderStore
from sealbus.envelopes.errors import Code, LogError, StateUnavailable


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FolderStore]:
    store = FolderStore(tmp_path / "log")
    store.enter()
    yield store
    store.leave()


class Crash(BaseException):
    """The process is gone from here on."""


def crashing(at: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Have operation number `at` on files, and every later one, fail as if nobody ran it; return how many there were."""
    done = 0

    def before(operation: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object, **named: object) -> object:
            nonlocal done
            done += 1
            if done > at:
                raise Crash
            return operation(*arguments, **named)

        return run

    for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "mkdir"), (Path, "open")):
        monkeypatch.setattr(owner, name, before(getattr(owner, name)))
    return lambda: done


FIRST = {"tile/0/000.p/3": b"three", "tile/entries/000.p/3": b"3", "trust/1-a": b"t"}
SECOND = {"tile/0/000": b"full", "tile/entries/000": b"all", "tile/1/000.p/1": b"one", "tile/0/x001/000.p/1": b"far"}


def test_a_crash_at_any_step_leaves_the_old_checkpoint_or_the_new_one(tmp_path: Path) -> None:
    outcomes = set()
    for at in range(100):
        folder = tmp_path / str(at)
        store = FolderStore(folder)
        store.enter()
        store.commit(0, FIRST, b"first")
        with pytest.MonkeyPatch.context() as patch:
            count = crashing(at, patch)
            try:
                store.commit(0, SECOND, b"second")
                crashed = False
            except Crash:
                crashed = True
            steps = count()
        store.leave()
        again = FolderStore(folder)
        again.enter()
        note = again.get(CHECKPOINT)
        assert note in {b"first", b"second"}
        wanted = SECOND if note == b"second" else FIRST
        assert all(again.get(path) == data for path, data in wanted.items())
        outcomes.add(note)
        # And it goes on from there, as if nothing had been left half done.
        again.commit(0, SECOND, b"third")
        assert again.get(CHECKPOINT) == b"third"
        assert list((folder / "under-way").iterdir()) == []
        again.leave()
        if not crashed:
            assert steps > 10
            break
    else:
        raise AssertionError("a commit of over a hundred steps")
    assert outcomes == {b"first", b"second"}


def test_every_file_is_durable_before_the_checkpoint_is_renamed(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        events.append("folder" if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir() else "file")
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        events.append(f"rename {target.name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    store.commit(0, {"tile/0/000.p/1": b"a", "tile/entries/000.p/1": b"b"}, b"note")
    last = events.index("rename checkpoint")
    renames = [number for number, event in enumerate(events[:last]) if event == "rename 1"]
    assert len(renames) == 2
    assert events[: renames[0]] == ["file", "file"]
    # The folders of both, and those above that are new, then the checkpoint's own file.
    assert events[renames[1] + 1 : last].count("folder") >= 2
    assert events[last - 1] == "file"
    assert events[-1] == "folder"


def test_partial_tiles_go_once_the_full_one_counts(store: FolderStore) -> None:
    store.commit(0, {"tile/0/000.p/3": b"3", "tile/0/001.p/3": b"3"}, b"first")
    store.commit(0, {"tile/0/000": b"full"}, b"second")
    assert store.get("tile/0/000.p/3") is None
    assert store.get("tile/0/001.p/3") == b"3"


def test_one_process_writes_at_a_time(store: FolderStore) -> None:
    other = FolderStore(store.folder)
    with pytest.raises(StateUnavailable, match="another notary"):
        other.enter()
    with pytest.raises(StateUnavailable, match="not entered"):
        other.commit(0, {}, b"note")
    store.leave()
    other.enter()
    assert other.place == store.place
    other.leave()
    other.leave()


def test_a_smaller_number_is_fenced_off(store: FolderStore) -> None:
    assert store.fence() == 0
    store.claim(3)
    store.commit(3, {"a": b"1"}, b"first")
    store.claim(5)
    with pytest.raises(LogError) as caught:
        store.commit(3, {"a": b"2"}, b"late")
    assert caught.value.code is Code.LOG_MISMATCH
    with pytest.raises(LogError, match="log_mismatch"):
        store.claim(4)
    assert (store.get("a"), store.get(CHECKPOINT), store.fence()) == (b"1", b"first", 5)


def test_a_number_that_is_none_is_no_zero(store: FolderStore) -> None:
    (store.folder / "notary.fence").write_bytes(b"x")
    with pytest.raises(LogError, match="does not hold a number"):
        store.fence()


def test_a_folder_has_a_place_of_its_own(store: FolderStore, tmp_path: Path) -> None:
    other = FolderStore(tmp_path / "other")
    assert other.place == b""
    other.enter()
    assert len(other.place) == 16
    assert other.place != store.place
    other.leave()


def test_what_is_not_there_and_what_cannot_be_used(store: FolderStore, tmp_path: Path) -> None:
    store.commit(0, {"a": b"1"}, b"note")
    assert store.get("b") is store.get("a/b") is None
    assert store.names("trust") == []
    store.commit(0, {"trust/2": b"2", "trust/1": b"1"}, b"note")
    assert store.names("trust") == ["trust/1", "trust/2"]
    with pytest.raises(StateUnavailable, match="cannot be read"):
        store.get("trust")
    with pytest.raises(StateUnavailable, match="cannot be read"):
        store.names("a")
    with pytest.raises(StateUnavailable, match="cannot be written"):
        store.commit(0, {"a/b": b"1"}, b"note")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateUnavailable, match="cannot be used"):
        FolderStore(tmp_path / "file").enter()

"""The files of the spool: what was promised is there for the next process, and what is damaged is told."""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

import pytest
from support.spooled import batch_of, contents, open_files

from sealbus.bus.audit.spool_files import MAGIC, encode_frame
from sealbus.envelopes.errors import AuditUnavailable, ConfigurationError
from sealbus.envelopes.records.batch import ClosedBatch

ONE = batch_of(1)
FRAME = len(encode_frame(1, ONE))


def only(folder: Path) -> Path:
    (path,) = folder.glob("*.spool")
    return path


def filled(folder: Path, *batches: ClosedBatch) -> Path:
    files = open_files(folder)
    files.append(batches)
    files.close()
    return only(folder)


def test_what_was_appended_is_there_for_the_next_process_in_order(tmp_path: Path) -> None:
    files = open_files(tmp_path)
    files.append([batch_of(1), batch_of(2, 3)])
    files.append([batch_of(4)])
    files.close()
    assert contents(tmp_path) == [batch_of(1), batch_of(2, 3), batch_of(4)]


def test_files_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "inventory"
    path = filled(folder, ONE)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(one.stat().st_mode) for one in (path, folder / "lock")} == {0o600}


@pytest.mark.parametrize("which", ["folder", "file"])
def test_what_others_may_read_is_refused(tmp_path: Path, which: str) -> None:
    folder = tmp_path / "spool"
    path = filled(folder, ONE)
    (folder if which == "folder" else path).chmod(0o750 if which == "folder" else 0o640)
    with pytest.raises(ConfigurationError, match="inaccessible to others"):
        open_files(folder)


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    files = open_files(tmp_path)
    with pytest.raises(ConfigurationError, match="in use by another process"):
        open_files(tmp_path)
    files.close()
    open_files(tmp_path).close()


def test_what_was_dropped_does_not_come_again(tmp_path: Path) -> None:
    files = open_files(tmp_path, segment_bytes=2 * FRAME)
    for number in range(7):
        files.append([batch_of(number)])
    assert len(list(tmp_path.glob("*.spool"))) > 2
    seen = []
    while frames := files.peek(2, 1 << 20):
        seen += [frame.closed for frame in frames]
        files.drop(frames)
    assert seen == [batch_of(number) for number in range(7)]
    assert (files.frames, only(tmp_path).stat().st_size) == (0, len(MAGIC))
    files.append([batch_of(8)])
    assert [frame.closed for frame in files.peek(9, 1 << 20)] == [batch_of(8)]
    files.close()
    assert contents(tmp_path) == [batch_of(8)]


def test_after_a_restart_what_was_there_goes_first_and_is_dropped_first(tmp_path: Path) -> None:
    filled(tmp_path, batch_of(1), batch_of(2))
    files = open_files(tmp_path)
    assert files.frames == 2
    first = files.peek(1, 1 << 20)
    files.drop(first)
    files.drop(files.peek(9, 1 << 20))
    assert not list(tmp_path.glob("*.spool"))
    files.append([batch_of(3)])
    assert [frame.closed for frame in files.peek(9, 1 << 20)] == [batch_of(3)]
    files.close()


def test_peek_is_bounded_by_bytes_but_for_the_first(tmp_path: Path) -> None:
    files = open_files(tmp_path)
    files.append([batch_of(number) for number in range(5)])
    assert len(files.peek(9, 1)) == 1
    assert len(files.peek(9, 2 * FRAME)) == 2
    files.close()


def test_a_full_spool_refuses_and_takes_again_once_there_is_room(tmp_path: Path) -> None:
    files = open_files(tmp_path, max_bytes=len(MAGIC) + 2 * FRAME)
    files.append([batch_of(1), batch_of(2)])
    with pytest.raises(AuditUnavailable, match="full"):
        files.append([batch_of(3)])
    files.drop(files.peek(9, 1 << 20))
    files.append([batch_of(3)])
    files.close()
    assert contents(tmp_path) == [batch_of(3)]


def test_a_disk_without_room_is_a_refusal_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    files = open_files(tmp_path)
    files.append([batch_of(1)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(MAGIC) + FRAME + FRAME // 2, before[1]))
    try:
        with pytest.raises(AuditUnavailable, match="cannot be written"):
            files.append([batch_of(2)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert only(tmp_path).stat().st_size == len(MAGIC) + FRAME
    files.append([batch_of(3)])
    files.close()
    assert contents(tmp_path) == [batch_of(1), batch_of(3)]


def test_after_a_failed_sync_this_process_promises_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = open_files(tmp_path)

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        with pytest.raises(AuditUnavailable, match="disk failed"):
            files.append([ONE])
    with pytest.raises(AuditUnavailable, match="disk failed"):
        files.append([ONE])
    assert files.broken
    files.close()


def test_nothing_is_appended_after_the_end(tmp_path: Path) -> None:
    files = open_files(tmp_path)
    files.close()
    files.close()
    with pytest.raises(AuditUnavailable, match="closed"):
        files.append([ONE])
    assert files.peek(1, 1) == []


def test_every_end_of_a_file_is_either_a_whole_frame_or_cut_off(tmp_path: Path) -> None:
    """What a kill at any byte of a write leaves: the frames before it are there, and nothing is refused."""
    whole = filled(tmp_path / "whole", batch_of(1), batch_of(2)).read_bytes()
    for length in range(len(whole) + 1):
        folder = tmp_path / str(length)
        folder.mkdir(mode=0o700)
        path = folder / f"{1:020d}.spool"
        path.write_bytes(whole[:length])
        path.chmod(0o600)
        assert len(contents(folder)) == max(0, length - len(MAGIC)) // FRAME


def test_a_changed_byte_anywhere_is_told_with_its_place(tmp_path: Path) -> None:
    path = filled(tmp_path, batch_of(1), batch_of(2))
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        if place >= len(MAGIC) + FRAME and (place - len(MAGIC)) % FRAME < 4:
            continue  # A length of the last frame: it may look like a frame that was not over.
        with pytest.raises(ConfigurationError, match=r"damaged at byte (0|16|\d+)"):
            open_files(tmp_path)
        assert path.read_bytes() == changed


def test_a_frame_cut_out_or_put_in_twice_is_told(tmp_path: Path) -> None:
    path = filled(tmp_path, batch_of(1), batch_of(2), batch_of(3))
    whole = path.read_bytes()
    first, second = whole[: len(MAGIC) + FRAME], whole[len(MAGIC) + FRAME :]
    for forged in (first + second[FRAME:], first + second[:FRAME] + second):
        path.write_bytes(forged)
        with pytest.raises(ConfigurationError, match="where"):
            open_files(tmp_path)


def test_a_file_that_is_missing_or_cut_short_among_others_is_told(tmp_path: Path) -> None:
    files = open_files(tmp_path, segment_bytes=FRAME)
    for number in range(3):
        files.append([batch_of(number)])
    files.close()
    middle = sorted(tmp_path.glob("*.spool"))[1]
    os.truncate(middle, FRAME)
    with pytest.raises(ConfigurationError, match="damaged"):
        open_files(tmp_path)
    middle.unlink()
    with pytest.raises(ConfigurationError, match="frame 3 where 2"):
        open_files(tmp_path)


@pytest.mark.parametrize("body", [b"\x93\x01\x90\x90", ONE.body])
def test_records_under_a_right_checksum_are_still_looked_at(tmp_path: Path, body: bytes) -> None:
    path = filled(tmp_path, ONE)
    path.write_bytes(MAGIC + encode_frame(1, ClosedBatch(body, bytes(32))))
    with pytest.raises(ConfigurationError, match=r"contents that are not records|a Merkle root that does not"):
        open_files(tmp_path)


def test_what_changes_under_a_running_process_is_not_sent(tmp_path: Path) -> None:
    files = open_files(tmp_path)
    files.append([ONE])
    path = only(tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(AuditUnavailable, match="read back"):
        files.peek(1, 1)
    assert files.broken
    files.close()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        open_files(tmp_path / "file" / "spool")

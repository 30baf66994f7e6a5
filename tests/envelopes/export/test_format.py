"""Frames: one spelling, one entry, and nothing after the last."""

from __future__ import annotations

import io

import pytest
from support import log_world
from support.log_world import make_world

from sealbus.envelopes.errors import Code, EnvelopeError, LogError
from sealbus.envelopes.export.format import FRAME_DATA_BYTES, Frame, encode_frame, entry_of, messages_path, read_frames
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.log.note import NoteSigner, sign_note
from sealbus.envelopes.log.restoration import Restoration, restoration_entry, sign_restoration
from sealbus.envelopes.trust.spiffe_id import SpiffeId

MAX = 2**53 - 1
FRAMES = [Frame(EntryKind(one.kind), *one[1:]) for one in make_world(1, 20).frames]


def read(data: bytes) -> list[Frame]:
    return list(read_frames(io.BytesIO(data).read))


def test_they_are_read_as_they_are_written() -> None:
    data = b"".join(map(encode_frame, FRAMES))
    assert read(data) == FRAMES
    assert data == b"".join(log_world.encode_frame(log_world.Frame(*one)) for one in FRAMES)
    assert read(b"") == []


def test_their_entries_are_those_of_the_log() -> None:
    assert {frame.kind for frame in FRAMES} == set(EntryKind) - {EntryKind.RESTORED, EntryKind.LOST}
    for frame in FRAMES:
        assert entry_of(frame).hash == log_world.entry_of(log_world.Frame(*frame))


def test_they_do_not_show_what_they_hold() -> None:
    assert "secret" not in repr(Frame(EntryKind.UNVERIFIED, 1, 1, b"secret"))


@pytest.mark.parametrize(
    "data",
    [
        encode_frame(FRAMES[0])[:-1],
        encode_frame(FRAMES[0])[:20],
        b"\x07" + bytes(20),
        b"\x00" + b"\xff" * 8 + bytes(12),
        b"\x00" + bytes(8) + b"\xff" * 8 + bytes(4),
        b"\x00" + bytes(16) + (FRAME_DATA_BYTES + 1).to_bytes(4, "big"),
        b"\x00" + bytes(16) + (FRAME_DATA_BYTES + 1).to_bytes(4, "big") + bytes(FRAME_DATA_BYTES + 1),
    ],
)
def test_what_is_no_frame(data: bytes) -> None:
    with pytest.raises(LogError) as raised:
        read(data)
    assert raised.value.code is Code.BAD_ENTRY


@pytest.mark.parametrize(
    "frame",
    [
        Frame(EntryKind.GAP, 1, 1, b"\x01"),
        Frame(EntryKind.GAP, 1, 1, bytes(8)),
        Frame(EntryKind.GAP, 1, 1, bytes(7) + b"\x01\x00"),
        Frame(EntryKind.CREATION, 0, 1, b"a name"),
        Frame(EntryKind.CREATION, 1, 1, b"AUDIT"),
        Frame(EntryKind.PREVIOUS, 0, 1, b""),
        Frame(EntryKind.PREVIOUS, 0, 1, bytes(8_193)),
        Frame(EntryKind.UNVERIFIED, 0, 1, b""),
    ],
)
def test_what_gives_no_entry(frame: Frame) -> None:
    with pytest.raises(LogError) as raised:
        entry_of(frame)
    assert raised.value.code is Code.BAD_ENTRY


def test_a_message_that_is_no_envelope_cannot_have_opened() -> None:
    with pytest.raises(EnvelopeError):
        entry_of(Frame(EntryKind.VERIFIED, 1, 1, b"no envelope"))


def test_the_edges_of_what_a_frame_says() -> None:
    last = Frame(EntryKind.UNVERIFIED, MAX, MAX, b"")
    assert read(encode_frame(last)) == [last]
    for frame in (last._replace(sequence=MAX + 1), last._replace(stored=MAX + 1)):
        with pytest.raises(LogError, match="not a frame"):
            read(encode_frame(frame))
    longest = encode_frame(last)[:-4] + FRAME_DATA_BYTES.to_bytes(4, "big")
    with pytest.raises(LogError, match="cut inside a frame"):
        read(longest)


@pytest.mark.parametrize("length", [1, 8_192])
def test_a_previous_checkpoint_is_as_long_as_notes_are(length: int) -> None:
    assert entry_of(Frame(EntryKind.PREVIOUS, 0, 1, bytes(length))).kind is EntryKind.PREVIOUS


@pytest.mark.parametrize(
    ("tile", "path"), [(0, "messages/000"), (1_234, "messages/x001/234"), (1_234_067, "messages/x001/x234/067")]
)
def test_their_files(tile: int, path: str) -> None:
    assert messages_path(tile) == path


def test_the_entry_of_a_restoration_follows_from_its_note() -> None:
    signer = NoteSigner("log", bytes(32))
    by = SpiffeId("spiffe://example.org/agent/operator")
    one = Restoration(origin="log", before=1, created=2, last=3, by=by, time=4)
    note = sign_restoration(one, [signer])
    assert entry_of(Frame(EntryKind.RESTORED, 3, 4, note)) == restoration_entry(note, one)
    wrong = ((2, 4, note), (3, 5, note), (3, 4, b""), (3, 4, sign_note("log\n", [signer])))
    for sequence, stored, data in wrong:
        with pytest.raises(LogError):
            entry_of(Frame(EntryKind.RESTORED, sequence, stored, data))
    with pytest.raises(LogError):
        entry_of(Frame(EntryKind.LOST, 3, 0, bytes(32)))

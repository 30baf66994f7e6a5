"""Checkpoints of which every byte counts."""

from __future__ import annotations

import pytest
from support.log_world import ORIGIN, LogKey, note

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.checkpoint import open_strictly
from sealbus.envelopes.log.note import NoteVerifier

FIRST, SECOND, STRANGER = LogKey("first"), LogKey("second"), LogKey("stranger")
KEYS = [NoteVerifier.parse(FIRST.vkey), NoteVerifier.parse(SECOND.vkey)]


@pytest.mark.parametrize("keys", [[FIRST], [SECOND], [FIRST, SECOND]])
def test_signed_by_known_keys(keys: list[LogKey]) -> None:
    assert open_strictly(note(3, bytes(32), keys), ORIGIN, KEYS).checkpoint.size == 3


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ([STRANGER], Code.UNTRUSTED_NOTE),
        ([FIRST, STRANGER], Code.UNTRUSTED_NOTE),
        ([FIRST, FIRST], Code.BAD_NOTE),
    ],
)
def test_signed_by_another_or_twice(keys: list[LogKey], code: Code) -> None:
    with pytest.raises(LogError) as raised:
        open_strictly(note(3, bytes(32), keys), ORIGIN, KEYS)
    assert raised.value.code is code

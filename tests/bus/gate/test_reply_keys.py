"""The keys by which decisions about answers are recorded once: each decision has its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.acceptance import statement

from sealbus.bus.gate.reply_policy import read_key
from sealbus.envelopes.message.user_context import parse_payload

USER = parse_payload(statement().payload)
DIGEST = bytes(32)
KEY = read_key(DIGEST, USER, revision="1", serial=1, code="", reasons=())


@pytest.mark.parametrize(
    "other",
    [
        read_key(bytes([1]) * 32, USER, revision="1", serial=1, code=""),
        read_key(DIGEST, None, revision="1", serial=1, code=""),
        read_key(DIGEST, replace(USER, sid="another"), revision="1", serial=1, code=""),
        # What is one text there is no other two here.
        read_key(DIGEST, replace(USER, idp=USER.idp + USER.sub, sub=""), revision="1", serial=1, code=""),
        read_key(DIGEST, USER, revision="2", serial=1, code=""),
        read_key(DIGEST, USER, revision="1", serial=2, code=""),
        read_key(DIGEST, USER, revision="1", serial=1, code="denied"),
        read_key(DIGEST, USER, revision="1", serial=1, code="", reasons=("r",)),
    ],
)
def test_each_decision_has_a_name_of_its_own(other: bytes) -> None:
    assert other != KEY
    assert read_key(DIGEST, USER, revision="1", serial=1, code="") == KEY

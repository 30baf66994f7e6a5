from __future__ import annotations

import pytest
from support.audit import opened

from sealbus.bus.sending.answer import ONE_ANSWER, takes_one_answer
from sealbus.envelopes.message.header import ExtValue


@pytest.mark.parametrize(
    ("ext", "takes_one"),
    [
        (None, False),
        ({}, False),
        ({"one": True}, False),
        ({"_one": False}, False),
        ({"_one": 1}, False),
        ({"_one": "true"}, False),
        ({"_one": True, "_later": b"x"}, True),
        (dict(ONE_ANSWER), True),
    ],
)
def test_only_true_is_the_mark(ext: dict[str, ExtValue] | None, *, takes_one: bool) -> None:
    header = opened().header._replace(ext=ext)
    assert takes_one_answer(header) is takes_one

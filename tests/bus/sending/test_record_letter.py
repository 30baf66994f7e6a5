"""The letter of an audit message."""

from __future__ import annotations

from support.spooled import batch_of

from sealbus.bus.sending.message import record_letter
from sealbus.envelopes.message.kinds import Kind


def test_it_is_a_record_under_the_root_of_its_items() -> None:
    closed = batch_of(1, 2)
    letter = record_letter("audit.inventory", closed, bytes(16))
    assert (letter.kind, letter.to, letter.body, letter.dig) == (
        Kind.RECORD,
        "audit.inventory",
        closed.body,
        closed.dig,
    )
    assert (letter.id, record_letter("audit.inventory", closed).id) == (bytes(16), None)

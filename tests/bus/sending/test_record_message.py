"""The message that an audit batch is sealed from."""

from __future__ import annotations

from support.spooled import batch_of

from sealbus.bus.sending.message import record_message
from sealbus.envelopes.message.kinds import Kind


def test_it_is_a_record_under_the_root_of_its_items() -> None:
    closed = batch_of(1, 2)
    message = record_message("audit.inventory", closed, bytes(16))
    assert (message.draft.kind, message.draft.to, message.draft.body, message.draft.dig) == (
        Kind.RECORD,
        "audit.inventory",
        closed.body,
        closed.dig,
    )
    assert (message.draft.id, record_message("audit.inventory", closed).draft.id) == (bytes(16), b"")

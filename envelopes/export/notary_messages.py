"""Finds the notary's messages among all entries of a log, without looking into the others.

Nothing here verifies: a message that says that it is the notary's is one, until the second pass opens it or does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sealbus.envelopes.audit_body import AuditBody, parse_audit_body
from sealbus.envelopes.errors import EnvelopeError
from sealbus.envelopes.export.frames import Frame
from sealbus.envelopes.header import Header, parse_header
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.spiffe_id import SpiffeId
from sealbus.envelopes.wire import parse_envelope

__all__ = ["NotaryMessage", "NotaryMessages"]

_HEAD_BYTES = 8_300
"""Where an envelope's header ends at the latest."""


class NotaryMessage(NamedTuple):
    """What a message says of itself."""

    header: Header
    body: AuditBody


class NotaryMessages:
    """The messages of `notaries`."""

    def __init__(self, notaries: Iterable[SpiffeId]) -> None:
        self._notaries = frozenset(notaries)
        self._ids = [notary.value.encode() for notary in self._notaries]

    def read(self, frame: Frame) -> NotaryMessage | None:
        """Return the message of `frame` if it says that it is a notary's; None for all others, and for what is none."""
        head = frame.data[:_HEAD_BYTES]
        if frame.kind is not EntryKind.VERIFIED or not any(one in head for one in self._ids):
            return None
        try:
            envelope = parse_envelope(frame.data)
            header = parse_header(envelope.header)
            body = parse_audit_body(envelope.body) if header.iss in self._notaries else None
        except EnvelopeError:
            # The second pass says what is wrong with it.
            return None
        return NotaryMessage(header, body) if body is not None else None

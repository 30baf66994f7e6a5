"""A target with a fault, which every fuzzer must find: an index that is out of range where the bytes say so."""

from __future__ import annotations

from collections.abc import Mapping

from fuzz.targets import Target
from support.envelopes import NOW

from sealbus.envelopes.errors import EnvelopeError
from sealbus.envelopes.message.header import parse_header


def header(data: bytes) -> None:
    """As `messages.header`, with a fault behind the parser."""
    try:
        parsed = parse_header(data)
    except EnvelopeError:
        return
    if parsed.iat < NOW:
        raise IndexError("planted")


TARGETS: Mapping[str, Target] = {"header": header}

"""HTTP/1.1 heads as strict as they can be: what one reader could take for another message than we do is refused.

h11 is lenient where RFC 9112 lets it: it ends lines at a bare line feed, joins folded lines, takes one length of several
equal ones, prefers chunks to a length, and bounds a head only while it is incomplete. A proxy in front may choose otherwise,
and then one of the two sees a request that the other does not (request smuggling).
"""

from __future__ import annotations

import re
from typing import Final

import h11

__all__ = ["StrictConnection"]

_BARE: Final = re.compile(rb"(?<!\r)\n")
_FOLDED: Final = re.compile(rb"\r\n[ \t]")
_LENGTHS: Final = re.compile(rb"\r\ncontent-length[ \t]*:[ \t]*([^\r]*?)[ \t]*(?=\r\n)", re.IGNORECASE)
_END: Final = b"\r\n\r\n"
_VERSIONS: Final = frozenset({b"1.0", b"1.1"})
_LENGTH: Final = b"content-length"
_CODING: Final = b"transfer-encoding"


class StrictConnection(h11.Connection):
    """The server's side of one connection; a head has at most `head_bytes` bytes and `fields` fields."""

    def __init__(self, *, head_bytes: int, fields: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=head_bytes)
        self._head_bytes: Final = head_bytes
        self._fields: Final = fields

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return the next event as h11 does; raise `h11.RemoteProtocolError` for more than h11 does."""
        if self.their_state is h11.IDLE:
            self._check_lines(self.trailing_data[0])
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._check_request(event)
        return event

    def _check_lines(self, data: bytes) -> None:
        end = data.find(_END)
        if end > self._head_bytes:
            raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
        if _BARE.search(data, 0, end if end >= 0 else len(data)):
            raise h11.RemoteProtocolError("a line ends with a bare line feed")
        if _FOLDED.search(data, 0, end if end >= 0 else len(data)):
            raise h11.RemoteProtocolError("a folded line")
        lengths = _LENGTHS.findall(data, 0, end + 2) if end >= 0 else []
        if len(lengths) > 1 or not all(length.isdigit() for length in lengths):
            raise h11.RemoteProtocolError("more than one length")

    def _check_request(self, request: h11.Request) -> None:
        if request.http_version not in _VERSIONS:
            raise h11.RemoteProtocolError("not HTTP/1.1 or HTTP/1.0")
        names = [name for name, _ in request.headers]
        if len(names) > self._fields:
            raise h11.RemoteProtocolError("too many fields", error_status_hint=431)
        if _CODING in names and (_LENGTH in names or request.http_version == b"1.0"):
            # RFC 9112 section 6.1 lets both pass, and calls them attempts at smuggling.
            raise h11.RemoteProtocolError("a transfer coding beside a length, or in HTTP/1.0")

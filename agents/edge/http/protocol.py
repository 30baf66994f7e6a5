"""HTTP/1.1 on one connection of the edge: uvicorn's protocol on h11, with deadlines for slow peers and strict heads.

uvicorn waits without limit for a request's head, for the rest of an unread body and for a slow reader. Here each has a
deadline. `bodies.py` has the deadline of bodies that are read.

h11 is lenient where RFC 9112 permits it: it ends lines at a bare line feed, joins folded lines, merges several equal lengths,
prefers chunks to a length, and bounds a head only while it is incomplete. A proxy in front may read the same bytes
differently, so that one of the two sees a request that the other does not (request smuggling). Therefore any head that can be
read in two ways is refused.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

_SILENT: Final = logging.getLogger(f"{__name__}.uvicorn")
_SILENT.disabled = True

_PROBLEM: Final = b"application/problem+json"
HSTS: Final = (b"strict-transport-security", b"max-age=31536000")
"""In every answer over https (RFC 6797): a browser that gets it uses only https for a year."""
_TITLES: Final = {
    400: ("Bad Request", "malformed", "The request is not HTTP/1.1 as RFC 9112 defines it."),
    408: ("Request Timeout", "request_timeout", "The request's head took too long."),
    431: ("Request Header Fields Too Large", "too_large", "The request's head is too large."),
}

_BARE: Final = re.compile(rb"(?<!\r)\n")
_FOLDED: Final = re.compile(rb"\r\n[ \t]")
_LENGTHS: Final = re.compile(rb"\r\ncontent-length[ \t]*+:([^\r]*+)(?=\r\n)", re.IGNORECASE)
"""White space around a value is left to `strip`: a pattern that leaves it out is quadratic, and anybody can send a head."""
_HEAD_END: Final = b"\r\n\r\n"
_VERSIONS: Final = frozenset({b"1.0", b"1.1"})
_LENGTH_FIELD: Final = b"content-length"
_CODING_FIELD: Final = b"transfer-encoding"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """The limits of one listener's connections."""

    connections: int = 1_024
    """At a time; further connections are closed at once. An idle connection costs some 40 kB."""
    connections_of_address: int = 128
    """From one IPv4 address or IPv6 /64, which all people of a site may share: an eighth of all."""
    connections_of_network: int = 512
    """From one IPv4 /24 or IPv6 /48, which one party may own as a whole: half of all."""
    head_bytes: int = 24_576
    """Of request line and fields: the longest accepted access token, and half as much again."""
    head_fields: int = 100
    """Browsers send about 20, and every proxy on the way adds a few."""
    head_seconds: float = 5.0
    """From the connection, or from the first byte of a further request, to the end of the head."""
    unread_seconds: float = 5.0
    """For the rest of a body whose request was answered before it was read."""
    write_seconds: float = 20.0
    """How long a peer may leave output unread."""
    idle_seconds: int = 5
    """Between two requests of one connection."""
    handshake_seconds: float = 5.0
    """For the TLS handshake."""
    stop_seconds: int = 5
    """For open requests when the server stops."""


class EdgeProtocol(H11Protocol):
    """One connection. A request that is refused before it is routed is answered with problem+json, too."""

    conn: StrictConnection

    def __init__(self, config: Config, server_state: ServerState, limits: ConnectionLimits) -> None:
        super().__init__(config, server_state, {}, asyncio.get_running_loop())
        self.lost: Callable[[], None] = _nothing
        """Called at the end of the connection."""
        self._limits = limits
        self.conn = StrictConnection(head_bytes=limits.head_bytes, fields=limits.head_fields)
        # `application.py` logs requests without their content. All that uvicorn itself logs is caused by peers, and for a
        # request that was cut off at the end it would write a traceback.
        self.logger = _SILENT
        # uvicorn turns its access log on if the logger has a handler, and writes queries: tokens have been seen there.
        self.access_log = False
        self._slow: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it so too
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._await_peer(self._limits.head_seconds)

    def data_received(self, data: bytes) -> None:
        """Take bytes in; a head that has begun must end before its deadline, however its bytes are spread."""
        if self._refused:
            return
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Go on with the connection, whose buffer may already hold the next request."""
        super().on_response_complete()
        self._watch()

    def eof_received(self) -> None:
        """Close a connection that was refused: it has now been read to its end."""
        if self._refused:
            self.transport.close()

    def pause_writing(self) -> None:
        """Start the deadline for the peer to read."""
        super().pause_writing()
        if self._stuck is None:
            self._stuck = self.loop.call_later(self._limits.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Continue writing."""
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._disarm()
        if self._stuck is not None:
            self._stuck.cancel()
        super().connection_lost(exc)
        self.lost()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that h11 refuses, while its error is handled: 431 for a head that is too large, else 400."""
        del msg
        error = sys.exc_info()[1]
        hint = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        self._refuse(hint if hint in _TITLES else 400)

    def _watch(self) -> None:
        if self._refused:
            return
        if self.transport.is_closing():
            self._disarm()
            return
        theirs = self.conn.their_state
        begun = theirs is h11.IDLE and bool(self.conn.trailing_data[0])
        unread = theirs is h11.SEND_BODY and self.conn.our_state is h11.DONE
        if begun:
            self._await_peer(self._limits.head_seconds)
        elif unread:
            self._await_peer(self._limits.unread_seconds)
        else:
            self._disarm()

    def _await_peer(self, seconds: float) -> None:
        if self._slow is None:
            self._slow = self.loop.call_later(seconds, self._too_slow)

    def _disarm(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def _too_slow(self) -> None:
        self._slow = None
        if self.transport.is_closing():
            return
        if not self._refused and self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            self._refuse(408)
        else:
            self.transport.abort()

    def _refuse(self, status: int) -> None:
        """Answer `status`, unless this request was answered already, and end the connection.

        Further input is read and dropped for a while: closing with unread input would reset the connection, and the answer
        could be lost with it.
        """
        self._disarm()
        self._refused = True
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            # The application may be waiting for the body of a malformed request.
            cycle.disconnected = True
            cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        title, code, detail = _TITLES[status]
        content = json.dumps(
            {"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail}
        ).encode()
        headers: list[tuple[bytes, Any]] = [
            (b"content-type", _PROBLEM),
            (b"content-length", str(len(content)).encode()),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),
        ]
        if self.transport.get_extra_info("ssl_object") is not None:
            headers.append(HSTS)
        # The body of a request by HEAD can be malformed, too; its answer has the length of a body, and none.
        body = [] if self.conn.asks_for_head else [h11.Data(data=content)]
        for event in (
            h11.Response(status_code=status, headers=headers, reason=title.encode()),
            *body,
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._await_peer(self._limits.unread_seconds)


def _nothing() -> None:
    return


class StrictConnection(h11.Connection):
    """The server side of one connection; a head has at most `head_bytes` bytes and `fields` fields."""

    def __init__(self, *, head_bytes: int, fields: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=head_bytes)
        self.asks_for_head = False
        """Whether the method of the current request is HEAD."""
        self._head_bytes: Final = head_bytes
        self._fields: Final = fields

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return the next event as h11 does; raise `h11.RemoteProtocolError` in more cases than h11."""
        if self.their_state is h11.IDLE:
            self.asks_for_head = False
            self._check_lines(self.trailing_data[0])
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.asks_for_head = event.method == b"HEAD"
            self._check_request(event)
        return event

    def _check_lines(self, data: bytes) -> None:
        end = data.find(_HEAD_END)
        if end > self._head_bytes:
            raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
        if _BARE.search(data, 0, end if end >= 0 else len(data)):
            raise h11.RemoteProtocolError("a line ends with a bare line feed")
        if _FOLDED.search(data, 0, end if end >= 0 else len(data)):
            raise h11.RemoteProtocolError("a folded line")
        lengths = _LENGTHS.findall(data, 0, end + 2) if end >= 0 else []
        if len(lengths) > 1 or not all(length.strip(b" \t").isdigit() for length in lengths):
            raise h11.RemoteProtocolError("more than one length")

    def _check_request(self, request: h11.Request) -> None:
        if request.http_version not in _VERSIONS:
            raise h11.RemoteProtocolError("not HTTP/1.1 or HTTP/1.0")
        names = [name for name, _ in request.headers]
        if len(names) > self._fields:
            raise h11.RemoteProtocolError("too many fields", error_status_hint=431)
        if _CODING_FIELD in names and (_LENGTH_FIELD in names or request.http_version == b"1.0"):
            # RFC 9112 section 6.1 permits both fields, and calls such requests attempts at smuggling.
            raise h11.RemoteProtocolError("a transfer coding with a length, or in HTTP/1.0")

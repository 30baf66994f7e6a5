"""Server-sent events (HTML, section 9.2): streams, bounded in number for all and for each user, and what is sent in them."""

from __future__ import annotations

import json
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Final

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from sealbus.agents.edge.http.limits import EdgeLimits
from sealbus.agents.edge.http.problem import HEADERS, EdgeError
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.agents.sdk.bodies import JSON
from sealbus.bus.sending.message import Content
from sealbus.envelopes.errors import Code, HandlingError

EVENT_STREAM: Final = "text/event-stream"
COMMENT: Final = b":\n\n"
"""A line that says nothing, but shows that the stream is open."""


class OpenStreams:
    """The streams of one edge that are open now."""

    def __init__(self, limits: EdgeLimits) -> None:
        self._limits = limits
        self._open: Counter[tuple[str, str]] = Counter()

    @property
    def count(self) -> int:
        """How many there are."""
        return self._open.total()

    def of(self, token: AccessToken, events: AsyncGenerator[bytes, None]) -> Response:
        """Return a response that streams `events` to the user of `token`; raise 429 if too many are open."""
        self.enter(token)
        return self.entered(token, events)

    def enter(self, token: AccessToken) -> None:
        """Count a stream that is about to be opened for the user of `token`; raise 429 if too many are open.

        Then either `entered` returns its response, or `leave` takes it off.
        """
        limits, user = self._limits, (token.issuer, token.subject)
        if self._open.total() >= limits.event_streams or self._open[user] >= limits.event_streams_of_user:
            raise EdgeError(Code.RATE_LIMITED, 429, "too many streams are open", retry_after=int(limits.event_seconds))
        # Counted here: a concurrent request must see it, and the stream begins only some turns of the loop later.
        self._open[user] += 1

    def entered(self, token: AccessToken, events: AsyncGenerator[bytes, None]) -> Response:
        """Return the response of a stream that was counted."""
        return EventStream(events, lambda: self.leave(token))

    def leave(self, token: AccessToken) -> None:
        """Take a stream off that was counted."""
        user = (token.issuer, token.subject)
        self._open[user] -= 1
        if not self._open[user]:
            del self._open[user]


class EventStream(StreamingResponse):
    """A response of `events` that calls `left` when it has ended, even if it never began."""

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        on_end: Callable[[], None],
        headers: Mapping[str, str] = HEADERS,
    ) -> None:
        super().__init__(events, 200, headers, EVENT_STREAM)
        self._events = events
        self._left = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; the stream ends with the connection."""
        try:
            async with aclosing(self._events):
                await super().__call__(scope, receive, send)
        finally:
            self._left()


def part_document(number: int, part: Content) -> dict[str, object]:
    """Return one part of an answer as JSON: its `value`, or its bytes in base64 with their type."""
    if part.typ == JSON:
        try:
            return {"number": number, "value": json.loads(part.body)}
        except ValueError as error:
            raise HandlingError(Code.BAD_RESULT, "a part is no JSON") from error
    return {"number": number, "type": part.typ, "base64": b64encode(part.body).decode()}


def event(name: str, document: dict[str, object], number: int | None = None) -> bytes:
    """Return a server-sent event (HTML, section 9.2), with `number` as its id."""
    lines = [f"event: {name}", *([f"id: {number}"] if number is not None else []), f"data: {json.dumps(document)}"]
    return "\n".join((*lines, "", "")).encode()

"""Writes one log line per notable message, at a limited rate.

A peer can cause thousands of refusals or denials a second, and the audit stream, the counters and the refusals hold what
happened to each message. So log lines are rate-limited. They name sender, subject, event and reason, and hold no payload,
token or key.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from sealbus.envelopes.message.header import Header
from sealbus.envelopes.message.user_context import UserContext
from sealbus.envelopes.printable import printable

FIELDS: Final = "sealbus_fields"
"""Attribute of a log record with the contents of its line, by the field names of JSON lines (docs/telemetry.md)."""

Fields = Mapping[str, object]
_NO_FIELDS: Final[Fields] = MappingProxyType({})
_LEFT_OUT: Final = " (%d such lines were left out before)"
_REASONS: Final = 8
"""Most reasons of a denial in its line; the audit record has all."""
_TEXT: Final = 256
"""Most characters of a text that a peer chose."""


class OperatorLog:
    """Writes to `logger`, at most `most` lines in `seconds`; the next line then says how many were left out."""

    def __init__(
        self,
        logger: logging.Logger,
        *,
        most: int = 20,
        seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._until = 0.0
        self._written = 0
        self._left_out = 0

    def message(
        self,
        event: str,
        header: Header,
        *,
        action: str,
        code: str,
        extra: str = "",
        reasons: Sequence[str] = (),
        context: UserContext | None = None,
        user: bool = False,
    ) -> None:
        """Log what happened to a verified message: `event` in a word or two, `code` for the reason, `extra` in a few words.

        `reasons` are the policy's. With the message's `context` the line has the id of the edge's request and, if `user` is
        true, the user's name in the context, which is a pseudonym if the edge uses pseudonyms.
        """
        if not self._due(logging.INFO):
            return
        user_id = context.sub if context is not None and user else ""
        request = context.txn.hex() if context is not None else ""
        trace = header.tid.hex() if header.tid is not None else ""
        words = [shown(reason) for reason in reasons[:_REASONS]]
        named = ("user", shown(user_id)), ("request", request), ("trace", trace)
        self._write(
            logging.INFO,
            "%s: %s, message %s on %s from %s, %s%s%s%s",
            event,
            action,
            header.id.hex(),
            header.to,
            header.iss,
            code,
            f" ({', '.join(words)})" if words else "",
            f", {extra}" if extra else "",
            "".join(f", {name} {value}" for name, value in named if value),
            fields={
                "event": event,
                "action": action,
                "code": str(code),
                "reasons": words,
                "agent": str(header.aud or ""),
                "sender": str(header.iss),
                "user": shown(user_id),
                "subject": header.to,
                "message_id": header.id.hex(),
                "request_id": request,
                "trace_id": trace,
                "note": extra,
            },
        )

    def refused(self, subject: str, *, code: str, step: int) -> None:
        """Log that a delivery on `subject` failed verification, so that nothing in it is known to be true."""
        if not self._due(logging.INFO):
            return
        # A stranger chooses the subject within our subscription; it may hold terminal control sequences.
        fields = {"event": "refused", "code": str(code), "subject": shown(subject), "step": step}
        self._write(logging.INFO, "refused: on %.255a, %s at step %d", subject, code, step, fields=fields)

    def warning(self, text: str, *args: object, fields: Fields = _NO_FIELDS) -> None:
        """Log a failure of this process that a sender can cause as often as it likes."""
        if self._due(logging.WARNING):
            self._write(logging.WARNING, text, *args, fields=fields)

    def _due(self, level: int) -> bool:
        """Return whether another line may be written. Ask before making the line: most lines of a flood are left out."""
        if not self._logger.isEnabledFor(level):
            return False
        now = self._clock()
        if now >= self._until:
            self._until, self._written = now + self._seconds, 0
        if self._written >= self._most:
            self._left_out += 1
            return False
        self._written += 1
        return True

    def _write(self, level: int, text: str, *args: object, fields: Fields) -> None:
        left_out, self._left_out = self._left_out, 0
        if left_out:
            text, args, fields = text + _LEFT_OUT, (*args, left_out), {**fields, "left_out": left_out}
        self._logger.log(level, text, *args, extra={FIELDS: {name: value for name, value in fields.items() if value}})


def shown(text: str) -> str:
    """Return a text that a peer chose as it may stand in a line: printable and short."""
    return printable(text[:_TEXT])

"""One log line per notable message.

A peer that can cause refusals or denials can do so thousands of times a second, and the audit stream, the counters and the
refusals hold what happened to each message. So log lines are rate-limited; they name who, where, what and why, and hold no
payload, token or key.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from sealbus.envelopes.message.header import Header

__all__ = ["OperatorLog"]


class OperatorLog:
    """Writes to `log`, at most `most` lines in `seconds`; the next line then says how many were left out."""

    def __init__(
        self, log: logging.Logger, *, most: int = 20, seconds: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._until = 0.0
        self._written = 0
        self._left_out = 0

    def message(self, event: str, header: Header, *, action: str, code: str, extra: str = "") -> None:
        """Log what happened to a verified message: `event` in one word, `code` why, `extra` a few words of ours."""
        self._write(
            logging.INFO,
            "%s: %s, message %s on %s from %s, %s%s",
            event,
            action,
            header.id.hex(),
            header.to,
            header.iss,
            code,
            f", {extra}" if extra else "",
        )

    def refused(self, subject: str, *, code: str, step: int) -> None:
        """Log that a delivery on `subject` failed verification; nothing in it is known to be true."""
        # A stranger chooses the subject within our subscription, and it may hold terminal control sequences.
        self._write(logging.INFO, "refused: on %.255a, %s at step %d", subject, code, step)

    def warning(self, text: str, *args: object) -> None:
        """Log a failure of ours that a sender can cause as often as it likes."""
        self._write(logging.WARNING, text, *args)

    def _write(self, level: int, text: str, *args: object) -> None:
        if not self._log.isEnabledFor(level):
            return
        now = self._clock()
        if now >= self._until:
            self._until, self._written = now + self._seconds, 0
        if self._written >= self._most:
            self._left_out += 1
            return
        self._written += 1
        left_out, self._left_out = self._left_out, 0
        if left_out:
            self._log.log(level, text + " (%d such lines were left out before)", *args, left_out)
        else:
            self._log.log(level, text, *args)

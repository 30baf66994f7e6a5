"""Why a message was not published, where that is final: repeating the same bytes would not help."""

from __future__ import annotations

from sealbus.envelopes.errors import BusUnavailable, Code

__all__ = ["DuplicateFirstAttempt", "NotAcknowledged", "NotPermitted", "Overloaded", "StreamRefused"]


class StreamRefused(BusUnavailable):
    """The stream answered a publish with an error. `err_code` is JetStream's, for instance 10077: at its maximum size."""

    def __init__(self, detail: str, err_code: int) -> None:
        super().__init__(detail)
        self.err_code = err_code


class Overloaded(BusUnavailable):
    """A stream is full: nothing was stored, and the sender is told at once (code `overloaded`)."""

    code = Code.OVERLOADED


class NotAcknowledged(BusUnavailable):
    """The server has not said in time that it stored what it was sent: nats-server answers nothing where its disk fails."""


class NotPermitted(BusUnavailable):
    """The server does not let this workload publish to the subject; who may what at NATS is the operator's to say."""


class DuplicateFirstAttempt(BusUnavailable):
    """The stream called the first attempt a duplicate: somebody else used this id (code `replayed`)."""

    code = Code.REPLAYED

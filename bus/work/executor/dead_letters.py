"""Dead letters: deliveries that could not be handled, stored verbatim, each with a sealed event that gives the reason."""

from __future__ import annotations

from sealbus.bus.ports import Outgoing, PubAck, Transport
from sealbus.bus.sending.message import event_of
from sealbus.bus.sending.outbox import Outbox
from sealbus.bus.work.executor.work import Work
from sealbus.envelopes.errors import BusUnavailable, HandlingError
from sealbus.envelopes.message.subjects import dead_subject

DEAD_EVENT = "dead"
"""Name of the event, sent on `event.<agent>.dead`."""

DETAIL = 256
"""Characters of the failure's detail that the event holds."""
STORE_WITHIN = 5.0
"""Seconds within which the DEAD stream must acknowledge."""


class DeadLetters:
    """The dead letters of one agent, whose subject token is `token`."""

    def __init__(self, *, token: str, transport: Transport, outbox: Outbox) -> None:
        self._token = token
        self._transport = transport
        self._outbox = outbox

    async def bury(self, work: Work, failure: HandlingError) -> None:
        """Store the delivery's bytes on `dead.<agent>.<verb>` and publish the reason on `event.<agent>.dead`.

        Raises `BusUnavailable` if either is not acknowledged. The same bytes may be buried again: they are stored once.
        """
        header = work.header
        letter = Outgoing(
            subject=dead_subject(self._token, work.delivery.subject),
            payload=work.delivery.payload,
            message_id=header.id.hex(),
        )
        [answer] = await self._transport.publish([letter], deadline=STORE_WITHIN)
        if not isinstance(answer, PubAck):
            raise BusUnavailable("the dead letter was not stored") from answer
        reason = {
            "message": header.id.hex(),
            "subject": work.delivery.subject,
            "code": str(failure.code),
            # A handler's detail may be of any length, and the event must not fail because of it.
            "detail": failure.detail[:DETAIL],
            "deliveries": work.delivery.number,
        }
        await self._outbox.publish(event_of(self._token, DEAD_EVENT, reason, header), within=STORE_WITHIN)

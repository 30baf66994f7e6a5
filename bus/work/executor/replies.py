"""Handles calls: answered first, then recorded, and never retried (SPEC.md section 7)."""

from __future__ import annotations

import json
import logging

from sealbus.bus.routing.retry import Reject, Retry
from sealbus.bus.routing.routes import Permitted
from sealbus.bus.sending.message import ERROR_TYPE, Content, OutgoingMessage
from sealbus.bus.sending.outbox import Outbox
from sealbus.bus.site import Site
from sealbus.bus.work.cancel.in_force import Stops
from sealbus.bus.work.executor.attempt import REJECTED, Attempts, GivenUp
from sealbus.bus.work.executor.completion import Outcomes
from sealbus.bus.work.executor.ending import passed_on
from sealbus.bus.work.executor.work import Work
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.denial import NOTHING_TOLD, Explanation
from sealbus.envelopes.errors import Code, Denied, HandlingError, SealbusError, StateUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Draft

_logger = logging.getLogger(__name__)

REPLY_LIFE = 60 * SECOND


class Replier:
    """Handles and answers the calls of one worker."""

    def __init__(self, site: Site, *, outbox: Outbox, outcomes: Outcomes, stops: Stops, attempts: Attempts) -> None:
        self._site = site
        self._outbox = outbox
        self._outcomes = outcomes
        self._stops = stops
        self._attempts = attempts
        self._seconds = site.counters.histogram("sealbus_handler_seconds", ("action",))

    async def handle(self, work: Work) -> None:
        """Run the handler of a call, answer it, and record the outcome."""
        permitted = work.permitted
        if work.started >= work.header.exp:
            await self._outcomes.settle(work, Code.EXPIRED)
            return
        code: str | None = None
        counted = "done"
        try:
            if (canceled := await self._stops.met(permitted)) is not None:
                permitted.cancellation.request(canceled)
            answer = await self._attempts.run(work, self._send_chunk)
        except GivenUp:
            return
        except Reject as rejected:
            code, counted = rejected.code, REJECTED
            answer = error_answer(code, note=rejected.note)
        except Retry:
            code = counted = Code.HANDLER_FAILED
            answer = error_answer(code)
        except StateUnavailable as error:
            code = counted = error.code
            answer = error_answer(code, note=self._attempts.tell(error))
        except HandlingError as error:
            code = counted = error.code
            answer = error_answer(code, passed_on(permitted, error), self._attempts.tell(error))
        self._site.counters.add("sealbus_handled_total", 1, action=permitted.route.action, outcome=counted)
        self._seconds.observe((self._site.bus_clock() - work.started) / SECOND, permitted.route.action)
        if answer is not None:
            await self._send(permitted.message, answer)
        await self._outcomes.settle(work, code)

    async def end_given_up(self, work: Work) -> None:
        """Answer a call whose handler does not stop."""
        canceled = work.permitted.cancellation.canceled
        code = Code.HANDLER_TIMEOUT if canceled is None else Code.CANCELED
        await self._send(work.permitted.message, error_answer(code))
        await self._outcomes.settle(work, code)

    async def refuse(self, message: VerifiedMessage, code: str, explanation: Explanation, note: str = "") -> None:
        """Answer a call that is not handled."""
        await self._send(message, error_answer(code, explanation, note))

    async def _send(self, message: VerifiedMessage, answer: Content) -> None:
        """Send a reply; if it cannot be sent this is logged, and its caller concludes `expired`."""
        try:
            await self._outbox.send(reply_message(message, answer))
        except SealbusError as error:
            _logger.warning("reply not sent: %s", error)

    async def _send_chunk(self, permitted: Permitted, chunk: Content, number: int, fin: bool) -> None:
        await self._outbox.send(reply_message(permitted.message, chunk, seq=number, fin=fin))


def error_answer(code: str, explanation: Explanation = NOTHING_TOLD, note: str = "") -> Content:
    """Return the body of an error reply: a code, the explanation of a denial, a handler's note."""
    fields = {"code": str(code), "reasons": []} | explanation.members() | ({"note": note} if note else {})
    return Content(body=json.dumps(fields, separators=(",", ":")).encode(), typ=ERROR_TYPE)


def reply_message(
    message: VerifiedMessage, answer: Content, *, seq: int | None = None, fin: bool = False
) -> OutgoingMessage:
    """Return the reply to a call, or the chunk `seq` of it."""
    header = message.header
    if header.rpl is None:
        raise Denied("the message has no reply subject")
    draft = Draft(
        kind=Kind.REPLY if seq is None else Kind.CHUNK,
        to=header.rpl,
        aud=header.iss,
        body=answer.body,
        typ=answer.typ,
        re=header.digest,
        seq=seq,
        fin=fin,
        tid=header.tid,
    )
    return OutgoingMessage(draft, REPLY_LIFE)

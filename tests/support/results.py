"""A requester for tests: the planner, which asked one call and one task of pricing, and pricing's answers to them."""

from __future__ import annotations

from dataclasses import dataclass, field

from support.acceptance import ISSUER, PLANNER, TRUST, Message
from support.envelopes import HOUR, MINUTE, NAMES, NOW, agent, call_draft, message_id, task_draft

from sealbus.envelopes.accept.open_request import OpenRequest, PendingRequest
from sealbus.envelopes.accept.result import ResultProfile, VerifiedResult, accept_reply, accept_status
from sealbus.envelopes.message.seal import seal
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches

__all__ = ["CALL", "PRICING", "TASK", "Requester", "answer"]

PRICING = ISSUER.sealer(agent("pricing"))
[CALL, TASK] = [sealed.header for sealed in seal([call_draft(), task_draft(aud="pricing")], PLANNER)]


@dataclass(kw_only=True)
class Requester:
    """The planner, which asked one call and one task of pricing."""

    own: str = "planner"
    subject: str | None = None
    now: int = NOW
    trust: Trust = TRUST
    requests: dict[bytes, OpenRequest] = field(
        default_factory=lambda: {header.digest: OpenRequest(PendingRequest.of(header)) for header in (CALL, TASK)}
    )

    def reply(self, message: Message) -> VerifiedResult:
        return accept_reply(
            message.payload(),
            self.subject or "_INBOX.planner.1",
            ResultProfile(own=agent(self.own), names=NAMES),
            self.requests,
            trust=self.trust,
            caches=Caches(),
            now=self.now,
        )

    def status(self, message: Message) -> VerifiedResult | None:
        return accept_status(
            message.payload(),
            self.subject or f"status.planner.{TASK.id.hex()}",
            ResultProfile(own=agent(self.own), names=NAMES),
            self.requests,
            stored=self.now,
            trust=self.trust,
            caches=Caches(),
        )


def answer(kind: str = "reply", **fields: object) -> Message:
    """Return an answer by pricing to the planner's call, or to its task; `fields` are header entries that differ."""
    own: dict[str, object] = {
        "t": kind,
        "aud": agent("planner").value,
        "re": CALL.digest,
        "to": "_INBOX.planner.1",
        "end": None,
        "exp": NOW + MINUTE,
        "id": message_id(3),
    }
    if kind == "chunk":
        own["seq"] = 0
    if kind == "status":
        own |= {"re": TASK.digest, "to": f"status.planner.{TASK.id.hex()}", "seq": 0, "exp": NOW + HOUR}
    return Message(sealer=PRICING, context=None, ancestors=(), fields=own | fields)

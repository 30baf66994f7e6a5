"""A parked task as the inventory keeps it, and approvals of it, without any bus; it is that of `support.acceptance`."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from support.acceptance import EDGE, EDGE_ID, INVENTORY, Delivery, Message, context_draft, header_block
from support.audit import decision_of, opened
from support.envelopes import MINUTE, NOW, message_id

from sealbus.bus.gate.approval_authorizer import ApprovalCase
from sealbus.bus.sending.approval import APPROVAL_TYPE, ApprovalRequest, Verdict, encode_approval
from sealbus.bus.streams.held import HeldValue
from sealbus.bus.work.approvals.parked_tasks import PARKED_TYPE, CountedVerdict, Parked
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.fields import RecordMap
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.message.user_context import mint_context

__all__ = ["ASKED", "PARKED_TYPE", "UNTIL", "approval", "case", "parked_task", "value_of", "verdict"]

ASKED: dict[str, object] = {"type": "approval", "queue": "managers", "text": "Pay", "until": 600}
UNTIL = NOW + 10 * MINUTE


def record_of(message: Message, **asked: object) -> bytes:
    """Return the record of the denial that asks for what `asked` adds to `ASKED`."""
    obligations = json.dumps([{**ASKED, **asked}]).encode()
    denied = decision_of(opened(message))._replace(
        allow=False, code="denied", obligations=obligations, input=b'{"context":{}}'
    )
    return denied.encode()


def parked_task(*, message: Message | None = None, asked: dict[str, object] | None = None, **changes: Any) -> Parked:
    """Return the task as it was parked, with `asked` added to what the policy asks for."""
    task = message or Message()
    fields = {"record": record_of(task, **(asked or {})), "envelope": task.payload(), "since": NOW, "until": UNTIL}
    return Parked(**{**fields, **changes})


def value_of(parked: Parked, *, subject: str = "", stored: int = NOW, **keys: Any) -> HeldValue:
    """Return the genuine value that holds it; `keys` are others, or not there if they are None."""
    said = {**parked.keys(), **keys}
    return HeldValue(
        subject=subject or parked.subject("inventory"),
        own=INVENTORY,
        keys=RecordMap({"v": 1, **{key: value for key, value in said.items() if value is not None}}),
        extra=parked.envelope,
        number=1,
        at=stored,
        stored=stored,
        last=1,
    )


def verdict(user: str = "boss", **changes: Any) -> CountedVerdict:
    """Return what somebody has said."""
    fields: dict[str, Any] = {
        "verdict": Verdict.APPROVE,
        "user": user,
        "idp": "https://idp.example",
        "session": "s",
        "client": "c",
        "acr": "",
        "authenticated": 0,
        "time": NOW,
        "message": bytes(32),
        "record": bytes(32),
        "edge": EDGE_ID,
        "issued": NOW,
    }
    return CountedVerdict(**{**fields, **changes})


def approval(
    parked: Parked,
    *,
    sealer: Sealer = EDGE,
    stored: int = NOW + SECOND,
    number: int = 9,
    grt: tuple[str, ...] = (),
    verdict: Verdict = Verdict.APPROVE,
    **context: Any,
) -> VerifiedMessage:
    """Return an approval as it was accepted, by a person whose context differs as `context` says."""
    said = context_draft()._replace(**{"sub": "boss", "aut": NOW - MINUTE, **context})
    body = encode_approval(ApprovalRequest(decision=parked.leaf, verdict=verdict)).body
    sent = Message(
        sealer=sealer,
        context=mint_context(said, EDGE),
        ancestors=(),
        body=body,
        fields={
            "to": "control.inventory.approve",
            "re": parked.digest,
            "grt": list(grt),
            "typ": APPROVAL_TYPE,
            "id": message_id(number),
            "dig": sha256(body).digest(),
        },
    )
    to = Delivery(
        subject="control.inventory.approve",
        header_block=header_block(message_id(number)),
        stored=stored,
        now=stored,
        action="inventory._approve",
    )
    return to.accept(sent)


def case(parked: Parked, said: Verdict = Verdict.APPROVE, **changes: Any) -> ApprovalCase:
    """Return a verdict about it."""
    return ApprovalCase(request=ApprovalRequest(**{"decision": parked.leaf, "verdict": said, **changes}), parked=parked)

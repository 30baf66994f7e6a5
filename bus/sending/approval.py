"""The body of an approval, the task on `control.<agent>.approve`: composed and parsed (SPEC.md section 7). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sealbus.bus.sending.answer import CallExpired
from sealbus.bus.sending.message import Content, OutgoingMessage
from sealbus.envelopes.encoding.codec import is_text
from sealbus.envelopes.encoding.strict_json import Json, parse_object
from sealbus.envelopes.errors import BadBody
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.fields import DIGEST_BYTES, ExtValue
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Draft
from sealbus.envelopes.message.subjects import control_subject
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId

APPROVAL_TYPE: Final = "application/vnd.sealbus.approval.v1+json"
"""Media type of the body."""

WAIT: Final = "_wait"
"""The mark of a task that may wait for an approval until the marked time (SPEC.md section 3)."""
LONGEST_WAIT: Final = 30 * 86_400 * SECOND
"""Longest time that a task may wait, in microseconds."""

_BYTES: Final = 4_096
_LEAF: Final = re.compile(f"[0-9a-f]{{{2 * DIGEST_BYTES}}}")
_TEXTS: Final = ("decision", "verdict", "note")


class Verdict(StrEnum):
    """A person's verdict on a parked task."""

    APPROVE = "approve"
    DENY = "deny"
    WITHDRAW = "withdraw"
    """Takes back the person's earlier verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRequest:
    """A verdict on the task that the decision record with leaf `decision` denied until approval. Raises `ValueError`.

    `note` is a line for people, and may be empty.
    """

    decision: bytes
    verdict: Verdict
    note: str = ""

    def __post_init__(self) -> None:
        if len(self.decision) != DIGEST_BYTES:
            raise ValueError("a decision is named by its leaf, of 32 bytes")
        if type(self.note) is not str or not is_text(self.note):
            raise ValueError("a note is a text of at most 256 bytes without control characters")


def encode_approval(request: ApprovalRequest) -> Content:
    """Return the body of `request`."""
    members = {"v": 1, "decision": request.decision.hex(), "verdict": request.verdict.value, "note": request.note}
    return Content.of_json(members, APPROVAL_TYPE)


def parse_approval(body: bytes, typ: str) -> ApprovalRequest:
    """Parse a body; raise `BadBody` for an invalid one."""
    if typ != APPROVAL_TYPE or len(body) > _BYTES:
        raise BadBody("not an approval")
    try:
        return _parsed(parse_object(body, depth=1))
    except ValueError as error:
        raise BadBody("the approval is not well-formed") from error


def approval_message(
    request: ApprovalRequest,
    *,
    agent: SpiffeId,
    task: bytes,
    follows: Sequence[str],
    statement: Statement,
    names: Names,
    now: int,
) -> OutgoingMessage:
    """Return the approval of the task with H(header) `task` by the person of `statement`, for the task's `agent`.

    The approval starts a chain, which lasts as long as the person's context. In that chain the task sends messages in the
    person's name, of the actions in `follows` at most. Raises `CallExpired` if the context is over at `now` (microseconds).
    """
    context = parse_payload(statement.payload)
    life = context.end - max(now, context.iat)
    if life <= 0:
        raise CallExpired("the user's context is over")
    body = encode_approval(request)
    return OutgoingMessage(
        Draft(
            kind=Kind.TASK,
            to=control_subject(names.token(agent), "approve"),
            aud=agent,
            body=body.body,
            typ=body.typ,
            re=task,
            context=statement,
            grt=tuple(follows),
        ),
        life=life,
        end_after=life,
        end_at=context.end,
        not_before=context.iat,
    )


def waiting(until: int) -> Mapping[str, ExtValue]:
    """Return the mark of a task that may wait for an approval until `until` (microseconds)."""
    return {WAIT: until}


def _parsed(members: dict[str, Json]) -> ApprovalRequest:
    version = members.pop("v", None)
    texts = [text for name in _TEXTS if isinstance(text := members.get(name), str)]
    if type(version) is not int or version != 1 or not len(members) == len(texts) == len(_TEXTS):
        raise ValueError("unknown members, version or types")
    decision, verdict, note = texts
    if not _LEAF.fullmatch(decision):
        raise ValueError("decision is not a leaf")
    return ApprovalRequest(decision=bytes.fromhex(decision), verdict=Verdict(verdict), note=note)

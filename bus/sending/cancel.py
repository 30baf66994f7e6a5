"""The body of a cancel, the task on `control.<agent>.cancel`: composed and parsed (SPEC.md section 7). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sealbus.bus.sending.answer import CallExpired
from sealbus.bus.sending.message import Content, OutgoingMessage
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.encoding.codec import is_text
from sealbus.envelopes.encoding.strict_json import Json, parse_object
from sealbus.envelopes.errors import BadBody
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.fields import DIGEST_BYTES
from sealbus.envelopes.message.header import is_grant
from sealbus.envelopes.message.kinds import RULES, Kind
from sealbus.envelopes.message.seal import Draft
from sealbus.envelopes.message.subjects import control_subject
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.trust.names import Names

CANCEL_TYPE: Final = "application/vnd.sealbus.cancel.v1+json"
"""Media type of the body."""

_BYTES: Final = 4_096
_TEXTS: Final = ("task", "action", "role", "reason")
_DIGEST: Final = re.compile(f"[0-9a-f]{{{2 * DIGEST_BYTES}}}")


class CancelRole(StrEnum):
    """The role in which a sender cancels."""

    REQUESTER = "requester"
    """The workload that sealed the message. Its cancel stops no messages of others."""
    OPERATOR = "operator"
    """Any sender whom the agent's policy allows to cancel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequest:
    """A request to cancel the message with H(header) `digest`, whose action is `action`. Raises `ValueError`.

    `end` is that message's `end` (microseconds). After it nothing of the message is handled, and the cancel is forgotten.
    `reason` is a line for people, and may be empty. Whether the canceller sealed the message is checked when it arrives.
    """

    digest: bytes
    action: str
    end: int
    role: CancelRole = CancelRole.REQUESTER
    reason: str = ""

    def __post_init__(self) -> None:
        if len(self.digest) != DIGEST_BYTES:
            raise ValueError("a message is named by a hash of 32 bytes")
        if not is_grant(self.action) or self.action.endswith("*"):
            raise ValueError("the action is malformed")
        if type(self.end) is not int or not 0 <= self.end <= DEFAULT_LIMITS.max_integer:
            raise ValueError("the end is a time in microseconds")
        if type(self.reason) is not str or (self.reason and not is_text(self.reason)):
            raise ValueError("a reason is a text of at most 256 bytes without control characters")


def encode_cancel(request: CancelRequest) -> Content:
    """Return the body of `request`."""
    members = {
        "v": 1,
        "task": request.digest.hex(),
        "action": request.action,
        "end": request.end,
        "role": request.role.value,
        "reason": request.reason,
    }
    return Content.of_json(members, CANCEL_TYPE)


def parse_cancel(body: bytes, typ: str) -> CancelRequest:
    """Parse a body; raise `BadBody` for an invalid one."""
    if typ != CANCEL_TYPE or len(body) > _BYTES:
        raise BadBody("not a cancel")
    try:
        return _parsed(parse_object(body, depth=1))
    except ValueError as error:
        raise BadBody("the cancel is not well-formed") from error


def cancel_message(
    request: CancelRequest, pending: PendingRequest, *, names: Names, now: int, statement: Statement | None = None
) -> OutgoingMessage:
    """Return the cancel of our request `pending`, which its agent accepts until that request's end.

    It follows from no other message, or it could be canceled with the work that sends it. `statement` is the context of the
    user who cancels. Raises `CallExpired` if the end has passed at `now` (microseconds): no work can be under way then.
    """
    context = parse_payload(statement.payload) if statement is not None else None
    life = min(pending.end - now, RULES[Kind.TASK].life)
    if life <= 0:
        raise CallExpired("the request's end has passed: none of its work is under way")
    body = encode_cancel(request)
    return OutgoingMessage(
        Draft(
            kind=Kind.TASK,
            to=control_subject(names.token(pending.aud), "cancel"),
            aud=pending.aud,
            body=body.body,
            typ=body.typ,
            re=pending.digest,
            context=statement,
        ),
        life=life,
        end_after=life,
        end_at=context.end if context is not None else None,
        not_before=context.iat if context is not None else 0,
    )


def _parsed(members: dict[str, Json]) -> CancelRequest:
    version, end = members.pop("v", None), members.pop("end", None)
    texts = [text for name in _TEXTS if isinstance(text := members.get(name), str)]
    if (
        type(version) is not int
        or version != 1
        or type(end) is not int
        or not len(members) == len(texts) == len(_TEXTS)
    ):
        raise ValueError("unknown members, version or types")
    task, action, role, reason = texts
    if not _DIGEST.fullmatch(task):
        raise ValueError("task is not a hash")
    return CancelRequest(digest=bytes.fromhex(task), action=action, end=end, role=CancelRole(role), reason=reason)

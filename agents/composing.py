"""From an action and a body to a letter: subject, audience, life, and what of the handled message goes along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sealbus.bus.letter import Letter
from sealbus.bus.routes import Answer
from sealbus.envelopes.accept import VerifiedMessage
from sealbus.envelopes.context_payload import parse_payload
from sealbus.envelopes.errors import SealError
from sealbus.envelopes.kinds import Kind
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.names import Names
from sealbus.envelopes.spiffe_id import SpiffeId
from sealbus.envelopes.subjects import call_subject, event_subject, task_subject
from sealbus.envelopes.wire import Ancestor, Statement

__all__ = [
    "CALL_LIFE",
    "EVENT_LIFE",
    "TASK_LIFE",
    "Origin",
    "call_letter",
    "event_letter",
    "split_action",
    "task_letter",
]

TASK_LIFE = 3_600 * SECOND
"""A task lives an hour unless said."""
CALL_LIFE = 30 * SECOND
EVENT_LIFE = 3_600 * SECOND
TASK_END = 3_600 * SECOND
"""How long after a task's `exp` the work that it started may still send, within the user context's own end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a message comes from: nothing, a user's context, or the message that is being handled.

    `statement` and `ancestors` go along unmodified; `end` bounds the child's, `not_before` its `iat` (SPEC.md section 3).
    """

    statement: Statement | None = None
    ancestors: tuple[Ancestor, ...] = ()
    end: int | None = None
    not_before: int = 0
    tid: bytes | None = None

    @classmethod
    def user(cls, statement: Statement | None) -> Origin:
        """Start a chain for a user, or for nobody; raises `EnvelopeError` for a payload that is not a user context."""
        if statement is None:
            return cls()
        context = parse_payload(statement.payload)
        return cls(statement=statement, end=context.end, not_before=context.iat)

    @classmethod
    def message(cls, message: VerifiedMessage) -> Origin:
        """Continue the chain of the message that is being handled; an event starts a chain of its own."""
        header = message.header
        if header.kind not in (Kind.TASK, Kind.CALL):
            return cls(tid=header.tid, not_before=header.iat)
        context_iat = message.context.iat if message.context is not None else 0
        return cls(
            statement=message.statement,
            ancestors=message.ancestors,
            end=header.end,
            not_before=max(header.iat, context_iat),
            tid=header.tid,
        )


def split_action(action: str) -> tuple[str, str]:
    """Return agent and verb of `inventory.update`; raises `SealError` for anything else."""
    agent, dot, verb = action.partition(".")
    if not dot or not agent or not verb or "." in verb:
        raise SealError("an action is <agent>.<verb>")
    return agent, verb


def task_letter(
    action: str,
    body: Answer,
    *,
    names: Names,
    origin: Origin,
    life: int = TASK_LIFE,
    partition: str | None = None,
    grants: Sequence[str] | None = None,
    idempotency_key: str | None = None,
) -> Letter:
    """Return a task for `action`; it carries the origin's user and chain."""
    agent, verb = split_action(action)
    to = names.id_of(agent)
    return Letter(
        kind=Kind.TASK,
        to=task_subject(names.token(to), verb, partition),
        aud=to,
        life=life,
        end_after=life + TASK_END,
        end_at=origin.end,
        not_before=origin.not_before,
        body=body.body,
        typ=body.typ,
        statement=origin.statement,
        ancestors=origin.ancestors,
        grt=tuple(grants) if grants is not None else None,
        idm=idempotency_key,
        tid=origin.tid,
    )


def call_letter(
    action: str,
    body: Answer,
    *,
    names: Names,
    origin: Origin,
    reply_to: str,
    life: int = CALL_LIFE,
    grants: Sequence[str] | None = None,
) -> Letter:
    """Return a call of `action` whose replies go to `reply_to`; it carries the origin's user and chain."""
    agent, verb = split_action(action)
    to = names.id_of(agent)
    return Letter(
        kind=Kind.CALL,
        to=call_subject(names.token(to), verb),
        aud=to,
        life=life,
        end_after=life,
        end_at=origin.end,
        not_before=origin.not_before,
        body=body.body,
        typ=body.typ,
        statement=origin.statement,
        ancestors=origin.ancestors,
        rpl=reply_to,
        grt=tuple(grants) if grants is not None else None,
        tid=origin.tid,
    )


def event_letter(
    name: str, body: Answer, *, names: Names, own: SpiffeId, origin: Origin, re: bytes | None = None
) -> Letter:
    """Return an event of our own. It carries no user and no chain, since anybody may read it; `re` says what it follows."""
    return Letter(
        kind=Kind.EVENT,
        to=event_subject(names.token(own), name),
        life=EVENT_LIFE,
        body=body.body,
        typ=body.typ,
        re=re,
        tid=origin.tid,
        not_before=origin.not_before,
    )

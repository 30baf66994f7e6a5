"""Messages to seal, from an action and a body: subject, audience, life, and what a message inherits from the handled one."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from sealbus.agents.sdk.options import DEFAULT_CALL, DEFAULT_SUBMIT, CallOptions, SubmitOptions
from sealbus.bus.sending.answer import DETACHED
from sealbus.bus.sending.message import Content, OutgoingMessage
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.errors import SealError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import RULES, Kind
from sealbus.envelopes.message.seal import Draft
from sealbus.envelopes.message.subjects import (
    OwnSubject,
    OwnSubjects,
    call_subject,
    event_subject,
    task_subject,
)
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.envelopes.message.wire import Ancestor, Statement
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId

NO_SUBJECTS: OwnSubjects = MappingProxyType({})
TASK_LIFE = 3_600 * SECOND
"""The default life of a task is an hour, or as long as its chain may go on if that is less."""
EVENT_LIFE = 3_600 * SECOND
TASK_END = 3_600 * SECOND
"""How long after a task's `exp` the work that it started may still send, within the user context's own end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The origin of a message: nothing, a user's context, or the message being handled.

    `statement` and `ancestors` go along unmodified; `end` bounds the child's, `not_before` its `iat` (SPEC.md section 3).
    """

    statement: Statement | None = None
    ancestors: tuple[Ancestor, ...] = ()
    end: int | None = None
    not_before: int = 0
    tid: bytes | None = None

    @classmethod
    def user(cls, statement: Statement | None) -> Origin:
        """Start a chain for a user, or without one; raises `EnvelopeError` for a payload that is not a user context."""
        if statement is None:
            return NOBODY
        context = parse_payload(statement.payload)
        return cls(statement=statement, end=context.end, not_before=context.iat)

    @classmethod
    def message(cls, message: VerifiedMessage) -> Origin:
        """Continue the chain of the message being handled; an event starts a new chain."""
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


NOBODY = Origin()


def split_action(action: str) -> tuple[str, str]:
    """Return agent and verb of an action such as `inventory.update`; raises `SealError` for any other text."""
    agent, dot, verb = action.partition(".")
    if not dot or not agent or not verb or "." in verb:
        raise SealError("an action is <agent>.<verb>")
    if verb.startswith("_"):
        raise SealError("no handler has a verb that begins with _: cancel a task by its handle")
    return agent, verb


def own_subject(kind: Kind, name: str, own: OwnSubjects) -> OwnSubject | None:
    """Return the own subject of `kind` whose text or action is `name`; `None` if the settings declare no such subject.

    A declared subject comes before `<agent>.<verb>`. Raises `SealError` for an action that several subjects have.
    """
    if not own:
        return None
    exact = own.get(name)
    if exact is not None and exact.kind is kind:
        return exact
    subjects = [subject for subject in own.values() if subject.kind is kind and subject.action == name]
    if len(subjects) > 1:
        raise SealError("several own subjects stand for this action: name the subject")
    return subjects[0] if subjects else None


def task_message(
    action: str,
    body: Content,
    *,
    names: Names,
    origin: Origin,
    options: SubmitOptions = DEFAULT_SUBMIT,
    own: OwnSubjects = NO_SUBJECTS,
) -> OutgoingMessage:
    """Return a task for `action` or an own subject; it carries the origin's user and chain.

    The caller adds `options.wait`. Raises `SealError` for a life that no task may have, or that is longer than its chain
    lasts.
    """
    recipient = _recipient(Kind.TASK, action, names, own, options.partition)
    life = _task_life(options.life, origin)
    return OutgoingMessage(
        _draft(Kind.TASK, recipient, body, origin, options, idm=options.idempotency_key),
        life=life,
        end_after=min(life + TASK_END, RULES[Kind.TASK].life),
        end_at=origin.end,
        not_before=origin.not_before,
    )


def _task_life(seconds: float | None, origin: Origin) -> int:
    """Return how long a task lives, in microseconds. A requested life is granted or refused, never shortened."""
    if seconds is None:
        return TASK_LIFE
    life, longest = int(seconds * SECOND), RULES[Kind.TASK].life
    if not 0 < life <= longest:
        raise SealError(f"life is over 0 and at most {longest // SECOND} s for a task, not {life / SECOND:.10g} s")
    if origin.end is not None and life > (left := origin.end - origin.not_before):
        raise SealError(
            f"life is at most {left // SECOND} s here, not {life / SECOND:.10g} s: the user's context, or the "
            "task being handled, goes on no longer"
        )
    return life


def call_message(
    action: str,
    body: Content,
    *,
    names: Names,
    origin: Origin,
    reply_to: str,
    options: CallOptions = DEFAULT_CALL,
    own: OwnSubjects = NO_SUBJECTS,
) -> OutgoingMessage:
    """Return a call of `action` or an own subject, whose replies go to `reply_to`.

    It carries the origin's user and chain. Raises `SealError` for a `timeout` that no call may live for.
    """
    life, longest = int(options.timeout * SECOND), RULES[Kind.CALL].life
    if not 0 < life <= longest:
        raise SealError(
            f"timeout is over 0 and at most {longest // SECOND} s for a call, not {life / SECOND:.10g} s: submit a task for "
            "what takes longer"
        )
    recipient = _recipient(Kind.CALL, action, names, own)
    return OutgoingMessage(
        _draft(Kind.CALL, recipient, body, origin, options, rpl=reply_to),
        life=life,
        end_after=life,
        end_at=origin.end,
        not_before=origin.not_before,
    )


def _recipient(
    kind: Kind, action: str, names: Names, own: OwnSubjects, partition: str | None = None
) -> tuple[SpiffeId, str]:
    """Return audience and subject of a task or call of `action`."""
    declared = own_subject(kind, action, own)
    if declared is not None:
        if partition is not None:
            raise SealError("an own subject has no partitions")
        return declared.owner, declared.subject
    agent, verb = split_action(action)
    aud = names.id_of(agent)
    token = names.token(aud)
    return aud, task_subject(token, verb, partition) if kind is Kind.TASK else call_subject(token, verb)


def _draft(
    kind: Kind,
    recipient: tuple[SpiffeId, str],
    body: Content,
    origin: Origin,
    options: SubmitOptions | CallOptions,
    *,
    rpl: str | None = None,
    idm: str | None = None,
) -> Draft:
    aud, to = recipient
    return Draft(
        kind=kind,
        to=to,
        aud=aud,
        body=body.body,
        typ=body.typ,
        context=origin.statement,
        ancestors=origin.ancestors,
        rpl=rpl,
        grt=tuple(options.grants) if options.grants is not None else None,
        idm=idm,
        tid=origin.tid,
        ext=DETACHED if options.detached else None,
    )


def event_message(
    name: str,
    body: Content,
    *,
    names: Names,
    own: SpiffeId,
    origin: Origin,
    re: bytes | None = None,
    own_subjects: OwnSubjects = NO_SUBJECTS,
) -> OutgoingMessage:
    """Return an event of our own, `event.<agent>.<name>` or the own subject `name`.

    It carries no user and no chain, since anyone may read it; `re` is the hash of the message that it follows. Raises
    `SealError` for an own subject of another emitter.
    """
    declared = own_subject(Kind.EVENT, name, own_subjects)
    if declared is not None and declared.owner != own:
        raise SealError("only its owner may emit this event")
    return OutgoingMessage(
        Draft(
            kind=Kind.EVENT,
            to=declared.subject if declared is not None else event_subject(names.token(own), name),
            body=body.body,
            typ=body.typ,
            re=re,
            tid=origin.tid,
        ),
        life=EVENT_LIFE,
        not_before=origin.not_before,
    )

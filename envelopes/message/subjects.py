"""Subjects: building and matching them, and which messages may use which subject (SPEC.md sections 1 and 3; step 3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sealbus.envelopes.errors import Code, ConfigurationError, EnvelopeError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.header import Header, is_grant, is_subject
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.trust.names import Names, is_token
from sealbus.envelopes.trust.spiffe_id import SpiffeId

RESERVED: Final = frozenset(
    {"task", "call", "event", "status", "dead", "audit", "refused", "state", "control", "held", "_INBOX"}
)
"""First tokens with a special meaning; everything that starts with `$` is special too, but not a token."""

REPLY_TOKEN: Final = "reply"
"""The token after the inbox prefix in every `rpl` that we send: `<inbox prefix>reply.<random>.<number>`.

With it, a broker can allow agents to answer each other without access to the rest of an inbox, where the broker's own
answers and a stream's deliveries arrive. Acceptance does not require it.
"""
UNHEARD_TOKEN: Final = "unheard"
"""The token in our own inbox under which the server reports that no process listens to a call. No peer may publish there."""

CONTROLS: Final = frozenset({"approve", "cancel", "schedule"})
"""The controls of an agent, on `control.<agent>.<control>`. The action of a control is `<agent>._<control>`."""

_TASK_ID: Final = re.compile("[0-9a-f]{32}")
_AGENT_KINDS: Final[Mapping[str, Kind]] = {"task": Kind.TASK, "call": Kind.CALL, "event": Kind.EVENT}
_OF_ISSUER: Final = frozenset({Kind.EVENT, Kind.RECORD})
"""Kinds whose subject names their sender. The subjects of other kinds name the recipient."""
_STARTS: Final[Mapping[Kind, str]] = {
    Kind.TASK: "task.",
    Kind.CALL: "call.",
    Kind.EVENT: "event.",
    Kind.STATUS: "status.",
    Kind.REPLY: "_INBOX.",
    Kind.CHUNK: "_INBOX.",
    Kind.RECORD: "audit.",
}
"""The text before the agent's token (SPEC.md section 3)."""
_ANSWERS: Final = frozenset({Kind.REPLY, Kind.CHUNK})
# A lookup of a member in its class takes longer than all other work here.
_TASK: Final = Kind.TASK
_STATUS: Final = Kind.STATUS
_RECORD: Final = Kind.RECORD


def _built(*tokens: str) -> str:
    """Join `tokens`; raise `ConfigurationError` for an invalid token or over 255 bytes in all."""
    for token in tokens:
        if not is_token(token):
            raise ConfigurationError(f"subject token {token!r}: letters, digits, _ and - only, not empty")
    subject = ".".join(tokens)
    if len(subject) > DEFAULT_LIMITS.subject_bytes:
        raise ConfigurationError(f"subject of {len(subject)} bytes: at most {DEFAULT_LIMITS.subject_bytes}")
    return subject


def task_subject(agent: str, verb: str, partition: str | None = None) -> str:
    """Return `task.<agent>.<verb>[.<partition>]`; `agent` is the token of the consumer."""
    return _built("task", agent, verb) if partition is None else _built("task", agent, verb, partition)


def call_subject(agent: str, verb: str) -> str:
    """Return `call.<agent>.<verb>`; `agent` is the token of the callee."""
    return _built("call", agent, verb)


def control_subject(agent: str, control: str) -> str:
    """Return `control.<agent>.<control>`; `agent` is the token of the recipient. Raises `ConfigurationError`."""
    if control not in CONTROLS:
        raise ConfigurationError(f"{control!r} is not a control of agents")
    return _built("control", agent, control)


def event_subject(agent: str, name: str) -> str:
    """Return `event.<agent>.<name>`; `agent` is the token of the emitter."""
    return _built("event", agent, name)


def status_subject(requester: str, task: bytes) -> str:
    """Return `status.<requester>.<hex id of the task>`; `requester` is the token of the requester."""
    return _built("status", requester, task.hex())


def dead_subject(agent: str, subject: str) -> str:
    """Return `dead.<agent>.<verb>` for a message on `subject`; `agent` is the token of the agent that could not handle it.

    The verb is what `subject` has from its third token on, with a partition if there is one; or its last token.
    """
    return f"dead.{agent}.{subject.split('.', 2)[-1]}"


def audit_subject(agent: str) -> str:
    """Return `audit.<agent>`; `agent` is the token of the recording agent."""
    return _built("audit", agent)


def refused_subject(agent: str) -> str:
    """Return `refused.<agent>`; `agent` is the token of the refusing agent."""
    return _built("refused", agent)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSubject:
    """A subject outside our own scheme, declared in the settings. Raises `ConfigurationError` for a bad declaration.

    `owner` is the only consumer of a task or call, or the only emitter of an event. The policy decides about `action`.
    """

    subject: str
    kind: Kind
    owner: SpiffeId
    action: str

    def __post_init__(self) -> None:
        subject = self.subject
        if not is_subject(subject):
            raise ConfigurationError(f"own subject {subject!r}: tokens of letters, digits, _ and -, at most 255 bytes")
        if subject.partition(".")[0] in RESERVED:
            raise ConfigurationError(f"own subject {subject!r}: its first token is reserved")
        if self.kind not in _AGENT_KINDS.values():
            raise ConfigurationError(f"own subject {subject!r}: its kind is task, call or event")
        if not is_grant(self.action) or "." not in self.action or self.action.endswith("*"):
            raise ConfigurationError(f"own subject {subject!r}: action {self.action!r} is not <agent>.<verb>")
        if "._" in self.action:
            raise ConfigurationError(f"own subject {subject!r}: verbs that begin with _ are reserved")


OwnSubjects = Mapping[str, OwnSubject]
"""Own subjects, by subject."""


def own_subjects(*declared: OwnSubject) -> OwnSubjects:
    """Return `declared` by subject; raise `ConfigurationError` if a subject is declared twice."""
    table = {own.subject: own for own in declared}
    if len(table) != len(declared):
        raise ConfigurationError("an own subject is declared twice")
    return table


def action_of(subject: str, own: OwnSubjects) -> str:
    """Return the action of the task, call, event or control on `subject`: `<agent>.<verb or name>`.

    `<agent>` is the token in the subject. Raises `EnvelopeError` (`wrong_subject`, step 3) for every other subject.
    """
    declared = own.get(subject)
    if declared is not None:
        return declared.action
    tokens = subject.split(".")
    if tokens[0] in _AGENT_KINDS and (len(tokens) == 3 or (len(tokens) == 4 and tokens[0] == "task")):
        return f"{tokens[1]}.{tokens[2]}"
    if tokens[0] == "control" and len(tokens) == 3 and tokens[2] in CONTROLS:
        return f"{tokens[1]}._{tokens[2]}"
    raise EnvelopeError(Code.WRONG_SUBJECT, 3, "subject without an action")


def check_addressing(header: Header, subject: str, names: Names, own: OwnSubjects) -> None:
    """Step 3 without its first clause: raise `EnvelopeError` (`wrong_subject`) unless `header` belongs on `subject`.

    `to` must be the `subject` of the delivery. The agent token must be that of `aud` or `iss`, as in the table of section 3.
    An own subject must be declared for this kind and owner. `rpl` must be under the inbox prefix of `iss`. The caller checks
    that the subscription takes this kind (`wrong_kind`), and that `aud` is us (step 4).
    """
    if header.to != subject:
        raise _refused("to")
    kind = header.kind
    party = header.iss if kind in _OF_ISSUER else header.aud
    if party is None:
        raise _refused("aud")
    declared = own.get(subject)
    if declared is not None:
        if declared.kind is not kind or declared.owner != party:
            raise _refused("own subject")
    elif not _fits(kind, subject, party, names):
        raise _refused("to does not fit the kind and its agent")
    if header.rpl is not None and not header.rpl.startswith(names.inbox_prefix(header.iss)):
        raise _refused("rpl")


def _fits(kind: Kind, subject: str, party: SpiffeId, names: Names) -> bool:
    """Return whether `subject`, tokens joined by dots, follows our scheme for `kind` and `party`."""
    token = names.token(party)
    start = _STARTS[kind] + token
    if kind is _RECORD:
        return subject == start
    start += "."
    if not subject.startswith(start):
        control = f"control.{token}."
        return kind is _TASK and subject.startswith(control) and subject[len(control) :] in CONTROLS
    rest = subject[len(start) :]
    if kind is _STATUS:
        return _TASK_ID.fullmatch(rest) is not None
    # Verbs and names that begin with `_` are reserved: no handler has such a verb.
    return kind in _ANSWERS or (rest[0] != "_" and rest.count(".") <= (kind is _TASK))


def _refused(detail: str) -> EnvelopeError:
    return EnvelopeError(Code.WRONG_SUBJECT, 3, detail)


def matches(pattern: str, subject: str) -> bool:
    """Return whether `pattern` matches `subject`; `*` stands for one token, a last `>` for one or more."""
    if pattern == subject:
        return True
    parts = pattern.split(".")
    tokens = subject.split(".")
    for place, token in enumerate(parts):
        if token == ">":
            return len(tokens) > place
        if place >= len(tokens) or token not in ("*", tokens[place]):
            return False
    return len(tokens) == len(parts)

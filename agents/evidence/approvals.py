"""Checks the approvals that a log's decisions rest on, by the floors of approvals (SPEC.md section 14, "Approvals").

An agent that claims an approval must show the person's own message, decided and recorded before, and the denial that asked
for it. The checks that the agent made then are made again here, from messages that others signed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, cast

from sealbus.bus.sending.approval import LONGEST_WAIT, ApprovalRequest, Verdict, parse_approval
from sealbus.envelopes.encoding.strict_json import parse_object
from sealbus.envelopes.errors import BadBody
from sealbus.envelopes.export.approvals import (
    ApprovalEntry,
    ApprovalFact,
    ApprovalRequested,
    ApprovalUsed,
    ApprovalVerdict,
)
from sealbus.envelopes.export.finding import Finding, FindingCode
from sealbus.envelopes.limits import SECOND
from sealbus.policies.decision.approval import ApprovalObligation, approval_of
from sealbus.policies.decision.request import rfc3339

LATEST: Final = 60 * SECOND
"""Microseconds by which an approval may be late by the log's times: an agent counts from when it has parked the task."""

_NESTING: Final = 32
"""Deepest nesting of obligations."""


class _OpenQuestion(NamedTuple):
    """A denial that asks for an approval, until `until` at the latest (microseconds)."""

    recorder: str
    message: bytes
    obligation: ApprovalObligation
    until: int


class _JudgedVerdict(NamedTuple):
    """A verdict, and the question that it answers. If `fault` is not empty, it approves nothing."""

    message: ApprovalVerdict
    fault: str = ""
    request: ApprovalRequest | None = None
    question: _OpenQuestion | None = None


class ApprovalChains:
    """Checks the facts of approvals, in the order of the log. Memory grows only with the approvals in it.

    The denials and verdicts `beside` are those of other logs, in their order. They count as if they came before.
    """

    def __init__(self, beside: Sequence[ApprovalFact] = ()) -> None:
        self._questions: dict[bytes, _OpenQuestion] = {}
        self._verdicts: dict[bytes, _JudgedVerdict] = {}
        if any(self.take_facts(beside)):
            raise TypeError("a denial or a verdict is no finding")
        # A record that was stored in two logs counts where its question stands before it, which may be in this one.
        self._verdicts = {leaf: verdict for leaf, verdict in self._verdicts.items() if not verdict.fault}

    def take_facts(self, facts: Iterable[ApprovalFact]) -> Iterator[Finding]:
        """Take the next facts; yield a finding (`bad_approval`) for each decision without the approvals that it claims."""
        for fact in facts:
            match fact:
                case ApprovalRequested():
                    if (question := _open_question(fact)) is not None:
                        self._questions.setdefault(fact.leaf, question)
                case ApprovalVerdict():
                    # Of a repeated record the first place counts: the question must be before that place.
                    self._verdicts.setdefault(fact.leaf, self._judge(fact))
                case ApprovalUsed():
                    if fault := fact.fault or self._fault_of(fact):
                        yield Finding("", fact.sequence, FindingCode.BAD_APPROVAL, fault)

    def _judge(self, message: ApprovalVerdict) -> _JudgedVerdict:
        if message.fault:
            return _JudgedVerdict(message, message.fault)
        try:
            request = parse_approval(message.body, message.typ)
        except BadBody:
            return _JudgedVerdict(message, "its body is no approval")
        question = self._questions.get(request.decision)
        if question is None or (question.recorder, question.message) != (message.recorder, message.about):
            return _JudgedVerdict(message, "no denial of the message asked for it before")
        obligation = question.obligation
        if message.grants != obligation.follows:
            return _JudgedVerdict(message, "it let other actions follow")
        if message.stored >= question.until:
            return _JudgedVerdict(message, "it came too late")
        if obligation.acr and message.acr not in obligation.acr:
            return _JudgedVerdict(message, "the login was not strong enough")
        oldest = obligation.max_age
        if oldest is not None and (
            message.authenticated is None or message.made - message.authenticated > oldest * SECOND
        ):
            return _JudgedVerdict(message, "the login was too old")
        return _JudgedVerdict(message, "", request, question)

    def _fault_of(self, approved: ApprovalUsed) -> str:
        """Return why a decision does not rest on its approvals, or an empty text."""
        people: set[tuple[str, str]] = set()
        for entry in approved.entries:
            verdict = self._verdicts.get(entry.record)
            if verdict is None or verdict.message.recorder != approved.recorder:
                return "an approval that is not in the log before the decision"
            if fault := verdict.fault or _other_than_said(entry, verdict) or _not_for(approved, verdict.message):
                return f"an approval: {fault}"
            if verdict.message.person in people:
                return "two approvals of one person"
            people.add(verdict.message.person)
        return ""


def _open_question(denied: ApprovalRequested) -> _OpenQuestion | None:
    try:
        # The strict reader reads only objects: the obligations must be the only member of one.
        read = parse_object(b'{"obligations":' + denied.obligations + b"}", depth=_NESTING + 1)
    except ValueError:
        return None
    obligations = read.pop("obligations")
    if read or not isinstance(obligations, list) or not all(isinstance(obligation, dict) for obligation in obligations):
        return None
    obligation = approval_of(cast("list[dict[str, object]]", obligations))
    if obligation is None:
        return None
    until = min(denied.stored + obligation.until * SECOND, denied.made + LONGEST_WAIT) + LATEST
    return _OpenQuestion(denied.recorder, denied.message, obligation, until)


def _other_than_said(entry: ApprovalEntry, verdict: _JudgedVerdict) -> str:
    """Return how an entry differs from its person's message, or an empty text."""
    message = verdict.message
    if entry.message != message.message:
        return "its record is about another message"
    if verdict.request is None or verdict.request.verdict is not Verdict(entry.verdict):
        return "another verdict was given"
    theirs = (
        message.user,
        message.idp,
        message.session,
        message.client,
        message.acr or "",
        (message.authenticated or 0) // SECOND,
        rfc3339(message.stored // SECOND),
    )
    if entry[1:8] != theirs:
        return "another person gave it, or by another login, or at another time"
    return ""


def _not_for(approved: ApprovalUsed, message: ApprovalVerdict) -> str:
    """Return why an approval is not for this decision, or an empty text."""
    if message.about != approved.message:
        return "it is about another message"
    if message.person == approved.requester:
        return "it is by the requester"
    return ""

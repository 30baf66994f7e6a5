"""Whether what a log's decisions rest on was said, as the floors of approvals demand (SPEC.md section 14, "Approvals").

An agent that says that somebody approved has to show the person's own message, decided and recorded before, and the denial
that asked for it. What the agent checked then is checked again, from what was signed by others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, cast

from sealbus.bus.sending.approval import LONGEST_WAIT, ApprovalRequest, Verdict, parse_approval
from sealbus.envelopes.encoding.strict_json import parse_object
from sealbus.envelopes.errors import BadBody
from sealbus.envelopes.export.approvals import ApprovalAsked, ApprovalEntry, ApprovalFact, ApprovalSaid, ApprovalUsed
from sealbus.envelopes.export.finding import Finding, FindingCode
from sealbus.envelopes.limits import SECOND
from sealbus.policies.decision.approval import ApprovalObligation, approval_of
from sealbus.policies.decision.request import rfc3339

LATEST: Final = 60 * SECOND
"""How much later than the log's times say an approval may have come: an agent counts from when it has parked the task."""

_NESTING: Final = 32
"""Deepest nesting of obligations."""


class _OpenQuestion(NamedTuple):
    """A denial that asks for an approval, until `until` at the latest (microseconds)."""

    recorder: str
    message: bytes
    obligation: ApprovalObligation
    until: int


class _JudgedVerdict(NamedTuple):
    """A verdict, and what it is an answer to. If `fault` is not empty, it approves nothing."""

    said: ApprovalSaid
    fault: str = ""
    request: ApprovalRequest | None = None
    asked: _OpenQuestion | None = None


class ApprovalChains:
    """Takes what decisions say about approvals, in the order of the log. Memory grows with the approvals in it alone."""

    def __init__(self) -> None:
        self._asked: dict[bytes, _OpenQuestion] = {}
        self._given: dict[bytes, _JudgedVerdict] = {}

    def take(self, facts: Iterable[ApprovalFact]) -> Iterator[Finding]:
        """Take the next facts; yield a finding (`bad_approval`) for each decision that rests on what was not said."""
        for fact in facts:
            match fact:
                case ApprovalAsked():
                    if (asked := _asked(fact)) is not None:
                        self._asked.setdefault(fact.leaf, asked)
                case ApprovalSaid():
                    # Of a record that is repeated, the first place counts: what it answers has to stand before that one.
                    self._given.setdefault(fact.leaf, self._read(fact))
                case ApprovalUsed():
                    if fault := fact.fault or self._fault_of(fact):
                        yield Finding("", fact.sequence, FindingCode.BAD_APPROVAL, fault)

    def _read(self, said: ApprovalSaid) -> _JudgedVerdict:
        if said.fault:
            return _JudgedVerdict(said, said.fault)
        try:
            request = parse_approval(said.body, said.typ)
        except BadBody:
            return _JudgedVerdict(said, "its body is no approval")
        asked = self._asked.get(request.decision)
        if asked is None or (asked.recorder, asked.message) != (said.recorder, said.about):
            return _JudgedVerdict(said, "no denial of the message before it asked for it")
        obligation = asked.obligation
        if said.grants != obligation.follows:
            return _JudgedVerdict(said, "it let other actions follow")
        if said.stored >= asked.until:
            return _JudgedVerdict(said, "it came too late")
        if obligation.acr and said.acr not in obligation.acr:
            return _JudgedVerdict(said, "the login was not strong enough")
        oldest = obligation.max_age
        if oldest is not None and (said.authenticated is None or said.made - said.authenticated > oldest * SECOND):
            return _JudgedVerdict(said, "the login was too old")
        return _JudgedVerdict(said, "", request, asked)

    def _fault_of(self, approved: ApprovalUsed) -> str:
        """Return why a decision does not rest on what was said, or an empty text."""
        people: set[tuple[str, str]] = set()
        for entry in approved.entries:
            given = self._given.get(entry.record)
            if given is None or given.said.recorder != approved.recorder:
                return "an approval that is not in the log before it"
            if fault := given.fault or _other_than_said(entry, given) or _not_for(approved, given.said):
                return f"an approval: {fault}"
            if given.said.person in people:
                return "two approvals of one person"
            people.add(given.said.person)
        return ""


def _asked(denied: ApprovalAsked) -> _OpenQuestion | None:
    try:
        # As a member of an object, because that is what the strict reader reads; it has to be the only one.
        read = parse_object(b'{"obligations":' + denied.obligations + b"}", depth=_NESTING + 1)
    except ValueError:
        return None
    obligations = read.pop("obligations")
    if read or not isinstance(obligations, list) or not all(isinstance(one, dict) for one in obligations):
        return None
    obligation = approval_of(cast("list[dict[str, object]]", obligations))
    if obligation is None:
        return None
    until = min(denied.stored + obligation.until * SECOND, denied.made + LONGEST_WAIT) + LATEST
    return _OpenQuestion(denied.recorder, denied.message, obligation, until)


def _other_than_said(entry: ApprovalEntry, given: _JudgedVerdict) -> str:
    """Return what an entry says that its person did not, or an empty text."""
    said = given.said
    if entry.message != said.message:
        return "its record is about another message"
    if given.request is None or given.request.verdict is not Verdict(entry.verdict):
        return "another verdict was given"
    theirs = (
        said.user,
        said.idp,
        said.session,
        said.client,
        said.acr or "",
        (said.authenticated or 0) // SECOND,
        rfc3339(said.stored // SECOND),
    )
    if entry[1:8] != theirs:
        return "somebody else gave it, or by another login, or at another time"
    return ""


def _not_for(approved: ApprovalUsed, said: ApprovalSaid) -> str:
    """Return why what was said is not for this decision, or an empty text."""
    if said.about != approved.message:
        return "it is about another message"
    if said.person == approved.requester:
        return "it is by who asked for it"
    return ""

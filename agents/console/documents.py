"""What the console sends to its pages, as types: for whoever builds a document, and for the tests of pages.

A page shows nothing of a field that nobody sends, and may take that for good news. So each field that a page reads is here.
`tests/support/shapes.py` compares documents with these types: those of a running console, and those that tests invent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NotRequired, TypedDict

__all__ = [
    "DOCUMENTS",
    "EVENTS",
    "AgainDocument",
    "AgentDocument",
    "AgentsDocument",
    "ApprovalDocument",
    "ApprovalsDocument",
    "ApproverDocument",
    "CanceledDocument",
    "CheckDocument",
    "DeadDocument",
    "DecisionDocument",
    "DecisionsDocument",
    "EdgeDocument",
    "ExplainedDocument",
    "FlippedDocument",
    "FoundDocument",
    "LetterDocument",
    "LinesDocument",
    "LinkDocument",
    "LiteralDocument",
    "LogAnswer",
    "LogDocument",
    "LoggedDocument",
    "MapDocument",
    "OutcomeDocument",
    "PointDocument",
    "PolicyDocument",
    "QueueDocument",
    "ReasonDocument",
    "RowDocument",
    "ScheduleDocument",
    "SchedulesDocument",
    "SessionDocument",
    "SourceDocument",
    "StepDocument",
    "TaskDocument",
    "TasksDocument",
    "TrafficDocument",
    "VerifiedDocument",
    "WaitingDocument",
    "WhatIfDocument",
    "WordsDocument",
]


class SessionDocument(TypedDict):
    """Who looks. `until` is when the login ends, where nothing renews it."""

    user: str
    idp: str
    trust_domain: str
    until: str | None


RowDocument = TypedDict(
    "RowDocument",
    {
        "sequence": int,
        "record": str,
        "time": str,
        "message": str,
        "action": str,
        "from": str,
        "by": str,
        "user": str,
        "allow": bool,
        "reasons": Sequence[str],
        "code": str,
        "count": NotRequired[int],
    },
)
"""One decision in a list; `count` is how many denials it stands for, of which only the number is kept."""


class OutcomeDocument(TypedDict):
    """What came of a decision."""

    record: str
    outcome: str
    ms: float


class DecisionsDocument(TypedDict):
    """One page of a search; `before` begins the next."""

    rows: Sequence[RowDocument]
    before: int | None


TaskDocument = TypedDict(
    "TaskDocument",
    {
        "message": str,
        "hash": str,
        "handle": str,
        "subject": str,
        "action": str,
        "agent": str,
        "from": str,
        "user": str,
        "root": bool,
        "verified": bool,
        "refused": str,
        "time": str,
        "until": str,
        "sequence": int,
        "state": str,
        "code": str,
        "reasons": Sequence[str],
        "note": str,
        "by": str,
        "unverified_statuses": Sequence[str],
    },
)
"""One task."""


class TasksDocument(TypedDict):
    """The newest tasks."""

    tasks: Sequence[TaskDocument]
    unreadable: int


class CanceledDocument(TypedDict):
    """A cancel that is in force."""

    canceled: bool
    message: str


class UserDocument(TypedDict):
    """A person."""

    id: str
    idp: str


class NeedsDocument(TypedDict):
    """The login that an approval needs."""

    acr: Sequence[str]
    max_age: int | None


class VerdictDocument(TypedDict):
    """What a person said of a task that waits."""

    verdict: str
    user: str
    idp: str
    time: str


class ApprovalDocument(TypedDict):
    """A task that waits, as the edge shows it (`sealbus.agents.edge.v1.approvals`)."""

    id: str
    task: str
    decision: str
    queue: str
    text: str
    action: str
    agent: str
    requester: str
    chain: Sequence[str]
    user: UserDocument | None
    resource: object
    facts: object
    reasons: Sequence[str]
    since: str
    until: str
    needs: NeedsDocument
    follows: Sequence[str]
    verdicts: Sequence[VerdictDocument]
    body: NotRequired[object]


class WaitingDocument(TypedDict):
    """What a list shows of a task that waits."""

    id: str
    queue: str
    text: str
    action: str
    requester: str
    user: UserDocument | None
    reasons: Sequence[str]
    since: str
    until: str


class ApprovalsDocument(TypedDict):
    """What waits for the person who looks; there is `more` than is listed, or there may be."""

    approvals: Sequence[WaitingDocument]
    queues: Sequence[str]
    more: bool


LetterDocument = TypedDict(
    "LetterDocument",
    {
        "sequence": int,
        "time": str,
        "subject": str,
        "agent": str,
        "message": str,
        "from": str,
        "user": str,
        "code": str,
        "detail": str,
        "deliveries": int,
        "refused": str,
    },
)
"""One dead letter."""


class DeadDocument(TypedDict):
    """The newest dead letters."""

    letters: Sequence[LetterDocument]


class QueueDocument(TypedDict):
    """What an agent's consumer holds."""

    waiting: int
    in_hand: int
    redelivered: int
    active: str | None
    full: bool


class AgentDocument(TypedDict):
    """One agent, from its consumers and the policy."""

    name: str
    state: str
    processes: int
    tasks: QueueDocument | None
    events: QueueDocument | None
    listens: Sequence[str]
    actions: Sequence[str]


class AgentsDocument(TypedDict):
    """Who is there."""

    agents: Sequence[AgentDocument]


class ScheduleDocument(TypedDict):
    """One schedule; `next` is null if it will not tick again."""

    owner: str
    name: str
    action: str
    user: str
    rule: str
    next: str | None
    until: str
    state: str
    asked_by: str


class SchedulesDocument(TypedDict):
    """All schedules."""

    schedules: Sequence[ScheduleDocument]


class PartDocument(TypedDict):
    """One part of the policy in the bucket."""

    part: str
    serial: int | None
    revision: str
    key: str
    kept: int
    problem: str


class PolicyDocument(TypedDict):
    """What the console's engine decides by, and the parts of the bucket."""

    engine: str
    revision: str
    problem: str
    parts: Sequence[PartDocument]


class LogDocument(TypedDict):
    """The last checkpoint of the log.

    `age_s` is how old it is. `waiting_s` is for how long the oldest record that it does not cover has been stored: 0 if it
    covers all, null if that is not known.
    """

    origin: str
    size: int
    root: str
    time: str
    age_s: float
    waiting_s: float | None


class LogAnswer(TypedDict):
    """The log, if it is here."""

    log: LogDocument | None


class FindingDocument(TypedDict):
    """One finding of a verification."""

    sequence: int | None
    code: str
    detail: str


class VerifiedDocument(TypedDict):
    """What a verification of the whole log came to."""

    passed: bool
    findings: int
    size: int
    records: int
    seconds: float
    first: Sequence[FindingDocument]


class SourceDocument(TypedDict):
    """The files of the policy in force."""

    revision: str
    files: Mapping[str, str]


class SaidDocument(TypedDict):
    """A verdict and its reasons."""

    allow: bool
    reasons: Sequence[str]


class FlippedDocument(TypedDict):
    """A decision that another policy would have made otherwise."""

    row: RowDocument
    was: SaidDocument
    now: SaidDocument
    change: str


class WhatIfDocument(TypedDict):
    """What another policy would have decided."""

    read: int
    compared: int
    same: int
    changes: Mapping[str, int]
    not_replayable: Mapping[str, int]
    flipped: Sequence[FlippedDocument]
    problems: Sequence[str]


class RecordDocument(TypedDict):
    """The record of a decision."""

    sequence: int
    leaf: str
    time: str
    recorder: str
    name: str


class MessageDocument(TypedDict):
    """The message that was decided about."""

    id: str
    hash: str
    action: str
    subject: str
    kind: str
    sent: str
    expires: str
    trace: str
    request: str
    delivery: int | None


class WordsDocument(TypedDict):
    """The policy's own words for a reason."""

    reason: str
    title: str
    remedy: str


class CheckDocument(TypedDict):
    """One thing that was verified, or not."""

    what: str
    ok: bool


class LinkDocument(TypedDict):
    """One link of the chain: a user, or a workload."""

    role: Literal["user", "minter", "hop", "sender", "decider"]
    name: str
    id: NotRequired[str]
    checks: NotRequired[Sequence[CheckDocument]]
    time: NotRequired[str]
    until: NotRequired[str]
    key: NotRequired[str]
    idp: NotRequired[str]
    client: NotRequired[str]
    login: NotRequired[str]
    acr: NotRequired[str]
    type: NotRequired[str]


class ApproverDocument(TypedDict):
    """Who approved."""

    user: str
    verdict: str
    time: object


class LookedDocument(TypedDict):
    """A value that a rule looked at."""

    written: str
    value: str | None


class LiteralDocument(TypedDict):
    """One condition of a rule."""

    file: str
    line: int
    written: str
    looked: Sequence[LookedDocument]


class RuleDocument(TypedDict):
    """One rule that was evaluated."""

    rule: str
    file: str
    line: int
    depth: int
    held: bool
    failed: LiteralDocument | None


class ReasonDocument(TypedDict):
    """One reason and the conditions that led to it."""

    reason: str
    title: str
    remedy: str
    failed: Sequence[LiteralDocument]
    held: Sequence[LiteralDocument]


class LinesDocument(TypedDict):
    """Lines of a file, and the number of the first."""

    first: int
    lines: Sequence[str]


class ExplainedDocument(TypedDict):
    """Why the policy decided so, or with `explained` false why that cannot be said."""

    explained: bool
    why: NotRequired[str]
    detail: NotRequired[str]
    revision: NotRequired[str]
    policy: NotRequired[str]
    allow: NotRequired[bool]
    reasons: NotRequired[Sequence[ReasonDocument]]
    rules: NotRequired[Sequence[RuleDocument]]
    cut: NotRequired[bool]
    untraced: NotRequired[Sequence[str]]
    queue: NotRequired[str]
    asked: NotRequired[str]
    sources: NotRequired[Mapping[str, LinesDocument]]


class StepDocument(TypedDict):
    """One step of what happened, by the time at which it did, or how long it took."""

    what: str
    time: NotRequired[str]
    ms: NotRequired[float]


class LoggedDocument(TypedDict):
    """The entry of the log that a record is."""

    entry: int
    checkpoint: int
    time: str


class EvidenceDocument(TypedDict):
    """What proves a record."""

    record: str
    signed_by: str
    logged: LoggedDocument | None
    receipt: str | None


class DecidedByDocument(TypedDict):
    """The policy that decided."""

    name: str
    revision: str
    engine: str


class AgainDocument(TypedDict):
    """What the policy in force says today."""

    same: bool
    allow: bool
    reasons: Sequence[str]
    revision: str


class DecisionDocument(TypedDict):
    """One decision with all that is recorded of it."""

    record: RecordDocument
    message: MessageDocument
    allow: bool
    code: str
    reasons: Sequence[str]
    words: Sequence[WordsDocument]
    chain: Sequence[LinkDocument]
    acting: str
    owner: str
    approver: Sequence[ApproverDocument]
    explanation: ExplainedDocument
    input: object
    redacted: Sequence[str]
    looked: Sequence[str]
    outcome: OutcomeDocument | None
    timeline: Sequence[StepDocument]
    evidence: EvidenceDocument
    policy: DecidedByDocument
    again: AgainDocument | None


class FoundDocument(TypedDict):
    """The decisions about one message."""

    decisions: Sequence[DecisionDocument]


class PointDocument(TypedDict):
    """One workload on the map."""

    name: str
    kind: Literal["edge", "agent"]
    column: int
    rate: float
    state: str


EdgeDocument = TypedDict("EdgeDocument", {"from": str, "to": str, "rate": float, "denied": int})
"""Who asks whom, on the map."""


class TrafficDocument(TypedDict):
    """Who asked whom in the last minute."""

    decided: float
    denied_minute: int
    agents: Sequence[PointDocument]
    edges: Sequence[EdgeDocument]


class MapDocument(TrafficDocument):
    """The map: with what did not verify, and why the stream cannot be read now."""

    unverified: int
    problem: str


class HelloDocument(TypedDict):
    """Where a stream begins."""

    sequence: int
    window: int


class RowsDocument(TypedDict):
    """Decisions as they come."""

    rows: Sequence[RowDocument]


class OutcomesDocument(TypedDict):
    """Outcomes as they come."""

    rows: Sequence[OutcomeDocument]


class GapDocument(TypedDict):
    """How many rows were left out for a reader that was slow, or away."""

    left_out: int


class OverDocument(TypedDict):
    """Why a stream has ended for its reader."""

    code: str
    detail: str
    status: int


DOCUMENTS: Mapping[str, type] = {
    "/api/session": SessionDocument,
    "/api/decisions": DecisionsDocument,
    "/api/decisions/{id}": FoundDocument,
    "/api/tasks": TasksDocument,
    "/api/tasks/cancel": CanceledDocument,
    "/api/approvals": ApprovalsDocument,
    "/api/approvals/{id}": ApprovalDocument,
    "/api/dead": DeadDocument,
    "/api/agents": AgentsDocument,
    "/api/schedules": SchedulesDocument,
    "/api/policy": PolicyDocument,
    "/api/policy/source": SourceDocument,
    "/api/what-if": WhatIfDocument,
    "/api/log": LogAnswer,
    "/api/log/verify": VerifiedDocument,
}
"""The type of what each path answers. A verdict on an approval is answered with nothing but that it was counted."""

EVENTS: Mapping[str, type] = {
    "hello": HelloDocument,
    "map": MapDocument,
    "decisions": RowsDocument,
    "outcomes": OutcomesDocument,
    "gap": GapDocument,
    "over": OverDocument,
}
"""The type of each event of `/api/live`."""

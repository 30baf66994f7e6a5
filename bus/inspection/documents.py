"""JSON documents that operators see, with their types: of tasks, dead letters, agents, and of explained decisions.

Each is built in one place, for the command line and the console: `document` of `ListedTask`, `DeadLetter` and `AgentSeen`
builds theirs. This module imports little, because each command imports it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NotRequired, TypedDict

from sealbus.envelopes.limits import SECOND

if TYPE_CHECKING:
    from sealbus.policies.bundle.composition import PartSet
    from sealbus.policies.explain.explanation import ExplainedDecision, NotExplained


def shown_time(time: int) -> str:
    """Return microseconds since the Unix epoch as RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(time / SECOND, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


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
"""One task. `handle` is empty for a task that cannot be canceled: it does not verify, or its subject has no action."""


LinkDocument = TypedDict("LinkDocument", {"from": str, "to": str})
"""One message of a chain."""

LetterDocument = TypedDict(
    "LetterDocument",
    {
        "sequence": int,
        "subject": str,
        "time": str,
        "agent": str,
        "verified": bool,
        "refused": str,
        "code": str,
        "detail": str,
        "deliveries": int,
        "kind": NotRequired[str],
        "message": NotRequired[str],
        "hash": NotRequired[str],
        "to": NotRequired[str],
        "from": NotRequired[str],
        "user": NotRequired[str],
        "made": NotRequired[str],
        "until": NotRequired[str],
        "type": NotRequired[str],
        "re": NotRequired[str],
        "chain": NotRequired[Sequence[LinkDocument]],
    },
)
"""One dead letter, without its body. For a letter that is no message, `kind` and the members after it are missing."""


class QueueDocument(TypedDict):
    """Counts of what the broker holds for an agent in one stream."""

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


def explanation_document(explained: ExplainedDecision | NotExplained) -> dict[str, object]:
    """Return an explanation of a decision as JSON. If `explained` is false, `why` says why there is no explanation."""
    from sealbus.policies.explain.explanation import NotExplained

    if isinstance(explained, NotExplained):
        return {"explained": False, "why": str(explained.why), "detail": explained.detail}
    return {"explained": True, **asdict(explained)}


class PartDocument(TypedDict):
    """One part of the policy in the store. Without a `serial` it is not in force; `kept` are the stored serials."""

    part: str
    serial: int | None
    revision: str
    key: str
    kept: Sequence[int]
    problem: str


def part_documents(parts: PartSet, kept: Mapping[str, Sequence[int]]) -> list[PartDocument]:
    """Return the parts of the policy in the store, whose serials are `kept` by name."""
    from sealbus.policies.bundle.denials import DENIAL
    from sealbus.policies.bundle.ownership import PLATFORM

    in_force = {part.name: part for part in parts.parts}
    return [
        {
            "part": name,
            "serial": in_force[name].serial if name in in_force else None,
            "revision": in_force[name].revision if name in in_force else "",
            "key": in_force[name].signer if name in in_force else "",
            "kept": serials,
            # A denial by itself is the platform's.
            "problem": parts.problems.get(name, "") or parts.problems.get(DENIAL if name == PLATFORM else name, ""),
        }
        for name, serials in kept.items()
    ]

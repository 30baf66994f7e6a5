"""Build the document of one decision: sender, user and chain, the values that the rules looked at, and the outcome (pure).

Everything about the message was sealed by its senders and is proved by the record. The values that the policy looked at come
from making the decision again. The document has values of the input and of the policy's data: the policy says who may see it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, cast

from sealbus.agents.console.decisions.rows import OutcomeRow, shown_name
from sealbus.agents.console.documents import (
    AgainDocument,
    ApproverDocument,
    CheckDocument,
    DecisionDocument,
    ExplainedDocument,
    LinesDocument,
    LinkDocument,
    LoggedDocument,
    StepDocument,
    WordsDocument,
)
from sealbus.bus.audit.trail import AuditEntry
from sealbus.bus.inspection.documents import explanation_document, shown_time
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.message.user_context import UserContext
from sealbus.envelopes.records.archive import VerifiedDecided
from sealbus.envelopes.records.decision import DecisionRecord, StreamPlace
from sealbus.envelopes.trust.names import Names
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.reasons import reason_words
from sealbus.policies.explain.explanation import ExplainedDecision, LiteralShown, NotExplained

AROUND: Final = 3
"""Lines of a policy that are shown before and after a line that counts."""
SOURCE_LINES: Final = 400
"""Most lines of one file that are shown."""


def decision_document(
    entry: AuditEntry,
    outcome: OutcomeRow | None,
    *,
    names: Names,
    explanation: ExplainedDocument,
    again: AgainDocument | None,
    words: Sequence[WordsDocument],
    logged: LoggedDocument | None,
    receipt: str | None,
) -> DecisionDocument:
    """Return the decision in `entry` as JSON. `entry.record` must be a decision, and `entry.message` its message."""
    record, message = entry.record, entry.message
    if not isinstance(record, DecisionRecord) or message is None:
        raise ValueError("not a decision")
    header, context = message.header, message.context
    inputs = entry.input
    return {
        "record": {
            "sequence": entry.sequence,
            "leaf": entry.leaf.hex(),
            "time": shown_time(entry.stored),
            "recorder": entry.recorder.value,
            "name": shown_name(entry.recorder, names),
        },
        "message": {
            "id": header.id.hex(),
            "hash": header.digest.hex(),
            "action": record.action,
            "subject": header.to,
            "kind": header.kind.value,
            "sent": shown_time(header.iat),
            "expires": shown_time(header.exp),
            "trace": header.tid.hex() if header.tid is not None else "",
            "request": context.txn.hex() if context is not None else "",
            "delivery": record.delivery,
        },
        "allow": record.allow,
        "code": str(record.code or ""),
        "reasons": list(record.reasons),
        "words": list(words),
        "chain": _chain(entry, record, message, names),
        "acting": shown_name(header.iss, names),
        "owner": context.sub if context is not None else "",
        "approver": _approvers(inputs),
        "explanation": explanation,
        "input": inputs or None,
        "redacted": list(record.redacted),
        "looked": looked_at(explanation, inputs),
        "outcome": outcome.document() if outcome is not None else None,
        "timeline": _timeline(entry, record, header, outcome),
        "evidence": {
            "record": f"#{entry.sequence}",
            "signed_by": shown_name(entry.recorder, names),
            "logged": logged,
            "receipt": receipt,
        },
        "policy": {"name": record.policy or "", "revision": record.revision or "", "engine": record.engine or ""},
        "again": again,
    }


def explained_document(explained: ExplainedDecision | NotExplained, bundle: Bundle | None) -> ExplainedDocument:
    """Return an explanation as JSON, with the lines of the policy around the lines that count."""
    document = explanation_document(explained)
    if isinstance(explained, ExplainedDecision):
        document["sources"] = _sources(explained, bundle) if bundle is not None else {}
    return cast("ExplainedDocument", document)


def reason_documents(reasons: Sequence[str], bundle: Bundle | None) -> list[WordsDocument]:
    """Return the titles and remedies that the policy has for `reasons`; empty texts for a reason without them."""
    words = reason_words(bundle) if bundle is not None else {}
    return [
        {
            "reason": reason,
            "title": words[reason].title if reason in words else "",
            "remedy": words[reason].remedy if reason in words else "",
        }
        for reason in reasons
    ]


def approval_queue(record: DecisionRecord) -> str:
    """Return the queue of the approval that a denial asks for; empty for every other decision."""
    if record.allow or not record.obligations:
        return ""
    try:
        obligations = json.loads(record.obligations)
    except ValueError:
        return ""
    for obligation in obligations if isinstance(obligations, list) else ():
        if (
            isinstance(obligation, dict)
            and obligation.get("type") == "approval"
            and isinstance(queue := obligation.get("queue"), str)
        ):
            return queue
    return ""


def _chain(entry: AuditEntry, record: DecisionRecord, message: VerifiedDecided, names: Names) -> list[LinkDocument]:
    context = message.context
    links: list[LinkDocument] = []
    if context is not None:
        links += _user(context, message.chain[0], names)
    for link in message.chain:
        last = link is message.chain[-1]
        checks: list[CheckDocument] = [{"what": f"sealed {link.kind.value} to {link.to}", "ok": True}]
        if not last:
            checks.append({"what": "named by the hash of the next", "ok": True})
        links.append(
            {
                "role": "sender" if last else "hop",
                "name": shown_name(link.iss, names),
                "id": link.iss.value,
                "checks": checks,
                "time": shown_time(link.iat),
                "until": shown_time(link.exp),
                "key": link.key.raw.hex()[:16],
            }
        )
    verdict = "allowed" if record.allow else f"denied: {', '.join(record.reasons) or record.code}"
    links.append(
        {
            "role": "decider",
            "name": shown_name(entry.recorder, names),
            "id": entry.recorder.value,
            "checks": [{"what": f"policy: {verdict}", "ok": record.allow}],
            "time": shown_time(record.place.time),
        }
    )
    return links


def _user(context: UserContext, root: Header, names: Names) -> list[LinkDocument]:
    bound = shown_name(root.iss, names)
    return [
        {
            "role": "user",
            "name": context.sub,
            "idp": context.idp,
            "client": context.cid,
            "login": shown_time(context.aut) if context.aut is not None else "",
            "acr": context.acr or "",
            "type": context.typ.value if context.typ is not None else "user",
        },
        {
            "role": "minter",
            "name": shown_name(context.iss, names),
            "id": context.iss.value,
            "checks": [{"what": f"user context signed, bound to {bound}", "ok": True}],
            "until": shown_time(context.end),
        },
    ]


def _approvers(inputs: Mapping[str, object]) -> list[ApproverDocument]:
    context = inputs.get("context")
    approvals = context.get("approvals") if isinstance(context, dict) else None
    approvers: list[ApproverDocument] = []
    for approval in approvals if isinstance(approvals, list) else ():
        if isinstance(approval, dict):
            user = approval.get("user")
            name = user.get("id") if isinstance(user, dict) else user
            approvers.append(
                {"user": str(name or ""), "verdict": str(approval.get("verdict", "")), "time": approval.get("time")}
            )
    return approvers


def _timeline(
    entry: AuditEntry, record: DecisionRecord, header: Header, outcome: OutcomeRow | None
) -> list[StepDocument]:
    place = record.place
    arrived = f"stored in {place.stream}" if isinstance(place, StreamPlace) else "received"
    steps: list[tuple[str, int]] = [("sent", header.iat), (arrived, place.time)]
    if record.micros is not None:
        steps.append((f"policy asked, {record.engine}: {record.micros / 1_000:.2f} ms", place.time))
    steps.append(("recorded", entry.stored))
    timeline: list[StepDocument] = [{"what": text, "time": shown_time(time)} for text, time in steps]
    if outcome is not None:
        timeline.append({"what": f"handled: {outcome.code}", "ms": outcome.micros / 1_000})
    elif not record.allow:
        timeline.append({"what": "not handled"})
    return timeline


def looked_at(explanation: ExplainedDocument, inputs: Mapping[str, object]) -> list[str]:
    """Return the dotted paths in the input document `inputs` whose values the rules that count looked at.

    A rule writes a shorter path, such as `user.id`. A path counts if it ends with the written path, or with that without its
    first name, and has the value that the rule looked at.
    """
    looked: set[tuple[str, str | None]] = set()
    for reason in explanation.get("reasons", ()):
        for literal in (*reason["failed"], *reason["held"]):
            for look in literal["looked"]:
                looked |= {(name, look["value"]) for name in _endings(look["written"])}
    return [
        path
        for path, value in _paths(inputs)
        if any((path == name or path.endswith(f".{name}")) and seen in (None, value) for name, seen in looked)
    ]


def _endings(written: str) -> tuple[str, ...]:
    _, _, rest = written.partition(".")
    return (written, rest) if rest and "." in rest else (written,) if rest else ()


def _paths(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted path of each value that is no object, with the value as JSON."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _paths(inner, f"{path}.{name}" if path else str(name))
    else:
        yield path, json.dumps(value, ensure_ascii=False)


def _sources(explained: ExplainedDecision, bundle: Bundle) -> dict[str, LinesDocument]:
    """Return the lines around each literal that counts, by file."""
    lines: dict[str, set[int]] = {}
    for literal in _counting(explained):
        lines.setdefault(literal.file, set()).add(literal.line)
    sources: dict[str, LinesDocument] = {}
    for module in bundle.modules:
        if numbers := lines.get(module.path):
            text = module.text.split("\n")
            first = max(1, min(numbers) - AROUND)
            last = min(len(text), max(numbers) + AROUND, first + SOURCE_LINES)
            sources[module.path] = {"first": first, "lines": text[first - 1 : last]}
    return sources


def _counting(explained: ExplainedDecision) -> Iterable[LiteralShown]:
    for reason in explained.reasons:
        yield from reason.failed
        yield from reason.held
    for rule in explained.rules:
        if rule.failed is not None:
            yield rule.failed
